"""When priors are wanted, and for what: orders with their steps, and studies."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from archive.dicom.rule import parse_order_rule
from archive.index.ordervalues import OrderSummary
from archive.services.causes import Event
from archive.services.prefetch import PREFETCH, Rule, Triggers, moment, of_order, timing, until
from archive.services.relevance import Wish
from archive.services.schedule import Schedule

BEGINS = datetime(2026, 6, 15, 9, 30).timestamp()
HOUR = 3600.0
RULE = Rule("all", frozenset({"order"}), None, Wish(), ahead=4 * HOUR, late=24 * HOUR)


def step(modality: str = "CT", time: str = "0930", state: str = "SCHEDULED", **more: Any) -> tuple[str, str, Any]:
    start = {"ScheduledProcedureStepStartDate": "20260615", "ScheduledProcedureStepStartTime": time}
    return "S", state, {"Modality": modality} | start | more


def order(*steps: tuple[str, str, Any], state: str = "SCHEDULED", **attributes: Any) -> OrderSummary:
    said = {"PatientID": "P1", "PatientName": "Doe^Jane", "RequestedProcedureDescription": "CT head"} | attributes
    return OrderSummary(1, state, "1.1", "A1", "PL1", "", "P1", "", said, steps or (step(),), 0.0, 0.0)


def test_an_order_is_what_its_open_steps_say() -> None:
    found = of_order(order(step("PT", "1100"), step("CT", "0930"), step("MR", "0800", "CANCELLED")), "order")
    assert found.coming.modalities == {"PT", "CT"} and found.begins == BEGINS
    assert found.fact("Modality") == "PT\\CT" and found.fact("StudyDescription") == "CT head"


def test_codes_of_procedure_and_protocol_are_compared() -> None:
    code = {"CodeValue": "CTHEAD", "CodingSchemeDesignator": "L"}
    other = {"CodeValue": "HEAD", "CodingSchemeDesignator": "99X"}
    found = of_order(order(step(ScheduledProtocolCodeSequence=[other]), RequestedProcedureCodeSequence=[code]), "order")
    assert found.coming.procedures == {"L:CTHEAD", "99X:HEAD"}


TIMES = [
    (BEGINS - 5 * HOUR, BEGINS - 4 * HOUR, ""),
    (BEGINS - 3 * HOUR, BEGINS - 3 * HOUR, ""),
    (BEGINS + 23 * HOUR, BEGINS + 23 * HOUR, ""),
    (BEGINS + 25 * HOUR, 0.0, "its examination was to begin too long ago"),
]


@pytest.mark.parametrize(("now", "due", "never"), TIMES)
def test_priors_are_wanted_from_before_the_examination_until_it_is_too_late(now: float, due: float, never: str) -> None:
    found = timing(RULE, of_order(order(), "order"), now)
    assert (found.due, found.never) == (due, never)


def test_sources_are_asked_within_the_hours_of_the_rule() -> None:
    nightly = replace(RULE, schedule=Schedule([(range(7), 22 * 60, 6 * 60)]))
    found = timing(nightly, of_order(order(), "order"), BEGINS)
    assert datetime.fromtimestamp(found.due).hour == 22
    assert found.waits == "waits for the hours in which sources may be asked"


def test_what_failed_is_tried_until_it_is_too_late() -> None:
    assert until(RULE, of_order(order(), "order"), BEGINS - HOUR) == BEGINS + 24 * HOUR
    assert until(RULE, of_order(order(), "order"), BEGINS + HOUR) == BEGINS + 25 * HOUR


def test_a_rule_asks_of_the_worklists_attributes_as_well() -> None:
    stat = replace(RULE, match=parse_order_rule("Modality = 'CT' and RequestedProcedurePriority != 'STAT'"))
    assert not timing(stat, of_order(order(), "order"), BEGINS).never
    found = timing(stat, of_order(order(RequestedProcedurePriority="STAT"), "order"), BEGINS)
    assert "RequestedProcedurePriority" in found.never and not found.tells


@pytest.mark.parametrize("state", ["CANCELLED", "DISCONTINUED"])
def test_an_order_that_was_given_up_wants_nothing(state: str) -> None:
    assert state.lower() in timing(RULE, of_order(order(state=state), "order"), BEGINS).never


MOMENTS = {
    ("20260615", "093000"): BEGINS, ("20260615", "0930"): BEGINS, ("2026.06.15", "09:30"): BEGINS,
    ("20260615", ""): BEGINS - 9.5 * HOUR, ("20260615", "99"): BEGINS - 9.5 * HOUR, ("", "0930"): None,
    ("nonsense", ""): None,
    # A leap second is the one before it; six and nought beside each other are none.
    ("20260615", "235960"): datetime(2026, 6, 15, 23, 59, 59).timestamp(),
    ("20260615", "160000"): datetime(2026, 6, 15, 16).timestamp(),
    ("20260615", "0600"): datetime(2026, 6, 15, 6).timestamp(),
}  # fmt: skip


@pytest.mark.parametrize(("day", "time"), MOMENTS)
def test_moments_are_read_as_far_as_they_are_given(day: str, time: str) -> None:
    assert moment(day, time) == MOMENTS[day, time]


def test_each_rule_of_a_trigger_gets_a_task() -> None:
    names = {"all": {"order"}, "list": {"worklist"}, "both": {"order", "worklist"}}
    rules = [replace(RULE, name=name, on=frozenset(on)) for name, on in names.items()]
    keys = {"study_uid": "", "placer": "PL1", "placer_issuer": "", "accession_number": ""}
    for message, lanes in ((True, ["rule:all", "rule:both"]), (False, ["rule:list", "rule:both"])):
        event = Event("order", lambda keyword: "", 0.0, study_uid="1.1", details={"keys": keys, "message": message})
        tasks = list(Triggers(rules).on_order(event))
        assert [task.lane for task in tasks] == lanes and {task.kind for task in tasks} == {PREFETCH}
        assert tasks[0].payload["order"] == {"study_uid": "1.1", "placer": "PL1"}
