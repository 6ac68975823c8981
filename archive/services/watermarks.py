"""Watermarks of the storage file system: warn, make room by what rules let go, and tell when that is over.

Rules that hold here: a crossing is said once and its end once, also when the archive is started in between; room is
made only of studies that were kept for as long as their rules say, the oldest due first, and as many as are needed;
what was deleted and is not unlinked yet is waited for; how soon the next look is due depends on how soon a mark could
be crossed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from archive.dicom.attributes import Level
from archive.index import Index
from archive.index.retention import ROOM, RetentionRows
from archive.services.alarms import BEGINS, DISK, ERROR, OVER, WARNING, Alarm, Raise, nobody
from archive.services.placing import MAIN
from archive.services.retention import Looking, Policy
from archive.services.rounds import task_for
from archive.storage.space import Space, space_of

log = logging.getLogger(__name__)

NAME = "watermarks"  # under which the index keeps what was crossed, and how often
FASTEST = 1 << 30  # bytes a second that nobody writes faster than
SOONEST, LATEST = 5.0, 600.0  # seconds until the next look
BATCH = 50  # studies that are let go before the file system is looked at again

WORDS = {
    "warn": "the file system of the storage is {percent:.0f}% full (storage.watermarks.warn: {mark})",
    "purge": "the file system of the storage is {percent:.0f}% full: what rules let go is deleted"
    " (storage.watermarks.purge: {mark})",
    "refuse": "the file system of the storage is {percent:.0f}% full: stores are refused"
    " (storage.watermarks.refuse: {mark})",
}


@dataclass(frozen=True, slots=True)
class Marks:
    """Percent used; 0 is off."""

    warn: int = 0
    purge: int = 0
    purge_to: int = 0
    refuse: int = 0


@dataclass(slots=True)
class Crossed:
    """Which marks are crossed since when, and how often each was; ``purging``: room is being made."""

    since: dict[str, float] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    purging: bool = False


def crossed(index: Index) -> Crossed:
    """What was found when it was looked at last."""
    return Crossed(**json.loads(index.get(NAME) or "{}"))


def reserve(space: Space, refuse: int, least: int) -> int:
    """Bytes that must stay free so that a file system is never fuller than that, and at least so many."""
    return max(least, space.total * (100 - refuse) // 100) if refuse else least


class Watermarks:
    """Of one file system; for one thread."""

    def __init__(
        self, index: Index, root: Path, marks: Marks, policy: Policy, *, clock: Callable[[], float],
        believed: Callable[[], bool] = lambda: True, raise_alarm: Raise = nobody,
        measure: Callable[[Path], Space] = space_of,
    ) -> None:  # fmt: skip
        """``believed``: whether the clock is; nothing is due by one that is not."""
        self._index = index
        self._rows = RetentionRows(index.database)
        self._looking = Looking(index, policy, clock)
        self._root = root
        self._marks = marks
        self._clock = clock
        self._believed = believed
        self._raise = raise_alarm
        self._measure = measure
        self._before = crossed(index)

    def look(self) -> float:
        """Measure, tell, and make room; the seconds until the next look."""
        try:
            space = self._measure(self._root)
        except OSError as error:
            log.error("%s cannot be measured: %s", self._root, error.strerror)
            return LATEST
        found = Crossed(dict(self._before.since), dict(self._before.times), self._before.purging)
        for name in WORDS:
            self._compare(found, name, getattr(self._marks, name), space)
        found.purging = self._purges(found, space)
        if found != self._before:
            self._index.put(NAME, json.dumps(asdict(found)))
            self._before = found
        if found.purging:
            return self._make_room(space)
        return self._next(space)

    def _compare(self, found: Crossed, name: str, mark: int, space: Space) -> None:
        over, was = bool(mark) and space.percent >= mark, name in found.since
        # A little less must be used before it counts as over, or one study more or less would tell again and again.
        if over and not was:
            found.since[name] = self._clock()
            found.times[name] = found.times.get(name, 0) + 1
            self._tell(name, WORDS[name].format(percent=space.percent, mark=mark), BEGINS)
        elif was and (not mark or space.percent < mark - 1):
            del found.since[name]
            self._tell(name, f"the file system of the storage is below storage.watermarks.{name} again", OVER)

    def _tell(self, name: str, text: str, state: str) -> None:
        level = ERROR if name == "refuse" else WARNING
        log.log(logging.INFO if state == OVER else logging.ERROR if level == ERROR else logging.WARNING, "%s", text)
        self._raise(Alarm(DISK, f"watermark {name}", text, level=level, state=state))

    def _purges(self, found: Crossed, space: Space) -> bool:
        if not self._marks.purge or space.percent < self._marks.purge_to:
            return False
        return found.purging or "purge" in found.since

    def _make_room(self, space: Space) -> float:
        """Let the oldest studies go, as many as are needed; then look again soon."""
        if not self._believed() or self._rows.open_tasks(ROOM) or self._rows.to_unlink(MAIN):
            return SOONEST
        needed = space.used - space.total * self._marks.purge_to // 100
        now, tasks = self._clock(), []
        for due in self._rows.due(limit=BATCH, free=True):
            verdict = self._looking.one(due.study_uid)
            if verdict is None or not verdict.is_free(now):
                self._rows.forget(due.study_uid)  # the next round looks at it again
                continue
            tasks.append(task_for(verdict, purge=f"the file system was {space.percent:.0f}% full"))
            needed -= self._size(due.study_uid)
            if needed <= 0:
                break
        if not tasks:
            return LATEST / 10
        self._rows.note((), tasks, now)
        return SOONEST

    def _size(self, uid: str) -> int:
        return self._index.deletion.count(Level.STUDY, uid)[1]

    def _next(self, space: Space) -> float:
        """Until the next mark above could be crossed by whoever writes fastest."""
        marks = [mark for mark in (self._marks.warn, self._marks.purge, self._marks.refuse) if mark > space.percent]
        if not marks:
            return LATEST / 10
        room = (min(marks) - space.percent) / 100 * space.total
        return min(max(room / FASTEST, SOONEST), LATEST)
