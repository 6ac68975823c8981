"""Jobs, step by step: a peer that answers as it is told, a clock that is set, both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from archive.errors import Unreachable
from archive.index import State, Which, open_index
from archive.index.jobs import CARRY, WAITS, Jobs
from archive.index.jobvalues import DONE, Found, Job
from archive.services import jobs
from archive.services.fetching import FETCH, FROM, enqueue
from archive.services.fetchlane import FetchLane, Terms
from archive.services.joborder import Order
from archive.services.jobs import AHEAD, IMPORT, MIGRATE, Answers, Carrying, balance
from archive.services.slices import beginning_of, plain
from tests.index.made import arrival
from tests.services.peer import Catalogue, Peer

ORDER = {"keys": {}, "series_keys": {}}


class Bench:
    """A peer, its lane and whoever carries jobs on, all moved by hand."""

    def __init__(self, url: str, studies: int = 3, limit: int = 500) -> None:
        self.index, self.now = open_index(url), 1000.0
        self.jobs = Jobs(self.index.database)
        series = {f"1.{n}": {f"1.{n}.1": [f"1.{n}.1.1", f"1.{n}.1.2"]} for n in range(1, studies + 1)}
        self.peer = Peer(self.index, series, dict.fromkeys(series, "20200131"))
        self.catalogue = Catalogue(self.peer, limit)
        self.restart()

    def restart(self) -> None:
        """As after a kill: nothing is remembered."""
        self.carrying = Carrying(self.index, lambda _: self.catalogue, lambda: self.now)
        self.lane = FetchLane(
            f"{FROM}FAR", self.index, lambda: self.peer, Terms(delays=(10.0,)), owner="lane", clock=lambda: self.now,
            wait=lambda _: None, ended=self.carrying.hear,
        )  # fmt: skip

    def begin(self, kind: str = MIGRATE, **order: Any) -> int:
        options = {**ORDER, **order}
        plan = beginning_of(order.get("since", ""), order.get("until", ""), order.get("days", 0))
        return self.jobs.create(kind, "FAR", options, plain(plan), self.now)

    def carry(self) -> bool:
        """One step of one job, if one is due."""
        tasks = self.index.lease(CARRY, "carrier", self.now, seconds=60.0, limit=1, lane="FAR")
        self.carrying("FAR", tasks, "carrier")
        return bool(tasks)

    def run(self, steps: int = 1000) -> None:
        """Until nothing is to be done, in steps of a second."""
        for _ in range(steps):
            worked = self.carry()
            due = self.index.next_due(FETCH)
            if due is not None and due <= self.now:
                self.lane.step()
            elif not worked and all(job.state != "running" for job in self.jobs.all()):
                return
            self.now += 1.0

    def job(self, key: int) -> Job:
        found = self.jobs.get(key)
        assert found is not None
        return found

    def told(self, key: int) -> dict[str, Any]:
        self.jobs.studies.settle(key, self.now)
        return balance(self.jobs, self.job(key))


@pytest.fixture
def bench(index_url: str) -> Bench:
    return Bench(index_url)


def part(found: dict[str, Any], name: str) -> tuple[int, ...]:
    return tuple(found[name][each] for each in ("listed", "here", "fetched", "failed", "open"))


def test_a_migration_fetches_all_and_its_report_balances(bench: Bench) -> None:
    bench.index.add([arrival("1.1", "1.1.1", "1.1.1.1"), arrival("1.1", "1.1.1", "1.1.1.2")])
    bench.index.add([arrival("1.2", "1.2.1", "1.2.1.1")])
    bench.peer.cannot = {"1.3.1.2"}
    key = bench.begin()
    bench.run()
    found = bench.told(key)
    assert found["state"] == DONE
    assert part(found, "studies") == (3, 1, 1, 1, 0)
    assert part(found, "series") == (3, 1, 1, 1, 0)
    assert part(found, "instances") == (6, 3, 2, 1, 0)
    assert [(each["study"], each["failed"]) for each in found["failures"]] == [("1.3", 1)]
    assert "1 missing" in found["failures"][0]["reason"]


def test_a_second_run_moves_nothing(bench: Bench) -> None:
    for compare in ("uids", "uids", "counts"):
        key = bench.begin(compare=compare)
        bench.run()
    assert part(bench.told(key), "studies") == (3, 3, 0, 0, 0)
    assert part(bench.told(key), "instances") == (6, 6, 0, 0, 0)
    assert len(bench.peer.asked) == 3
    assert sum(bench.index.queue.count(Which((FETCH,))).values()) == 6  # by counts there was nothing to look for


def test_what_failed_and_is_tried_again_by_hand_is_in_the_report(bench: Bench) -> None:
    bench.peer.cannot = {"1.3.1.2"}
    key = bench.begin()
    bench.run()
    bench.peer.cannot = set()
    bench.index.queue.again(Which((FETCH,), states=(State.FAILED,)), bench.now)
    bench.lane.step()
    assert part(bench.told(key), "studies") == (3, 0, 3, 0, 0)
    assert part(bench.told(key), "instances") == (6, 0, 6, 0, 0)


def test_killed_at_any_step_it_goes_on_where_it_was(index_url: str) -> None:
    bench = Bench(index_url, studies=12, limit=6)
    days = iter(range(12))
    bench.peer.dates = {uid: f"202001{next(days) + 1:02}" for uid in bench.peer.studies}
    key = bench.begin(dated_only=True)
    for _ in range(12):
        bench.run(steps=3)
        bench.restart()
        # What is under way in a killed process is leased until its lease is over.
        bench.index.lease(CARRY, "killed", bench.now, seconds=5.0, limit=1, lane="FAR")
        bench.now += 6.0
    bench.run()
    assert part(bench.told(key), "studies") == (12, 0, 12, 0, 0)
    assert len(bench.peer.asked) == 12


def test_little_is_in_the_queue_at_a_time(tmp_path: Path) -> None:
    bench = Bench(f"sqlite:///{tmp_path}/index.db", studies=AHEAD + 8)
    key = bench.begin()
    for _ in range(5):
        bench.carry()
    assert bench.index.queue.count(Which((FETCH,))) == {State.WAITING: AHEAD}
    assert bench.jobs.studies.open(key) == {"todo": 8, "queued": AHEAD}
    bench.run()
    assert part(bench.told(key), "studies") == (AHEAD + 8, 0, AHEAD + 8, 0, 0)


def test_the_end_of_a_fetch_is_heard(bench: Bench) -> None:
    key = bench.begin()
    bench.carry()
    bench.carry()
    (task,) = bench.index.tasks(kind=CARRY)
    assert (task.reason, task.due - bench.now) == (WAITS, 300.0)
    bench.lane.step()
    assert bench.index.tasks(kind=CARRY)[0].due - bench.now < 1.0
    bench.lane.step()
    bench.lane.step()
    bench.now += 1.0
    bench.carry()
    assert bench.job(key).state == DONE


def test_a_paused_job_takes_its_studies_out_of_the_queue_and_goes_on_with_them(bench: Bench) -> None:
    key, other = bench.begin(), bench.begin()
    for _ in range(4):
        bench.carry()
    assert bench.jobs.pause(key, bench.now)
    assert not bench.jobs.pause(key, bench.now)
    assert bench.index.queue.count(Which((FETCH,))) == {State.WAITING: 3}  # the other one wants them too
    assert bench.jobs.pause(other, bench.now)
    assert bench.index.queue.count(Which((FETCH,))) == {}
    assert bench.jobs.studies.open(other) == {"todo": 3}
    bench.run(steps=20)
    assert bench.peer.asked == []
    assert bench.jobs.resume(key, bench.now) and bench.jobs.resume(other, bench.now)
    bench.run()
    for number in (key, other):  # whichever was first has fetched them
        listed, here, fetched, *rest = part(bench.told(number), "studies")
        assert (listed, here + fetched, *rest) == (3, 3, 0, 0)
    assert len(bench.peer.asked) == 3


def test_a_cancelled_job_ends_and_its_report_still_balances(bench: Bench) -> None:
    key = bench.begin()
    for _ in range(2):
        bench.carry()
    bench.lane.step()
    assert bench.jobs.cancel(key, bench.now)
    bench.run(steps=20)
    found = bench.told(key)
    assert (found["state"], found["studies"]["cancelled"]) == ("cancelled", 2)
    assert part(found, "studies") == (3, 0, 1, 0, 0)
    assert not bench.jobs.resume(key, bench.now)
    assert len(bench.peer.asked) == 1


def test_fetches_that_a_person_cancels_have_failed_and_purged_ones_are_looked_at_again(bench: Bench) -> None:
    key = bench.begin()
    for _ in range(2):
        bench.carry()
    ids = [task.id for task in bench.index.tasks(kind=FETCH)]
    bench.index.queue.cancel(Which(ids=tuple(ids[:1])), bench.now, "cancelled by hand")
    bench.index.delete_tasks(ids[1:2])
    bench.now += 301.0
    bench.run()
    found = bench.told(key)
    assert part(found, "studies") == (3, 0, 2, 1, 0)
    assert part(found, "instances") == (6, 0, 4, 2, 0)
    assert found["failures"][0]["reason"] == "cancelled by hand"


def test_a_job_whose_task_was_taken_away_can_be_resumed(bench: Bench) -> None:
    key = bench.begin()
    bench.index.delete_tasks([task.id for task in bench.index.tasks(kind=CARRY)])
    assert not bench.carry()
    assert bench.jobs.resume(key, bench.now)
    bench.run()
    assert bench.job(key).state == DONE


def test_a_peer_that_does_not_answer_is_asked_again_and_the_reason_is_seen(bench: Bench) -> None:
    bench.peer.gone = Unreachable("The remote AE could not be reached", "no answer in time")
    key = bench.begin()
    bench.carry()
    assert bench.job(key).reason.endswith("no answer in time")
    assert not bench.carry()
    bench.peer.gone, bench.now = None, bench.now + 60.0
    bench.run()
    assert (bench.job(key).state, bench.job(key).reason) == (DONE, "")


def test_many_jobs_for_the_same_studies_are_one_retrieval_of_each(bench: Bench) -> None:
    keys = [bench.begin(since="2020-01-01", until=f"2020-02-{day:02}") for day in range(1, 13)]
    bench.run()
    assert {bench.job(key).state for key in keys} == {DONE}
    assert {part(bench.told(key), "studies")[0] for key in keys} == {3}
    assert len(bench.peer.asked) == 3


def test_outside_of_its_hours_a_job_waits(bench: Bench) -> None:
    key = bench.begin(window=[[[], 0, 1], [[0], 60, 61]])
    bench.carry()
    assert bench.job(key).reason.startswith("window closed until")
    assert bench.peer.questions == []


def test_studies_begin_no_faster_than_told(bench: Bench) -> None:
    bench.begin(per_minute=6)
    for _ in range(2):
        bench.carry()
    assert [task.due - bench.now for task in bench.index.tasks(kind=FETCH)] == [0.0, 10.0, 20.0]


def test_a_migration_leaves_others_the_way(bench: Bench) -> None:
    bench.begin()
    bench.begin(IMPORT, keys={"PatientID": "P1"})
    bench.carry()
    bench.carry()
    bench.carry()
    assert {task.priority for task in bench.index.tasks(kind=FETCH)} == {-1}
    bench.carry()
    assert {task.priority for task in bench.index.tasks(kind=FETCH)} == {0}  # a person waits for it


def test_answers_that_were_not_asked_for_are_not_taken(bench: Bench) -> None:
    bench.peer.patients = {"1.1": "P1", "1.2": "P2", "1.3": "p1"}
    bench.catalogue._fits = lambda uid, keys: True  # type: ignore[method-assign]
    key = bench.begin(IMPORT, keys={"PatientID": "P1"})
    bench.run()
    assert part(bench.told(key), "studies") == (2, 0, 2, 0, 0)
    assert "not asked for" in bench.told(key)["notes"][0]
    dated = bench.begin(since="2021-01-01", until="2021-12-31")
    bench.run()
    assert part(bench.told(dated), "studies") == (0, 0, 0, 0, 0)


def test_only_series_that_fit_are_fetched(bench: Bench) -> None:
    bench.peer.studies["1.1"]["1.1.7"] = ["1.1.7.1"]
    key = bench.begin(IMPORT, series_keys={"SeriesNumber": "7"})
    bench.run()
    assert bench.peer.asked == [("1.1", "1.1.7", ())]
    assert part(bench.told(key), "studies") == (1, 0, 1, 0, 0)


def test_a_limit_of_which_the_peer_says_nothing_is_found_out(tmp_path: Path) -> None:
    bench = Bench(f"sqlite:///{tmp_path}/index.db", studies=230)
    bench.peer.dates = {f"1.{n}": f"20{n % 20:02}0101" for n in range(1, 231)}
    bench.peer.most = 100
    key = bench.begin(since="2000-01-01", until="2030-12-31", compare="counts")
    bench.index.add(
        [arrival(study, series, uid) for study, found in bench.peer.studies.items()
         for series, uids in found.items() for uid in uids]
    )  # fmt: skip
    bench.run()
    assert part(bench.told(key), "studies") == (230, 230, 0, 0, 0)


def crowd(index_url: str, patients: list[str], **peer: Any) -> Bench:
    """More studies on one day than the peer answers."""
    bench = Bench(index_url, studies=len(patients), limit=peer.pop("limit", 20))
    bench.peer.patients = dict(zip(bench.peer.studies, patients, strict=True))
    for name, value in peer.items():
        setattr(bench.catalogue, name, value)
    return bench


@pytest.mark.parametrize("patients", ["P{}", "", "0{}"])
def test_a_peer_that_does_not_look_at_patient_ids_is_not_asked_by_them_without_end(
    tmp_path: Path, patients: str
) -> None:
    bench = crowd(f"sqlite:///{tmp_path}/index.db", [patients.format(number) for number in range(30)])
    fits = bench.catalogue._fits
    bench.catalogue._fits = lambda uid, keys: fits(uid, {**keys, "PatientID": "*"})  # type: ignore[method-assign]
    key = bench.begin(since="2020-01-31", until="2020-01-31")
    bench.run()
    assert bench.told(key)["state"] == DONE
    assert part(bench.told(key), "studies") == (20, 0, 20, 0, 0)
    assert len(bench.peer.questions) < 100
    assert "may not have been listed" in " ".join(bench.told(key)["notes"])


def test_a_peer_that_ignores_the_case_of_letters_is_asked_for_each_patient_once(tmp_path: Path) -> None:
    bench = crowd(f"sqlite:///{tmp_path}/index.db", [f"ABC{number:02}" for number in range(30)])
    fits = bench.catalogue._fits

    def any_case(uid: str, keys: Any) -> bool:
        return fits(uid, {**keys, "PatientID": keys.get("PatientID", "*").upper()})

    bench.catalogue._fits = any_case  # type: ignore[method-assign]
    key = bench.begin(since="2020-01-31", until="2020-01-31")
    bench.run()
    assert part(bench.told(key), "studies") == (30, 0, 30, 0, 0)
    assert len(bench.peer.questions) < 500


def test_a_peer_that_does_not_look_at_dates_and_gives_none_is_not_asked_day_by_day(bench: Bench) -> None:
    bench.catalogue.limit, bench.peer.dates = 3, {}
    bench.catalogue._fits = lambda uid, keys: True  # type: ignore[method-assign]
    key = bench.begin(since="2000-01-01", until="2030-12-31")
    bench.run()
    assert part(bench.told(key), "studies") == (3, 0, 3, 0, 0)
    assert len(bench.peer.questions) == 1 and "may not have been listed" in bench.told(key)["notes"][0]


def test_a_peer_that_has_too_many_answers_to_whatever_it_is_asked_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "IN_VAIN", 5)
    studies = bench.catalogue.studies
    bench.catalogue.studies = lambda keys: Answers([], True)  # type: ignore[method-assign]
    key = bench.begin()
    for _ in range(6):
        assert bench.carry()
    assert bench.told(key)["why"] == "peer has too many answers to whatever it is asked"
    assert not bench.carry()
    bench.catalogue.studies = studies  # type: ignore[method-assign]
    bench.run()
    assert part(bench.told(key), "studies") == (3, 0, 3, 0, 0)


def test_series_that_were_not_asked_for_are_not_fetched(bench: Bench) -> None:
    bench.peer.studies["1.1"]["1.1.7"] = ["1.1.7.1"]
    bench.catalogue.heedless = True
    key = bench.begin(IMPORT, series_keys={"SeriesNumber": "7"})
    bench.run()
    assert bench.peer.asked == [("1.1", "1.1.7", ())]
    assert part(bench.told(key), "studies") == (1, 0, 1, 0, 0)
    assert bench.told(key)["notes"] == ["the peer lists series that were not asked for"]


@pytest.mark.parametrize("ending", ["pause", "cancel"])
def test_what_is_answered_after_a_person_has_held_it_up_begins_nothing(bench: Bench, ending: str) -> None:
    key, studies = bench.begin(), bench.catalogue.studies

    def meanwhile(keys: Any) -> Answers:
        assert getattr(bench.jobs, ending)(key, bench.now)
        return studies(keys)

    bench.catalogue.studies = meanwhile  # type: ignore[method-assign]
    before = bench.job(key).plan
    bench.carry()
    assert (bench.job(key).plan, bench.told(key)["studies"]["listed"]) == (before, 0)
    bench.run(steps=10)
    assert bench.peer.asked == [] and not bench.index.tasks(kind=CARRY)
    bench.catalogue.studies = studies  # type: ignore[method-assign]
    if ending == "pause":
        assert bench.jobs.resume(key, bench.now)
        bench.run()
        assert part(bench.told(key), "studies") == (3, 0, 3, 0, 0)


def test_studies_of_a_job_that_was_cancelled_meanwhile_are_not_put_into_the_queue(bench: Bench) -> None:
    key = bench.begin()
    bench.carry()
    job = bench.job(key)
    assert bench.jobs.cancel(key, bench.now)
    bench.carrying._feed(job, Order(**job.options), bench.now)
    assert not bench.jobs.studies.answered(job, [Found("1.9")], [], [], bench.now)
    assert bench.index.tasks(kind=FETCH) == []
    assert part(bench.told(key), "studies")[0] == bench.told(key)["studies"]["cancelled"] == 3


def test_a_job_that_is_resumed_while_its_task_is_given_up_keeps_one(bench: Bench) -> None:
    key = bench.begin()
    assert bench.jobs.pause(key, bench.now)
    (task,) = bench.index.lease(CARRY, "carrier", bench.now, seconds=60.0, limit=1, lane="FAR")
    assert bench.jobs.resume(key, bench.now)
    assert not bench.jobs.leave(key, task.id, "carrier")
    assert bench.jobs.pause(key, bench.now) and bench.jobs.leave(key, task.id, "carrier")
    assert bench.index.tasks(kind=CARRY) == []
    assert bench.jobs.resume(key, bench.now)
    bench.run()
    assert bench.job(key).state == DONE


def test_a_study_that_somebody_joins_while_a_job_is_paused_stays_in_the_queue(bench: Bench) -> None:
    key = bench.begin()
    bench.carry()
    bench.carry()
    enqueue(bench.index, "FAR", "1.1", bench.now, why="somebody")
    assert bench.jobs.pause(key, bench.now)
    assert [task.study_uid for task in bench.index.tasks(kind=FETCH)] == ["1.1"]
