"""Rounds over all studies that find what is due by rules, and the earlier versions that were kept for long enough.

Rules that hold here: a round is walked in spans and goes on where it was after a restart; what it finds is written
down, and what may go becomes tasks; nothing is deleted here but versions; before a round looks, what came by a clock
that was behind counts as arrived now.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass

from archive.index import Index, NewTask
from archive.index.retention import RETIRE, ROOM, Due, RetentionRows
from archive.services.retention import DAY, DELETE, Looking, Policy, Verdict
from archive.services.steadyclock import BEHIND

log = logging.getLogger(__name__)

NAME = "retention"  # under which the index keeps how far a round is
SPAN = 2000  # ids of one look: some milliseconds where nothing is due, a tenth of a second where all is
NOTED = 200  # studies of one transaction: arrivals wait for hundredths of a second
PIECE = 2000  # versions of one transaction
ARRIVALS = "retention_arrivals"  # under which the index keeps up to which instance the times of arrival were looked at
PAGE = 5000  # instances of one look at them: some hundredths of a second


@dataclass(slots=True)
class Round:
    """The round under way, or the last one when ``ended`` is set."""

    after: int = 0
    until: int = 0
    began: float = 0.0
    ended: float = 0.0
    studies: int = 0  # that were looked at more closely
    due: int = 0
    held_up: int = 0


def progress(index: Index) -> Round:
    """How far the round is."""
    return Round(**json.loads(index.get(NAME) or "{}"))


class Rounds:
    """Finds what is due, a span a step; for one thread."""

    def __init__(self, index: Index, policy: Policy, *, per_day: int, clock: Callable[[], float]) -> None:
        self._index = index
        self._rows = RetentionRows(index.database)
        self._looking = Looking(index, policy, clock)
        self._policy = policy
        self._per_day = per_day
        self._clock = clock

    def due(self, now: float) -> float | None:
        """When the next span is to be looked at; None when nothing is ever due."""
        if not self._policy.rules or self._rows.open_tasks() >= self._per_day:
            return None  # enough for a day: what is behind is looked at when these are done
        found = progress(self._index)
        if not found.ended or not 0 <= now - found.began < DAY:  # a clock put back begins anew as well
            return now
        return found.began + DAY

    def begin(self) -> Round:
        """A new round, from the first study on."""
        self._put_right()
        found = Round(until=self._rows.last(), began=self._clock())
        self._save(found)
        log.info("retention: a round begins")
        return found

    def step(self) -> Round:
        """Look at the next span, and begin a round first where none is under way."""
        found = progress(self._index)
        if found.ended or not found.began:
            found = self.begin()
        until = min(found.after + SPAN, found.until)
        self._look(found, until)
        found.after = until
        if until >= found.until:
            self._end(found)
        self._save(found)
        return found

    def _look(self, found: Round, until: int) -> None:
        now = self._clock()
        studies = self._rows.span(self._policy.keywords, found.after, until, self._policy.bounds(now))
        verdicts = [each for each in self._looking.judged(studies) if each.is_due(now)]
        found.studies += len(studies)
        found.due += len(verdicts)
        found.held_up += sum(bool(each.why) for each in verdicts)
        for start in range(0, len(verdicts), NOTED):
            piece = verdicts[start : start + NOTED]
            going = [each for each in piece if each.then == DELETE and not each.why]
            self._rows.note([noted(each) for each in piece], [task_for(each) for each in going], now)

    def _end(self, found: Round) -> None:
        while self._rows.forget_before(found.began):
            pass
        found.ended = self._clock()
        log.info("retention: the round ended: %d studies looked at, %d due, %d held up",
                 found.studies, found.due, found.held_up)  # fmt: skip

    def _put_right(self) -> None:
        """What came when the clock was behind seems to be old: an image that came much earlier than another one with a
        lower id. Its study is kept from now on. A clock that was ahead does no harm: it keeps studies longer."""
        now, said = self._clock(), json.loads(self._index.get(ARRIVALS) or "{}")
        after = said.get("after", self._rows.last_instance())
        newest = min(said.get("newest", self._rows.newest() or now), now)
        while page := self._rows.arrivals(after, PAGE):
            behind: dict[int, list[float]] = {}
            for after, received, series in page:  # noqa: B007 - the last one is where the next page begins
                if received < newest - BEHIND:
                    behind.setdefault(series, []).append(received)
                else:
                    newest = min(max(newest, received), now)
            times = [received for found in behind.values() for received in found]
            if times and (count := self._rows.renew(behind, min(times), max(times), now)):
                log.warning("retention: %d studies came while the clock was behind, and are kept from now on", count)
        self._index.put(ARRIVALS, json.dumps({"after": after, "newest": newest}))

    def _save(self, found: Round) -> None:
        self._index.put(NAME, json.dumps(asdict(found)))


def noted(verdict: Verdict) -> Due:
    return Due(verdict.study_uid, verdict.rule, verdict.until, verdict.then, "; ".join(verdict.why))


def task_for(verdict: Verdict, *, purge: str = "") -> NewTask:
    """The task that deletes a study; ``purge`` says why before its turn."""
    payload = {"study": verdict.study_uid, "rule": verdict.rule, "due": verdict.due}
    payload |= {"purge": purge} if purge else {}
    return NewTask(ROOM if purge else RETIRE, payload, 0.0, verdict.study_uid, verdict.study_uid)


class OldVersions:
    """Lets earlier versions of instances go, a page a step; for one thread."""

    def __init__(self, index: Index, keep: float | None, clock: Callable[[], float]) -> None:
        """``keep`` in seconds; None keeps them for ever."""
        self._rows = RetentionRows(index.database)
        self._keep = keep
        self._clock = clock
        self._after = 0

    def step(self) -> bool:
        """Whether there is more to look at."""
        if self._keep is None:
            return False
        count, after = self._rows.drop_versions(self._clock() - self._keep, self._after, PIECE)
        if count:
            log.info("retention: %d earlier versions of instances go", count)
        self._after = after or 0
        return after is not None
