"""One peer's lane of fetches: leased one by one by its threads, each brought to an end or put off, with the reason.

Rules that hold here: a peer that takes no association holds up its lane, and no study loses a try by it; a study that
fails is tried again after a pause, and a try that brought something does not count; what fails for good says what is
missing and why; a study is never fetched twice at a time; a lease is kept alive while its study is under way.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from archive.errors import ArchiveError, InvalidQuery, NotThere, OutOfResources, Refused, Unreachable, for_log
from archive.index import Index, Settled, State, Task
from archive.services.fetching import FETCH, Balance, Retrieval, Source
from archive.services.schedule import Schedule, chance, pause

log = logging.getLogger(__name__)

LEASE = 60.0  # seconds; the worker extends it
SOON = 5.0  # seconds until a study is looked at again that somebody else is fetching
LOCAL = 30.0  # seconds until a try after the archive's own trouble
LOSSES = 3  # associations lost one after the other by different studies, before the peer counts as down
EXTRA = 3  # tries beyond those of the schedule, that ended with their process: it may have been an innocent one
LOOKED_UP = 50  # missing instances that are looked for in quarantine
WINDOW_CLOSED = "window closed until"


@dataclass(frozen=True, slots=True)
class Terms:
    """How a peer is fetched from: how much at a time and a second, when, and how often it is tried."""

    associations: int = 1
    rate: int = 0  # bytes a second; 0 = any
    per_minute: int = 0  # studies; 0 = any
    schedule: Schedule = field(default_factory=Schedule)
    delays: tuple[float, ...] = (30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0, 600.0, 600.0, 600.0)
    give_up: float = 7 * 86400.0


class FetchLane:
    """A lane; ``step`` is called by as many threads as there may be associations."""

    def __init__(
        self,
        name: str,
        index: Index,
        source: Callable[[], Source],
        terms: Terms,
        *,
        owner: str,
        clock: Callable[[], float],
        wait: Callable[[float], object],
        ended: Callable[[int], None] = lambda task: None,
    ) -> None:
        """``source`` gives one for each study and may raise; ``wait`` waits so many seconds, or less at the end.

        ``ended`` is told each task that was done or has failed.
        """
        self.name = name
        self._index, self._queue = index, index.queue
        self._source = source
        self._terms = terms
        self._owner = owner
        self._clock = clock
        self._wait = wait
        self._tell = ended
        self._mutex = threading.Lock()
        self._running: dict[int, Source] = {}  # by task
        self._losses = 0
        self._bytes_due = self._study_due = 0.0
        self._stopping = False

    # -- one step -------------------------------------------------------------------------------

    def step(self) -> float | None:
        """Fetch one study, if it is time; seconds until the next look, None when only a wake brings more."""
        with self._mutex:
            now = self._clock()
            held, wait = self._held_up(now)
            if held:
                return wait
            found = self._index.lease(FETCH, self._owner, now, seconds=LEASE, limit=1, lane=self.name)
            if not found:
                due = self._index.next_due(FETCH, lane=self.name)
                return None if due is None else max(0.0, due - now)
            task = found[0]
            put_off = self._put_off(task, now)
            if put_off is not None:
                self._queue.settle(self._owner, now, [put_off])
                return 0.0
            if not (source := self._open(task, now)):
                return 0.0
            self._running[task.id] = source
            if self._terms.per_minute:
                self._study_due = max(now, self._study_due) + 60.0 / self._terms.per_minute
        try:
            self._fetch(task, source)
        finally:
            with self._mutex:
                self._running.pop(task.id, None)
        return 0.0

    def _held_up(self, now: float) -> tuple[bool, float | None]:
        """Whether the lane has to wait, and how long."""
        if self._stopping:
            return True, None
        state = self._queue.lane(self.name)
        if state.paused is not None:
            return True, None
        if state.down_until is not None:
            if state.down_until > now:
                return True, state.down_until - now
            if self._running:  # one study goes first, and wakes the others when the peer answers
                return True, None
        if self._study_due > now:
            return True, self._study_due - now
        return False, None

    def _put_off(self, task: Task, now: float) -> Settled | None:
        """What keeps a task from being begun now."""
        own = Schedule(task.payload.get("window", ()))
        opens = self._terms.schedule.opens(now) or own.opens(now)
        if opens is not None:
            words = f"{WINDOW_CLOSED} {datetime.fromtimestamp(opens):%Y-%m-%d %H:%M}"
            return Settled(task.id, State.WAITING, words, opens, counted=False)
        others = self._queue.of_study(FETCH, task.study_uid)
        if any(each.lane == self.name and each.state is State.LEASED and each.id < task.id for each in others):
            return Settled(task.id, State.WAITING, "the study is being fetched", now + SOON, counted=False)
        if task.attempts > len(self._terms.delays) + EXTRA:
            return Settled(task.id, State.FAILED, f"{task.reason} ({task.attempts - 1} tries)")
        return None

    def _open(self, task: Task, now: float) -> Source | None:
        try:
            return self._source()
        except ArchiveError as error:  # a peer that has gone from the configuration
            self._break(task, now, str(error))
            return None

    # -- one study ------------------------------------------------------------------------------

    def _fetch(self, task: Task, source: Source) -> None:
        retrieval = Retrieval(
            self._index, source, task.study_uid, task.payload.get("series", ()), brought=self._brought
        )
        try:
            retrieval.look()
            self._mend()
            task = self._remember(task, retrieval)
            if not retrieval.is_here:
                retrieval.bring()
        except ArchiveError as error:
            self._ended(task, retrieval, error)
        except Exception:
            log.exception("fetch of study %s failed by a fault of the archive", task.study_uid)
            self._ended(task, retrieval, Refused("internal error, see the archive's log"))
        else:
            self._ended(task, retrieval, None)

    def _remember(self, task: Task, retrieval: Retrieval) -> Task:
        """What was here before the first try, so that the last one can tell what was fetched by all of them."""
        if retrieval.is_here or "first" in task.payload:
            return task
        balance = retrieval.balance()
        payload = {**task.payload, "first": [balance.series_here, balance.here]}
        self._queue.rewrite(self._owner, task.id, json.dumps(payload))
        return replace(task, payload=payload)

    def _ended(self, task: Task, retrieval: Retrieval, error: ArchiveError | None) -> None:
        now = self._clock()
        if self._stopping:
            self._queue.release(self._owner, [task.id])
            return
        if isinstance(error, Unreachable) and not retrieval.reached:
            self._break(task, now, str(error))
            return
        if isinstance(error, Unreachable) and self._is_lost(retrieval):
            self._hold(now, str(error))
        elif error is None or retrieval.came:
            self._losses = 0
            self._mend()
        outcome = self._outcome(task, retrieval, error, now)
        log.info("fetch of study %s from %s: %s", task.study_uid, task.payload["peer"], for_log(outcome.reason))
        if self._queue.settle(self._owner, now, [outcome]) and outcome.state in (State.DONE, State.FAILED):
            self._tell(task.id)

    def _is_lost(self, retrieval: Retrieval) -> bool:
        """Whether a lost association says something of the peer, and not of the study only."""
        with self._mutex:
            self._losses = 0 if retrieval.came else self._losses + 1
            return self._losses >= LOSSES

    def _outcome(self, task: Task, retrieval: Retrieval, error: ArchiveError | None, now: float) -> Settled:
        balance = retrieval.balance()
        if "first" in task.payload:
            balance = balance.since(*task.payload["first"])
        found = self._settled(task, retrieval, balance, error, now)
        if not retrieval.looked:
            return found
        return replace(found, payload=json.dumps({**task.payload, "result": asdict(balance)}))

    def _settled(
        self, task: Task, retrieval: Retrieval, balance: Balance, error: ArchiveError | None, now: float
    ) -> Settled:
        if error is None and retrieval.is_here:
            return Settled(task.id, State.DONE, balance.words())
        refused = self._in_quarantine(retrieval)
        reason = _reason(balance, error, refused or retrieval.words)
        if isinstance(error, OutOfResources):
            return Settled(task.id, State.WAITING, reason, now + LOCAL, counted=False)
        final = isinstance(error, NotThere | InvalidQuery)
        wait = None if final or refused else pause(self._terms.delays, task.attempts, chance())
        if retrieval.came and not refused:
            return Settled(task.id, State.WAITING, reason, now + (wait or SOON), counted=False)
        if wait is None:
            tries = f" ({task.attempts} tries)" if task.attempts > 1 else ""
            return Settled(task.id, State.FAILED, f"{reason}{tries}")
        return Settled(task.id, State.WAITING, reason, now + wait)

    def _in_quarantine(self, retrieval: Retrieval) -> str:
        """Why nothing that is missing can come: all of it came and was put aside."""
        missing = retrieval.missing()
        entries = [self._index.quarantined_instances(uid) for uid in missing[:LOOKED_UP]]
        if not entries or not all(entries):
            return ""
        return f"in quarantine: {entries[0][0].reason}"

    def _brought(self, size: int) -> None:
        """Wait as long as these bytes should have taken."""
        if not self._terms.rate:
            return
        with self._mutex:
            now = self._clock()
            self._bytes_due = max(self._bytes_due, now) + size / self._terms.rate
            wait = self._bytes_due - now
        self._wait(wait)

    # -- a peer that is away ----------------------------------------------------------------------

    def _break(self, task: Task, now: float, reason: str) -> None:
        """The peer holds up its lane; the study is as if it had not been tried."""
        self._queue.release(self._owner, [task.id])
        self._hold(now, reason)

    def _hold(self, now: float, reason: str) -> None:
        state = self._queue.lane(self.name)
        if state.down_until is not None and state.down_until > now:
            return  # another thread has seen it as well
        tries, delays = state.down_tries + 1, self._terms.delays or Terms().delays
        wait = pause(delays, min(tries, len(delays)), chance()) or delays[-1]
        since = state.down_since or now
        self._queue.hold(self.name, down_since=since, down_until=now + wait, down_tries=tries, down_why=reason[:500])
        log.warning("fetching %s: %s; next try in %.0f s", self.name, reason, wait)
        self._expire(now, since, reason)

    def _expire(self, now: float, since: float, reason: str) -> None:
        before = now - self._terms.give_up
        while since <= before and self._queue.expire(FETCH, self.name, before, now, f"peer not reached: {reason}"):
            log.error("fetches %s failed: the peer could not be reached for too long", self.name)

    def _mend(self) -> None:
        """The peer has answered; one that loses associations goes on when something came."""
        with self._mutex:
            if self._losses >= LOSSES or self._queue.lane(self.name).down_until is None:
                return
            self._queue.hold(self.name, [FETCH], down_since=None, down_until=None, down_tries=0, down_why="")
            log.info("fetching %s goes on", self.name)

    # -- for the worker ---------------------------------------------------------------------------

    def beat(self, now: float) -> None:
        """Keep the leases of what is under way."""
        with self._mutex:
            ids = list(self._running)
        if ids:
            self._index.heartbeat(ids, self._owner, now, seconds=LEASE)

    def stop(self) -> None:
        """End what is under way; nothing is begun any more."""
        with self._mutex:
            self._stopping = True
            running = list(self._running.values())
        for source in running:
            source.stop()

    def release(self) -> None:
        """Give back what has not ended."""
        self._queue.release(self._owner)


def _reason(balance: Balance, error: ArchiveError | None, words: str) -> str:
    counts = balance.words() if balance.instances and balance.failed else ""
    said = [part for part in (counts, error.reason if error else words) if part]
    return ": ".join(said) or "what the peer has did not come"
