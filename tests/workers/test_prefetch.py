"""The worker that looks for priors: at its time, once for many triggers, whatever becomes of orders and sources."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any

import pytest

from archive.dicom.attributes import Level
from archive.dicom.rule import parse_order_rule
from archive.errors import Unreachable
from archive.index import Index, NewTask, State, Task
from archive.index.ordervalues import NewStep, OrderChange, OrderKeys, StepState
from archive.services.causes import ORDER, STUDY, Causes, Event
from archive.services.fetching import FETCH, FROM
from archive.services.lifecycle import READY, RECEIVED
from archive.services.orders import Orders
from archive.services.prefetch import PREFETCH, Rule, Triggers
from archive.services.priors import Priors
from archive.services.relevance import Wish
from archive.services.routing import DELIVER
from archive.services.samepatient import Answer
from archive.workers.handing import AT_ONCE, HAND_ON, HandingOn, on_ready
from archive.workers.prefetch import PAUSES, Cautious, Seeking
from tests.index.made import arrival

BEGINS = datetime(2026, 6, 15, 9, 30).timestamp()
HOUR = 3600.0
EARLY = BEGINS - 24 * HOUR
RULE = Rule(
    "heads", frozenset({"order", "worklist", "image"}), parse_order_rule("Modality = 'CT'"),
    Wish(2, same=("body_part",)), ("PACS",), ahead=4 * HOUR, late=24 * HOUR, titles=frozenset({"PACS"}),
)  # fmt: skip


def answer(number: int, **changes: str) -> dict[str, Any]:
    return {
        "StudyInstanceUID": f"9.{number}", "StudyDate": f"2026010{number}", "StudyDescription": "CT head",
        "ModalitiesInStudy": "CT", "PatientID": "P1", "PatientName": "Doe^Jane", "NumberOfStudyRelatedInstances": "1",
    } | changes  # fmt: skip


class Site:
    """An archive's index and clock, and what its sources answer."""

    def __init__(self, index: Index, *rules: Rule, now: float = EARLY) -> None:
        self.index, self.now, self.rules = index, now, list(rules or [RULE])
        self.answers = {"PACS": [answer(number) for number in (1, 2, 3)]}
        self.down: dict[str, str] = {}
        self.asked: list[str] = []
        causes, triggers = Causes(), Triggers(self.rules)
        causes.on(ORDER, triggers.on_order)
        causes.on(STUDY, triggers.on_study)
        causes.on(STUDY, on_ready)
        self.causes, self.orders = causes, Orders(index, causes)
        self.ask = Cautious(self._ask, lambda: self.now)

    def _ask(self, source: str, level: Level, keys: Mapping[str, Any]) -> Generator[Answer, None, None]:
        if source:
            self.asked.append(source)
        if source in self.down:
            raise Unreachable(self.down[source])
        yield from self.answers.get(source, [])

    def order(self, number: int = 1, *, begins: float | None = BEGINS, **changes: Any) -> None:
        """An order for a CT of the head, new or changed."""
        start = datetime.fromtimestamp(begins) if begins is not None else None
        step = {"Modality": "CT", "ScheduledProcedureStepDescription": "CT head"} | (
            {"ScheduledProcedureStepStartDate": f"{start:%Y%m%d}", "ScheduledProcedureStepStartTime": f"{start:%H%M%S}"}
            if start else {}
        )  # fmt: skip
        said = {"PatientID": "P1", "PatientName": "Doe^Jane", "StudyInstanceUID": f"1.{number}"} | changes
        keys = OrderKeys(f"1.{number}", f"PL{number}")
        self.orders.save(OrderChange(keys, None, said, steps=(NewStep("S", step),)), self.now)

    def study(self, uid: str, state: str = RECEIVED) -> None:
        """A study enters a state."""
        told = Event(STUDY, {"StudyState": state}.get, self.now, study_uid=uid)  # type: ignore[arg-type]
        self.index.add_tasks(list(self.causes.tasks(told)), self.now)

    def work(self, batch: int = 200) -> None:
        """Let the jobs do what is due."""
        seeking = Seeking(
            self.index, self.rules, lambda: Priors(self.ask, {}, self.here), lambda: self.now, recall=self.recall
        )
        for kind, job in ((PREFETCH, seeking), (HAND_ON, HandingOn(self.index, lambda: self.now))):
            while lanes := self.index.lanes(kind, self.now):
                for lane in lanes:
                    job(lane, self.index.lease(kind, "me", self.now, seconds=60, limit=batch, lane=lane), "me")

    def here(self, uid: str) -> int:
        return sum(each.instances for each in self.index.studies(uid=uid))

    def recall(self, uid: str) -> list[NewTask]:
        return [NewTask("recall", {}, lane=uid, once=True)]

    def tasks(self, kind: str, *states: State) -> list[Task]:
        return [task for task in self.index.tasks(kind=kind) if not states or task.state in states]

    def fetched(self) -> list[str]:
        return [task.study_uid for task in self.tasks(FETCH)]


@pytest.fixture
def site(index: Index) -> Site:
    return Site(index)


def test_priors_are_fetched_when_the_time_before_the_examination_comes(site: Site) -> None:
    site.order()
    site.work()
    (waits,) = site.tasks(PREFETCH)
    assert (waits.state, waits.due, waits.attempts) == (State.WAITING, BEGINS - 4 * HOUR, 0)
    assert waits.reason == "waits for the time before the examination" and not site.asked
    site.now = waits.due
    site.work()
    assert site.fetched() == ["9.3", "9.2"]
    assert {task.lane for task in site.tasks(FETCH)} == {FROM + "PACS"}
    assert site.tasks(PREFETCH)[0].reason == "2 priors are fetched, 0 are here, 1 others not wanted"


def test_an_order_without_a_time_wants_its_priors_at_once(site: Site) -> None:
    site.order(begins=None)
    site.work()
    assert site.fetched() == ["9.3", "9.2"]


@pytest.mark.parametrize("moved", [-12 * HOUR, 12 * HOUR])
def test_a_moved_order_moves_its_prefetch(site: Site, moved: float) -> None:
    site.order()
    site.work()
    site.order(begins=BEGINS + moved)
    site.work()
    (waits,) = site.tasks(PREFETCH)
    assert (waits.state, waits.due) == (State.WAITING, BEGINS + moved - 4 * HOUR)


def test_an_order_that_was_cancelled_fetches_nothing(site: Site) -> None:
    site.order()
    site.work()
    site.index.orders.set_state("1.1", StepState.CANCELLED, site.now)
    site.now = BEGINS
    site.work()
    (ended,) = site.tasks(PREFETCH)
    assert (ended.state, ended.reason) == (State.DONE, "the order was cancelled")
    assert not site.asked and not site.fetched()


def test_an_order_of_long_ago_and_one_of_another_kind_fetch_nothing(site: Site) -> None:
    site.order(1, begins=EARLY - 48 * HOUR)
    unfit = {"PatientID": "P1", "StudyInstanceUID": "1.2"}
    site.orders.save(OrderChange(OrderKeys("1.2", "PL2"), None, unfit), site.now)
    site.work()
    assert [task.reason for task in site.tasks(PREFETCH)] == ["its examination was to begin too long ago"]
    assert not site.asked


def test_many_triggers_for_one_order_are_one_look(site: Site) -> None:
    for _ in range(12):
        site.order()
    site.work(batch=5)
    assert len(site.tasks(PREFETCH)) == 1
    site.now = BEGINS
    for _ in range(12):
        site.order()
    site.work(batch=5)
    assert site.asked == ["PACS"]
    assert len(site.tasks(FETCH)) == 2


def test_many_orders_for_one_patient_fetch_each_study_once(site: Site) -> None:
    site.now = BEGINS
    for number in range(1, 13):
        site.order(number)
    site.work()
    assert site.asked == ["PACS"]
    assert sorted(site.fetched()) == ["9.2", "9.3"]
    assert len(site.tasks(PREFETCH, State.DONE)) == 12


def test_what_is_here_is_not_fetched_but_brought_to_the_cache(site: Site) -> None:
    site.index.add([arrival("9.3"), arrival("9.2")])
    site.now = BEGINS
    for _ in range(2):
        site.order()
        site.work()
    assert site.fetched() == []
    assert site.tasks(PREFETCH)[0].reason == "0 priors are fetched, 2 are here, 1 others not wanted"
    assert {task.lane for task in site.tasks("recall")} == {"9.2", "9.3"}


def test_a_study_that_is_here_in_part_is_fetched(site: Site) -> None:
    site.index.add([arrival("9.3")])
    site.answers["PACS"] = [answer(3, NumberOfStudyRelatedInstances="2")]
    site.now = BEGINS
    site.order()
    site.work()
    assert site.fetched() == ["9.3"]


def test_the_same_id_of_another_issuer_is_somebody_else(site: Site) -> None:
    others = answer(1, IssuerOfPatientID="B"), answer(3, PatientName="Roe^Mary")
    site.answers["PACS"] = [*others, answer(2, IssuerOfPatientID="A")]
    site.now = BEGINS
    site.order(IssuerOfPatientID="A")
    site.work()
    assert site.fetched() == ["9.2"]


def test_a_dead_source_is_asked_again_while_others_are_fetched_from(index: Index) -> None:
    rule = Rule("two", frozenset({"worklist"}), None, Wish(9), ("DEAD", "PACS"), late=HOUR)
    site = Site(index, rule, now=BEGINS)
    site.down = {"DEAD": "no answer in time"}
    site.order()
    site.work()
    (waits,) = site.tasks(PREFETCH)
    assert waits.state is State.WAITING and waits.reason.startswith("DEAD: no answer in time; 3 priors are fetched")
    assert len(site.fetched()) == 3
    site.down, site.now = {}, waits.due
    site.answers["DEAD"] = [answer(4)]
    site.work()
    assert site.tasks(PREFETCH)[0].state is State.DONE and "9.4" in site.fetched()


def test_a_source_that_stays_away_is_given_up_when_it_is_too_late(index: Index) -> None:
    site = Site(index, Rule("one", frozenset({"worklist"}), None, Wish(), ("DEAD",), late=HOUR), now=BEGINS)
    site.down = {"DEAD": "no answer in time"}
    site.order()
    while (task := site.tasks(PREFETCH) or [None])[0] is None or task[0].state is State.WAITING:
        site.now = task[0].due if task[0] else site.now
        site.work()
    assert task[0].state is State.FAILED and "no answer in time" in task[0].reason
    assert site.now <= BEGINS + HOUR and len(site.asked) > 3


def test_what_has_just_failed_is_not_asked_for_the_next_patient(site: Site) -> None:
    site.now, site.down = BEGINS, {"PACS": "no answer in time"}
    site.order(1)
    site.order(2, PatientID="P2")
    site.work()
    assert site.asked == ["PACS"]
    assert all("no answer in time" in task.reason for task in site.tasks(PREFETCH))
    site.down, site.now = {}, site.now + PAUSES[-1]
    site.work()
    assert len(site.asked) == 3 and not site.tasks(PREFETCH, State.WAITING)


def test_a_rule_that_has_gone_says_so(site: Site) -> None:
    site.order()
    site.rules = []
    site.work()
    assert site.tasks(PREFETCH)[0].reason == "the rule has gone from the configuration"


def test_a_patient_id_that_would_ask_for_everybody_is_never_asked_for(site: Site) -> None:
    site.now = BEGINS
    site.order(PatientID="*")
    site.work()
    (ended,) = site.tasks(PREFETCH)
    assert (ended.state, ended.reason) == (State.FAILED, "the Patient ID cannot be asked for") and not site.asked


def test_an_error_of_the_archive_puts_one_task_off_and_no_other(site: Site) -> None:
    site.now = BEGINS
    site.index.add_tasks([NewTask(PREFETCH, {"on": "order", "order": {"nonsense": 1}}, 0.0, RULE.lane)], site.now)
    site.order()
    site.work()
    assert site.fetched() == ["9.3", "9.2"]
    assert [task.reason[:14] for task in site.tasks(PREFETCH, State.WAITING)] == ["internal error"]


def test_the_first_images_of_a_study_want_priors_but_not_those_that_a_source_sent(site: Site) -> None:
    image = {"PatientName": "Doe^Jane", "StudyDate": "20260614", "StudyDescription": "CT head"}
    site.index.add([arrival("7.1", source="CT1", **image), arrival("9.1", source="PACS", **image)])
    for uid in ("7.1", "9.1"):
        site.study(uid)
    site.work()
    ended = {task.study_uid: task.reason for task in site.tasks(PREFETCH)}
    assert ended["9.1"] == "it came from a source of the rule itself"
    assert site.fetched() == ["9.3", "9.2"]
    site.study("7.1", READY)
    assert not site.tasks(PREFETCH, State.WAITING)


def test_a_study_that_comes_early_does_not_wait_for_its_order(site: Site) -> None:
    site.order()
    site.work()
    image = {"PatientName": "Doe^Jane", "StudyDate": "20260614", "StudyDescription": "CT head"}
    site.index.add([arrival("1.1", source="CT1", **image)])
    site.order()
    site.study("1.1")
    site.work()
    assert site.fetched() == ["9.3", "9.2"]
    assert [task.due for task in site.tasks(PREFETCH, State.WAITING)] == [BEGINS - 4 * HOUR]


# -- handing on -------------------------------------------------------------------------------------------------


def test_priors_go_on_to_a_workstation_once_those_that_are_here_at_once(index: Index) -> None:
    site = Site(index, Rule("ws", frozenset({"worklist"}), None, Wish(2), ("PACS",), ("WS",)), now=BEGINS)
    index.add([arrival("9.3")])
    for _ in range(2):
        site.order()
        site.work()
    assert [(task.lane, task.study_uid) for task in site.tasks(DELIVER)] == [("WS", "9.3")]
    assert [task.study_uid for task in site.tasks(HAND_ON, State.WAITING)] == ["9.2"]
    (fetch,) = site.tasks(FETCH)
    index.lease(FETCH, "fetcher", site.now, seconds=60)
    index.add([arrival("9.2")])
    site.study("9.2", READY)
    site.work()
    assert [task.reason for task in site.tasks(HAND_ON, State.WAITING)] == ["the study is being fetched"]
    index.finish(fetch.id, "fetcher", site.now)
    site.study("9.2", READY)
    site.work()
    assert {task.study_uid for task in site.tasks(DELIVER)} == {"9.2", "9.3"}
    assert [task.reason for task in site.tasks(HAND_ON)] == ["1 images put into the queue"]


def test_a_study_that_was_not_fetched_is_handed_to_nobody(index: Index) -> None:
    site = Site(index, Rule("ws", frozenset({"worklist"}), None, Wish(1), ("PACS",), ("WS",)), now=BEGINS)
    site.order()
    site.work()
    (fetch,) = index.lease(FETCH, "fetcher", site.now, seconds=60)
    index.fail(fetch.id, "fetcher", site.now, "peer has nothing of this study")
    site.now = site.tasks(HAND_ON)[0].due
    site.work()
    (ended,) = site.tasks(HAND_ON)
    assert (ended.state, ended.reason) == (State.FAILED, "the study was not fetched")
    site.study("9.3", READY)
    site.work()
    assert not site.tasks(DELIVER) and not [task for task in site.tasks(HAND_ON) if task.lane == AT_ONCE]
