"""Delivering: the tasks of one destination are leased, sent and settled, whatever the destination does.

Rules that hold here: an image is SENT by the destination's answer alone; an image that fails is tried again by its
route's schedule, and what fails for good says why; a destination that cannot be reached holds up its own lane and
nothing else: no image loses a try by it, and one probe asks whether it is back before anything is sent; a lease is kept
alive while its image is under way, and given back when it is not begun; a step never waits for the destination.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime

from archive.errors import ArchiveError
from archive.index import Index, Lane, Settled, State, StoredInstance, Task
from archive.services.alarms import BEGINS, OVER, ROUTE, Alarm, Raise, nobody
from archive.services.destination import Channel, Conditions, Delivered, Fate, Reach, again
from archive.services.hooks import Hooks, is_owed
from archive.services.routing import DELIVER, VERIFY
from archive.services.schedule import chance, pause

log = logging.getLogger(__name__)

BATCH = 128  # images leased together: some 2 ms of the index for each tenth of a second of sending
ENOUGH = 64  # results written together, and images under way below which more are leased
LATE = 0.1  # seconds a result may wait for others: what a kill makes us send twice at most
GATHER = 0.05  # seconds between two leases, so that images that come one by one are leased together
LEASE = 60.0  # seconds; extended at half time
PROOF_AFTER = 2.0  # seconds until a destination is asked for what it has answered success for
DELETED = "deleted before it was sent"
IDENTIFIED = "not sent: its route was to de-identify it, and does not any more"
WINDOW_CLOSED = "window closed until"


class Delivery:
    """One destination's lane: ``step`` is called by one thread, when there is something to do."""

    def __init__(
        self,
        name: str,
        index: Index,
        reach: Reach,
        conditions: Conditions,
        *,
        owner: str,
        clock: Callable[[], float],
        wake: Callable[[], None],
        alarm: Raise = nobody,
    ) -> None:
        self.name = name
        self._alarm = alarm
        self._index, self._queue = index, index.queue
        self._reach = reach
        self._conditions = conditions
        self._owner = owner
        self._clock = clock
        self._wake = wake
        self._channel: Channel | None = None
        self._waiting: deque[tuple[Task, StoredInstance]] = deque()  # leased and not handed over
        self._sent: dict[str, list[Task]] = {}  # handed over, by SOP Instance UID
        self._outcomes: list[Settled] = []
        self._oldest = 0.0  # of the outcomes that are not written
        self._leased_at = 0.0
        self._lease_after = 0.0
        self._quiet_since = 0.0
        self._allowance = float(conditions.rate)
        self._allowed_at = clock()
        self._state = Lane(name)
        self._chance = 1.0  # of all pauses of one step, so that their outcomes are written together
        self._look = True  # somebody may have changed what holds up the lane
        self._trial = True  # nothing has come through yet: one image goes first
        self._asked = False  # a destination that was down when the daemon started is asked at once
        self._closing = False

    def look(self) -> None:
        """From another thread: the next step finds out what holds up the lane."""
        self._look = True

    # -- one step -------------------------------------------------------------------------------

    def step(self) -> float | None:
        """Do what is due; seconds until something will be, None when only a wake brings more."""
        now = self._clock()
        self._chance = chance()
        if self._look:
            self._look = False
            self._state = self._queue.lane(self.name)
        self._collect(now)
        if self._channel is not None and not self._channel.alive:
            self._break(now, self._channel.reason)
        if self._state.paused is not None:
            self._give_back_waiting()
        elif self._is_open(now):
            self._lease(now)
        if self._closing:
            return None
        wait = self._feed(now)
        self._write(now)
        return _earliest(wait, self._next(now))

    @property
    def _busy(self) -> bool:
        return bool(self._waiting or self._sent)

    def _next(self, now: float) -> float | None:
        """Seconds until results have to be written, leases extended, the channel closed or something is due."""
        if self._outcomes or self._busy:
            until = self._oldest + LATE if self._outcomes else self._leased_at + LEASE / 2
            gather = self._lease_after if self._lease_after > now else until
            return max(0.0, min(until, gather) - now)
        left = None if self._channel is None else self._quiet_since + self._conditions.idle - now
        if left is not None and left <= 0:
            self._close_channel()
            left = None
        return _earliest(left, self._due(now))

    def _due(self, now: float) -> float | None:
        """Seconds until the next image may go."""
        due = None if self._state.paused is not None else self._index.next_due(DELIVER, lane=self.name)
        return None if due is None else max(0.0, max(due, self._state.down_until or 0.0, self._lease_after) - now)

    # -- what came back -------------------------------------------------------------------------

    def _collect(self, now: float) -> None:
        for result in self._channel.results() if self._channel is not None else ():
            for task in self._sent.pop(result.sop_instance_uid, ()):
                self._note(self._outcome(task, result, now), now)
            if result.fate is not Fate.LOST:
                self._trial = False
                self._mend()
            self._quiet_since = now
        if self._busy and now - self._leased_at >= LEASE / 2:
            self._extend(now)

    def _note(self, outcome: Settled, now: float) -> None:
        if not self._outcomes:
            self._oldest = now
        self._outcomes.append(outcome)

    def _outcome(self, task: Task, result: Delivered, now: float) -> Settled:
        terms = self._conditions.of(task)
        if result.fate is Fate.SENT:
            if terms.verify:
                reason = f"{result.reason}, to be {self._reach.proof}"
                return Settled(task.id, State.WAITING, reason, now + PROOF_AFTER, kind=VERIFY)
            return Settled(task.id, State.DONE, result.reason)
        if result.fate is Fate.REFUSED:
            return Settled(task.id, State.FAILED, result.reason)
        if result.fate is Fate.LOST and task.attempts == 1 and terms.delays:
            return Settled(task.id, State.WAITING, result.reason, now)  # an association may just have been too old
        return again(task, terms, result.reason, now, self._chance)

    def _write(self, now: float) -> None:
        if self._outcomes and (len(self._outcomes) >= ENOUGH or now - self._oldest >= LATE):
            outcomes, self._outcomes = self._outcomes, []
            try:
                self._queue.settle(self._owner, now, outcomes)
            except ArchiveError:
                self._outcomes = outcomes + self._outcomes  # the next step tries again
                raise

    def _extend(self, now: float) -> None:
        tasks = [task for tasks in self._sent.values() for task in tasks] + [task for task, _ in self._waiting]
        kept = set(self._index.heartbeat([task.id for task in tasks], self._owner, now, seconds=LEASE))
        self._waiting = deque(pair for pair in self._waiting if pair[0].id in kept)
        self._leased_at = now

    # -- is the destination there? --------------------------------------------------------------

    def _is_open(self, now: float) -> bool:
        """Whether something may be sent; asks a destination that was down when it is time."""
        if self._state.down_until is None:
            return not self._closing
        if self._busy:
            return False
        due = self._index.next_due(DELIVER, lane=self.name)
        if due is None or due > now or (now < self._state.down_until and self._asked):
            return False
        self._asked = True
        try:
            self._reach.probe()
        except ArchiveError as error:
            self._break(self._clock(), str(error))
            return False
        self._trial = True
        return not self._closing

    def _break(self, now: float, reason: str) -> None:
        """The destination is not there: everything that was not begun waits, and keeps its tries."""
        self._asked = True
        self._collect(now)
        given_up = [task.id for tasks in self._sent.values() for task in tasks]
        self._sent.clear()
        self._write_all(now)
        self._queue.release(self._owner, given_up)
        self._give_back_waiting()
        self._close_channel()
        tries = self._state.down_tries + 1
        delays = self._conditions.delays
        wait = pause(delays, min(tries, len(delays)), self._chance) or delays[-1]
        since = self._state.down_since or now
        self._state = self._queue.hold(
            self.name, down_since=since, down_until=now + wait, down_tries=tries, down_why=reason[:500]
        )
        log.warning("destination %s: %s; next try in %.0f s", self.name, reason, wait)
        if now - since >= self._conditions.down_after:
            self._alarm(Alarm(ROUTE, self.name, f"destination {self.name} is not reached", reason, state=BEGINS))
        self._expire(now, since, reason)

    def _expire(self, now: float, since: float, reason: str) -> None:
        before = now - self._conditions.give_up
        if since > before:
            return
        failed = 0
        while number := self._queue.expire(DELIVER, self.name, before, now, f"destination not reached: {reason}"):
            failed += number
        if failed:
            log.error("destination %s: %d images failed, it could not be reached for too long", self.name, failed)

    def _mend(self) -> None:
        if self._state.down_until is not None:
            self._state = self._queue.hold(self.name, down_since=None, down_until=None, down_tries=0, down_why="")
            log.info("destination %s is there again", self.name)
            self._alarm(Alarm(ROUTE, self.name, f"destination {self.name} is reached again", state=OVER))

    # -- what goes out --------------------------------------------------------------------------

    def _lease(self, now: float) -> None:
        """More images, unless enough are under way; after trouble a single one."""
        under_way = len(self._waiting) + len(self._sent)
        if under_way >= (1 if self._trial else ENOUGH) or now < self._lease_after:
            return
        due = self._index.next_due(DELIVER, lane=self.name)
        if due is None or due > now:
            return
        limit = 1 if self._trial else BATCH
        tasks = self._index.lease(
            DELIVER, self._owner, now, seconds=LEASE, limit=limit, lane=self.name, durable=False
        )
        if not tasks:
            return
        if len(tasks) < limit:
            self._lease_after = now + GATHER
        if not under_way:
            self._leased_at = now
        stored = self._queue.stored([task.payload["sop"] for task in tasks])
        for task in tasks:
            self._admit(task, stored.get(task.payload["sop"]), now)
        self._quiet_since = now

    def _admit(self, task: Task, found: tuple[StoredInstance, float] | None, now: float) -> None:
        opens = self._conditions.of(task).schedule.opens(now)
        if opens is not None:
            words = f"{WINDOW_CLOSED} {moment(opens)}"
            self._note(Settled(task.id, State.WAITING, words, opens, counted=False), now)
        elif found is None:
            self._note(Settled(task.id, State.FAILED, DELETED), now)
        elif is_owed(task, self._hooks(task)):
            self._note(Settled(task.id, State.FAILED, IDENTIFIED), now)
        else:
            self._waiting.append((task, found[0]))

    def _feed(self, now: float) -> float | None:
        """Hand over what the rate allows; seconds until more may go."""
        if not self._waiting:
            return None
        if self._channel is None:
            try:
                self._channel = self._reach.open(self._wake)
            except ArchiveError as error:
                self._break(now, str(error))
                return None
        ready: list[tuple[Task, StoredInstance]] = []
        rate = self._conditions.rate
        if rate:
            self._allowance = min(float(rate), self._allowance + rate * max(0.0, now - self._allowed_at))
            self._allowed_at = now
        later: list[tuple[Task, StoredInstance]] = []
        while self._waiting and (not rate or self._allowance > 0):
            pair = self._waiting.popleft()
            if self._is_other_sending(pair):
                later.append(pair)
                continue
            self._allowance -= pair[1].location.size
            known = self._sent.setdefault(pair[1].sop_instance_uid, [])
            known.append(pair[0])
            if len(known) == 1:  # two tasks for one image are one sending
                ready.append(pair)
        self._waiting.extendleft(reversed(later))
        if ready:
            self._channel.put(ready)
        if len(self._waiting) == len(later):
            return None  # they wait for a result
        return max(0.01, -self._allowance / rate) if self._waiting and rate else None

    def _is_other_sending(self, pair: tuple[Task, StoredInstance]) -> bool:
        """Whether the image is under way by a route that does something else to it: one after the other."""
        tasks = self._sent.get(pair[1].sop_instance_uid, ())
        return any(self._hooks(task) != self._hooks(pair[0]) for task in tasks)

    def _hooks(self, task: Task) -> Hooks | None:
        return self._conditions.of(task).hooks

    # -- the end --------------------------------------------------------------------------------

    def close(self, grace: float) -> None:
        """Let what is under way end, for a while, write what became of it and give the rest back."""
        self._closing = True
        if self._channel is not None:
            self._channel.give_up()
            self._channel.close(grace)
            self._collect(self._clock())
            self._channel = None
        self._write_all(self._clock())
        self._queue.release(self._owner)

    def _write_all(self, now: float) -> None:
        if self._outcomes:
            outcomes, self._outcomes = self._outcomes, []
            self._queue.settle(self._owner, now, outcomes)

    def _give_back_waiting(self) -> None:
        if self._waiting:
            self._queue.release(self._owner, [task.id for task, _ in self._waiting])
            self._waiting.clear()

    def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close(0.0)


def moment(when: float) -> str:
    """Local time to the minute."""
    return f"{datetime.fromtimestamp(when):%Y-%m-%d %H:%M}"


def _earliest(*waits: float | None) -> float | None:
    return min((wait for wait in waits if wait is not None), default=None)
