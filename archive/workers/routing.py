"""Studies and series that are whole: their objects are looked at by the routes and put into the queue.

Rules that hold here: an object is put into a lane once for each of its arrivals, also when this is broken off and done
again; a series in which something has just come is looked at later; history is pruned a piece at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice

from archive.index import Index, NewTask, Settled, State, Task
from archive.index.described import Described
from archive.services.routing import DELIVER, READY, ROUTE, SERIES, STUDY, VERIFY, Routing, delivery, facts_of, timed
from archive.workers.owner import is_dead, this_process

log = logging.getLogger(__name__)

LEASE = 120.0  # seconds for one study
PIECE = 500  # tasks of one transaction
PRUNE_EVERY = 3600.0  # seconds


class Router:
    """A worker that turns ``route`` tasks into ``deliver`` tasks."""

    name = "route"
    kinds = frozenset({ROUTE})

    def __init__(self, index: Index, routing: Routing, *, clock: Callable[[], float]) -> None:
        self._index = index
        self._routing = routing
        self._clock = clock
        self._owner = f"{this_process()}#{ROUTE}"
        self._begun = False

    def step(self) -> float | None:
        """Look at one study or series; seconds until the next one is due."""
        if not self._begun:
            self._begin()
        now = self._clock()
        for task in self._index.lease(ROUTE, self._owner, now, seconds=LEASE):
            self._route(task, now)
            return 0.0
        due = self._index.next_due(ROUTE)
        return None if due is None else max(0.0, due - now)

    def _begin(self) -> None:
        for owner in self._index.queue.owners(ROUTE):
            if is_dead(owner):
                self._index.queue.release(owner)
        self._begun = True

    def _route(self, task: Task, now: float) -> None:
        trigger = task.payload["trigger"]
        objects = self._described(task)
        if trigger == SERIES:
            last = max((each.received for each in objects), default=0.0)
            if last + self._routing.series_after > now:
                self._index.retry(task.id, self._owner, last + self._routing.series_after, "images are still coming")
                return
        wanted = self._wanted(trigger, objects, task.payload["study"], now)
        count = 0
        while piece := list(islice(wanted, PIECE)):
            self._index.add_tasks(piece, now)
            count += len(piece)
        self._index.queue.settle(self._owner, now, [Settled(task.id, State.DONE, f"{count} images put into the queue")])

    def _described(self, task: Task) -> list[Described]:
        which = {"series_uid": task.payload["series"]} if task.payload["trigger"] == SERIES else {
            "study_uid": task.payload["study"]
        }
        return list(self._index.queue.described(self._routing.keywords(), **which))

    def _wanted(self, trigger: str, objects: list[Described], study_uid: str, now: float) -> Iterator[NewTask]:
        known = {
            (task.lane, task.payload.get("sop"), task.payload.get("at"))
            for kind in (DELIVER, VERIFY)
            for task in self._index.queue.of_study(kind, study_uid)
        }
        words = {"StudyState": READY} if trigger == STUDY else {}
        for each in objects:
            for decision in self._routing.decide(trigger, timed(facts_of(each, words), now)):
                for target in decision.to:
                    if (target, each.instance.sop_instance_uid, each.received) not in known:
                        yield delivery(
                            each.instance.sop_instance_uid, study_uid, target, each.received,
                            route=decision.route.name, priority=decision.route.priority,
                            deidentify=decision.route.deidentify,
                        )  # fmt: skip

    def close(self) -> None:
        """Give back what a step that was broken off has leased."""
        self._index.queue.release(self._owner)


class Pruner:
    """A worker that deletes what the history has kept long enough."""

    name = "history"
    kinds: frozenset[str] = frozenset()

    def __init__(self, index: Index, history: float, *, clock: Callable[[], float]) -> None:
        self._index = index
        self._history = history
        self._clock = clock

    def step(self) -> float | None:
        """A piece; soon again while there is more."""
        return 0.05 if self._index.queue.prune(self._clock() - self._history) else PRUNE_EVERY

    def close(self) -> None:
        """Nothing is kept between steps."""
