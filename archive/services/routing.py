"""Routing: which object goes where, decided by rules, written down as tasks.

Rules that hold here: an object never goes back to whom it came from, and to no destination twice for one arrival;
routes are asked in their order; whatever decides for an arriving object decides the same for one that is stored, so
that a dry run tells what would happen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from archive.dicom.expression import And, Compare, Expression, Not, Or
from archive.dicom.rule import Facts, holds
from archive.index import NewTask
from archive.index.described import Described
from archive.services.causes import Event

DELIVER, VERIFY, ROUTE = "deliver", "verify", "route"  # kinds of tasks; the lane of the first two is a destination
IMAGE, SERIES, STUDY, REPORT = "image", "series", "study", "report"  # triggers
# PS3.4 B.5: what says in words what was found; not doses, marks of CAD, logs or selections of images.
REPORTS = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}" for end in (
        "88.11", "88.22", "88.33",  # Basic Text, Enhanced, Comprehensive SR
        "88.34", "88.35",  # Comprehensive 3D, Extensible SR
        "88.75",  # Simplified Adult Echo SR
        "104.1", "104.2",  # Encapsulated PDF, Encapsulated CDA
    )
)  # fmt: skip
READY = "ready"  # the state of a study that triggers
FOLDER = "folder:"
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Route:
    """What fits ``rule`` goes to all of ``to``; ``stop`` keeps later routes from it."""

    name: str
    rule: Expression | None
    trigger: str
    to: tuple[str, ...]
    stop: bool = False
    priority: int = 0
    deidentify: bool = False  # whatever becomes of the route, its objects do not go out otherwise


@dataclass(frozen=True, slots=True)
class Decision:
    """One route's word about one object: where it goes, and for each destination left out, why."""

    route: Route
    fits: bool
    to: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


class Routing:
    """The routes of one configuration."""

    def __init__(
        self,
        routes: Sequence[Route],
        titles: Callable[[str], Collection[str]] = lambda destination: (destination,),
        *,
        series_after: float = 60.0,
    ) -> None:
        """``titles`` are all AE titles a destination calls with; a series is whole after ``series_after`` seconds."""
        self.routes = tuple(routes)
        self.series_after = series_after
        self._titles = {target: frozenset(titles(target)) for route in routes for target in route.to}
        self._by_trigger = {
            trigger: tuple(route for route in routes if route.trigger == trigger)
            for trigger in (IMAGE, SERIES, STUDY, REPORT)
        }

    def has(self, trigger: str) -> bool:
        return bool(self._by_trigger[trigger])

    def decide(self, trigger: str, facts: Facts) -> Iterator[Decision]:
        """What each route of a trigger says, until one says stop."""
        taken: set[str] = set()
        calling = facts("CallingAETitle")
        for route in self._by_trigger[trigger]:
            if not holds(route.rule, facts):
                yield Decision(route, False)
                continue
            left_out = {target: why for target in route.to if (why := self._unwanted(target, calling, taken))}
            to = tuple(target for target in route.to if target not in left_out)
            taken.update(to)
            yield Decision(route, True, to, left_out)
            if route.stop:
                return

    def _unwanted(self, target: str, calling: str, taken: Collection[str]) -> str:
        if calling and calling in self._titles[target]:
            return "it came from there"
        return "an earlier route sends it there" if target in taken else ""

    def keywords(self) -> frozenset[str]:
        """The attributes that rules ask for."""
        return frozenset(keyword for route in self.routes for keyword in keywords(route.rule))

    # -- causes ---------------------------------------------------------------------------------

    def on_image(self, event: Event) -> Iterable[NewTask]:
        """An object arrives: a task for each destination, and one to look at its series later, or at its study now."""
        facts = timed(event.facts, event.when)
        for decision in self.decide(IMAGE, facts):
            for target in decision.to:
                yield delivery(
                    event.sop_instance_uid, event.study_uid, target, event.when,
                    route=decision.route.name, priority=decision.route.priority,
                    deidentify=decision.route.deidentify,
                )  # fmt: skip
        if self.has(SERIES):
            payload = {"trigger": SERIES, "study": event.study_uid, "series": event.series_uid}
            due = event.when + self.series_after
            yield NewTask(ROUTE, payload, due, event.series_uid, event.study_uid, once=True)
        if self.has(REPORT) and event.facts("SOPClassUID") in REPORTS:
            payload = {"trigger": REPORT, "study": event.study_uid}
            yield NewTask(ROUTE, payload, 0.0, f"report {event.study_uid}", event.study_uid, once=True)

    def on_study(self, event: Event) -> Iterable[NewTask]:
        """A study has become ready: its objects are looked at soon, by a worker."""
        if self.has(STUDY) and event.facts("StudyState") == READY:
            payload = {"trigger": STUDY, "study": event.study_uid}
            yield NewTask(ROUTE, payload, 0.0, event.study_uid, event.study_uid, once=True)


def delivery(
    sop_instance_uid: str, study_uid: str, target: str, received: float, *, route: str = "", by: str = "",
    priority: int = 0, deidentify: bool = False,
) -> NewTask:  # fmt: skip
    """The task to send one object, which came at ``received``, to one destination: for a route, or ``by`` somebody."""
    payload = {"sop": sop_instance_uid, "at": received}
    payload |= {"route": route} if route else {"by": by}
    if deidentify:
        payload["deidentify"] = True
    return NewTask(DELIVER, payload, 0.0, target, study_uid, priority)


def timed(facts: Facts, when: float) -> Facts:
    """Facts with the words that tell the time."""
    moment = datetime.fromtimestamp(when)
    words = {"TimeOfDay": f"{moment:%H:%M}", "Weekday": WEEKDAYS[moment.weekday()]}
    return lambda keyword: words.get(keyword) or facts(keyword)


def facts_of(each: Described, words: Mapping[str, str] = MappingProxyType({})) -> Facts:
    """What rules can ask of a stored object; the title it was sent to is not kept."""
    values = {
        **each.values, "CallingAETitle": each.source, "CallingAddress": each.address,
        "TransferSyntaxUID": each.instance.transfer_syntax, **words,
    }  # fmt: skip
    return lambda keyword: values.get(keyword, "")


# -- telling why ----------------------------------------------------------------------------------------------


def keywords(rule: Expression | None) -> set[str]:
    """The keywords and words that a rule compares."""
    return {compare.attribute.keyword for compare in _compares(rule)}


def _compares(rule: Expression | None) -> Iterator[Compare]:
    if isinstance(rule, Compare):
        yield rule
    elif isinstance(rule, Not):
        yield from _compares(rule.part)
    elif rule is not None:
        for part in rule.parts:
            yield from _compares(part)


def why(rule: Expression | None, facts: Facts) -> str:
    """The comparisons that decide whether a rule holds, with what the object says."""
    if rule is None:
        return "the rule is empty and holds for everything"
    parts = _deciding(rule, facts, holds(rule, facts))
    return ", ".join(dict.fromkeys(f"{_words(part)} (is {facts(part.attribute.keyword)!r})" for part in parts))


def _deciding(rule: Expression, facts: Facts, holding: bool) -> list[Compare]:
    """What would have to be otherwise: the failing parts of an ``and``, the holding ones of an ``or``, and so on."""
    if isinstance(rule, Compare):
        return [rule]
    if isinstance(rule, Not):
        return _deciding(rule.part, facts, not holding)
    deciding = [part for part in rule.parts if holds(part, facts) == holding]
    all_needed = isinstance(rule, And) == holding
    chosen = rule.parts if all_needed else deciding[:1] if isinstance(rule, Or) else deciding
    return [found for part in chosen for found in _deciding(part, facts, holds(part, facts))]


def _words(compare: Compare) -> str:
    values = ", ".join(f"'{value}'" for value in compare.values)
    return f"{compare.attribute.keyword} {compare.operator} " + (f"({values})" if compare.operator == "in" else values)


# -- folders --------------------------------------------------------------------------------------------------

_FIELD = re.compile(r"\{(\w+)\}")
_UNFIT = re.compile(r"[^\w.,=@+-]+")
LONGEST_NAME = 100  # characters of one value in a path: a name of a file may have 255 bytes


def layout_keywords(layout: str) -> frozenset[str]:
    return frozenset(_FIELD.findall(layout))


def file_name(layout: str, facts: Facts) -> str:
    """A relative path: values cannot lead out of the folder, and what is missing is ``none``."""
    name = _FIELD.sub(lambda match: fit(facts(match[1])), layout)
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def fit(value: str) -> str:
    """A value as part of a file name."""
    return _UNFIT.sub("_", value.strip())[:LONGEST_NAME].strip("._") or "none"
