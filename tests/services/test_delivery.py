"""Delivering, step by step: a destination that does as it is told, a clock that is set, both databases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from archive.errors import Unreachable
from archive.index import Index, State, StoredInstance, Task
from archive.services.delivery import DELETED, LEASE, WINDOW_CLOSED, Delivery
from archive.services.destination import Conditions, Delivered, Fate, Terms
from archive.services.proof import Proof
from archive.services.routing import DELIVER, VERIFY, delivery
from archive.services.schedule import Schedule
from tests.index.made import arrival

SENT, AGAIN, REFUSED, LOST = Fate.SENT, Fate.AGAIN, Fate.REFUSED, Fate.LOST
TERMS = Terms(delays=(10.0, 20.0), give_up=1000.0)
CONDITIONS = Conditions(terms={"r": TERMS}, idle=5.0)


@dataclass
class Peer:
    """A destination, and the only channel to it; images are answered when it is told to."""

    there: bool = True
    lacks: set[str] = field(default_factory=set)
    given: list[str] = field(default_factory=list)  # all that was ever handed over, in order
    open_now: bool = False
    probes: int = 0
    alive: bool = True
    reason: str = "no answer in time"
    proof: str = "found there"
    _results: list[Delivered] = field(default_factory=list)

    def open(self, wake: Callable[[], None]) -> Peer:
        self.open_now, self.alive = True, True
        return self

    def probe(self) -> None:
        self.probes += 1
        if not self.there:
            raise Unreachable("connection refused")

    def missing(self, items: Sequence[StoredInstance]) -> set[str]:
        self.probe()
        return {item.sop_instance_uid for item in items} & self.lacks

    def put(self, items: Sequence[tuple[Task, StoredInstance]]) -> None:
        self.given += [instance.sop_instance_uid for _, instance in items]

    def answer(self, fate: Fate, *uids: str, reason: str = "") -> None:
        words = {SENT: "0000 (success)", AGAIN: "A700", REFUSED: "0122", LOST: "association lost"}
        self._results += [Delivered(uid, fate, reason or words[fate]) for uid in uids]

    def results(self) -> list[Delivered]:
        found, self._results = self._results, []
        return found

    def give_up(self) -> None:
        """Nothing is kept."""

    def close(self, grace: float) -> None:
        self.open_now = False


class Lane:
    """One destination's lane with its clock."""

    def __init__(self, index: Index, conditions: Conditions = CONDITIONS) -> None:
        self.index, self.peer, self.now = index, Peer(), 1000.0
        self.work = self.made(conditions)

    def made(self, conditions: Conditions = CONDITIONS) -> Delivery:
        return Delivery(
            "WS1", self.index, self.peer, conditions, owner="me", clock=lambda: self.now, wake=lambda: None
        )

    def add(self, *uids: str, study: str = "1.1", **more: object) -> None:
        self.index.add([arrival(study, sop=uid, received=self.now) for uid in uids])
        self.queue(*uids, study=study, **more)

    def queue(self, *uids: str, study: str = "1.1", **more: object) -> None:
        tasks = [delivery(uid, study, "WS1", self.now, **({"route": "r"} | more)) for uid in uids]  # type: ignore[arg-type]
        self.index.add_tasks(tasks, self.now)

    def step(self, seconds: float = 0.0) -> float | None:
        self.now += seconds
        return self.work.step()

    def begin(self, *uids: str) -> None:
        """Let a first image through, so that the others go together."""
        self.add("0", *uids)
        self.step()
        self.peer.answer(SENT, "0")
        self.step(0.2)

    def ends(self) -> dict[str, tuple[State, str]]:
        return {task.payload["sop"]: (task.state, task.reason) for task in self.tasks()}

    def tasks(self) -> list[Task]:
        return [task for task in self.index.tasks() if task.kind in (DELIVER, VERIFY)]

    def task(self, uid: str) -> Task:
        return next(task for task in self.tasks() if task.payload["sop"] == uid)


@pytest.fixture
def lane(index: Index) -> Lane:
    return Lane(index)


def test_one_image_goes_first_and_then_the_others_in_their_order(lane: Lane) -> None:
    lane.add("a", "b", "c")
    lane.step()
    assert lane.peer.given == ["a"]
    lane.peer.answer(SENT, "a")
    lane.step(0.1)
    lane.step(0.1)
    assert lane.peer.given == ["a", "b", "c"]
    assert lane.task("a").state is State.DONE and lane.task("b").state is State.LEASED
    lane.peer.answer(SENT, "c", "b")
    lane.step(0.05)
    assert lane.step(0.04) is not None  # results wait for each other, a moment
    assert lane.task("b").state is State.LEASED
    lane.step(0.1)
    assert set(lane.ends().values()) == {(State.DONE, "0000 (success)")}


def test_a_refusal_ends_one_image_and_trouble_is_tried_again_until_the_tries_are_used_up(lane: Lane) -> None:
    lane.begin("bad", "full")
    lane.peer.answer(REFUSED, "bad")
    lane.peer.answer(AGAIN, "full")
    lane.step(0.2)
    lane.step(0.2)
    assert lane.ends()["bad"] == (State.FAILED, "0122")
    task = lane.task("full")
    assert (task.state, task.attempts, task.reason) == (State.WAITING, 1, "A700") and task.due > lane.now + 8
    for seconds in (12, 25):
        lane.step(seconds)
        lane.peer.answer(AGAIN, "full")
        lane.step()
        lane.step(0.2)
    assert lane.ends()["full"] == (State.FAILED, "A700 (3 tries)")
    assert lane.peer.given == ["0", "bad", "full", "full", "full"]


def test_an_image_whose_association_broke_is_tried_again_at_once_then_by_the_schedule(lane: Lane) -> None:
    lane.begin("a")
    lane.peer.answer(LOST, "a")
    lane.step(0.2)
    lane.step(0.2)
    lane.step(0.2)
    assert lane.peer.given == ["0", "a", "a"]
    lane.peer.answer(LOST, "a")
    lane.step(0.2)
    lane.step(0.2)
    assert lane.task("a").due > lane.now + 8


def test_an_image_that_was_deleted_ends_with_its_reason(lane: Lane) -> None:
    lane.add("a")
    known = lane.index.known("a")
    assert known is not None
    lane.index.remove([known.id])
    lane.step()
    lane.step(0.2)
    assert lane.ends() == {"a": (State.FAILED, DELETED)} and lane.peer.given == []


def test_a_destination_that_is_gone_costs_no_image_a_try(lane: Lane) -> None:
    lane.begin("a", "b", "c")
    lane.peer.answer(SENT, "a")
    lane.peer.alive, lane.peer.there = False, False
    lane.step(0.2)
    assert [lane.task(uid).attempts for uid in "bc"] == [0, 0] and lane.ends()["a"][0] is State.DONE
    state = lane.index.queue.lane("WS1")
    assert (state.down_tries, state.down_why) == (1, "no answer in time") and state.down_until is not None
    wait = lane.step()
    assert wait is not None and 8 < wait < 12 and lane.peer.probes == 0
    lane.step(12)
    assert (lane.peer.probes, lane.index.queue.lane("WS1").down_tries) == (1, 2)
    lane.peer.there = True
    lane.step(25)
    assert lane.peer.given == ["0", "a", "b", "c", "b"]  # one goes first again
    lane.peer.answer(SENT, "b")
    lane.step(0.2)
    assert lane.peer.given[-1] == "c" and lane.index.queue.lane("WS1").down_until is None


def test_what_has_waited_too_long_for_a_destination_that_is_down_fails(lane: Lane) -> None:
    lane.begin("a")
    lane.peer.alive, lane.peer.there = False, False
    lane.step(0.2)
    lane.step(900)
    lane.queue("b")  # comes late, so that it may wait longer
    lane.step(200)
    assert lane.ends()["a"] == (State.FAILED, "destination not reached: connection refused")
    assert lane.ends()["b"][0] is State.WAITING


def test_a_daemon_that_starts_asks_at_once_whether_a_destination_is_back(lane: Lane) -> None:
    lane.index.queue.hold("WS1", down_since=1.0, down_until=1e9, down_tries=9, down_why="refused")
    lane.add("a")
    lane.step()
    assert lane.peer.probes == 1 and lane.peer.given == ["a"]


def test_a_paused_lane_sends_nothing_more_and_goes_on_afterwards(lane: Lane) -> None:
    lane.begin("a")
    lane.add("b")
    lane.index.queue.hold("WS1", paused=lane.now)
    lane.work.look()
    lane.peer.answer(SENT, "a")
    lane.step(0.2)
    lane.step(0.2)
    assert "b" not in lane.peer.given
    assert lane.ends()["a"][0] is State.DONE and lane.ends()["b"][0] is State.WAITING
    lane.index.queue.hold("WS1", paused=None)
    lane.work.look()
    lane.step(0.2)
    assert lane.peer.given[-1] == "b"


def test_outside_of_its_window_an_image_waits_and_says_until_when(index: Index) -> None:
    def at(hour: int) -> float:
        from datetime import datetime

        return datetime(2026, 1, 5, hour).timestamp()

    night = replace(TERMS, schedule=Schedule([(range(7), 22 * 60, 6 * 60)]))
    lane = Lane(index, Conditions(terms={"r": night}))
    lane.now = at(12)
    lane.add("a")
    lane.step()
    lane.step(0.2)
    task = lane.task("a")
    assert (task.state, task.attempts, task.due) == (State.WAITING, 0, at(22)) and task.reason.startswith(WINDOW_CLOSED)
    assert lane.peer.given == []
    lane.now = at(22)
    lane.step()
    assert lane.peer.given == ["a"]


def test_a_rate_spreads_images_over_time(index: Index) -> None:
    lane = Lane(index, Conditions(rate=1000, terms={"r": TERMS}))  # an image has 1,000 bytes
    lane.begin("a", "b", "c")
    lane.step(1.0)
    given = list(lane.peer.given)
    for _ in range(5):
        wait = lane.step(0.0)
    assert lane.peer.given == given and wait is not None and 0 < wait <= 1.0
    lane.step(1.0)
    assert len(lane.peer.given) == len(given) + 1


def test_an_idle_channel_is_closed_and_opened_again(lane: Lane) -> None:
    lane.begin()
    lane.step(0.2)
    assert lane.peer.open_now
    lane.step(6.0)
    assert not lane.peer.open_now
    lane.add("a")
    lane.step()
    assert lane.peer.open_now and lane.peer.given[-1] == "a"


def test_two_tasks_for_one_image_are_one_sending(lane: Lane) -> None:
    lane.begin("a")
    lane.queue("a", by="somebody")
    lane.step(0.2)
    lane.peer.answer(SENT, "a")
    lane.step(0.2)
    lane.step(0.2)
    assert lane.peer.given == ["0", "a"]
    assert [task.state for task in lane.tasks() if task.payload["sop"] == "a"] == [State.DONE, State.DONE]


def test_a_lease_is_extended_while_its_image_is_under_way(lane: Lane) -> None:
    lane.begin("a")
    lane.step(LEASE / 2 + 1)
    lane.now += LEASE / 2
    assert lane.index.lease(DELIVER, "other", lane.now, seconds=5, lane="WS1") == []


def test_at_the_end_answers_are_written_and_the_rest_is_given_back(lane: Lane) -> None:
    lane.begin("a", "b")
    lane.peer.answer(SENT, "a")
    lane.work.close(1.0)
    assert lane.ends()["a"][0] is State.DONE
    task = lane.task("b")
    assert (task.state, task.attempts) == (State.WAITING, 0) and not lane.peer.open_now


@pytest.fixture
def proven(index: Index) -> Lane:
    terms = replace(TERMS, verify=True)
    return Lane(index, Conditions(terms={"r": terms}))


def proof(lane: Lane) -> Proof:
    conditions = Conditions(terms={"r": replace(TERMS, verify=True)})
    return Proof("WS1", lane.index, lane.peer, conditions, owner="me", clock=lambda: lane.now)


def sent(lane: Lane, *uids: str) -> None:
    lane.begin(*uids)
    lane.peer.answer(SENT, *uids)
    lane.step(0.2)
    lane.step(0.2)


def test_with_a_proof_an_image_is_sent_when_the_destination_finds_it(proven: Lane) -> None:
    sent(proven, "a", "b")
    assert {task.kind for task in proven.tasks()} == {VERIFY}
    assert {task.state for task in proven.tasks()} == {State.WAITING}
    proven.peer.lacks = {"b"}
    proven.now += 5
    proof(proven).step()
    assert proven.ends()["a"] == (State.DONE, "0000 (success), found there")
    for seconds in (15, 30):
        proven.now += seconds
        proof(proven).step()
    words = "answered with success, but not found there (3 tries)"
    assert proven.ends()["b"] == (State.FAILED, words)


def test_a_destination_that_cannot_be_asked_costs_no_try(proven: Lane) -> None:
    sent(proven, "a")
    proven.peer.there = False
    proven.now += 5
    proof(proven).step()
    task = proven.task("a")
    assert (task.state, task.attempts) == (State.WAITING, 0) and "cannot be asked" in task.reason


