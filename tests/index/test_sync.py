"""What synchronisation asks of the index, on both databases."""

from __future__ import annotations

import pytest

from archive.index import Index, NewTask, State, deleted, open_index
from archive.index.sync import Difference, Step, SyncRows
from tests.index.made import arrival

PEER = "ARC2"


@pytest.fixture
def index(index_url: str) -> Index:
    made = open_index(index_url)
    days = {"1.1": "20260101", "1.2": "20260102", "1.3": "20260102", "1.4": None}
    made.add([arrival(study, StudyDate=day, PatientID=f"P{study}") for study, day in days.items()])
    return made


def test_studies_come_by_their_dates_by_name_and_by_when_they_changed(index: Index) -> None:
    rows = SyncRows(index.database)
    assert list(rows.dates("", "")) == [("20260102", 2), ("20260101", 1)]
    assert list(rows.dates("20260102", "20260102")) == [("20260102", 2)]
    assert set(rows.between(PEER, "", "20260101")) == {"1.1"}
    assert set(rows.between(PEER, "20260102", "")) == {"1.2", "1.3"}
    found = rows.named(PEER, ["1.4", "9"])["1.4"]
    assert (found.date, found.series, found.instances, found.patient_id, found.agreed) == ("", 1, 1, "P1.4", None)
    assert set(rows.changed(PEER, 0.0, ("20260102", ""), "", 10)) == {"1.1", "1.4"}
    assert set(rows.changed(PEER, 0.0, ("", ""), "", 10)) == {"1.4"}
    assert set(rows.changed(PEER, 0.0, ("20270101", ""), "1.1", 2)) == {"1.2", "1.3"}
    assert rows.changed(PEER, 1e12, ("20260102", ""), "", 10) == {}
    (image,) = rows.images("1.1")
    assert (image.series_uid, image.source, image.damage) == ("1.1.1", "CT1", "")
    assert rows.elsewhere([image.uid, "9"]) == {image.uid: "1.1"}


def test_a_step_and_its_tasks_are_one(index: Index) -> None:
    rows = SyncRows(index.database)
    key = rows.begin("second", PEER, "by hand", {"dry": False}, 10.0, tasks=[NewTask("sync", {"sync": "second"})])
    (task,) = index.lease("sync", "me", 1e10, seconds=60)
    assert task.payload == {"sync": "second", "run": key}
    step = Step(
        {"part": "dates"}, {"compared": 2}, [Difference("1.1", push=1, details={"what": ["1 missing there"]})],
        {"1.2": (20.0, 1)}, [NewTask("deliver", {"sop": "x"}, lane=PEER, study_uid="1.1")],
    )  # fmt: skip
    assert not rows.advance(key, task.id, "another", step, 11.0)
    assert index.tasks(kind="deliver") == [] and rows.differences(key) == []
    assert rows.advance(key, task.id, "me", step, 11.0) and rows.advance(key, task.id, "me", step, 12.0)
    run = rows.run(key)
    assert run is not None and (run.counts, run.position, run.finished) == ({"compared": 4}, {"part": "dates"}, None)
    assert [(each.study_uid, each.push, each.found) for each in rows.differences(key)] == [("1.1", 1, 12.0)]
    assert rows.named(PEER, ["1.2"])["1.2"].agreed == 20.0
    assert rows.named("OTHER", ["1.2"])["1.2"].agreed is None
    assert rows.busy(("deliver",), (PEER,), ["1.1", "1.2"]) == {"1.1"}
    assert rows.tasks_since("deliver", PEER, 10.0, ["1.1"]) == {"1.1": {State.WAITING: (2, "")}}
    assert rows.tasks_since("deliver", PEER, 12.0, ["1.1"]) == {"1.1": {State.WAITING: (1, "")}}
    assert rows.fates(("deliver",), PEER, "1.1") == {"x": (State.WAITING, "")}
    assert rows.advance(key, task.id, "me", Step({"part": "end"}, {}, finished=True), 13.0)
    assert rows.unfinished("second", "by hand") is None


def test_a_comparison_that_has_ended_is_not_opened_again(index: Index) -> None:
    """By who was slow, and has not heard of it."""
    rows = SyncRows(index.database)
    key = rows.begin("second", PEER, "by hand", {}, 10.0, tasks=[NewTask("sync", {"sync": "second"})])
    (task,) = index.lease("sync", "me", 1e10, seconds=60)
    rows.end(key, "the configuration has changed", 11.0)
    assert not rows.advance(key, task.id, "me", Step({"part": "dates"}, {"compared": 1}), 12.0)
    rows.say(key, "cannot be asked")
    run = rows.run(key)
    assert run is not None and (run.counts, run.finished, run.words) == ({}, 11.0, "the configuration has changed")


def test_what_was_deleted_before_is_noted_once(index: Index) -> None:
    what = '{"arguments": {"level": "STUDY", "of": "1.9"}}'
    sql = (
        "INSERT INTO operation (number, operation, kind, actor, reason, happened, what)"
        f" VALUES (1, 'a', 'delete', 'me', '', 1.0, '{what}')"
    )
    index.database.transact(lambda session: session.run(sql))
    deleted.catch_up(index.database)
    deleted.catch_up(index.database)
    assert deleted.among(index.database, ["1.9", "1.1"]) == {"1.9"}
