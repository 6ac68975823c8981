"""Deleting for rules, one study at a time.

Rules that hold here: what is deleted is audited in the queue's history and in the journal; just before it everything is
asked anew, its needs at the peers themselves, and images that come meanwhile keep it; no more studies a day than was
said.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from archive.errors import ArchiveError, IndexUnavailable, NotThere, OutOfResources
from archive.index import Index, State, StoredInstance, Task
from archive.index.described import Described
from archive.index.retention import Due, RetentionRows
from archive.services.corrections import by
from archive.services.deletion import Deletion
from archive.services.retention import DAY, PURGE, Looking, Need, Policy, Verdict
from archive.services.routing import DELIVER, VERIFY

log = logging.getLogger(__name__)

TODAY = "retention_today"  # under which the index keeps what went today
PIECE = 2000  # instances that a peer is asked about together
SILENT = 600.0  # seconds for which a peer that could not be asked is not asked again
LONGEST_REST = 4.0  # seconds between two transactions of one study: a daemon that is to stop waits no longer
ACTOR = "retention"


class Prove(Protocol):
    """Asks peers."""

    def missing(self, need: Need, items: Sequence[StoredInstance]) -> set[str]:
        """The SOP Instance UIDs that a peer does not have or promise to keep. Raises what kept it from answering."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a study: how many instances were deleted, and in words why or why not."""

    instances: int
    reason: str


class Disposal:
    """Deletes studies for rules; for one thread."""

    def __init__(
        self, index: Index, policy: Policy, deletion: Deletion, prove: Prove, *, per_day: int, rate: int,
        clock: Callable[[], float], sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._index = index
        self._rows = RetentionRows(index.database)
        self._looking = Looking(index, policy, clock)
        self._deletion = deletion
        self._prove = prove
        self._per_day = per_day
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._silent: dict[str, tuple[float, str]] = {}

    def pause(self, instances: int) -> float:
        """Seconds to rest after so many were deleted."""
        return instances / self._rate

    def _rest(self, instances: int) -> None:
        self._sleep(min(self.pause(instances), LONGEST_REST))

    def wait_until(self) -> float | None:
        """When the next study may go by its rule: None now, else tomorrow."""
        day, count = self._today()
        return (day + 1) * DAY if count >= self._per_day else None

    def carry_out(self, task: Task) -> Outcome:
        """Delete what a task names, if all is still so. Raises IndexUnavailable or another passing trouble."""
        uid, purge = str(task.payload["study"]), str(task.payload.get("purge", ""))
        seen, verdict = self._index.deletion.seen(uid), self._looking.one(uid)
        if seen is None or verdict is None:
            self._rows.forget(uid)
            return Outcome(0, "deleted, or not here any more")
        why = self._why_not(verdict, purge) or self._lacking(verdict)
        if why:
            return self._kept(verdict, why)
        words = f"rule {verdict.rule}: was to be kept until {day_of(verdict.until)}" + (f"; {purge}" if purge else "")
        who = by(ACTOR, words, f"{ACTOR}:{uid}:{int(task.created * 1e6)}")
        try:
            done = self._deletion.delete(uid, who, seen, rest=self._rest)
        except (IndexUnavailable, OutOfResources):
            raise
        except NotThere:
            return Outcome(0, "deleted, or not here any more")
        except ArchiveError as error:
            return self._kept(verdict, str(error))
        self._rows.forget(uid)
        if not purge:
            self._count()
        return Outcome(done.instances, f"deleted {done.instances} instances by {words}")

    def _why_not(self, verdict: Verdict, purge: str) -> str:
        if not verdict.is_due(self._clock()):
            return f"rule {verdict.rule} keeps it" if verdict.rule else "no rule fits"
        if verdict.then == PURGE and not purge:
            return f"rule {verdict.rule} deletes it only when space is needed"
        return "; ".join(verdict.why)

    def _kept(self, verdict: Verdict, why: str) -> Outcome:
        if verdict.is_due(self._clock()):
            due = Due(verdict.study_uid, verdict.rule, verdict.until, verdict.then, why)
            self._rows.note([due], (), self._clock())
        else:
            self._rows.forget(verdict.study_uid)
        return Outcome(0, f"not deleted: {why}")

    # -- what must be so besides ----------------------------------------------------------------

    def _lacking(self, verdict: Verdict) -> str:
        """The first need that is not fulfilled, in words."""
        return next((why for need in verdict.needs if (why := self._lacks(need, verdict.study_uid))), "")

    def _lacks(self, need: Need, uid: str) -> str:
        until, words = self._silent.get(need.peer, (0.0, ""))
        if self._clock() < until:
            return words
        sent = self._sent(need.peer, uid) if need.kind == "sent" else {}
        missing = total = 0
        try:
            for piece in _pieces(self._index.queue.described((), study_uid=uid)):
                total += len(piece)
                asked = [each.instance for each in piece if not _covers(sent, each)]
                missing += len(self._prove.missing(need, asked)) if asked else 0
        except IndexUnavailable:
            raise
        except ArchiveError as error:
            words = f"{need}: cannot be asked: {error}"
            self._silent[need.peer] = (self._clock() + SILENT, words)
            return words
        return f"{need}: {missing} of {total} instances are not there" if missing else ""

    def _sent(self, peer: str, uid: str) -> dict[str, float]:
        """What the queue's history says was sent: SOP Instance UID -> when that instance had come."""
        found: dict[str, float] = {}
        for kind in (DELIVER, VERIFY):
            for task in self._index.queue.of_study(kind, uid):
                # What was de-identified on its way is there under other UIDs, and not as it is here.
                if task.lane == peer and task.state is State.DONE and not task.payload.get("deidentify"):
                    sop, came = str(task.payload["sop"]), float(task.payload.get("at", 0.0))
                    found[sop] = max(came, found.get(sop, 0.0))
        return found

    # -- no more than so many a day -------------------------------------------------------------

    def _today(self) -> tuple[int, int]:
        day = int(self._clock() // DAY)
        said = json.loads(self._index.get(TODAY) or "{}")
        return day, int(said["deleted"]) if said.get("day") == day else 0

    def _count(self) -> None:
        day, count = self._today()
        self._index.put(TODAY, json.dumps({"day": day, "deleted": count + 1}))


def _covers(sent: dict[str, float], each: Described) -> bool:
    """Whether what is stored now is what was sent: a newer version has come later."""
    return sent.get(each.instance.sop_instance_uid, -1.0) >= each.received


def _pieces(found: Iterable[Described]) -> Iterator[Collection[Described]]:
    rest = iter(found)
    while piece := list(islice(rest, PIECE)):
        yield piece


def day_of(when: float) -> str:
    """A local day."""
    return time.strftime("%Y-%m-%d", time.localtime(when))
