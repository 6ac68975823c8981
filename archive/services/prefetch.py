"""Prefetch: for which orders and studies priors are wanted, by which rule, from whom and when.

Rules that hold here: an order is judged as it is when its time comes, not as it was when it was heard of, so that what
was cancelled fetches nothing and what was moved moves; a study that came from a rule's own source wants nothing of it,
so that priors never fetch their priors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from archive.dicom.expression import Expression
from archive.dicom.rule import holds
from archive.dicom.temporal import canonical_date, canonical_time
from archive.index import Index, NewTask
from archive.index.ordervalues import OPEN_STATES, OrderKeys, OrderSummary, StepState
from archive.index.states import StudyStates
from archive.services.causes import Event
from archive.services.lifecycle import RECEIVED
from archive.services.relevance import Examination, Wish
from archive.services.routing import why
from archive.services.samepatient import Patient, codes
from archive.services.schedule import Schedule

PREFETCH = "prefetch"  # kind of the tasks; the lane is a rule
BY_ORDER, BY_WORKLIST, BY_IMAGE = "order", "worklist", "image"
RULE = "rule:"  # before its name, the name of a rule's lane

_OVER = {StepState.CANCELLED.value: "was cancelled", StepState.DISCONTINUED.value: "was discontinued"}
_OPEN = {state.value for state in OPEN_STATES}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the configuration; ``ahead`` and ``late`` are seconds before and after the examination begins."""

    name: str
    on: frozenset[str]
    match: Expression | None
    wish: Wish
    sources: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    ahead: float = 14400.0
    late: float = 86400.0
    skip_if_present: bool = True
    schedule: Schedule = field(default_factory=Schedule)
    priority: int = 0
    titles: frozenset[str] = frozenset()  # with which the sources call

    @property
    def lane(self) -> str:
        return RULE + self.name


@dataclass(frozen=True, slots=True)
class Subject:
    """What priors are wanted for: an order or a study, as it is now."""

    on: str
    study_uid: str
    patient: Patient
    coming: Examination
    values: Mapping[str, str]
    begins: float | None = None
    over: str = ""  # why nothing is wanted for it any more
    sources: frozenset[str] = frozenset()  # the AE titles that it came from

    def fact(self, keyword: str) -> str:
        return self.values.get(keyword, "")

    def day(self, now: float) -> date:
        return datetime.fromtimestamp(now if self.begins is None else max(now, self.begins)).date()


@dataclass(frozen=True, slots=True)
class Timing:
    """When a rule acts on a subject: at ``due``, or never, and why."""

    due: float = 0.0
    never: str = ""
    waits: str = ""  # for what, until ``due``
    tells: bool = True  # whether a person may want to know of it: not that a rule is for others


def timing(rule: Rule, subject: Subject, now: float, *, since: float | None = None) -> Timing:
    """Whether a rule wants priors for a subject, and when; ``since`` it has been wanted."""
    if not holds(rule.match, subject.fact):
        return Timing(never=f"the rule does not fit: {why(rule.match, subject.fact)}", tells=False)
    if subject.over:
        return Timing(never=subject.over)
    if subject.sources & rule.titles:
        return Timing(never="it came from a source of the rule itself")
    begins = subject.begins if subject.begins is not None else since if since is not None else now
    if now > begins + rule.late:
        return Timing(never="its examination was to begin too long ago")
    due = begins - rule.ahead
    if now < due:
        return Timing(due, waits="waits for the time before the examination")
    opens = rule.schedule.opens(now)
    return Timing(now) if opens is None else Timing(opens, waits="waits for the hours in which sources may be asked")


def until(rule: Rule, subject: Subject, since: float) -> float:
    """Until when what failed is tried again."""
    return max(since, subject.begins or 0.0) + rule.late


# -- what happens ---------------------------------------------------------------------------------------------


class Triggers:
    """The rules as causes: a task for each rule that what happens may concern."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)

    def has(self, *triggers: str) -> bool:
        return any(rule.on & set(triggers) for rule in self._rules)

    def on_order(self, event: Event) -> Iterator[NewTask]:
        """An order is saved. The rule is asked later: a message that changes it says but a part of it."""
        trigger = BY_ORDER if event.details.get("message") else BY_WORKLIST
        keys = {name: value for name, value in event.details["keys"].items() if value}
        if not any(name in keys for name in ("study_uid", "placer", "filler", "accession_number")):
            return
        payload = {"on": trigger, "order": keys | ({"study_uid": event.study_uid} if event.study_uid else {})}
        for rule in self._rules:
            if trigger in rule.on:
                yield NewTask(PREFETCH, payload, 0.0, rule.lane, event.study_uid)

    def on_study(self, event: Event) -> Iterator[NewTask]:
        """The first images of a study have come."""
        if event.facts("StudyState") != RECEIVED:
            return
        for rule in self._rules:
            if BY_IMAGE in rule.on:
                yield NewTask(PREFETCH, {"on": BY_IMAGE, "study": event.study_uid}, 0.0, rule.lane, event.study_uid)


# -- what it is about -----------------------------------------------------------------------------------------


class Subjects:
    """Orders and studies of one index, as what priors are wanted for."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._states = StudyStates(index.database)

    def of(self, payload: Mapping[str, Any]) -> Subject | None:
        """What a task is about; None when it is gone."""
        if "study" in payload:
            return self.of_study(str(payload["study"]))
        order = self._index.orders.find(OrderKeys(**payload["order"]))
        return of_order(order, str(payload["on"])) if order else None

    def named(self, name: str) -> list[Subject]:
        """What a person may mean: a study, or orders by UID, accession, placer's or filler's number."""
        study = self.of_study(name)
        found = [study] if study else []
        seen: dict[int, OrderSummary] = {}
        latest = self._index.orders.latest
        for orders in (latest(study_uid=name), latest(accession_number=name), latest(placer=name), latest(filler=name)):
            seen |= {order.id: order for order in orders}
        found += [of_order(order, BY_ORDER) for order in seen.values()]
        if not found:
            for uid in self._index.matches.with_accession(name, ""):
                study = self.of_study(uid)
                found += [study] if study else []
        return found

    def of_study(self, uid: str) -> Subject | None:
        life = self._states.life(uid)
        if life is None:
            return None
        values = self._states.facts(life)
        coming = Examination.of(
            uid, values.get("StudyDate", ""), values.get("ModalitiesInStudy", "").split("\\"),
            body_parts=[values.get("BodyPartExamined", "")], descriptions=_described(values),
        )  # fmt: skip
        sources = frozenset(values.get("CallingAETitle", "").split("\\")) - {""}
        begins = moment(values.get("StudyDate", ""), values.get("StudyTime", ""))
        return Subject(BY_IMAGE, uid, Patient.of(values), coming, values, begins, sources=sources)


def of_order(order: OrderSummary, on: str) -> Subject:
    """An order with its steps; those that were given up do not count while others are left."""
    steps = [attributes for _, state, attributes in order.steps if state in _OPEN]
    steps = steps or [attributes for _, _, attributes in order.steps]
    values = {keyword: value for keyword, value in order.attributes.items() if isinstance(value, str)}
    for keyword in dict.fromkeys(keyword for step in steps for keyword in step):
        said = [value for step in steps if isinstance(value := step.get(keyword), str) and value]
        values[keyword] = "\\".join(dict.fromkeys(said))
    values["ModalitiesInStudy"] = values.get("Modality", "")
    values.setdefault("StudyDescription", values.get("RequestedProcedureDescription", ""))
    procedures = [*codes(order.attributes, "RequestedProcedureCodeSequence")]
    procedures += [code for step in steps for code in codes(step, "ScheduledProtocolCodeSequence")]
    starts = [moment(_text(step, "ScheduledProcedureStepStartDate"), _text(step, "ScheduledProcedureStepStartTime"))
              for step in steps]  # fmt: skip
    begins = min((start for start in starts if start is not None), default=None)
    coming = Examination.of(
        order.study_uid, modalities=values.get("Modality", "").split("\\"), descriptions=_described(values),
        procedures=procedures,
    )  # fmt: skip
    over = f"the order {_OVER[order.state]}" if order.state in _OVER else ""
    return Subject(on, order.study_uid, Patient.of(values), coming, values, begins, over)


def _described(values: Mapping[str, str]) -> Iterable[str]:
    names = ("RequestedProcedureDescription", "ScheduledProcedureStepDescription", "StudyDescription")
    return [text for name in names for text in values.get(name, "").split("\\")]


def _text(attributes: Mapping[str, Any], keyword: str) -> str:
    value = attributes.get(keyword)
    return value if isinstance(value, str) else ""


def moment(day: str, time: str) -> float | None:
    """A date and time of the archive's own zone; without a time the day's beginning, without a date None."""
    digits = canonical_date(day)
    if digits is None:
        return None
    clock = (canonical_time(time) or "").partition(".")[0].ljust(6, "0")[:6]
    if clock.endswith("60"):  # a leap second (PS3.5 table 6.2-1), which no clock here has
        clock = f"{clock[:4]}59"
    try:
        return datetime.strptime(digits + clock, "%Y%m%d%H%M%S").timestamp()
    except (ValueError, OverflowError):
        return None
