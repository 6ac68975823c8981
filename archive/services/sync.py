"""Synchronisation: when two archives are compared, and how the outbox drives that.

Rules that hold here: a comparison is a task that is leased, works for a while, and is due again until it is at its end,
so that it survives whatever ends this process; one of each sync runs by its schedule, those that are wanted by hand
have a lane of their own; a peer that cannot be asked makes it wait, never fail; what was begun with another peer, or
by another plan, than the configuration has now is not gone on with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date

from archive.errors import ArchiveError, IndexUnavailable, for_log
from archive.index import Index, NewTask, State, Task
from archive.index.sync import Run, Step, SyncRows
from archive.services.comparing import Plan
from archive.services.reconcile import Reconciliation
from archive.services.schedule import Schedule, Span, pause

log = logging.getLogger(__name__)

SYNC = "sync"  # kind of the tasks; the lane is the sync
SCHEDULE, BY_HAND = "schedule", "by hand"  # causes of comparisons
TURN = 5.0  # seconds of work before the lease is given back, and at least as many as the first answer took
CHANGED = "the configuration has changed"
PAUSES = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0)  # while the peer cannot be asked, the last one again and again
DAY = 86400


@dataclass(frozen=True, slots=True)
class Timetable:
    """When a sync is compared: every so many seconds, or when a span begins; in the span only, if that ``ends``."""

    every: float = 0.0
    span: Span | None = None
    ends: bool = False

    @property
    def is_never(self) -> bool:
        return not self.every and self.span is None

    def first(self, now: float) -> float:
        """When it begins if there was none before."""
        return self.opens(now) if self.ends else now + self.every if self.every else self._begins(now)

    def next(self, started: float, now: float) -> float:
        """When the one after it begins."""
        return max(now, started + self.every) if self.every else self._begins(now)

    def opens(self, now: float) -> float:
        """When one that was begun may go on."""
        if not self.ends or self.span is None:
            return now
        return Schedule([self.span]).opens(now) or now

    def _begins(self, now: float) -> float:
        """The next beginning of the span, after this minute."""
        assert self.span is not None
        days, start, _ = self.span
        moment = Schedule([(days, start, start + 1)])
        return moment.opens(now) or moment.opens(now + 60.0) or now + DAY


@dataclass(frozen=True, slots=True)
class Sync:
    """One sync, ready to work."""

    name: str
    peer: str
    plan: Plan  # with everything but the dates
    within: float  # seconds; 0 = all studies
    timetable: Timetable
    reconciliation: Callable[[], Reconciliation]

    def plan_at(self, now: float) -> Plan:
        """What is compared by the schedule at a moment."""
        if not self.within:
            return replace(self.plan, recent=1.0, undated=True)
        return replace(self.plan, since=day_of(now - self.within), recent=now - self.within)

    def fits(self, run: Run) -> bool:
        """Whether a comparison that was begun earlier would be begun the same way now; one by hand had its own plan."""
        plan = Plan.of(run.plan)
        same = plan.match == self.plan.match if run.cause == BY_HAND else plan == self.plan_at(run.started)
        return same and run.peer == self.peer


class Synchronising:
    """The job of the lanes: goes on with comparisons."""

    def __init__(
        self, index: Index, syncs: Mapping[str, Sync], *, clock: Callable[[], float], timer: Callable[[], float]
    ) -> None:
        self._index = index
        self._rows = SyncRows(index.database)
        self._syncs = syncs
        self._clock = clock
        self._timer = timer
        self._failures: dict[str, int] = {}  # lane -> how often the peer could not be asked

    def job(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        for task in tasks:
            self._one(task, owner)

    def _one(self, task: Task, owner: str) -> None:
        sync, run = self._syncs.get(task.payload["sync"]), self._run_of(task)
        if sync is None or (sync.timetable.is_never and not _is_by_hand(task)):
            self._give_up(run, task, owner, why_over(task.payload["sync"], sync))
            return
        if run is not None and run.finished is None and not sync.fits(run):
            if _is_by_hand(task):
                self._give_up(run, task, owner, CHANGED)
                return
            self._rows.end(run.id, CHANGED, self._clock())
            log.info("sync %s: the comparison with %s ends: %s", sync.name, run.peer, CHANGED)
            run = None
        if run is None and _is_by_hand(task):
            self._give_up(None, task, owner, "there is no such comparison")
            return
        self._go_on(sync, run, task, owner)

    def _give_up(self, run: Run | None, task: Task, owner: str, words: str) -> None:
        if run is not None:
            self._rows.end(run.id, words, self._clock())
        if _is_by_hand(task):
            self._index.fail(task.id, owner, self._clock(), words)
        else:
            self._index.finish(task.id, owner, self._clock(), keep=False)

    def _go_on(self, sync: Sync, run: Run | None, task: Task, owner: str) -> None:
        now, scheduled = self._clock(), not _is_by_hand(task)
        if scheduled and (opens := sync.timetable.opens(now)) > now:
            self._index.retry(task.id, owner, opens, "waits for its hours")
            return
        run = run or self._begin(sync, now)
        try:
            done = self._work(sync, run, task, owner)
        except IndexUnavailable:
            raise
        except ArchiveError as error:
            self._wait(sync, run, task, owner, error)
            return
        self._failures.pop(task.lane, None)
        if not done:
            self._index.retry(task.id, owner, self._clock(), "")
        elif scheduled:
            self._index.retry(task.id, owner, sync.timetable.next(run.started, self._clock()), "")
        else:
            self._index.finish(task.id, owner, self._clock(), reason="compared")

    def _run_of(self, task: Task) -> Run | None:
        key = task.payload.get("run")
        return self._rows.run(key) if key else self._rows.unfinished(task.payload["sync"], SCHEDULE)

    def _begin(self, sync: Sync, now: float) -> Run:
        run = self._rows.run(self._rows.begin(sync.name, sync.peer, SCHEDULE, asdict(sync.plan_at(now)), now))
        assert run is not None
        return run

    def _work(self, sync: Sync, run: Run, task: Task, owner: str) -> bool:
        if run.finished is not None:
            return True
        began, until = self._timer(), 0.0

        def write(step: Step) -> bool:
            nonlocal until
            if not until:  # a long answer, which the next turn asks for again, is worth as long a turn
                until = (now := self._timer()) + max(TURN, now - began)
            return self._rows.advance(run.id, task.id, owner, step, self._clock())

        done = sync.reconciliation().work(run, write, enough=lambda: self._timer() >= until)
        if done:
            self._tell(run.id)
        return done

    def _tell(self, key: int) -> None:
        run = self._rows.run(key)
        if run is not None:
            words = ", ".join(f"{name} {number}" for name, number in sorted(run.counts.items()))
            log.info("sync %s: compared with %s in %.0f s: %s", run.name, run.peer, self._clock() - run.started, words)

    def _wait(self, sync: Sync, run: Run, task: Task, owner: str, error: ArchiveError) -> None:
        tries = self._failures[task.lane] = self._failures.get(task.lane, 0) + 1
        wait = pause(PAUSES, min(tries, len(PAUSES))) or PAUSES[-1]
        words = f"{sync.peer} cannot be asked: {error.reason}"
        if tries == 1:
            log.warning("sync %s: %s", sync.name, for_log(words))
        self._rows.say(run.id, words)
        self._index.retry(task.id, owner, self._clock() + wait, words)


def day_of(moment: float) -> str:
    """The local date of a moment, as DICOM writes it."""
    return f"{date.fromtimestamp(moment):%Y%m%d}"


def why_over(name: str, sync: Sync | None) -> str:
    """What is said of what a sync had begun by a schedule that it has no more."""
    return f"there is no sync {name} any more" if sync is None else "there is no schedule any more"


def _is_by_hand(task: Task) -> bool:
    return "run" in task.payload


def task_of(name: str) -> NewTask:
    """A comparison that is wanted by hand; it gets its ``run``."""
    return NewTask(SYNC, {"sync": name}, lane=f"{name} {BY_HAND}")


def settle(index: Index, syncs: Mapping[str, Sync], now: float) -> None:
    """Each sync with a timetable has the one task that follows it, others have none."""
    rows = SyncRows(index.database)
    known: set[str] = set()
    for state in (State.WAITING, State.LEASED):
        for task in index.tasks(kind=SYNC, state=state):
            name = task.payload["sync"]
            if _is_by_hand(task):
                continue
            sync = syncs.get(name)
            over = sync is None or sync.timetable.is_never
            if over and (run := rows.unfinished(name, SCHEDULE)) is not None:
                rows.end(run.id, why_over(name, sync), now)
            if over or name in known:
                index.delete_tasks([task.id])
                continue
            known.add(name)
            if rows.unfinished(name, SCHEDULE) is None:
                rows.reschedule(task.id, min(task.due, syncs[name].timetable.first(now)))
    for name, sync in syncs.items():
        if name not in known and not sync.timetable.is_never:
            due = sync.timetable.first(now)
            index.add_tasks([NewTask(SYNC, {"sync": name}, due, lane=name)], now)


