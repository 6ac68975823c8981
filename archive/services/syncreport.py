"""What a comparison came to, as it is now: which studies are equal, mended, waiting, or cannot be mended, and why.

Rules that hold here: what was put into queues is judged by what became of it there; the numbers balance: compared =
equal + mended + waiting + cannot; a run that was only tried says what would be done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from archive.index import Index, State
from archive.index.sync import Difference, Run, SyncRows
from archive.services.fetching import FETCH, FROM
from archive.services.routing import DELIVER, VERIFY

PAGE = 500
EQUAL, MENDED, WAITING, CANNOT, WOULD = "equal", "mended", "waiting", "cannot", "would be mended"
OPEN = (State.WAITING, State.LEASED)


@dataclass(frozen=True, slots=True)
class Finding:
    """One study that was not equal, and what has become of it."""

    difference: Difference
    state: str
    words: str


class Report:
    """Of one run."""

    def __init__(self, index: Index, run: Run) -> None:
        self._rows = SyncRows(index.database)
        self.run = run

    @property
    def dry(self) -> bool:
        return bool(self.run.plan.get("dry"))

    def findings(self) -> Iterator[Finding]:
        """In the order of study UIDs."""
        after = ""
        while page := self._rows.differences(self.run.id, after=after, limit=PAGE):
            yield from self._judged(page)
            after = page[-1].study_uid

    def balance(self) -> Counter[str]:
        """Studies by what has become of them; ``queued`` are those of which tasks are open."""
        found = Counter({"compared": self.run.counts.get("compared", 0), EQUAL: self.run.counts.get("equal", 0)})
        for each in self.findings():
            found[each.state] += 1
            found["queued"] += each.state == WAITING and not each.difference.waiting
        return found

    def _judged(self, page: Sequence[Difference]) -> Iterator[Finding]:
        tasks = self._tasks([each.study_uid for each in page if each.push or each.pull]) if not self.dry else {}
        for each in page:
            said = "; ".join(each.details.get("what", ()))
            state, words = self._state(each, tasks.get(each.study_uid, []))
            yield Finding(each, state, "; ".join(part for part in (said, words) if part))

    def _state(self, found: Difference, tasks: list[tuple[State, int, str]]) -> tuple[str, str]:
        if found.waiting:
            return WAITING, ""
        if number := sum(number for state, number, _ in tasks if state in OPEN):
            return WAITING, f"{number} in the queue"
        if failed := [(number, reason) for state, number, reason in tasks if state is State.FAILED]:
            return CANNOT, f"{failed[0][0]} failed: {failed[0][1]}"
        if found.remaining:
            return CANNOT, ""
        return (WOULD if self.dry else MENDED), ""

    def _tasks(self, studies: list[str]) -> dict[str, list[tuple[State, int, str]]]:
        """What became of what was queued, by study."""
        peer, since = self.run.peer, self.run.started
        found: dict[str, list[tuple[State, int, str]]] = {}
        for kind, lane in ((DELIVER, peer), (VERIFY, peer), (FETCH, FROM + peer)) if studies else ():
            for study, states in self._rows.tasks_since(kind, lane, since, studies).items():
                found.setdefault(study, []).extend((state, *rest) for state, rest in states.items())
        return found


def plain(run: Run, balance: Counter[str]) -> dict[str, Any]:
    """A run for people and JSON."""
    return {
        "run": run.id, "sync": run.name, "peer": run.peer, "cause": run.cause, "dry": bool(run.plan.get("dry")),
        "since": run.plan.get("since", ""), "until": run.plan.get("until", ""), "started": run.started,
        "finished": run.finished, "words": run.words, "at": dict(run.position),
        "compared": balance["compared"], "equal": balance[EQUAL], "mended": balance[MENDED],
        "waiting": balance[WAITING], "cannot": balance[CANNOT], "would": balance[WOULD],
        "images": {name: run.counts.get(name, 0) for name in ("push", "pull", "left")},
        "patients": run.counts.get("patients", 0), "miscounted": run.counts.get("miscounted", 0),
    }  # fmt: skip


def line(said: dict[str, Any]) -> str:
    """One line of a run's balance."""
    parts = [f"{said['compared']} studies compared", f"{said['equal']} equal"]
    for name, words in (("would", "would be mended"), ("mended", "mended"), ("waiting", "waiting")):
        if said[name]:
            parts.append(f"{said[name]} {words}")
    if said["cannot"]:
        parts.append(f"{said['cannot']} cannot be mended")
    return ", ".join(parts)
