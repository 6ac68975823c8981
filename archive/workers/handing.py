"""Hands studies that were fetched on to those who want them, through the queue of what is sent.

Rules that hold here: a study waits until nothing of it is being fetched any more, and is looked at when it is ready;
what is on its way to a receiver or was sent since it came is not sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from archive.index import Index, NewTask, State, Task
from archive.services.causes import Event
from archive.services.fetching import FETCH
from archive.services.lifecycle import READY
from archive.services.routing import DELIVER, VERIFY, delivery

HAND_ON = "hand-on"  # kind of the tasks
AT_ONCE = "ready"  # the lane of those that only say that a study is ready
PIECE = 500  # tasks of one transaction
LOOK = 900.0  # seconds until a look at a study that never becomes ready, because nothing of it has come
GIVE_UP = 7 * 86400.0
OPEN = (State.WAITING, State.LEASED)


def later(study_uid: str, to: Sequence[str], why: str, priority: int, lane: str, now: float) -> NewTask:
    """The task that hands a study on when it has been fetched."""
    return NewTask(HAND_ON, {"to": [*to], "by": why, "priority": priority}, now + LOOK, lane, study_uid, single=True)


def on_ready(event: Event) -> Iterator[NewTask]:
    """A cause: a study has become ready, which somebody may wait for."""
    if event.facts("StudyState") == READY:
        yield NewTask(HAND_ON, {}, 0.0, AT_ONCE, event.study_uid)


def hand_on(index: Index, study_uid: str, to: Sequence[str], why: str, priority: int, now: float) -> int:
    """Put the images of a study into the queue of each receiver; return how many were not there yet."""
    if not to:
        return 0
    known = {
        (task.lane, task.payload.get("sop"), task.payload.get("at"))
        for kind in (DELIVER, VERIFY)
        for task in index.queue.of_study(kind, study_uid)
        if task.state is not State.FAILED
    }
    wanted = (
        delivery(each.instance.sop_instance_uid, study_uid, target, each.received, by=why, priority=priority)
        for each in index.queue.described((), study_uid=study_uid)
        for target in to
        if (target, each.instance.sop_instance_uid, each.received) not in known
    )
    count = 0
    while piece := list(islice(wanted, PIECE)):
        count += len(index.add_tasks(piece, now))
    return count


class HandingOn:
    """The job."""

    def __init__(self, index: Index, clock: Callable[[], float]) -> None:
        self._index, self._clock = index, clock

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        for task in tasks:
            if lane == AT_ONCE:
                self._wake(task, owner)
            else:
                self._hand_on(task, owner)

    def _wake(self, task: Task, owner: str) -> None:
        """Those who wait for this study look now."""
        found = self._index.queue.of_study(HAND_ON, task.study_uid)
        waiting = [each.id for each in found if each.lane != AT_ONCE and each.state is State.WAITING]
        if waiting:
            self._index.requeue(waiting, self._clock())
        self._index.finish(task.id, owner, self._clock(), keep=False)

    def _hand_on(self, task: Task, owner: str) -> None:
        now, payload = self._clock(), task.payload
        under_way = any(each.state in OPEN for each in self._index.queue.of_study(FETCH, task.study_uid))
        if under_way and now < task.created + GIVE_UP:
            self._index.retry(task.id, owner, now + LOOK, "the study is being fetched")
            return
        if not any(True for _ in self._index.queue.described((), study_uid=task.study_uid)):
            self._index.fail(task.id, owner, now, "the study was not fetched")
            return
        args = (self._index, task.study_uid, payload["to"], str(payload["by"]), int(payload["priority"]), now)
        self._index.finish(task.id, owner, now, reason=f"{hand_on(*args)} images put into the queue")
