"""Comparing with a second archive that serves on a real port: what is found, and what becomes of it."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from archive.dicom.rule import parse_rule
from archive.dimse.connection import Timeouts
from archive.dimse.inquiry import PeerInquiry
from archive.errors import Refused, Unreachable
from archive.index import NewTask, State, Task
from archive.index.database import Session
from archive.index.sync import Difference, Run, Step, SyncRows
from archive.services import mending, reconcile
from archive.services.comparing import Plan, TheirStudy
from archive.services.fetching import FETCH, FROM
from archive.services.inquiry import Terms
from archive.services.reconcile import Reconciliation
from archive.services.routing import DELIVER, delivery
from tests.dimse import archives
from tests.dimse.archives import fill, instance

OWNER = "a worker"
THERE, WE = "ARCHIVE", "HERE"
EVERYTHING = Plan(recent=1.0, undated=True)
COUNTS = Plan(recent=1.0, undated=True, compare="counts")


class Two:
    """Our archive, and the one that is asked."""

    def __init__(self, here: archives.Archive, there: archives.Archive) -> None:
        self.here, self.there = here, there
        self.rows = SyncRows(here.index.database)
        self.asked: list[str] = []

    def equal(self, *numbers: int, study: int = 1, **more: Any) -> None:
        made = [instance(number, study=study, size=2, **more) for number in numbers]
        fill(self.here, *made)
        fill(self.there, *made)
        self.settle()

    def settle(self) -> None:
        """Nothing more is expected for any study."""
        self.here.index.database.transact(lambda session: session.run("UPDATE study SET arrivals = 0"))

    def reconciliation(self, rule: str = "") -> Reconciliation:
        terms = Terms(THERE, frozenset({THERE}), "sync there", rule=parse_rule(rule))
        inquiry = Counting(PeerInquiry(self.there.destination(WE), terms.keywords), self.asked)
        return Reconciliation(
            self.here.index, inquiry, terms, clock=time.time, today=lambda _: date(2026, 6, 1)
        )

    def begin(self, plan: Plan = EVERYTHING) -> tuple[Run, Task]:
        task = NewTask("sync", {}, lane="x")
        key = self.rows.begin("there", THERE, "by hand", asdict(plan), time.time(), tasks=[task])
        (leased,) = self.here.index.lease("sync", OWNER, time.time(), seconds=600)
        return self.run(key), leased

    def run(self, key: int) -> Run:
        found = self.rows.run(key)
        assert found is not None
        return found

    def write(self, run: Run, task: Task) -> Callable[[Step], bool]:
        return lambda step: self.rows.advance(run.id, task.id, OWNER, step, time.time())

    def compare(self, plan: Plan = EVERYTHING, rule: str = "") -> tuple[Run, dict[str, Difference]]:
        """A whole comparison: the run at its end, and what was found by the last part of the study UID."""
        run, task = self.begin(plan)
        assert self.reconciliation(rule).work(run, self.write(run, task), enough=lambda: False)
        self.here.index.finish(task.id, OWNER, time.time())
        found = {each.study_uid.rpartition(".")[2]: each for each in self.rows.differences(run.id)}
        return self.run(run.id), found

    def tasks(self, kind: str = DELIVER) -> list[Task]:
        return self.here.index.tasks(kind=kind)


def _run(sql: str, value: str, session: Session) -> int:
    return session.run(sql, (value,))


class Counting:
    """Notes what is asked."""

    def __init__(self, inquiry: PeerInquiry, asked: list[str]) -> None:
        self._inquiry, self._asked = inquiry, asked

    @contextmanager
    def open(self) -> Iterator[Any]:
        with self._inquiry.open() as questions:
            yield _Asked(questions, self._asked)


class _Asked:
    def __init__(self, questions: Any, asked: list[str]) -> None:
        self._questions, self._asked = questions, asked

    def __getattr__(self, name: str) -> Any:
        self._asked.append(name)
        return getattr(self._questions, name)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    with archives.parts(tmp_path / "here") as here:
        with archives.serving(tmp_path / "there", [archives.peer(WE)]) as there:
            yield Two(here, there)


def what(found: Difference) -> str:
    return "; ".join(found.details["what"])


def test_equal_studies_are_only_counted(two: Two) -> None:
    two.equal(1, 2)
    two.equal(1, study=2)
    run, found = two.compare(COUNTS)
    assert (run.counts, found) == ({"compared": 2, "equal": 2}, {})
    assert run.finished is not None
    assert "series" not in two.asked and "images" not in two.asked


def test_equal_numbers_are_believed_of_what_was_looked_at_once(two: Two) -> None:
    two.equal(1, 2)
    fill(two.here, instance(1, study=2, size=2))
    fill(two.there, instance(2, study=2, size=2))
    two.settle()
    run, found = two.compare()
    assert (run.counts["equal"], found["2"].push, found["2"].pull) == (1, 1, 1)
    two.asked.clear()
    two.compare()
    assert "images" not in two.asked
    two.equal(3)
    two.compare()
    assert two.asked.count("images") == 1


def test_what_is_missing_there_is_pushed_and_what_is_missing_here_is_pulled(two: Two) -> None:
    two.equal(1, 2)
    fill(two.here, instance(3, size=2), *(instance(number, study=2, size=2) for number in (1, 2)))
    fill(two.there, instance(4, size=2), instance(5, size=2), instance(1, study=3, size=2))
    two.settle()
    run, found = two.compare()
    assert {key: (each.push, each.pull, each.remaining) for key, each in found.items()} == {
        "1": (1, 2, 0), "2": (2, 0, 0), "3": (0, 1, 0),
    }  # fmt: skip
    assert run.counts == {"compared": 3, "mending": 3, "push": 3, "pull": 3, "left": 0}
    assert {(task.lane, task.payload["sop"].rpartition(".")[2]) for task in two.tasks()} == {
        (THERE, "3"), (THERE, "1"), (THERE, "2"),
    }  # fmt: skip
    assert all(task.payload["route"] == "sync there" for task in two.tasks())
    series = {(task.study_uid, task.lane): task.payload["series"] for task in two.tasks(FETCH)}
    assert series == {
        (f"{archives.ROOT}.1", FROM + THERE): [f"{archives.ROOT}.1.1"],
        (f"{archives.ROOT}.3", FROM + THERE): [f"{archives.ROOT}.3.1"],
    }  # fmt: skip


def test_a_dry_run_names_everything_and_does_nothing(two: Two) -> None:
    fill(two.here, instance(1, size=2))
    fill(two.there, instance(1, study=2, size=2))
    two.settle()
    _, found = two.compare(Plan(dry=True))
    assert {key: (each.push, each.pull) for key, each in found.items()} == {"1": (1, 0), "2": (0, 1)}
    assert two.tasks() == two.tasks(FETCH) == []


def test_a_plan_that_mends_one_way_names_the_other(two: Two) -> None:
    fill(two.here, instance(1, size=2))
    fill(two.there, instance(1, study=2, size=2))
    two.settle()
    _, found = two.compare(Plan(mend="push"))
    assert (found["1"].push, found["2"].pull, found["2"].remaining) == (1, 0, 1)
    _, found = two.compare(Plan(mend="report"))
    assert what(found["2"]) == "1 missing here" and found["1"].waiting


def test_studies_that_are_arriving_or_in_the_queue_wait(two: Two) -> None:
    fill(two.here, instance(1, size=2))
    _, found = two.compare()
    assert found["1"].waiting and not two.tasks()
    fill(two.here, instance(1, study=2, size=2))
    two.settle()
    two.here.index.add_tasks([delivery("1.2", f"{archives.ROOT}.2", THERE, 1.0, by="hand")], time.time())
    run, found = two.compare()
    assert (found["1"].waiting, found["2"].waiting) == (False, True)
    assert run.counts["waiting"] == 1


def test_what_came_from_there_or_was_there_is_not_sent_back(two: Two) -> None:
    two.equal(1, 2)
    two.equal(1, study=2)
    fill(two.here, instance(1, study=3, size=2))
    two.settle()
    two.compare(Plan(mend="report"))  # now 1 and 2 are known to have been equal
    sql = f"UPDATE instance SET source = '{THERE}' WHERE sop_instance_uid = ?"
    two.here.index.database.transact(partial(_run, sql, f"{archives.ROOT}.3.1.1"))
    keys = [row[0] for row in two.there.index.database.read(lambda session: session.rows("SELECT id FROM instance"))]
    two.there.index.remove(keys)
    _, found = two.compare()
    assert {key: (each.push, each.remaining) for key, each in found.items()} == {"1": (0, 2), "2": (0, 1), "3": (0, 1)}
    assert what(found["1"]) == "2 was there and is gone"
    _, found = two.compare(Plan(gone=True))
    assert {key: each.push for key, each in found.items()} == {"1": 2, "2": 1, "3": 1}


def test_what_was_deleted_here_is_not_fetched_again(two: Two) -> None:
    two.equal(1, 2)
    two.equal(1, study=2)
    keys = [row[0] for row in two.here.index.database.read(lambda session: session.rows("SELECT id FROM instance"))]
    uids = (f"{archives.ROOT}.1.1.1", f"{archives.ROOT}.2")
    two.here.index.remove([keys[0], keys[2]])
    for uid in uids:
        sql = "INSERT INTO deleted_uid (uid, operation, happened) VALUES (?, 1, 1)"
        two.here.index.database.transact(partial(_run, sql, uid))
    _, found = two.compare()
    assert {key: (each.pull, what(each)) for key, each in found.items()} == {
        "1": (0, "1 deleted here"), "2": (0, "1 deleted here"),
    }  # fmt: skip
    _, found = two.compare(Plan(deleted=True))
    assert {key: each.pull for key, each in found.items()} == {"1": 1, "2": 1}


def test_a_refused_image_is_not_pushed_again_and_one_that_met_nobody_is(two: Two) -> None:
    fill(two.here, instance(1, size=2), instance(1, study=2, size=2))
    two.settle()
    now, index = time.time(), two.here.index
    for study, reason in ((1, "Refused: SOP Class not supported (0122)"), (2, "destination not reached: no route")):
        uid = f"{archives.ROOT}.{study}"
        index.add_tasks([delivery(f"{uid}.1.1", uid, THERE, 1.0, by="hand")], now)
        (task,) = index.lease(DELIVER, OWNER, time.time(), seconds=60)
        assert index.fail(task.id, OWNER, now, reason)
    _, found = two.compare()
    assert (found["1"].remaining, found["2"].push) == (1, 1)
    assert what(found["1"]) == "1 missing there, was refused: Refused: SOP Class not supported (0122)"


def test_a_study_of_another_patient_is_named_and_left_alone(two: Two) -> None:
    fill(two.here, instance(1, size=2), instance(2, size=2))
    fill(two.there, instance(1, patient="P2", size=2))
    two.equal(1, study=2, patient="P3")
    two.there.index.database.transact(lambda session: session.run("UPDATE patient SET patient_name = 'Quite^Other'"))
    run, found = two.compare()
    assert what(found["1"]) == "another Patient ID there" and not found["1"].push
    assert (what(found["2"]), found["2"].remaining) == ("another patient's name there", 1)
    assert run.counts["patients"] == 2 and not two.tasks()


def test_a_peer_that_counts_wrong_is_looked_at_closely(two: Two) -> None:
    two.equal(1, 2)
    fill(two.here, instance(3, size=2), instance(1, study=2, size=2))
    fill(two.there, instance(4, size=2), instance(1, study=2, size=2))
    two.settle()
    two.there.index.database.transact(
        lambda session: session.run("UPDATE study SET number_of_instances = 9 WHERE study_instance_uid LIKE '%.2'")
    )
    run, found = two.compare(COUNTS)
    assert (run.counts["equal"], run.counts["miscounted"], found) == (2, 1, {})
    _, found = two.compare()
    assert {key: (each.push, each.pull) for key, each in found.items()} == {"1": (1, 1)}


def test_dates_that_differ_do_not_make_a_study_missing(two: Two) -> None:
    other = instance(1, size=2)
    fill(two.here, other, instance(1, study=2, size=2))
    other.StudyDate = "20150101"
    fill(two.there, other)
    undated = instance(1, study=3, size=2)
    undated.StudyDate = ""
    fill(two.there, undated)
    two.settle()
    run, found = two.compare(Plan(since="20260101", until="20261231"))
    assert {key: (each.push, each.pull) for key, each in found.items()} == {"2": (1, 0)}
    run, found = two.compare()
    assert run.counts["compared"] == 3 and (found["3"].pull, found["2"].waiting) == (1, True)


def test_only_what_fits_the_rule_takes_part(two: Two) -> None:
    for side, number in ((two.here, 1), (two.there, 2)):
        report = {"modality": "SR", "size": 2}
        fill(side, instance(number, size=2), instance(1, series=1 + number, **report))
        fill(side, instance(1, study=1 + number, **report))
    two.settle()
    run, found = two.compare(rule="Modality != 'SR'")
    assert {key: (each.push, each.pull) for key, each in found.items()} == {"1": (1, 1)}
    assert run.counts["compared"] == 1


@pytest.mark.parametrize("many", [2, 1000])
def test_spans_of_dates_cover_everything_however_they_are_cut(
    two: Two, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """Also when only one side has studies of a time, and when a comparison is broken off after every step."""
    monkeypatch.setattr(reconcile, "SLICE", many)
    monkeypatch.setattr(reconcile, "MOST", many)
    monkeypatch.setattr(reconcile, "CHUNK", 2)
    days = ["19991231", "20200229", "20260101", "20260101", "20260101", "20260102", "20260601", "20300101", ""]
    for number, day in enumerate(days, 1):
        for side, study in ((two.here, number), (two.there, 100 + number)):
            made = instance(1, study=study, size=2, patient=f"P{study}")
            made.StudyDate = day
            fill(side, made)
    two.settle()
    run, task = two.begin()
    again = 0
    while two.run(run.id).finished is None:
        now = two.run(run.id)
        two.reconciliation().work(now, two.write(run, task), enough=lambda: True)
        again += 1
    assert again > len(days)
    found = two.rows.differences(run.id)
    assert (sum(each.push for each in found), sum(each.pull for each in found)) == (9, 9)
    assert two.run(run.id).counts["compared"] == 18
    assert len(two.tasks()) == len(two.tasks(FETCH)) == 9


def test_who_lost_its_task_writes_nothing(two: Two) -> None:
    fill(two.here, instance(1, size=2))
    two.settle()
    run, task = two.begin()
    two.here.index.retry(task.id, OWNER, time.time(), "")
    assert not two.reconciliation().work(run, two.write(run, task), enough=lambda: False)
    assert not two.tasks() and not two.rows.differences(run.id) and two.run(run.id).counts == {}


def test_tasks_of_a_piece_are_committed_with_it(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "PIECE", 2)
    fill(two.here, *(instance(number, size=2) for number in range(1, 8)))
    two.settle()
    run, found = two.compare()
    assert found["1"].push == 7 and len(two.tasks()) == 7
    assert {task.state for task in two.tasks()} == {State.WAITING}




class Odd:
    """A peer that answers otherwise than it should."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    @contextmanager
    def open(self) -> Iterator[Any]:
        yield self

    def between(self, since: str, until: str, limit: int = 0) -> Any:
        return iter(self._answers.get("studies", ()))

    def named(self, uids: Any) -> Any:
        return (each for each in self._answers.get("studies", ()) if each.uid in uids and self._answers.get("named", 1))

    def series(self, study_uid: str) -> Any:
        if isinstance(found := self._answers.get("series", {}), Exception):
            raise found
        return found

    def images(self, study_uid: str, series_uid: str) -> Any:
        return self._answers.get("images", set())


UID = f"{archives.ROOT}.1"
STUDY = TheirStudy(UID, "20260102", 1, 1, {"PatientID": "P1", "PatientName": "Name^P1"})


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (Odd(studies=[STUDY], series=Refused("C-FIND refused", "A900")), "the peer does not list series and images"),
        (Odd(studies=[STUDY], series={}), "the peer does not list series and images: it lists no series"),
        (Odd(studies=[STUDY], series={f"{UID}.1": ("CT", 1)}), "the peer does not list series and images: it lists no"),
        (Odd(studies=[replace(STUDY, series=None, instances=None)], series={f"{UID}.1": ("CT", None)}, images={"9"}),
         "2 missing there; 1 missing here"),
        # It gives what it was not asked for: the span that a study belongs to counts.
        (Odd(studies=[replace(STUDY, date="19990101")], named=0), "2 missing there"),
    ],
)  # fmt: skip
def test_a_peer_that_answers_oddly_is_told_in_words(two: Two, peer: Odd, said: str) -> None:
    fill(two.here, instance(1, size=2), instance(2, size=2))
    two.settle()
    run, task = two.begin(Plan(since="20260101", until="20261231"))
    terms = Terms(THERE, frozenset({THERE}), "sync there")
    comparing = Reconciliation(two.here.index, peer, terms, clock=time.time)
    assert comparing.work(run, two.write(run, task), enough=lambda: False)
    (found,) = two.rows.differences(run.id)
    assert what(found).startswith(said)
    assert two.run(run.id).counts["compared"] == 1


def test_what_a_peer_lists_is_bounded_before_it_fills_our_memory(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies of one day cannot be asked for in parts, nor the images of one study."""
    monkeypatch.setattr(reconcile, "MOST_HELD", 2)
    run, task = two.begin(Plan(since="20260102", until="20260102"))
    terms = Terms(THERE, frozenset({THERE}), "sync there")
    endless = Odd(studies=(replace(STUDY, uid=f"{UID}.{number}") for number in itertools.count()))
    with pytest.raises(Refused, match="too many studies of one date"):
        Reconciliation(two.here.index, endless, terms, clock=time.time).work(run, two.write(run, task), enough=bool)
    monkeypatch.setattr(mending, "MOST_IMAGES", 2)
    series = {f"{UID}.{number}": ("CT", 2) for number in range(2)}
    many = Odd(studies=[STUDY], series=series, images=["1", "2", "3"])
    assert Reconciliation(two.here.index, many, terms, clock=time.time).work(run, two.write(run, task), enough=bool)
    (found,) = two.rows.differences(run.id)
    assert "it lists more images than a study has" in what(found) and not two.tasks(FETCH)


def test_a_peer_that_falls_silent_is_unreachable_and_nothing_is_lost(two: Two) -> None:
    """What was found before stays found."""
    fill(two.here, instance(1, size=2))
    two.settle()
    run, task = two.begin()
    with socket.create_server(("127.0.0.1", 0)) as server:
        destination = replace(two.there.destination(WE), port=server.getsockname()[1], timeouts=Timeouts(acse=0.3))
        comparing = Reconciliation(
            two.here.index, PeerInquiry(destination), Terms(THERE, frozenset(), "sync there"), clock=time.time
        )
        with pytest.raises(Unreachable):
            comparing.work(run, two.write(run, task), enough=lambda: False)
    assert two.run(run.id).finished is None
    assert two.reconciliation().work(run, two.write(run, task), enough=lambda: False)
    assert two.run(run.id).counts["push"] == 1
