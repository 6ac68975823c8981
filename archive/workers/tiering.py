"""Copies studies to long-term volumes, makes room in the cache, and brings studies back.

Rules that hold here: one task a study, leased and kept alive while group after group of its files is carried; what
cannot be done now, because a volume is not there or full, is looked for again after a pause that is shown as the
reason; room is made after everything that fills the cache or lets something leave it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from archive.errors import ArchiveError, IndexUnavailable
from archive.index import Index, Task
from archive.index.copies import COPY, RECALL, copy_study
from archive.services.eviction import Eviction
from archive.services.recall import Recall
from archive.services.tiering import Copying
from archive.workers.leases import owner_name, take_back

log = logging.getLogger(__name__)

LEASE = 600.0  # seconds; a group of files on a slow volume takes a while
LOST = 5.0  # seconds between two looks for a volume that is not there: nobody tells when it is mounted
LATER = 30.0  # seconds until a study that could not be carried is tried again
LONGEST = 300.0  # and at most, when it goes on failing
SURVEY = "copy.survey"  # under which the index keeps up to which study was looked for what has no copy
DONE = "done"
PAGE = 200  # studies looked at together
ROOM = 3600.0  # seconds after which the room is looked at though nothing has happened here


class CopyStudies:
    """A worker."""

    name = "copy"
    kinds = frozenset({COPY})

    def __init__(self, index: Index, copying: Copying, eviction: Eviction, clock: Callable[[], float]) -> None:
        self._index = index
        self._copying = copying
        self._eviction = eviction
        self._clock = clock
        self._leasing = _Leasing(index, COPY, clock)
        self._surveyed = False

    def step(self) -> float | None:
        """One group of files of one study."""
        surveying = self._survey()
        more = self._eviction.make_room().more
        if not self._copying.is_possible():
            return LOST
        task = self._leasing.task()
        if task is not None:
            self._leasing.carry(task, lambda: self._copying.some(str(task.payload["study"])).more)
        pause = self._leasing.pause()
        return 0.0 if surveying or more else ROOM if pause is None else min(pause, ROOM)

    def _survey(self) -> bool:
        """Look for what was there before there was a long-term volume, some studies at a time; False at the end."""
        if self._surveyed:
            return False
        found = self._index.get(SURVEY) or "0"
        self._surveyed = found == DONE
        if self._surveyed:
            return False
        studies, last = self._index.copies.survey(int(found), PAGE)
        self._index.add_tasks([copy_study(uid) for uid in studies], self._clock())
        self._index.put(SURVEY, DONE if last is None else str(last))
        return True

    def close(self) -> None:
        self._copying.settle_doubts()


class RecallStudies:
    """A worker."""

    name = "recall"
    kinds = frozenset({RECALL})

    def __init__(self, index: Index, recall: Recall, eviction: Eviction, clock: Callable[[], float]) -> None:
        self._index = index
        self._recall = recall
        self._eviction = eviction
        self._leasing = _Leasing(index, RECALL, clock)
        self._after: dict[int, int] = {}

    def step(self) -> float | None:
        """Some instances of one study."""
        task = self._leasing.task()
        if task is not None:
            self._leasing.carry(task, lambda: self._bring(task))
        return self._leasing.pause()

    def _bring(self, task: Task) -> bool:
        self._eviction.make_room()
        progress, after = self._recall.some(str(task.payload["study"]), self._after.get(task.id, 0))
        self._after = {task.id: after} if progress.more else {}
        return progress.more

    def close(self) -> None:
        self._recall.settle_doubts()


class _Leasing:
    """The task that is worked on, across steps."""

    def __init__(self, index: Index, kind: str, clock: Callable[[], float]) -> None:
        self._index = index
        self._kind = kind
        self._clock = clock
        self._owner = owner_name()
        self._task: Task | None = None
        self._first = True

    def task(self) -> Task | None:
        """That of the last step, or another one that is due."""
        now = self._clock()
        if self._first:
            take_back(self._index, {self._kind}, now)
            self._first = False
        if self._task is not None and not self._index.heartbeat([self._task.id], self._owner, now, seconds=LEASE):
            self._task = None
        if self._task is None:
            self._task = next(iter(self._index.lease(self._kind, self._owner, now, seconds=LEASE)), None)
        return self._task

    def carry(self, task: Task, work: Callable[[], bool]) -> None:
        """Do some work, which says if there is more; end the task when there is none, or when it has to wait."""
        try:
            if work():
                return
        except IndexUnavailable:
            raise
        except ArchiveError as error:
            self._wait(task, str(error))
            return
        except Exception as error:  # one study must not hold up the others
            log.exception("study %s cannot be carried", task.study_uid)
            self._wait(task, str(error))
            return
        self._task = None
        self._index.finish(task.id, self._owner, self._clock(), keep=False)

    def _wait(self, task: Task, reason: str) -> None:
        pause = min(LATER * 2 ** min(max(task.attempts - 1, 0), 10), LONGEST)
        log.warning("%s of study %s waits for %.0f s: %s", self._kind, task.study_uid, pause, reason)
        self._task = None
        self._index.retry(task.id, self._owner, self._clock() + pause, reason)

    def pause(self) -> float | None:
        """Seconds until the next step."""
        if self._task is not None:
            return 0.0
        due = self._index.next_due(self._kind)
        return None if due is None else max(0.0, due - self._clock())
