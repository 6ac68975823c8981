"""The sections ``retention`` and ``deletion`` and the option ``storage.watermarks``: what is kept for how long.

Rules that hold here: a rule looks at studies, so it asks only for what a study says as a whole; years are years of the
calendar; what could delete sooner than was meant is a complaint, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from archive.errors import ConfigurationError

from . import values
from .complaints import Complaint
from .kinds import OFF_WORDS, ListOf, Reading, Scalar, Unfit
from .pacing import HOURS, Hours
from .rules import NAME, RULE, callable_peer, own_names
from .schema import option
from .units import read_duration, show_duration
from .values import number, one_of

if TYPE_CHECKING:
    from .sections import Config

FOREVER = "forever"
MOST_YEARS = 200
THEN = {
    "delete": "it is deleted when it was kept for so long",
    "purge": "from then on it may be deleted when space is needed (storage.watermarks), the oldest first",
}
BASES = {
    "study date": "from the study date; where there is none, from the arrival of the study",
    "received": "from the arrival of the study's last image",
}
COMMIT, SENT = "commit", "sent"
NEEDS = {
    COMMIT: "the peer promises to keep every instance, by storage commitment, asked just before",
    SENT: "every instance was sent to the peer, or it finds it by C-FIND just before",
}

# What a study says beside its own attributes and those of its patient.
STUDY_WORDS = frozenset(
    {"Modality", "ModalitiesInStudy", "SOPClassesInStudy", "StudyState", "NumberOfStudyRelatedInstances"}
)

_KEEP = re.compile(r"\s*(?:(\d{1,3})\s*y(?:ears?)?)?\s*(.*?)\s*", re.ASCII)
_BASE = re.compile(r"[\s_-]+")


class Keep(NamedTuple):
    """How long: years of the calendar, and seconds."""

    years: int = 0
    seconds: float = 0.0
    forever: bool = False


class Need(NamedTuple):
    """What must be so before a study is deleted, and at whom."""

    kind: str
    peer: str


def _keep(text: str) -> Keep:
    if text.strip().lower() == FOREVER:
        return Keep(forever=True)
    match = _KEEP.fullmatch(text.lower())
    years, rest = (match[1], match[2]) if match else (None, text)
    if years is None and not rest:
        raise Unfit("how long is not said")
    found = Keep(int(years or 0), read_duration(rest) if rest else 0.0)
    if found.years > MOST_YEARS or found.seconds > MOST_YEARS * 365 * 86400:
        raise Unfit("out of range", f"at most {MOST_YEARS}y, or {FOREVER}")
    return found


def show_keep(keep: Keep) -> str:
    if keep.forever:
        return FOREVER
    years = f"{keep.years}y" if keep.years else ""
    return years + (show_duration(keep.seconds) if keep.seconds or not years else "")


def _need(text: str) -> Need:
    kind, _, peer = text.strip().partition(":")
    if kind.strip().lower() not in NEEDS or not peer.strip():
        raise Unfit("not something that can be needed")
    return Need(kind.strip().lower(), values.ae_title(peer))


def _versions(text: str) -> float | None:
    return None if text.strip().lower() == FOREVER else values.duration(0.0, 100 * 365 * 86400.0).convert(text)


def _base(text: str) -> str:
    return one_of(BASES).convert(_BASE.sub(" ", text.strip()))


def _or_off(kind: Scalar) -> Scalar:
    return Scalar(
        f"off or {kind.expects}",
        lambda text: 0 if text.strip().lower() in OFF_WORDS else kind.convert(text.strip().removesuffix("%")),
        lambda value: value or "off",
    )


KEEP = Scalar("forever, or a time such as 7y, 10y6w or 90d", _keep, show_keep)
NEED = Scalar("commit:PEER or sent:PEER", _need, lambda need: f"{need.kind}:{need.peer}")
BASE = Scalar("study date or received", _base)
VERSIONS = Scalar(
    "forever, or a time such as 90d", _versions, lambda value: FOREVER if value is None else show_duration(value)
)
PERCENT = _or_off(number(1, 100))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRule:
    name: str = option(NAME, None, "what lists, logs and the journal call it", required=True)
    match: str = option(RULE, "", "which studies; empty is all; the first rule that fits decides, none keeps forever")
    keep: Keep = option(KEEP, None, "how long; forever = never deleted by a rule", required=True)
    then: str = option(one_of(THEN), "delete", "what happens then")
    needs: tuple[Need, ...] = option(ListOf(NEED), [], "what must be so besides, before anything is deleted")
    base: str = option(BASE, "study date", "from when on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    window: Hours | None = option(HOURS, "always", "when rules are carried out (local time)")
    max_per_day: int = option(
        number(1, 10_000_000), "1000", "studies that rules delete on one day, so that a mistake is seen in time"
    )
    grace: float = option(
        values.duration(0.0, 3650 * 86400.0),
        "30d",
        "rules by study date delete nothing sooner after its last image came: dates of devices are often wrong",
    )
    rate: int = option(
        number(1, 100_000), "500", "instances that rules delete in a second, so that arrivals do not wait"
    )
    versions: float | None = option(
        VERSIONS, FOREVER, "how long earlier versions of instances are kept (storage.on_duplicate: version)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermarks:
    warn: int = option(PERCENT, "80", "percent used of the file system, from which on the archive warns")
    purge: int = option(PERCENT, "90", "from which on it deletes what rules let go, the oldest first")
    purge_to: int = option(PERCENT, "85", "and until when")
    refuse: int = option(PERCENT, "off", "from which on a store is answered with A700, whatever storage.reserve says")


def kept(config: Config, reading: Reading) -> Iterator[Complaint]:
    """Rules have names of their own, ask what a study can answer, and need peers that can be asked."""
    yield from own_names(reading, "retention", config.retention)
    for position, rule in enumerate(config.retention):
        key = f"retention.{position}"
        for word in sorted(_unknown(rule.match)):
            problem = f"{word} is not of a study as a whole"
            yield reading.about(f"{key}.match", problem, "attributes of patients and studies would do, and Modality")
        for need in rule.needs:
            yield from callable_peer(config, reading, f"{key}.needs", need.peer)
    yield from _ascending(config, reading)


def _unknown(match: str) -> set[str]:
    from archive.dicom.attributes import BY_KEYWORD, Level
    from archive.dicom.rule import asked, parse_rule

    try:
        parsed = parse_rule(match)
    except ConfigurationError:
        return set()  # complained about already
    return {
        word for word in asked(parsed) - STUDY_WORDS
        if not any(row.level <= Level.STUDY and not row.computed for row in BY_KEYWORD.get(word, ()))
    }  # fmt: skip


def _ascending(config: Config, reading: Reading) -> Iterator[Complaint]:
    marks = config.storage.watermarks
    if marks.purge and (not marks.purge_to or marks.purge_to >= marks.purge):
        problem = f"purge_to {marks.purge_to or 'off'} is not below purge {marks.purge}"
        yield reading.about("storage.watermarks.purge_to", problem, f"{max(marks.purge - 5, 1)} would do")
    given = [(name, getattr(marks, name)) for name in ("warn", "purge", "refuse") if getattr(marks, name)]
    for (name, low), (other, high) in zip(given, given[1:], strict=False):
        if low >= high:
            yield reading.about(f"storage.watermarks.{other}", f"{high} is not above {name} {low}", "more would do")
