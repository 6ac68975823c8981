"""Workers and what keeps them: each does one step at a time, woken by the tasks that are committed anywhere.

Rules that hold here: a worker is one step and knows no thread; it is called once at the start, then when tasks of its
kinds were committed, and when the moment has come that its last step asked for; a worker that fails is tried again
after a growing pause and harms no other; when the index is gone, all are called as soon as it is back.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from archive.errors import IndexUnavailable
from archive.index import Wakes
from archive.workers.runner import Runner

log = logging.getLogger(__name__)

PAUSE = 2.0  # seconds between two tries to listen to an index that does not answer


class Worker(Protocol):
    """One kind of work in the background."""

    name: str
    kinds: frozenset[str]  # of the tasks it looks for

    def step(self) -> float | None:
        """Do what is due, in a bounded time; return the seconds until the next call, None = when woken."""
        ...

    def close(self) -> None:
        """End what it keeps, within seconds; no step runs any more."""
        ...


class Workers:
    """Runs workers until it is stopped: a Runner each, and a thread that listens."""

    def __init__(self, workers: Sequence[Worker], listen: Callable[[], Wakes]) -> None:
        self._workers = workers
        self._events = {worker.name: threading.Event() for worker in workers}
        self._runners = [Runner(worker.name, worker.step, self._events[worker.name]) for worker in workers]
        self._listen = listen
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._hear, name="wakes", daemon=True)

    def start(self) -> None:
        """Listen first, so that nothing committed from now on is missed, then run."""
        self._wakes: Wakes | None = self._listen()
        self._thread.start()
        for worker, runner in zip(self._workers, self._runners, strict=True):
            runner.start()
            self._events[worker.name].set()

    def wake(self, name: str) -> None:
        """Let one worker look now."""
        self._events[name].set()

    def stop(self, timeout: float = 5.0) -> None:
        """Let the steps that run end, then close the workers."""
        os.eventfd_write(self._stop, 1)
        self._thread.join(timeout)
        for runner in self._runners:
            runner.ask_to_stop()
        for runner in self._runners:
            runner.stop(timeout)
        for worker in self._workers:
            worker.close()
        os.close(self._stop)

    def _hear(self) -> None:
        while not self._stopped(self._wakes):
            try:
                self._wakes = self._wakes or self._listen()
                kinds = self._wakes.take()
            except IndexUnavailable as error:
                log.warning("tasks are not heard of: %s", error)
                self._unlisten()
                continue
            self._dispatch(kinds)
        self._unlisten()

    def _stopped(self, wakes: Wakes | None) -> bool:
        """Wait for a message, or a while for an index that does not answer; True at the end."""
        poll = select.poll()
        poll.register(self._stop, select.POLLIN)
        if wakes is not None:
            poll.register(wakes.fileno(), select.POLLIN)
        ready = poll.poll(None if wakes is not None else PAUSE * 1000)
        return any(descriptor == self._stop for descriptor, _ in ready)

    def _dispatch(self, kinds: set[str]) -> None:
        """An empty set is a new beginning: anything may have been missed."""
        for worker in self._workers:
            if not kinds or kinds & worker.kinds:
                self._events[worker.name].set()

    def _unlisten(self) -> None:
        if self._wakes is not None:
            self._wakes.close()
            self._wakes = None
