"""Retention: which rule decides about a study, when it is due, and what holds it up.

Rules that hold here: rules are asked in their order and the first that fits decides; a study without one is kept for
ever; nothing here deletes: what a dry run says is what is carried out, because both ask ``Policy``; years are those of
the calendar, days begin at local midnight; a study that something may still come for is never due.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from archive.dicom.expression import Expression
from archive.dicom.rule import Facts, asked, holds
from archive.index import Index
from archive.index.retention import Bounds, Candidate, RetentionRows
from archive.services.lifecycle import OPEN, READY, RECEIVED, UPDATED

DELETE, PURGE = "delete", "purge"  # what a rule says when a study was kept for long enough
DAY = 86400.0
PAGE = 200  # studies of one query, when all are told about
_SLACK = 3 * DAY  # leap days, and hours that a time zone skips


@dataclass(frozen=True, slots=True)
class Need:
    """What must be so besides: ``kind`` is commit or sent, and the peer."""

    kind: str
    peer: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.peer}"


@dataclass(frozen=True, slots=True)
class Rule:
    """How long studies that fit are kept, from their study date or from their last image on."""

    name: str
    rule: Expression | None
    years: int = 0
    seconds: float = 0.0
    forever: bool = False
    then: str = DELETE
    needs: tuple[Need, ...] = ()
    by_date: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one study; ``due`` is None when it is kept for ever, ``why`` is what holds it up now.

    ``until`` is what the rule alone says: of those that are due it is the oldest that goes first.
    """

    study_uid: str
    rule: str = ""
    due: float | None = None
    then: str = ""
    needs: tuple[Need, ...] = ()
    why: tuple[str, ...] = ()
    until: float = 0.0

    def is_due(self, now: float) -> bool:
        return self.due is not None and self.due <= now

    def is_free(self, now: float) -> bool:
        """Whether it may go now, if its needs are fulfilled."""
        return self.is_due(now) and not self.why


class Policy:
    """The rules of one configuration."""

    def __init__(self, rules: Sequence[Rule], *, grace: float = 0.0) -> None:
        """No rule by study date lets go what came less than ``grace`` seconds ago: dates of devices are often wrong."""
        self.rules = tuple(rules)
        self._grace = grace
        self.keywords = frozenset(keyword for rule in rules for keyword in asked(rule.rule))

    def judge(self, study: Candidate, now: float) -> Verdict:
        """Which rule decides, when the study is due by it, and what holds it up at this moment."""
        facts = _facts(study)
        rule = next((each for each in self.rules if holds(each.rule, facts)), None)
        if rule is None:
            return Verdict(study.uid)
        if rule.forever:
            return Verdict(study.uid, rule.name)
        until = _until(rule, study)
        due = max(until, study.updated + self._grace) if rule.by_date else until
        return Verdict(study.uid, rule.name, due, rule.then, rule.needs, tuple(_obstacles(study)), until)

    def bounds(self, now: float) -> Bounds:
        """What a study must be older than so that any rule could have let it go: never too narrow."""
        dated = [now - _least(rule) for rule in self.rules if not rule.forever and rule.by_date]
        arrived = [now - _least(rule) for rule in self.rules if not rule.forever and not rule.by_date]
        limit = max(dated, default=-math.inf)
        day = datetime.fromtimestamp(max(limit, -6e10)).strftime("%Y%m%d").rjust(8, "0") if dated else ""
        return Bounds(day, limit if dated else -1e18, max(arrived, default=-1e18))


def _least(rule: Rule) -> float:
    return rule.years * 365 * DAY + rule.seconds - _SLACK


def _facts(study: Candidate) -> Facts:
    known = study.facts | {"StudyState": state_of(study)}
    return lambda keyword: known.get(keyword, "")


def state_of(study: Candidate) -> str:
    """As lifecycle tells it."""
    if study.arrivals and study.state not in OPEN:
        return UPDATED if study.state or study.instances > study.arrivals else RECEIVED
    return study.state or READY


def _obstacles(study: Candidate) -> Iterator[str]:
    if study.hold:
        yield f"legal hold: {study.hold}"
    if study.arrivals or state_of(study) in OPEN:
        yield f"study is {state_of(study)}: images may still come"
    if study.tasks:
        yield f"tasks are open for it: {', '.join(study.tasks)}"


def _until(rule: Rule, study: Candidate) -> float:
    if not rule.by_date:
        return _later(study.updated, rule)
    date = _midnight(study.study_date)
    return _later(study.created if date is None else date, rule)


def _midnight(date: str) -> float | None:
    try:
        return datetime.strptime(date, "%Y%m%d").timestamp()
    except (ValueError, OverflowError):
        return None


def _later(start: float, rule: Rule) -> float:
    if not rule.years:
        return start + rule.seconds
    moment = datetime.fromtimestamp(start)
    year = moment.year + rule.years
    if year > 9999:
        return math.inf
    try:
        return moment.replace(year=year).timestamp() + rule.seconds
    except ValueError:  # the 29th of February
        return moment.replace(year=year, month=3, day=1).timestamp() + rule.seconds


class Looking:
    """Asks the policy about studies that are stored."""

    def __init__(self, index: Index, policy: Policy, clock: Callable[[], float]) -> None:
        self.policy = policy
        self._rows = RetentionRows(index.database)
        self._clock = clock

    def one(self, uid: str) -> Verdict | None:
        """About one study; None when it is not here."""
        found = self._rows.study(self.policy.keywords, uid)
        return next(self.judged([found])) if found else None

    def all(self) -> Iterator[Verdict]:
        """About every study, in the order in which they came."""
        after = 0
        while page := self._rows.page(self.policy.keywords, after, PAGE):
            yield from self.judged(page)
            after = page[-1].id

    def judged(self, studies: Iterable[Candidate]) -> Iterator[Verdict]:
        """With what holds them up: asked for all together."""
        studies = list(studies)
        holds, tasks = self._rows.obstacles([each.uid for each in studies])
        for each in studies:
            known = replace(each, hold=holds.get(each.uid, ""), tasks=tasks.get(each.uid, ()))
            yield self.policy.judge(known, self._clock())
