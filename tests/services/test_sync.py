"""When archives are compared, and how the outbox drives that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import pytest

from archive.errors import Unreachable
from archive.index import Index, State, Task, open_index
from archive.index.sync import Step, SyncRows
from archive.services.comparing import Plan
from archive.services.sync import SYNC, Sync, Synchronising, Timetable, day_of, settle, task_of

EVERY_DAY = (0, 1, 2, 3, 4, 5, 6)
NIGHTLY = Timetable(span=(EVERY_DAY, 120, 121))
IN_HOURS = Timetable(span=(EVERY_DAY, 1320, 360), ends=True)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("timetable", "now", "first", "after"),
    [
        (NIGHTLY, "2026-01-10T01:00", "2026-01-10T02:00", "2026-01-10T02:00"),
        (NIGHTLY, "2026-01-10T02:00", "2026-01-11T02:00", "2026-01-11T02:00"),
        (IN_HOURS, "2026-01-10T23:00", "2026-01-10T23:00", "2026-01-11T22:00"),
        (IN_HOURS, "2026-01-10T12:00", "2026-01-10T22:00", "2026-01-10T22:00"),
        (Timetable(every=3600), "2026-01-10T12:00", "2026-01-10T13:00", "2026-01-10T13:00"),
    ],
)
def test_a_timetable_says_when_it_begins(timetable: Timetable, now: str, first: str, after: str) -> None:
    moment = at(now)
    assert timetable.first(moment) == at(first)
    assert timetable.next(moment, moment) == at(after)


def test_what_was_begun_goes_on_in_its_hours_only() -> None:
    assert IN_HOURS.opens(at("2026-01-10T07:00")) == at("2026-01-10T22:00")
    assert NIGHTLY.opens(at("2026-01-10T07:00")) == at("2026-01-10T07:00")
    assert Timetable(every=60).next(at("2026-01-10T07:00"), at("2026-01-10T09:00")) == at("2026-01-10T09:00")


def test_studies_of_some_days_are_those_of_these_dates_and_what_came_in_them() -> None:
    now = at("2026-01-31T12:00")
    plan = made(within=30 * 86400).plan_at(now)
    assert (plan.since, plan.until, plan.recent, plan.undated) == ("20260101", "", now - 30 * 86400, False)
    plan = made(within=0).plan_at(now)
    assert (plan.since, plan.until, plan.recent, plan.undated) == ("", "", 1.0, True)
    assert day_of(now) == "20260131"


class Comparing:
    """A comparison of so many steps, each of them a bit of work; it may meet nobody."""

    def __init__(self, steps: int = 1, error: Exception | None = None) -> None:
        self.steps, self.error, self.done = steps, error, 0

    def __call__(self) -> Any:
        return self

    def work(self, run: Any, write: Callable[[Step], bool], *, enough: Callable[[], bool]) -> bool:
        if self.error:
            raise self.error
        while self.done < self.steps:
            self.done += 1
            last = self.done == self.steps
            assert write(Step({"part": "dates"}, {"compared": 1}, finished=last))
            if last or enough():
                return last
        return True


def made(comparing: Any = None, within: float = 0.0, timetable: Timetable = NIGHTLY) -> Sync:
    return Sync("second", "ARC2", Plan(), within, timetable, comparing or Comparing())


class Site:
    def __init__(self, index: Index) -> None:
        self.index, self.rows = index, SyncRows(index.database)
        self.now = at("2026-01-10T12:00")

    def settle(self, *syncs: Sync) -> None:
        settle(self.index, {sync.name: sync for sync in syncs}, self.now)

    def work(self, sync: Sync | None) -> Task:
        """One turn of the task that is due."""
        (task,) = self.index.lease(SYNC, "me", self.now, seconds=60)
        timer = iter(range(0, 10_000, 10))  # each look at it is ten seconds later
        syncs = {sync.name: sync} if sync else {}
        job = Synchronising(self.index, syncs, clock=lambda: self.now, timer=lambda: next(timer))
        job.job(task.lane, [task], "me")
        (after,) = self.index.tasks(kind=SYNC)
        return after


@pytest.fixture
def site(index_url: str) -> Iterator[Site]:
    index = open_index(index_url)
    yield Site(index)
    index.close()


def test_a_sync_has_one_task_that_follows_its_timetable(site: Site) -> None:
    site.settle(made())
    site.settle(made())
    (task,) = site.index.tasks(kind=SYNC)
    assert (task.lane, task.due) == ("second", at("2026-01-11T02:00"))
    site.settle(made(timetable=Timetable(every=60)))
    assert site.index.tasks(kind=SYNC)[0].due == site.now + 60
    site.settle(made(timetable=Timetable()))
    assert site.index.tasks(kind=SYNC) == []
    site.settle(made())
    site.settle()
    assert site.index.tasks(kind=SYNC) == []


def test_a_scheduled_comparison_goes_on_until_its_end_and_comes_again(site: Site) -> None:
    comparing = Comparing(steps=3)
    site.settle(made(comparing))
    site.now = at("2026-01-11T02:00")
    for number in (1, 2):
        task = site.work(made(comparing))
        assert (task.due, comparing.done) == (site.now, number)
    task = site.work(made(comparing))
    assert (task.state, task.due) == (State.WAITING, at("2026-01-12T02:00"))
    (run,) = site.rows.runs("second", 10)
    assert (run.counts, run.finished, run.cause) == ({"compared": 3}, site.now, "schedule")


def test_a_peer_that_cannot_be_asked_makes_it_wait_longer_and_longer(site: Site) -> None:
    key = site.rows.begin("second", "ARC2", "by hand", {}, site.now, tasks=[task_of("second")])
    comparing = Comparing(error=Unreachable("connection refused"))
    sync = made(comparing)
    job = Synchronising(site.index, {"second": sync}, clock=lambda: site.now, timer=time.monotonic)
    pauses = []
    for _ in range(8):
        (task,) = site.index.lease(SYNC, "me", site.now, seconds=60)
        job.job(task.lane, [task], "me")
        (task,) = site.index.tasks(kind=SYNC)
        pauses.append(task.due - site.now)
        site.now = task.due
    assert pauses == [10, 30, 60, 120, 300, 600, 600, 600]
    run = site.rows.run(key)
    assert run is not None and "ARC2 cannot be asked: connection refused" in run.words
    comparing.error = None
    assert site.work(sync).state is State.DONE
    run = site.rows.run(key)
    assert run is not None and (run.finished, run.words) == (site.now, "")


def test_what_is_left_of_a_sync_that_is_no_more_ends(site: Site) -> None:
    key = site.rows.begin("second", "ARC2", "by hand", {}, site.now, tasks=[task_of("second")])
    task = site.work(None)
    assert (task.state, task.reason) == (State.FAILED, "there is no sync second any more")
    run = site.rows.run(key)
    assert run is not None and run.finished == site.now


CHANGES: list[dict[str, Any]] = [
    {"peer": "ARC3"}, {"plan": Plan(match="Modality = 'CT'")}, {"plan": Plan(compare="images")}, {"within": 86400.0},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_comparison_of_yesterdays_configuration_ends_and_another_begins(site: Site, change: dict[str, Any]) -> None:
    before, after = made(Comparing(steps=3)), replace(made(Comparing(steps=1)), **change)
    site.settle(before)
    site.now = at("2026-01-11T02:00")
    assert site.work(before).due == site.now
    site.settle(after)
    assert site.work(after).due == at("2026-01-12T02:00")
    new, old = site.rows.runs("second", 10)
    assert (old.words, old.finished, old.counts) == ("the configuration has changed", site.now, {"compared": 1})
    assert (new.peer, new.plan, new.words) == (after.peer, asdict(after.plan_at(site.now)), "")
    assert new.finished == site.now


def test_the_same_configuration_goes_on_with_what_was_begun(site: Site) -> None:
    comparing = Comparing(steps=3)
    site.settle(made(comparing, within=3 * 86400.0))
    site.now = at("2026-01-11T02:00")
    for _ in range(3):
        site.work(made(comparing, within=3 * 86400.0))
        site.now += 3600.0
    (run,) = site.rows.runs("second", 10)
    assert (run.counts, run.words) == ({"compared": 3}, "") and run.finished is not None


def test_one_by_hand_keeps_its_plan_and_ends_with_its_peer(site: Site) -> None:
    plan = asdict(Plan(since="20260101", compare="images"))
    first = site.rows.begin("second", "ARC2", "by hand", plan, site.now, tasks=[task_of("second")])
    assert site.work(replace(made(), plan=Plan(gone=True))).state is State.DONE
    site.index.delete_tasks([task.id for task in site.index.tasks(kind=SYNC)])
    second = site.rows.begin("second", "ARC2", "by hand", plan, site.now, tasks=[task_of("second")])
    task = site.work(replace(made(), peer="ARC3"))
    assert (task.state, task.reason) == (State.FAILED, "the configuration has changed")
    runs = [site.rows.run(key) for key in (first, second)]
    assert [run.words for run in runs if run] == ["", "the configuration has changed"]


def test_what_a_sync_had_begun_ends_with_its_schedule(site: Site) -> None:
    site.settle(made())
    site.now = at("2026-01-11T02:00")
    site.work(made(Comparing(steps=3)))
    site.settle(made(timetable=Timetable()))
    (run,) = site.rows.runs("second", 10)
    assert (run.words, run.finished) == ("there is no schedule any more", site.now)


def test_a_turn_is_as_long_as_the_first_answer_took(site: Site) -> None:
    """Else a long listing would be asked for again for every hundred studies."""
    clock = iter([0.0, 300.0, 300.0, 400.0, 599.0, 600.0])
    comparing = Comparing(steps=9)
    site.settle(made())
    site.now = at("2026-01-11T02:00")
    (task,) = site.index.lease(SYNC, "me", site.now, seconds=60)
    syncs = {"second": made(comparing)}
    job = Synchronising(site.index, syncs, clock=lambda: site.now, timer=lambda: next(clock))
    job.job(task.lane, [task], "me")
    assert comparing.done == 4 and list(clock) == []


def test_it_works_in_its_hours_only(site: Site) -> None:
    site.settle(made(timetable=IN_HOURS))
    site.now = at("2026-01-10T22:00")
    site.index.lease(SYNC, "another", site.now, seconds=10)
    site.now = at("2026-01-11T06:30")
    task = site.work(made(timetable=IN_HOURS))
    assert (task.due, task.reason) == (at("2026-01-11T22:00"), "waits for its hours")
    assert site.rows.runs("second", 1) == []


def test_old_runs_are_forgotten(site: Site) -> None:
    for number in range(40):
        key = site.rows.begin("second", "ARC2", "by hand", {}, site.now + number)
        site.rows.end(key, "", site.now)
    assert len(site.rows.runs("second", 100)) == 31
