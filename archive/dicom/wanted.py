"""Which attributes a pass over a data set picks up, prepared once for each encoding.

Rules that hold here: a set of wanted tags is a frozen set that also knows what is wanted inside its sequences;
made once, handed to every pass; inside a sequence that the attribute table does not describe, all is wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from archive.dicom.attributes import BY_TAG, Attribute
from archive.dicom.dictionary import MISPLACED_TAGS, vr_of
from archive.dicom.encoding import NUMBERS, TEXT_VRS, Encoding
from archive.dicom.values import LEADING_VRS

SPECIFIC_CHARACTER_SET = 0x00080005
SOP_CLASS_UID, SOP_INSTANCE_UID = 0x00080016, 0x00080018
STUDY_INSTANCE_UID, SERIES_INSTANCE_UID = 0x0020000D, 0x0020000E
REQUIRED = (SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID)


class Plan(NamedTuple):
    """One wanted attribute in one encoding."""

    tag: int
    code: int  # of the dictionary's VR in this encoding, 0 in Implicit VR; -1 keeps it off the fast path
    vr: str  # by the dictionary
    kind: str  # "text", "number", "sequence", "other" or "forbidden"


def kind_of(vr: str) -> str:
    """What a VR holds, as far as reading it goes; UN of an attribute nobody knows is tried as text."""
    if vr in TEXT_VRS or vr == "UN":
        return "text"
    return "number" if vr in NUMBERS else "sequence" if vr == "SQ" else "other"


class Wanted(frozenset[int]):
    """Wanted tags; a frozen set by value, prepared by identity."""

    _inside: Mapping[int, Wanted]
    _plans: dict[Encoding, dict[int, Plan]]
    unasked: frozenset[int]  # read because every header needs them, but not wanted

    @classmethod
    def of(cls, tags: Iterable[int], inside: Mapping[int, Wanted] | None = None) -> Wanted:
        made = cls(tags)
        made._inside, made._plans = inside or {}, {}
        made.unasked = frozenset((SPECIFIC_CHARACTER_SET, *REQUIRED)) - made
        return made

    def inside(self, tag: int) -> Wanted | None:
        """What is wanted in the items of a sequence; None is everything."""
        return self._inside.get(tag)

    def plan(self, encoding: Encoding) -> dict[int, Plan]:
        """Raw tag to plan, for a header."""
        plan = self._plans.get(encoding)
        if plan is None:
            forbidden = {encoding.raw(tag): Plan(tag, -1, "", "forbidden") for tag in MISPLACED_TAGS}
            plan = forbidden | {encoding.raw(tag): _planned(tag, encoding) for tag in self | self.unasked}
            self._plans[encoding] = plan
        return plan


def _planned(tag: int, encoding: Encoding) -> Plan:
    vr = vr_of(tag).split(" or ")[0]
    simple = kind_of(vr) == "text" and vr not in LEADING_VRS
    return Plan(tag, (encoding.code(vr) if encoding.explicit else 0) if simple else -1, vr, kind_of(vr))


def _inside(attributes: Iterable[Attribute]) -> dict[int, Wanted]:
    return {
        attribute.tag: Wanted.of((item.tag for item in attribute.items), _inside(attribute.items))
        for attribute in attributes
        if attribute.items
    }


@lru_cache(maxsize=64)
def _prepared(tags: frozenset[int]) -> Wanted:
    return Wanted.of(tags, _inside(row for tag in tags for row in BY_TAG.get(tag, ())))


def prepared(tags: Collection[int]) -> Wanted:
    """The prepared form of any collection of tags; a frozenset is found again at no cost."""
    return tags if isinstance(tags, Wanted) else _prepared(frozenset(tags))
