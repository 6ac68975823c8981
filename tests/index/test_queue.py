"""The outbox as a queue with lanes: priorities, many outcomes at once, lanes held up, lists and bulk changes."""

from __future__ import annotations

import select

import pytest

from archive.index import Index, NewTask, Settled, State, Which
from archive.index.wakes import Wakes
from tests.index.made import arrival


def add(
    index: Index, *sops: str, lane: str = "WS1", priority: int = 0, due: float = 10.0, study: str = "1.1"
) -> list[int]:
    new = [NewTask("deliver", {"sop": sop}, due, lane, study, priority) for sop in sops]
    return index.add_tasks(new, 1.0)


def leased(index: Index, limit: int = 10, lane: str = "WS1", now: float = 10.0, owner: str = "me") -> list[str]:
    tasks = index.lease("deliver", owner, now, seconds=5, limit=limit, lane=lane, durable=False)
    return [task.payload["sop"] for task in tasks]


def test_higher_priorities_go_first_and_the_rest_in_the_order_of_arrival(index: Index) -> None:
    add(index, "a", "b")
    add(index, "later", due=20.0)
    add(index, "low", priority=-1)
    add(index, "first", priority=1)
    assert leased(index, 2) == ["first", "a"]
    assert leased(index) == ["b", "low"]
    assert index.next_due("deliver", lane="WS1") == 15.0


def test_a_task_wanted_once_is_not_added_while_one_waits(index: Index) -> None:
    once = NewTask("route", {}, 5.0, "1.2", once=True)
    assert len(index.add_tasks([once, once], 1.0)) == 1
    index.add([arrival("1.2", tasks=(once,))])
    assert len(index.tasks(kind="route")) == 1
    index.lease("route", "me", 5.0, seconds=5)
    assert len(index.add_tasks([once], 6.0)) == 1  # what is looked at now may have missed what came since


def test_every_lane_tells_when_its_next_task_is_due(index: Index) -> None:
    assert index.queue.heads("deliver") == {}
    add(index, "a", lane="A", due=10.0)
    add(index, "b", lane="A", due=7.0, priority=-1)
    add(index, "c", lane="B", due=30.0)
    index.add_tasks([NewTask("route", {}, lane="C")], 1.0)
    assert index.queue.heads("deliver") == {"A": 7.0, "B": 30.0}
    leased(index, lane="B", now=30.0)
    assert index.queue.heads("deliver")["B"] == 35.0
    index.queue.cancel(Which(lane="A"), 40.0, "no")
    assert index.queue.heads("deliver") == {"B": 35.0}


def test_outcomes_of_many_tasks_are_written_together(index: Index) -> None:
    sent, failed, again, back, other = add(index, "a", "b", "c", "d", "e")
    assert len(leased(index)) == 5
    outcomes = [
        Settled(sent, State.DONE, "0000 (success)"),
        Settled(failed, State.FAILED, "no such class"),
        Settled(again, State.WAITING, "A700", 50.0),
        Settled(back, State.WAITING, "window", 60.0, counted=False),
        Settled(other, State.WAITING, "to be found", 12.0, kind="verify"),
    ]
    assert index.queue.settle("me", 11.0, outcomes) == {sent, failed, again, back, other}
    found = {task.id: task for task in index.tasks()}
    assert [(found[key].state, found[key].reason) for key in (sent, failed)] == [
        (State.DONE, "0000 (success)"), (State.FAILED, "no such class"),
    ]  # fmt: skip
    assert [(found[key].attempts, found[key].due, found[key].kind) for key in (again, back, other)] == [
        (1, 50.0, "deliver"), (0, 60.0, "deliver"), (0, 12.0, "verify"),
    ]  # fmt: skip


def test_only_the_owner_of_a_lease_settles_or_releases_it(index: Index) -> None:
    (key,) = add(index, "a")
    leased(index)
    assert index.queue.settle("you", 11.0, [Settled(key, State.DONE)]) == set()
    assert index.queue.release("you", [key]) == 0
    assert index.queue.owners("deliver") == ["me"]
    assert index.queue.release("me") == 1
    (task,) = index.tasks()
    assert (task.state, task.attempts, task.due, task.owner) == (State.WAITING, 0, 10.0, "")
    assert index.queue.release("me", []) == 0


def test_what_is_put_off_can_be_called_back(index: Index) -> None:
    key, other = add(index, "a", "b")
    leased(index)
    index.queue.settle("me", 11.0, [
        Settled(key, State.WAITING, "window closed until 22:00", 90.0), Settled(other, State.WAITING, "A700", 90.0),
    ])  # fmt: skip
    assert index.queue.recall("deliver", 20.0, "window closed") == 1
    assert leased(index, now=20.0) == ["a"]


def test_what_has_waited_too_long_for_its_destination_fails(index: Index) -> None:
    add(index, "old", due=5.0)
    add(index, "new", due=50.0)
    assert index.queue.expire("deliver", "WS1", 20.0, 60.0, "not reached") == 1
    assert index.queue.expire("deliver", "WS1", 20.0, 60.0, "not reached") == 0
    (task,) = index.tasks(state=State.FAILED)
    assert (task.payload["sop"], task.reason, task.finished) == ("old", "not reached", 60.0)


def test_what_nobody_holds_any_more_has_waited_too(index: Index) -> None:
    """Its owner died on another machine, or nobody could tell that it had."""
    add(index, "a")
    assert leased(index) == ["a"]
    lease_until = index.tasks()[0].lease_until
    assert lease_until is not None
    assert index.queue.expire("deliver", "WS1", 20.0, lease_until - 0.1, "not reached") == 0
    assert index.queue.expire("deliver", "WS1", 20.0, lease_until, "not reached") == 1
    (task,) = index.tasks()
    assert (task.state, task.reason, task.lease_until) == (State.FAILED, "not reached", None)


def test_a_lane_is_held_up_and_its_workers_hear_of_it(index: Index) -> None:
    assert index.queue.lane("WS1").paused is None
    wakes: Wakes = index.listen()
    index.queue.hold("WS1", ["deliver"], paused=5.0, paused_why="move of the rack")
    assert select.select([wakes.fileno()], [], [], 10)[0]
    assert wakes.take() == {"deliver"}
    index.queue.hold("WS1", down_since=6.0, down_until=7.0, down_tries=2, down_why="refused")
    lane = index.queue.lane("WS1")
    assert (lane.paused, lane.paused_why, lane.down_until, lane.down_tries) == (5.0, "move of the rack", 7.0, 2)
    assert index.queue.hold("WS1", paused=None, paused_why="").down_why == "refused"
    assert list(index.queue.lanes()) == ["WS1"]
    wakes.close()


@pytest.mark.parametrize(
    ("which", "found"),
    [
        (Which(), "abcd"),
        (Which(lane="WS2"), "d"),
        (Which(study_uid="1.2"), "c"),
        (Which(states=(State.FAILED,)), "a"),
        (Which(reason="OUT OF"), "a"),
        (Which(kinds=("route",)), ""),
        (Which(since=2.0), ""),
        (Which(until=2.0, states=(State.WAITING, State.LEASED)), "bcd"),
    ],
)
def test_tasks_are_found_by_lane_study_state_reason_and_time(index: Index, which: Which, found: str) -> None:
    first, _ = add(index, "a", "b")
    add(index, "c", study="1.2")
    add(index, "d", lane="WS2")
    leased(index, 1)
    index.fail(first, "me", 11.0, "A700 (out of resources)")
    assert "".join(task.payload["sop"] for task in index.queue.select(which, limit=10)) == found
    assert "".join(task.payload["sop"] for task in index.queue.latest(which, limit=10)) == found
    assert sum(index.queue.count(which).values()) == len(found)


def test_bulk_changes_leave_alone_what_is_leased(index: Index) -> None:
    keys = add(index, *map(str, range(1200)))
    leased(index, 1)
    assert index.queue.cancel(Which(lane="WS1"), 11.0, "by hand") == 1199
    assert index.queue.open(["deliver"]) == {("WS1", State.LEASED): 1, ("WS1", State.FAILED): 1199}
    assert index.queue.again(Which(states=(State.FAILED,)), 12.0) == 1199
    assert index.queue.again(Which(ids=tuple(keys[:1])), 12.0) == 0
    index.queue.cancel(Which(ids=tuple(keys[1:3])), 13.0, "by hand")
    assert index.queue.purge(Which(lane="WS1")) == 2
    assert len(index.tasks(limit=5000)) == 1198


def test_history_is_pruned_in_pieces(index: Index) -> None:
    add(index, *map(str, range(600)))
    index.queue.cancel(Which(), 20.0, "x")
    add(index, "stays")
    assert index.queue.prune(20.0) == 0
    assert [index.queue.prune(21.0) for _ in range(3)] == [500, 100, 0]
    assert len(index.tasks()) == 1


def test_stored_instances_are_described_for_rules(index: Index) -> None:
    index.add([
        arrival("1.1", sop="1.1.1.1", StudyDescription="Chest", received=5.0),
        arrival("1.1", "1.1.2", sop="1.1.2.1", Modality="SR", received=6.0),
        arrival("1.2", sop="1.2.1.1", received=7.0),
    ])  # fmt: skip
    words = ("Modality", "StudyDescription", "PatientID", "TimeOfDay", "SOPInstanceUID", "ModalitiesInStudy")
    found = list(index.queue.described(words, study_uid="1.1"))
    assert [dict(each.values) for each in found] == [
        {"Modality": modality, "StudyDescription": "Chest", "PatientID": "P1", "SOPInstanceUID": uid}
        for modality, uid in (("CT", "1.1.1.1"), ("SR", "1.1.2.1"))
    ]
    assert (found[0].source, found[0].address, found[0].received) == ("CT1", "10.0.0.1", 5.0)
    assert [each.instance.sop_instance_uid for each in index.queue.described((), since=6.0)] == ["1.1.2.1", "1.2.1.1"]
    assert [each.received for each in index.queue.described((), series_uid="1.1.2")] == [6.0]
    assert set(index.queue.stored(["1.1.1.1", "9.9"])) == {"1.1.1.1"}
    assert list(index.queue.of_study("deliver", "1.1")) == []
