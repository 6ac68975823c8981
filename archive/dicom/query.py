"""A query as plain frozen data: what the index is asked, by C-FIND, C-MOVE, C-GET or over the web.

Rules that hold here: nothing but values; a test never holds SQL or a regular expression; in a pattern
``*`` and ``?`` are wildcards and everything else stands for itself (PS3.4 C.2.2.2.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from archive.dicom.attributes import Attribute, Level


class Root(Enum):
    """The information models of PS3.4 C.6, and the levels each of them has."""

    PATIENT = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)
    STUDY = (Level.STUDY, Level.SERIES, Level.IMAGE)
    PATIENT_STUDY = (Level.PATIENT, Level.STUDY)

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.value


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of these values (single value matching, list of UID matching)."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wild:
    """A value that fits a pattern (wild card matching)."""

    pattern: str


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A value that passes one of these tests."""

    tests: tuple[OneOf | Wild, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """A value within inclusive bounds; None is open (range matching)."""

    low: str | None
    high: str | None


@dataclass(frozen=True, slots=True)
class Moment:
    """A date and the time of ``time`` taken together (combined date-time matching, PS3.4 C.2.2.2.5.1)."""

    time: Attribute
    low: tuple[str, str] | None
    high: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class NoValue:
    """No value at all (empty value matching)."""


@dataclass(frozen=True, slots=True)
class NameIs:
    """A person name: each folded pattern fits a component group.

    A single pattern fits any group (``groups`` has one element); of several each fits its own, empty ones fit all.
    """

    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NameHas:
    """A person name in which each folded token begins a word, in any order (fuzzy semantic matching)."""

    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Within:
    """One item of a sequence that fulfils all conditions (sequence matching)."""

    conditions: tuple[Condition, ...]


Test = OneOf | Wild | AnyOf | Between | Moment | NoValue | NameIs | NameHas | Within


@dataclass(frozen=True, slots=True)
class Condition:
    """One attribute and what its value must be."""

    attribute: Attribute
    test: Test


@dataclass(frozen=True, slots=True)
class Return:
    """One element of every answer: an attribute of the index, a constant, or nothing (returned empty).

    ``items`` are the attributes of a sequence's items that were asked for.
    """

    tag: int
    vr: str
    attribute: Attribute | None = None
    constant: str | None = None
    items: tuple[Attribute, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched, on which level, and what is answered.

    ``unsupported`` says that a key was left out of matching: answers then carry FF01 (PS3.4 table C.4-1).
    """

    root: Root
    level: Level
    conditions: tuple[Condition, ...] = ()
    returns: tuple[Return, ...] = ()
    unsupported: bool = False
    relational: bool = False
    fuzzy: bool = False
