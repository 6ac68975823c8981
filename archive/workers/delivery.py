"""The lanes of all destinations: a thread each, begun when something is to be sent there.

Rules that hold here: a lane is woken by the tasks that are committed for it and by what its own channel has done; what
a dead process has leased is free again at the start; all lanes end together, within the grace that the slowest gets.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from archive.index import Index, Lane
from archive.services.alarms import Raise, nobody
from archive.services.delivery import WINDOW_CLOSED, Delivery
from archive.services.destination import Conditions, Reach
from archive.services.proof import Proof
from archive.services.routing import DELIVER, VERIFY
from archive.workers.owner import is_dead, this_process
from archive.workers.runner import Runner

log = logging.getLogger(__name__)

GATHER = 0.02  # seconds between two walks over the lanes, however many tasks are committed
GRACE = 2.0  # seconds for images that are under way at the end


class Step(Protocol):
    """What a lane's thread runs."""

    def step(self) -> float | None: ...
    def look(self) -> None: ...
    def close(self, grace: float) -> None: ...


@dataclass(slots=True)
class _Running:
    work: Step
    event: threading.Event
    runner: Runner


class Deliveries:
    """A worker that keeps the lanes of ``deliver`` and ``verify`` tasks running."""

    name = "deliver"
    kinds = frozenset({DELIVER, VERIFY})

    def __init__(
        self,
        index: Index,
        reach: Callable[[str], Reach],
        conditions: Callable[[str], Conditions],
        *,
        clock: Callable[[], float],
        alarm: Raise = nobody,
    ) -> None:
        """``reach`` and ``conditions`` are asked once for each destination."""
        self._index = index
        self._reach = reach
        self._conditions = conditions
        self._clock = clock
        self._alarm = alarm
        self._owner = this_process()
        self._lanes: dict[tuple[str, str], _Running] = {}
        self._held: dict[str, Lane] = {}
        self._begun = False
        self._after = 0.0

    def step(self) -> float | None:
        """Wake the lanes in which something is due, or whose state a person has changed."""
        if not self._begun:
            self._begin()
            self._begun = True
        now = self._clock()
        if now < self._after <= now + GATHER:
            return self._after - now
        self._after = now + GATHER
        self._tell_changes()
        for kind in sorted(self.kinds):
            for lane, ready in self._index.queue.heads(kind).items():
                running = self._lanes.get((kind, lane))
                if running is None:
                    self._start(kind, lane)
                elif ready <= now:
                    running.event.set()
        return None

    def _tell_changes(self) -> None:
        """Lanes whose state is not what it was the last time."""
        held = self._index.queue.lanes()
        for (_, lane), running in self._lanes.items():
            if held.get(lane) != self._held.get(lane):
                running.work.look()
                running.event.set()
        self._held = held

    def _begin(self) -> None:
        """Free what dead processes hold, and ask again what the windows of this configuration say."""
        queue = self._index.queue
        for kind in self.kinds:
            for owner in queue.owners(kind):
                if is_dead(owner):
                    freed = queue.release(owner)
                    log.warning("freed %d tasks that an ended process had leased", freed)
        while queue.recall(DELIVER, self._clock(), WINDOW_CLOSED):
            pass

    def _start(self, kind: str, lane: str) -> None:
        event, owner = threading.Event(), f"{self._owner}#{kind}:{lane}"
        reach, conditions = self._reach(lane), self._conditions(lane)
        work: Step
        if kind == DELIVER:
            work = Delivery(
                lane, self._index, reach, conditions, owner=owner, clock=self._clock, wake=event.set,
                alarm=self._alarm,
            )  # fmt: skip
        else:
            work = Proof(lane, self._index, reach, conditions, owner=owner, clock=self._clock)
        runner = Runner(f"{kind} {lane}", work.step, event)
        self._lanes[kind, lane] = _Running(work, event, runner)
        runner.start()
        event.set()

    def close(self) -> None:
        """End all lanes at the same time."""
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            lane.runner.ask_to_stop()
        until = monotonic() + GRACE / 4
        for lane in lanes.values():
            lane.runner.stop(max(0.0, until - monotonic()))
        ends = [threading.Thread(target=_close, args=(lane.work,), daemon=True) for lane in lanes.values()]
        for end in ends:
            end.start()
        until = monotonic() + GRACE + 1.0
        for end in ends:
            end.join(max(0.0, until - monotonic()))


def _close(work: Step) -> None:
    try:
        work.close(GRACE)
    except Exception:
        log.exception("a lane did not end in order; its leases run out by themselves")
