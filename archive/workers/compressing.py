"""The worker that compresses: leases tasks in batches, one object after the other, at low priority.

Rules that hold here: what cannot or need not be compressed is done, with the reason; what failed for a passing reason
is tried again after a growing pause, a limited number of times; tasks are given back when the process ends; a lease
is extended before each object, and nothing takes longer than a lease.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from archive.errors import ArchiveError, Damaged
from archive.index import Index, State, Task
from archive.services.compression import KIND, Compression, Result
from archive.services.integrity import Integrity
from archive.workers.codec import Codec

log = logging.getLogger(__name__)

BATCH = 16
SECONDS = 100.0  # for one object, of any number of frames: a child codes some 30 MB a second
LEASE = 120.0
TRIES = 10
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0
NICENESS = 15  # what is done for later gives way to everything


class Compressor:
    """One at a time; several of them share the codec's children."""

    kinds = frozenset({KIND})

    def __init__(
        self,
        number: int,
        index: Index,
        compression: Compression,
        integrity: Integrity,
        codec: Codec,
        owner: str,
        clock: Callable[[], float],
    ) -> None:
        """``owner`` is the same for every process that does this work for one daemon, one after the other."""
        self.name = f"compress {number}"
        self._index = index
        self._compression = compression
        self._integrity = integrity
        self._codec = codec
        self._owner = f"{owner}/{self.name}"
        self._clock = clock
        self._closing = threading.Event()
        self._mine: list[int] = []
        self._begun = False
        self._extended = 0.0

    def step(self) -> float | None:
        """Compress one batch."""
        tasks = self._leased()
        for task in tasks:
            if self._closing.is_set():
                return None
            if self._still(task):
                self._work(task)
            self._mine.remove(task.id)
        if tasks:
            return 0.0
        due = self._index.next_due(KIND)
        return None if due is None else max(due - self._clock(), 0.0)

    def _leased(self) -> list[Task]:
        """The next batch; at the start, also what a predecessor that was killed had begun."""
        now = self._clock()
        if not self._begun:
            for task in self._index.tasks(kind=KIND, state=State.LEASED):
                if task.owner == self._owner:
                    self._index.retry(task.id, self._owner, now, "")
            self._begun = True
        tasks = self._index.lease(KIND, self._owner, now, seconds=LEASE, limit=BATCH)
        self._mine, self._extended = [task.id for task in tasks], now
        return tasks

    def _still(self, task: Task) -> bool:
        """Whether the task is ours for as long as its object may take."""
        now = self._clock()
        if self._extended <= now <= self._extended + LEASE - SECONDS:
            return True
        self._extended = now
        return task.id in self._index.heartbeat(self._mine, self._owner, now, seconds=LEASE)

    def _work(self, task: Task) -> None:
        try:
            result = self._compression.compress(
                task.payload["sop"], task.payload["to"], recompress=task.payload["recompress"]
            )
        except Damaged as error:
            self._index.fail(task.id, self._owner, self._clock(), str(error))
            self._verify(task)
        except ArchiveError as error:
            if not self._closing.is_set():
                self._again(task, error)
        else:
            self._end(task, result)

    def _end(self, task: Task, result: Result) -> None:
        if self._closing.is_set() and result.reason:
            return  # the codec was closed under it
        now, uid = self._clock(), task.payload["sop"]
        if not result.reason:
            log.debug("compressed %s from %d to %d bytes", uid, result.before, result.after)
        # What was compressed is counted; what was not is listed, with its reason.
        self._index.finish(task.id, self._owner, now, reason=result.reason, keep=bool(result.reason))

    def _again(self, task: Task, error: ArchiveError) -> None:
        now = self._clock()
        if not error.temporary or task.attempts >= TRIES:
            self._index.fail(task.id, self._owner, now, str(error))
            return
        pause = min(FIRST_PAUSE * 2 ** (task.attempts - 1), LONGEST_PAUSE)
        self._index.retry(task.id, self._owner, now + pause, str(error))

    def _verify(self, task: Task) -> None:
        """Mark the file, if it really is damaged."""
        instance = self._index.known(task.payload["sop"])
        if instance is not None:
            try:
                self._integrity.verify(instance)
            except Damaged as error:
                log.debug("not compressed: %s", error)

    def close(self) -> None:
        """End the children; what was not begun is due at once for the next process."""
        self._closing.set()
        self._codec.close()
        for key in list(self._mine):
            self._index.retry(key, self._owner, self._clock(), "")
