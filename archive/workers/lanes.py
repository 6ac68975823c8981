"""Work in lanes: what is slow or dead in one lane holds up no other.

Rules that hold here: a lane has a thread of its own that works on one batch at a time; the worker itself only looks
which lanes have something due, wakes them, and keeps their leases while they work; what a dead process of this host
had leased is taken back at the start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from archive.index import Index, State, Task
from archive.index.queue import Queue
from archive.workers.leases import owner_name, take_back
from archive.workers.runner import Runner

LEASE = 30.0  # seconds; a process of another host that dies holds up its tasks for so long
BEAT = 10.0  # seconds between two signs of life
EVERYBODY = 10_000  # lanes at a time: a limit that silent peers could reach would let them hold up the others
STOPPING = 1.0  # seconds for the lanes to end what they do: several workers end one after the other

Job = Callable[[str, Sequence[Task], str], None]
"""Works on the tasks of a lane that were leased for an owner, and ends each of them."""


class LaneWorker:
    """A worker for one kind of task."""

    def __init__(
        self,
        name: str,
        kind: str,
        index: Index,
        job: Job,
        *,
        clock: Callable[[], float],
        batch: int = 1,
        at_once: int = EVERYBODY,
        ordered: bool = False,
    ) -> None:
        """``batch`` is the most tasks a lane leases together, ``at_once`` how many lanes work at a time.

        In lanes that are ``ordered`` what has to wait holds up what came after it.
        """
        self.name = name
        self.kinds = frozenset({kind})
        self._kind = kind
        self._index = index
        self._queue = Queue(index.database)
        self._job = job
        self._clock = clock
        self._batch = batch
        self._ordered = ordered
        self._room = threading.BoundedSemaphore(at_once)
        self._owner = owner_name()
        self._lanes: dict[str, tuple[Runner, threading.Event]] = {}
        self._held: dict[str, list[int]] = {}
        self._mutex = threading.Lock()
        self._first = True

    def step(self) -> float | None:
        now = self._clock()
        if self._first:
            take_back(self._index, self.kinds, now)
            self._first = False
        held = self._beat(now)
        heads = self._queue.heads(self._kind)
        for lane in (lane for lane, ready in heads.items() if ready <= now):
            self._wake(lane)
        pauses = [max(0.0, ready - now) for ready in heads.values() if ready > now]
        return min([*pauses, BEAT] if held or len(pauses) < len(heads) else pauses, default=None)

    def _beat(self, now: float) -> bool:
        """Keep the leases of lanes that work; whether there are any."""
        with self._mutex:
            ids = [each for held in self._held.values() for each in held]
        if ids:
            self._index.heartbeat(ids, self._owner, now, seconds=LEASE)
        return bool(ids)

    def _wake(self, lane: str) -> None:
        if lane not in self._lanes:
            wake = threading.Event()
            self._lanes[lane] = Runner(f"{self.name} {lane}", lambda: self._work(lane), wake), wake
            self._lanes[lane][0].start()
        self._lanes[lane][1].set()

    def _work(self, lane: str) -> float | None:
        """One batch of a lane, in its own thread."""
        with self._room:
            tasks = self._index.lease(
                self._kind, self._owner, self._clock(), seconds=LEASE, limit=self._batch, lane=lane
            )
            if not tasks:
                return None
            if self._ordered and (due := self._overtaking(lane, tasks)) is not None:
                return max(0.0, due - self._clock())
            with self._mutex:
                self._held[lane] = [task.id for task in tasks]
            try:
                self._job(lane, tasks, self._owner)
            finally:
                with self._mutex:
                    del self._held[lane]
        if len(tasks) == self._batch:
            return 0.0
        due = self._index.next_due(self._kind, lane=lane)
        return None if due is None else max(0.0, due - self._clock())

    def _overtaking(self, lane: str, tasks: Sequence[Task]) -> float | None:
        """Put back tasks before which another one of their lane waits; until when."""
        waiting = self._index.tasks(kind=self._kind, lane=lane, state=State.WAITING, limit=1)
        if not waiting or waiting[0].id > min(task.id for task in tasks):
            return None
        for task in tasks:
            self._index.retry(task.id, self._owner, waiting[0].due, "waits for what came before it")
        return waiting[0].due

    def close(self) -> None:
        """What a lane does not end in time goes on until the process ends; its lease runs out."""
        for runner, _ in self._lanes.values():
            runner.ask_to_stop()
        until = time.monotonic() + STOPPING
        for runner, _ in self._lanes.values():
            runner.stop(max(0.0, until - time.monotonic()))
