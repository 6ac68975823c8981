"""Fetching, step by step: a peer that does as it is told, a clock that is set, both databases."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from archive.errors import Refused, Unreachable
from archive.index import Index, State, Task, open_index
from archive.services.fetching import FETCH, FROM, PIECE, Retrieval, enqueue, fetch
from archive.services.fetchlane import EXTRA, LOSSES, FetchLane, Terms
from archive.services.schedule import Schedule
from tests.index.made import arrival
from tests.services.peer import Peer

TERMS = Terms(delays=(10.0, 20.0), give_up=1000.0)
LANE = f"{FROM}FAR"
STUDY = {"1.1.1": ["1.1.1.1", "1.1.1.2"], "1.1.2": ["1.1.2.1"]}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def index(index_url: str) -> Index:
    return open_index(index_url)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def peer(index: Index) -> Peer:
    return Peer(index, {"1.1": {uid: list(instances) for uid, instances in STUDY.items()}})


def lane(index: Index, peer: Peer, clock: Clock, terms: Terms = TERMS, **more: Callable[[int], None]) -> FetchLane:
    return FetchLane(LANE, index, lambda: peer, terms, owner="me", clock=clock, wait=lambda _: None, **more)


def want(index: Index, clock: Clock, **more: object) -> int:
    return enqueue(index, "FAR", "1.1", clock(), **more)  # type: ignore[arg-type]


def only(index: Index) -> Task:
    (task,) = index.tasks(kind=FETCH)
    return task


def test_what_is_missing_is_fetched_and_what_is_here_is_not(index: Index, peer: Peer, clock: Clock) -> None:
    index.add([arrival("1.1", "1.1.1", "1.1.1.1")])
    want(index, clock)
    lane(index, peer, clock).step()
    assert peer.asked == [("1.1", "1.1.1", ("1.1.1.2",)), ("1.1", "1.1.2", ())]
    assert (only(index).state, only(index).reason) == (State.DONE, "2 of 3 instances fetched, 1 were here")
    assert only(index).payload["result"] == {
        "series": 2, "series_here": 0, "series_fetched": 2, "series_failed": 0,
        "instances": 3, "here": 1, "fetched": 2, "failed": 0,
    }  # fmt: skip


def test_the_second_trigger_moves_nothing(index: Index, peer: Peer, clock: Clock) -> None:
    for _ in range(2):
        want(index, clock)
        lane(index, peer, clock).step()
    assert [task.reason for task in index.tasks(kind=FETCH)] == [
        "3 of 3 instances fetched", "all 3 instances were here",
    ]  # fmt: skip
    assert peer.asked == [("1.1", "", ())]


def test_a_thousand_triggers_are_one_retrieval(index: Index, peer: Peer, clock: Clock) -> None:
    threads = [
        threading.Thread(target=lambda: [want(index, clock) for _ in range(20)])
        for _ in range(10)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert only(index).state is State.WAITING
    peer.during = lambda: index.add_tasks([fetch("FAR", "1.1")] * 100, clock())  # type: ignore[assignment, return-value]
    worker = lane(index, peer, clock)
    worker.step()
    worker.step()
    assert len(peer.asked) == 1  # what was wanted meanwhile looked, and found all of it here
    assert [task.state for task in index.tasks(kind=FETCH)] == [State.DONE] * 2


def test_whoever_joins_widens_what_waits(index: Index, clock: Clock) -> None:
    first = want(index, clock, series=["1.1.2"], due=5000.0, priority=-1)
    assert want(index, clock, series=["1.1.1"], due=3000.0) == first
    assert (only(index).payload["series"], only(index).due, only(index).priority) == (["1.1.1", "1.1.2"], 3000.0, 0)
    assert want(index, clock, priority=1) == first
    assert (only(index).payload["series"], only(index).priority) == ([], 1)
    assert enqueue(index, "OTHER", "1.1", clock()) != first
    assert enqueue(index, "FAR", "1.2", clock()) != first


def test_a_cause_adds_it_with_its_transaction(index: Index, clock: Clock) -> None:
    index.add([arrival("1.1", tasks=(fetch("FAR", "9.9"),)), arrival("1.2", tasks=(fetch("FAR", "9.9"),))])
    assert only(index).study_uid == "9.9"


def test_only_some_series_are_fetched(index: Index, peer: Peer, clock: Clock) -> None:
    want(index, clock, series=["1.1.2"])
    lane(index, peer, clock).step()
    assert peer.asked == [("1.1", "1.1.2", ())]
    want(index, clock, series=["1.1.9"])
    lane(index, peer, clock).step()
    assert index.tasks(kind=FETCH)[1].reason == "peer has nothing of these series"


def test_no_count_of_the_peer_is_believed(index: Index, peer: Peer, clock: Clock) -> None:
    peer.cannot = {"1.1.2.1"}  # and it says that all is well
    want(index, clock)
    lane(index, peer, clock).step()
    assert (only(index).state, only(index).attempts) == (State.WAITING, 0)  # something came: that was no try
    assert only(index).reason == "2 of 3 instances fetched, 1 missing"
    for _ in range(3):
        clock.now += 100.0
        lane(index, peer, clock).step()
    assert only(index).state is State.FAILED
    assert only(index).reason == "2 of 3 instances fetched, 1 missing (3 tries)"
    assert only(index).payload["result"]["fetched"] == 2 and only(index).payload["result"]["failed"] == 1


def test_failures_that_the_peer_counts_do_not_matter_when_all_came(index: Index, peer: Peer, clock: Clock) -> None:
    peer.words = "warning (B000), 3 failed"
    want(index, clock)
    lane(index, peer, clock).step()
    assert only(index).state is State.DONE


def test_the_last_word_of_the_peer_is_the_reason(index: Index, peer: Peer, clock: Clock) -> None:
    peer.cannot, peer.words = {"1.1.1.1", "1.1.1.2", "1.1.2.1"}, "sub-operations failed (A702), 3 failed"
    want(index, clock)
    lane(index, peer, clock).step()
    assert only(index).reason == "0 of 3 instances fetched, 3 missing: sub-operations failed (A702), 3 failed"
    assert 1009.0 <= only(index).due <= 1011.0


def test_a_list_that_is_cut_off_is_not_the_whole_series(index: Index, peer: Peer, clock: Clock) -> None:
    peer.studies["1.1"] = {"1.1.1": [f"1.1.1.{number}" for number in range(150)]}
    peer.shown = 100
    want(index, clock)
    lane(index, peer, clock).step()
    assert (only(index).reason, index.statistics().instances) == ("150 of 150 instances fetched", 150)
    peer.counted = {"1.1.1": 160}
    want(index, clock)
    lane(index, peer, clock).step()
    assert index.tasks(kind=FETCH)[1].reason == "0 of 160 instances fetched, 150 were here, 10 missing"


def test_a_series_that_is_counted_and_not_listed_is_fetched_as_a_whole(index: Index, peer: Peer, clock: Clock) -> None:
    peer.shown = 0
    want(index, clock)
    lane(index, peer, clock).step()
    assert (only(index).reason, index.statistics().instances) == ("3 of 3 instances fetched", 3)
    assert (peer.asked, peer.expected) == ([("1.1", "", ())], [None])
    want(index, clock)
    lane(index, peer, clock).step()
    assert index.tasks(kind=FETCH)[1].reason == "all 3 instances were here"


def test_what_is_counted_and_neither_listed_nor_sent_is_missing(index: Index, peer: Peer, clock: Clock) -> None:
    peer.studies["1.1"]["1.1.3"] = []
    peer.counted = {"1.1.3": 4}
    want(index, clock)
    lane(index, peer, clock).step()
    assert only(index).reason == "3 of 7 instances fetched, 4 missing"
    assert only(index).payload["result"]["series_failed"] == 1


def test_a_wrong_count_of_a_short_list_does_no_harm(index: Index, peer: Peer, clock: Clock) -> None:
    peer.counted = {"1.1.1": 7, "1.1.2": 0}
    want(index, clock)
    lane(index, peer, clock).step()
    assert only(index).state is State.DONE


def test_a_large_series_is_compared_in_pieces(index: Index, peer: Peer) -> None:
    uids = [f"1.1.1.{number}" for number in range(PIECE + 20)]
    peer.studies["1.1"] = {"1.1.1": [*uids, *uids]}  # listed twice
    index.add([arrival("1.1", "1.1.1", uid) for uid in uids[:-1]])
    retrieval = Retrieval(index, peer, "1.1")
    retrieval.look()
    assert retrieval.missing() == uids[-1:]


def test_a_peer_that_is_away_holds_up_its_lane_and_no_study_loses_a_try(
    index: Index, peer: Peer, clock: Clock
) -> None:
    peer.gone = Unreachable("The remote AE could not be reached", "no answer in time")
    want(index, clock)
    worker = lane(index, peer, clock)
    worker.step()
    assert (only(index).state, only(index).attempts) == (State.WAITING, 0)
    held = index.queue.lane(LANE)
    assert held.down_why.endswith("no answer in time") and held.down_until is not None
    assert worker.step() == pytest.approx(held.down_until - clock())
    peer.gone, clock.now = None, held.down_until
    worker.step()
    assert only(index).state is State.DONE
    assert index.queue.lane(LANE).down_until is None


def test_what_a_peer_is_away_for_too_long_has_failed(index: Index, peer: Peer, clock: Clock) -> None:
    peer.gone = Unreachable("gone")
    want(index, clock)
    worker = lane(index, peer, clock)
    for _ in range(100):
        clock.now += 30.0
        worker.step()
    assert (only(index).state, only(index).reason) == (State.FAILED, "peer not reached: gone")


def test_a_peer_that_falls_silent_costs_tries_and_then_its_lane(index: Index, peer: Peer, clock: Clock) -> None:
    peer.silent = Unreachable("association lost", "no answer in time")
    for number in range(LOSSES):
        enqueue(index, "FAR", f"1.{number}", clock())
    worker = lane(index, peer, clock)
    for number in range(LOSSES):
        assert index.queue.lane(LANE).down_until is None, number
        worker.step()
    assert index.queue.lane(LANE).down_until is not None
    assert {task.attempts for task in index.tasks(kind=FETCH)} == {1}
    peer.silent, clock.now = None, clock.now + 1000.0
    peer.studies |= {f"1.{number}": {f"1.{number}.1": [f"1.{number}.1.1"]} for number in range(LOSSES)}
    for _ in range(LOSSES):
        worker.step()
    assert {task.state for task in index.tasks(kind=FETCH)} == {State.DONE}
    assert index.queue.lane(LANE).down_until is None


def test_a_refused_operation_does_not_keep_the_others(index: Index, peer: Peer, clock: Clock) -> None:
    index.add([arrival("1.1", "1.1.1", "1.1.1.1")])
    brought = peer.bring

    def refusing(study_uid: str, series_uid: str, uids: object, expected: object) -> str:
        if uids:
            raise Refused("C-MOVE refused", "no images by their UIDs")
        return brought(study_uid, series_uid, (), {})

    peer.bring = refusing  # type: ignore[method-assign, assignment]
    want(index, clock)
    lane(index, peer, clock).step()
    assert only(index).reason.endswith("1 missing: C-MOVE refused: no images by their UIDs")
    assert index.known("1.1.2.1") is not None


def test_what_is_put_aside_in_quarantine_is_not_tried_again(index: Index, peer: Peer, clock: Clock) -> None:
    peer.cannot = {"1.1.2.1"}
    index.quarantine(arrival("1.1", "1.1.2", "1.1.2.1"), "quarantine/1", "study is of another patient")
    want(index, clock)
    lane(index, peer, clock).step()
    assert only(index).state is State.FAILED
    assert only(index).reason.endswith("1 missing: in quarantine: study is of another patient")


def test_outside_its_hours_nothing_begins(index: Index, peer: Peer, clock: Clock) -> None:
    never = Schedule([((), 0, 1), ((0,), 60, 61)])
    want(index, clock)
    assert lane(index, peer, clock, Terms(schedule=never)).step() == 0.0
    assert only(index).reason.startswith("window closed until") and only(index).due > clock()
    assert (only(index).attempts, peer.asked) == (0, [])
    index.add_tasks([fetch("FAR", "1.2", window=[((0,), 60, 61)])], clock())
    lane(index, peer, clock).step()
    assert [task.reason[:13] for task in index.tasks(kind=FETCH)] == ["window closed"] * 2


def test_no_more_studies_and_bytes_begin_than_may(index: Index, peer: Peer, clock: Clock) -> None:
    waited: list[float] = []
    terms = Terms(rate=1000, per_minute=6)
    worker = FetchLane(LANE, index, lambda: peer, terms, owner="me", clock=clock, wait=waited.append)
    peer.studies["1.2"] = {"1.2.1": ["1.2.1.1"]}
    want(index, clock)
    enqueue(index, "FAR", "1.2", clock())
    worker.step()
    assert waited == [3.0]  # as long as three objects of 1,000 bytes should take
    assert worker.step() == 10.0
    clock.now += 10.0
    worker.step()
    assert {task.state for task in index.tasks(kind=FETCH)} == {State.DONE}


def test_a_paused_peer_is_left_alone(index: Index, peer: Peer, clock: Clock) -> None:
    index.queue.hold(LANE, paused=clock())
    want(index, clock)
    assert lane(index, peer, clock).step() is None
    assert peer.asked == []


def test_a_study_is_not_fetched_twice_at_a_time(index: Index, peer: Peer, clock: Clock) -> None:
    want(index, clock)
    assert index.lease(FETCH, "somebody else", clock(), seconds=60.0, limit=1)
    want(index, clock)
    lane(index, peer, clock).step()
    assert (peer.asked, index.tasks(kind=FETCH)[1].reason) == ([], "the study is being fetched")


def test_what_ends_its_process_again_and_again_is_given_up(index: Index, peer: Peer, clock: Clock) -> None:
    key = want(index, clock)
    for _ in range(len(TERMS.delays) + EXTRA):
        index.lease(FETCH, "dead", clock(), seconds=60.0, limit=1)
        index.retry(key, "dead", clock(), "its process ended without a word")
    lane(index, peer, clock).step()
    assert (only(index).state, peer.asked) == (State.FAILED, [])
    assert only(index).reason == f"its process ended without a word ({len(TERMS.delays) + EXTRA} tries)"


def test_a_fault_of_our_own_is_a_failure_like_any_other(index: Index, peer: Peer, clock: Clock) -> None:
    def faulty() -> None:
        raise ZeroDivisionError

    peer.during = faulty
    want(index, clock)
    lane(index, peer, clock).step()
    assert only(index).state is State.WAITING and "internal error" in only(index).reason


def test_who_waits_for_it_is_told_of_the_end_only(index: Index, peer: Peer, clock: Clock) -> None:
    ends: list[int] = []
    peer.cannot = {"1.1.2.1"}
    key = want(index, clock)
    lane(index, peer, clock, ended=ends.append).step()
    assert ends == []
    peer.cannot, clock.now = set(), clock.now + 100.0
    lane(index, peer, clock, ended=ends.append).step()
    assert ends == [key]
    assert json.loads(json.dumps(only(index).payload["result"]))["fetched"] == 3


def test_what_is_under_way_at_the_end_is_given_back(index: Index, peer: Peer, clock: Clock) -> None:
    want(index, clock)
    worker = lane(index, peer, clock)
    peer.during = worker.stop
    worker.step()
    assert (only(index).state, only(index).attempts) == (State.WAITING, 0)
    assert worker.step() is None
