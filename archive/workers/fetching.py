"""The lanes of all peers that are fetched from: some threads each, begun when something is to be fetched there.

Rules that hold here: lanes are woken by the tasks that are committed for them and at the times they ask for; what a
dead process has leased is free again at the start; at the end all that is under way is stopped and given back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from archive.index import Index
from archive.services.fetching import FETCH, Source
from archive.services.fetchlane import WINDOW_CLOSED, FetchLane, Terms
from archive.workers.leases import owner_name, take_back
from archive.workers.runner import Runner

BEAT = 15.0  # seconds between two signs of life
GATHER = 0.02  # seconds between two walks over the lanes, however many tasks are committed
GRACE = 3.0  # seconds for what is under way at the end


@dataclass(slots=True)
class _Running:
    lane: FetchLane
    stop: threading.Event
    threads: list[tuple[Runner, threading.Event]] = field(default_factory=list)

    def wake(self) -> None:
        for _, event in self.threads:
            event.set()


class Fetches:
    """A worker that keeps the lanes running; ``source`` and ``terms`` are asked by the name of a lane."""

    name = "fetch"
    kinds = frozenset({FETCH})

    def __init__(
        self,
        index: Index,
        source: Callable[[str], Source],
        terms: Callable[[str], Terms],
        *,
        clock: Callable[[], float],
        ended: Callable[[int], None] = lambda task: None,
    ) -> None:
        """``ended`` is told each task that was done or has failed."""
        self._ended = ended
        self._index = index
        self._source = source
        self._terms = terms
        self._clock = clock
        self._lanes: dict[str, _Running] = {}
        self._begun = False
        self._after = 0.0

    def step(self) -> float | None:
        now = self._clock()
        if not self._begun:
            take_back(self._index, self.kinds, now)
            while self._index.queue.recall(FETCH, now, WINDOW_CLOSED):
                pass
            self._begun = True
        if now < self._after <= now + GATHER:
            return self._after - now
        self._after = now + GATHER
        heads = self._index.queue.heads(FETCH)
        for lane in heads:
            if lane not in self._lanes:
                self._start(lane)
            self._lanes[lane].wake()  # its threads look for themselves what is due
        for running in self._lanes.values():
            running.lane.beat(now)
        return BEAT if heads else None

    def _start(self, name: str) -> None:
        stop, terms = threading.Event(), self._terms(name)
        lane = FetchLane(
            name, self._index, lambda: self._source(name), terms,
            owner=owner_name(), clock=self._clock, wait=stop.wait, ended=self._ended,
        )  # fmt: skip
        running = self._lanes[name] = _Running(lane, stop)
        for number in range(terms.associations):
            event = threading.Event()
            running.threads.append((Runner(f"fetch {name} {number}", lane.step, event), event))
        for runner, _ in running.threads:
            runner.start()

    def close(self) -> None:
        """End all lanes at the same time."""
        lanes, self._lanes = self._lanes, {}
        for running in lanes.values():
            running.stop.set()
            running.lane.stop()
            for runner, _ in running.threads:
                runner.ask_to_stop()
        until = monotonic() + GRACE
        for running in lanes.values():
            for runner, _ in running.threads:
                runner.stop(max(0.0, until - monotonic()))
            running.lane.release()
