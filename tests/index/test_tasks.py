"""The outbox: leases, attempts, history; callers and quarantine beside it."""

from __future__ import annotations

import threading

from archive.index import Index, NewTask, State, open_index
from tests.index.made import arrival


def add(index: Index, *lanes: str, kind: str = "route", due: float = 10.0) -> list[int]:
    return index.add_tasks([NewTask(kind, {"lane": lane}, due=due, lane=lane) for lane in lanes], 1.0)


def test_a_task_is_leased_when_it_is_due_and_to_one_owner_only(index: Index) -> None:
    (key,) = add(index, "A")
    assert index.lease("route", "me", 9.9, seconds=5) == []
    (task,) = index.lease("route", "me", 10.0, seconds=5)
    assert (task.id, task.state, task.attempts, task.owner, task.lease_until) == (key, State.LEASED, 1, "me", 15.0)
    assert dict(task.payload) == {"lane": "A"}
    assert index.lease("route", "you", 14.9, seconds=5) == []


def test_an_expired_lease_goes_to_the_next_and_the_first_owner_learns_it(index: Index) -> None:
    (key,) = add(index, "A")
    index.lease("route", "me", 10.0, seconds=5)
    (task,) = index.lease("route", "you", 15.0, seconds=5)
    assert (task.attempts, task.owner) == (2, "you")
    assert index.heartbeat([key], "me", 16.0, seconds=5) == []
    assert not index.finish(key, "me", 16.0)
    assert not index.fail(key, "me", 16.0, "no")
    assert index.finish(key, "you", 17.0)


def test_a_heartbeat_extends_the_lease(index: Index) -> None:
    (key,) = add(index, "A")
    index.lease("route", "me", 10.0, seconds=5)
    assert index.heartbeat([key], "me", 14.0, seconds=5) == [key]
    assert index.lease("route", "you", 18.9, seconds=5) == []
    assert len(index.lease("route", "you", 19.0, seconds=5)) == 1


def test_a_task_is_retried_later_then_fails_for_good_and_can_be_requeued(index: Index) -> None:
    (key,) = add(index, "A")
    index.lease("route", "me", 10.0, seconds=5)
    assert index.retry(key, "me", 60.0, "refused")
    assert index.lease("route", "me", 59.0, seconds=5) == []
    (task,) = index.lease("route", "me", 60.0, seconds=5)
    assert (task.attempts, task.reason) == (2, "refused")
    assert index.fail(key, "me", 61.0, "gone")
    (task,) = index.tasks(state=State.FAILED)
    assert (task.reason, task.finished, task.lease_until) == ("gone", 61.0, None)
    assert index.lease("route", "me", 1e9, seconds=5) == []
    assert index.requeue([key], 70.0) == 1
    (task,) = index.lease("route", "me", 70.0, seconds=5)
    assert task.attempts == 1


def test_lanes_are_leased_apart(index: Index) -> None:
    add(index, "A", "A", "B")
    add(index, "C", due=99.0)
    assert index.lanes("route", 10.0) == ["A", "B"]
    assert len(index.lease("route", "me", 10.0, seconds=5, limit=10, lane="A")) == 2
    assert index.lanes("route", 10.0) == ["B"]
    assert [task.lane for task in index.lease("route", "me", 10.0, seconds=5, limit=10)] == ["B"]
    assert index.next_due("route") == 15.0
    assert index.next_due("route", lane="C") == 99.0
    assert index.next_due("commit") is None


def test_history_is_kept_until_it_is_purged(index: Index) -> None:
    first, second, third = add(index, "A", "A", "A")
    index.lease("route", "me", 10.0, seconds=5, limit=3)
    index.finish(first, "me", 20.0, reason="sent")
    index.finish(second, "me", 30.0, keep=False)
    index.fail(third, "me", 40.0, "no")
    assert [task.id for task in index.tasks()] == [first, third]
    assert index.task_counts() == {("route", "A", State.DONE): 1, ("route", "A", State.FAILED): 1}
    assert index.purge_tasks(35.0) == 1
    assert index.delete_tasks([third]) == 1
    assert index.tasks() == []


def test_tasks_are_listed_by_kind_lane_and_state_in_pages(index: Index) -> None:
    keys = add(index, "A", "B", "A") + add(index, "A", kind="commit")
    assert [task.id for task in index.tasks(kind="route", lane="A")] == [keys[0], keys[2]]
    assert [task.id for task in index.tasks(limit=2)] == keys[:2]
    assert [task.id for task in index.tasks(after=keys[1])] == keys[2:]
    assert index.tasks(state=State.DONE) == []


def test_many_workers_of_two_processes_share_the_tasks_without_doubles(index: Index, index_url: str) -> None:
    keys = add(index, *"ABCDEFGHIJ" * 6)
    other = open_index(index_url)
    taken: list[int] = []

    def work(through: Index, owner: str) -> None:
        while tasks := through.lease("route", owner, 10.0, seconds=100, limit=3):
            taken.extend(task.id for task in tasks)

    threads = [threading.Thread(target=work, args=((index, other)[n % 2], f"w{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == keys
    other.close()


def test_refused_callers_are_counted_and_forgotten(index: Index) -> None:
    index.note_caller("CT9", "10.0.0.9", "ARCHIVE", "unknown caller", 1.0)
    index.note_caller("CT9", "10.0.0.9", "ARCHIV", "wrong title", 2.0)
    index.note_caller("MR\x00\udc80", "10.0.0.8", "ARCHIVE", "unknown caller", 1.5)
    first, second = index.callers()
    assert (first.aet, first.called, first.reason, first.first, first.last, first.times) == (
        "CT9", "ARCHIV", "wrong title", 1.0, 2.0, 2,
    )  # fmt: skip
    assert second.aet == "MR\ufffd\ufffd"
    assert index.forget_caller("CT9") == 1
    assert len(index.callers()) == 1


def test_a_scan_with_made_up_titles_leaves_the_last_thousand(index: Index) -> None:
    for number in range(1010):
        index.note_caller(f"T{number}", "10.0.0.9", "ARCHIVE", "unknown caller", float(number))
    callers = index.callers()
    assert (len(callers), callers[-1].aet) == (1000, "T10")


def test_a_quarantined_object_keeps_what_its_release_needs(index: Index) -> None:
    new = arrival("1.1", PatientName="M\x00ü", tasks=(NewTask("route", {"to": "X"}),))
    key = index.quarantine(new, "quarantine/1", "patient name mismatch")
    (entry,) = index.quarantined()
    assert (entry.id, entry.path, entry.reason) == (key, "quarantine/1", "patient name mismatch")
    assert entry.new.header.values[0x00100010] == "M\ufffdü"
    assert (entry.new.location, entry.new.sha256, entry.new.tasks) == (new.location, new.sha256, new.tasks)
    assert index.quarantine_entry(key) == entry
    assert [index.count_quarantined(source) for source in ("", entry.new.source, "ELSE")] == [1, 1, 0]
    assert index.release_quarantined(key) and not index.release_quarantined(key)
    assert index.quarantined() == [] and index.quarantine_entry(key) is None


def test_values_by_name(index: Index) -> None:
    assert index.get("x") is None
    index.put("x", "1")
    index.put("x", "2")
    assert index.get("x") == "2"


def test_the_studies_that_came_last_come_first(index: Index) -> None:
    index.add([arrival("1.1", StudyDescription="Chest")])
    index.add([arrival("1.2", PatientID=None)])
    latest, earlier = index.studies()
    assert (latest.study_uid, latest.patient_id, earlier.study_uid) == ("1.2", "", "1.1")
    assert (earlier.study_description, earlier.modalities, earlier.instances) == ("Chest", ("CT",), 1)
    assert index.studies(before=latest.id) == [earlier]
