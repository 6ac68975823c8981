"""Routing decides by rules, never sends back, never twice, and says why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import pytest

from archive.dicom.rule import parse_rule
from archive.services.causes import IMAGE, STUDY, Event
from archive.services.routing import DELIVER, ROUTE, Route, Routing, file_name, why

CT = {"Modality": "CT", "CallingAETitle": "CT1", "StudyDescription": "Chest"}


def route(name: str, match: str = "", to: str = "WS1", trigger: str = "image", **more: object) -> Route:
    return Route(name, parse_rule(match), trigger, tuple(to.split()), **more)  # type: ignore[arg-type]


def decided(routes: list[Route], facts: Mapping[str, str], trigger: str = "image") -> dict[str, tuple[str, ...]]:
    decisions = Routing(routes).decide(trigger, lambda keyword: facts.get(keyword, ""))
    return {each.route.name: each.to for each in decisions}


@pytest.mark.parametrize(
    ("routes", "to"),
    [
        ([route("a")], {"a": ("WS1",)}),
        ([route("a", "Modality = 'MR'")], {"a": ()}),
        ([route("a", to="CT1 WS1")], {"a": ("WS1",)}),  # never back to the sender
        ([route("a"), route("b", to="WS1 WS2")], {"a": ("WS1",), "b": ("WS2",)}),  # never twice
        ([route("a", stop=True), route("b", to="WS2")], {"a": ("WS1",)}),
        ([route("a", "Modality = 'MR'", stop=True), route("b", to="WS2")], {"a": (), "b": ("WS2",)}),
        ([route("a", trigger="study"), route("b", to="WS2")], {"b": ("WS2",)}),
    ],
)
def test_routes_are_asked_in_their_order(routes: list[Route], to: dict[str, tuple[str, ...]]) -> None:
    assert decided(routes, CT) == to


def test_an_alias_of_a_destination_is_the_destination() -> None:
    routes = Routing([route("a", to="WS1")], lambda target: (target, "CT1"))
    (decision,) = routes.decide("image", lambda keyword: CT.get(keyword, ""))
    assert decision.fits and decision.to == () and decision.left_out == {"WS1": "it came from there"}


def event(name: str = IMAGE, when: float = 1000.0, **facts: str) -> Event:
    values = CT | facts
    return Event(name, lambda keyword: values.get(keyword, ""), when, "1.2", "1.2.3", "1.2.3.4")


def test_an_image_causes_a_task_for_each_destination_in_its_lane() -> None:
    tasks = list(Routing([route("a", to="WS1 folder:/x", priority=1)]).on_image(event()))
    assert [(task.kind, task.lane, task.study_uid, task.priority) for task in tasks] == [
        (DELIVER, "WS1", "1.2", 1),
        (DELIVER, "folder:/x", "1.2", 1),
    ]
    assert dict(tasks[0].payload) == {"sop": "1.2.3.4", "at": 1000.0, "route": "a"}


def test_a_series_is_looked_at_once_when_nothing_has_come_for_a_while() -> None:
    (task,) = Routing([route("a", trigger="series")], series_after=30).on_image(event())
    assert (task.kind, task.lane, task.due, task.once) == (ROUTE, "1.2.3", 1030.0, True)


@pytest.mark.parametrize(("state", "tasks"), [("ready", 1), ("received", 0)])
def test_a_study_is_looked_at_when_it_is_ready(state: str, tasks: int) -> None:
    found = list(Routing([route("a", trigger="study")]).on_study(event(STUDY, StudyState=state)))
    assert [task.lane for task in found] == ["1.2"] * tasks


@pytest.mark.parametrize(
    ("sop_class", "tasks"),
    [("88.11", 1), ("88.33", 1), ("104.1", 1), ("2", 0), ("88.67", 0), ("88.59", 0)],  # a CT, a dose, a selection
)
def test_a_study_is_looked_at_when_a_report_on_it_arrives(sop_class: str, tasks: int) -> None:
    arrival = event(SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{sop_class}")
    found = list(Routing([route("a", trigger="report")]).on_image(arrival))
    said = {"trigger": "report", "study": "1.2"}
    assert [(task.kind, dict(task.payload), task.lane) for task in found] == [(ROUTE, said, "report 1.2")] * tasks


@pytest.mark.parametrize(
    ("hour", "rule", "holds"),
    [
        (23, "TimeOfDay >= '22:00' or TimeOfDay < '06:00'", True),
        (12, "TimeOfDay >= '22:00' or TimeOfDay < '06:00'", False),
        (12, "Weekday = 'mon'", True),
    ],
)
def test_rules_can_ask_for_the_time(hour: int, rule: str, holds: bool) -> None:
    when = datetime(2026, 1, 5, hour).timestamp()
    assert bool(list(Routing([route("a", rule)]).on_image(event(when=when)))) is holds


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("", "the rule is empty and holds for everything"),
        ("Modality = 'MR'", "Modality = 'MR' (is 'CT')"),
        ("Modality in ('MR', 'US')", "Modality in ('MR', 'US') (is 'CT')"),
        ("Modality = 'CT' and StudyDescription like 'Head*'", "StudyDescription like 'Head*' (is 'Chest')"),
        ("not Modality = 'CT'", "Modality = 'CT' (is 'CT')"),
        ("Modality = 'MR' or StudyDescription = 'Chest'", "StudyDescription = 'Chest' (is 'Chest')"),
        ("PatientID = '1'", "PatientID = '1' (is '')"),
    ],
)
def test_what_decides_is_said_with_what_the_object_says(rule: str, said: str) -> None:
    assert why(parse_rule(rule), lambda keyword: CT.get(keyword, "")) == said


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("P1", "P1/1.2.dcm"),
        ("", "none/1.2.dcm"),
        ("../../etc", "etc/1.2.dcm"),
        ("a/b\\c", "a_b_c/1.2.dcm"),
        ("..", "none/1.2.dcm"),
        ("Müller^Anna\0", "Müller_Anna/1.2.dcm"),
        ("x" * 300, f"{'x' * 100}/1.2.dcm"),
    ],
)
def test_no_value_leads_out_of_a_folder(value: str, name: str) -> None:
    facts = {"PatientID": value, "SOPInstanceUID": "1.2"}
    assert file_name("{PatientID}/{SOPInstanceUID}.dcm", lambda keyword: facts.get(keyword, "")) == name
