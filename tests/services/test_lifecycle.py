"""The life of studies, on both databases, with a clock that tests turn."""

from __future__ import annotations

import pytest

from archive.dicom.rule import holds, parse_rule
from archive.errors import Conflict, InvalidQuery
from archive.index import Index, NewTask, State
from archive.index.outbox import WATCH
from archive.services.causes import STUDY, Causes, Event
from archive.services.lifecycle import FOLLOWS, STATES, UPDATED, Lifecycle, Patience
from archive.workers.leases import owner_name
from archive.workers.lifecycle import FollowStudies
from tests.index.made import arrival

QUIET = 60.0


class Life:
    """An index whose studies are followed, at a time that the test says."""

    def __init__(self, index: Index, after_close: float | None = None, rule: str = "") -> None:
        self.index = index
        self.now = 5000.0
        self.events: list[Event] = []
        self.causes = Causes()
        self.causes.on(STUDY, self._note)
        self.rule = parse_rule(rule)
        patience = Patience(QUIET, after_close)
        self.lifecycle = Lifecycle(index, patience=patience, clock=lambda: self.now, causes=self.causes)
        self.worker = FollowStudies(index, self.lifecycle, lambda: self.now)

    def _note(self, event: Event) -> list[NewTask]:
        self.events.append(event)
        return [NewTask("route", {"study": event.study_uid})] if holds(self.rule, event.facts) else []

    def come(self, study: str = "1.1", **more: object) -> None:
        self.index.add([arrival(study, received=self.now, **more)])

    def step(self, later: float = 0.0) -> float | None:
        self.now += later
        return self.worker.step()

    def states(self, study: str = "1.1") -> list[str]:
        return [change.state for change in self.lifecycle.history(study)]

    def told(self) -> list[str]:
        return [event.facts("StudyState") for event in self.events]

    def watching(self) -> int:
        return len(self.index.tasks(kind=WATCH))


@pytest.fixture
def life(index: Index) -> Life:
    return Life(index, rule="StudyState = 'ready'")


def test_a_study_is_ready_when_nothing_came_for_a_while(life: Life) -> None:
    life.come()
    assert life.lifecycle.state("1.1") == "received"
    assert life.step() == pytest.approx(QUIET)
    assert life.step(QUIET - 1) == pytest.approx(1.0)
    assert life.step(1) is None
    assert life.lifecycle.state("1.1") == "ready" and life.told() == life.states() == ["received", "ready"]
    assert life.watching() == 0
    assert [task.payload for task in life.index.tasks(kind="route")] == [{"study": "1.1"}]


def test_one_task_follows_a_study_however_many_images_come(life: Life) -> None:
    for _ in range(5):
        life.come()
    assert life.watching() == 1
    life.step()
    life.now += 30
    life.come()
    assert life.watching() == 1
    assert life.step(QUIET - 30) == pytest.approx(30.0), "the last image counts, not the first"
    assert life.step(30) is None
    assert life.states() == ["received", "ready"]


@pytest.mark.parametrize("state", ["ready", "unmatched", "read", "reported", "complete"])
def test_a_late_image_opens_a_study_again_as_updated(life: Life, state: str) -> None:
    life.come()
    life.step()
    life.step(QUIET)
    if state != "ready":
        life.lifecycle.set_state("1.1", state, "the test")
    life.now += 1000
    life.come()
    assert life.lifecycle.state("1.1") == UPDATED, "also before the worker has looked"
    assert life.step() == pytest.approx(QUIET)
    assert life.step(QUIET) is None
    assert life.told()[-2:] == ["updated", "ready"] and life.told().count("received") == 1
    assert [change.instances for change in life.lifecycle.history("1.1")][-2:] == [2, 2]


def test_a_replaced_image_opens_a_study_again(life: Life) -> None:
    life.come(sop="1.1.1.77")
    life.step()
    life.step(QUIET)
    life.come(sop="1.1.1.77", policy="replace")
    life.step()
    assert life.told() == ["received", "ready", "updated"]


def test_what_is_there_already_changes_nothing(life: Life) -> None:
    life.come(sop="1.1.1.77", digest=b"x" * 32)
    life.step()
    life.step(QUIET)
    life.come(sop="1.1.1.77", digest=b"x" * 32)
    assert life.watching() == 0 and life.lifecycle.state("1.1") == "ready"


def test_objects_that_were_here_before_the_index_cause_nothing(life: Life) -> None:
    life.come(known=True)
    assert life.watching() == 0 and life.lifecycle.state("1.1") == "ready" and life.told() == []
    life.come()
    life.step()
    assert life.told() == ["updated"]


def test_a_released_association_makes_its_studies_ready_sooner(index: Index) -> None:
    life = Life(index, after_close=5.0)
    life.come()
    life.come("2.1")
    life.step()
    life.lifecycle.closed(["1.1"])
    assert life.step() == pytest.approx(5.0)
    life.step(5)
    assert life.lifecycle.state("1.1") == "ready" and life.lifecycle.state("2.1") == "received"
    assert life.lifecycle.history("1.1")[-1].cause == "association released"


def test_an_image_after_the_release_is_waited_for_again(index: Index) -> None:
    life = Life(index, after_close=5.0)
    life.come()
    life.step()
    life.lifecycle.closed(["1.1"])
    life.now += 1
    life.come()
    life.step(4)
    assert life.lifecycle.state("1.1") == "received"
    life.step(QUIET)
    assert life.states() == ["received", "ready"]


def test_a_release_means_nothing_unless_it_is_asked_for(life: Life) -> None:
    life.come()
    life.step()
    life.lifecycle.closed(["1.1"])
    assert life.watching() == 1


def test_somebody_may_say_that_a_study_is_ready(life: Life) -> None:
    life.come()
    life.step()
    assert life.lifecycle.set_state("1.1", "ready", "tech complete")
    assert not life.lifecycle.set_state("1.1", "ready", "twice")
    assert life.step(QUIET) is None
    assert life.told() == ["received", "ready"] and life.watching() == 0
    assert life.lifecycle.history("1.1")[-1].cause == "tech complete"


def test_a_state_that_cannot_follow_is_refused(life: Life) -> None:
    life.come()
    life.step()
    with pytest.raises(Conflict, match="study is received and cannot be read"):
        life.lifecycle.set_state("1.1", "read", "the test")
    with pytest.raises(InvalidQuery):
        life.lifecycle.set_state("9.9", "ready", "the test")


def test_every_state_can_be_reached_and_left() -> None:
    assert set(FOLLOWS) == set(STATES)
    assert all(follows <= set(STATES) for follows in FOLLOWS.values())


def test_rules_see_the_attributes_of_the_study(index: Index) -> None:
    life = Life(index)
    life.come(Modality="CT", AccessionNumber="A7", StudyDescription="Head", source="CT1")
    life.come(series="1.1.2", Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", source="WS")
    life.step()
    facts = life.events[-1].facts
    rules = (
        "Modality = 'SR'", "ModalitiesInStudy = 'CT'", "AccessionNumber = 'A7'", "PatientID = 'P1'",
        "CallingAETitle = 'WS'", "StudyState = 'received'", "StudyDescription like 'He*'", "StudyInstanceUID = '1.1'",
    )  # fmt: skip
    assert [rule for rule in rules if not holds(parse_rule(rule), facts)] == []


def test_a_study_that_is_gone_is_forgotten(life: Life) -> None:
    life.come()
    life.step()
    found = life.index.known(str(_only_instance(life.index)))
    assert found is not None
    life.index.remove([found.id])
    assert life.step(QUIET) is None and life.watching() == 0
    assert life.states() == ["received"], "its history stays"


def _only_instance(index: Index) -> str:
    row = index.read(lambda session: session.row("SELECT sop_instance_uid FROM instance"))
    return str(row[0])


def test_two_nodes_tell_a_change_once(life: Life) -> None:
    """One decides on what the other has changed since."""
    other = Lifecycle(life.index, patience=Patience(QUIET), clock=lambda: life.now, causes=life.causes)
    life.come()
    life.step()
    seen = life.lifecycle._states.life("1.1")
    assert seen is not None
    assert other.set_state("1.1", "ready", "the other node")
    assert not life.lifecycle._change(seen, "ready", "this node")
    assert life.states() == ["received", "ready"] and len(life.index.tasks(kind="route")) == 1


def test_what_a_killed_process_had_leased_is_looked_at_at_once(life: Life) -> None:
    life.come()
    (task,) = life.index.lease(WATCH, _dead_owner(), life.now, seconds=30)
    assert task.state is State.LEASED
    assert life.step() == pytest.approx(QUIET)
    assert life.states() == ["received"]


def _dead_owner() -> str:
    return f"{owner_name().rpartition(':')[0]}:1#1"


def test_lists_show_states_and_can_be_narrowed(life: Life) -> None:
    life.come("1.1")
    life.step()
    life.step(QUIET)
    life.come("2.1")
    assert {study.study_uid: study.state for study in life.index.studies()} == {"1.1": "ready", "2.1": "received"}
    assert [study.study_uid for study in life.index.studies(state="ready")] == ["1.1"]
    life.come("1.1")
    assert [study.state for study in life.index.studies(uid="1.1")] == ["updated"]
