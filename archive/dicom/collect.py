"""The pass of a header over the top level of a data set: what is wanted is copied, the rest is stepped over.

Rules that hold here: the two loops are written for speed, most elements cost one unpack and two look-ups; whatever is
not plain text with the VR of the dictionary leaves the loop; the last element must end where the data ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from archive.dicom.dictionary import MISPLACED_GROUPS
from archive.dicom.elements import CUT_SHORT, IMPLICIT_HEADS, Walk, name
from archive.dicom.encoding import UNDEFINED, Encoding
from archive.dicom.wanted import Plan
from archive.errors import NotUnderstood


class Found:
    """The wanted elements of one pass: plain texts apart from all that needs thought."""

    __slots__ = ("tags", "texts", "numbers", "others")

    def __init__(self) -> None:
        self.tags: list[int] = []
        self.texts: list[bytes] = []  # beside their tags
        self.numbers: list[tuple[int, str]] = []
        self.others: list[Other] = []


class Other(NamedTuple):
    raw: int
    vr: str
    plan: Plan
    value: bytes  # empty for sequences
    start: int
    length: int


def collect(walk: Walk, encoding: Encoding, wanted: Mapping[int, Plan]) -> Found:
    """The wanted elements of the top level, all of which is walked; struct.error where it ends in the middle."""
    raw = IMPLICIT_HEADS[encoding.big](walk.data, 0)[0]
    if encoding.tag(raw) >> 16 in MISPLACED_GROUPS:
        raise NotUnderstood("Data set begins with group 0000 or 0002", name(encoding, raw))
    return (_explicit if encoding.explicit else _implicit)(walk, encoding, wanted)


def _explicit(walk: Walk, encoding: Encoding, wanted: Mapping[int, Plan]) -> Found:
    """The wanted elements of the top level. Written for speed: most elements cost one unpack and two look-ups."""
    found, data, size, unpack, short = Found(), walk.data, walk.size, encoding.head.unpack_from, encoding.short
    get, add_tag, add_text = wanted.get, found.tags.append, found.texts.append
    pos = 0
    for _ in range(walk.limits.elements):
        raw, code, length = unpack(data, pos)
        pos += 8
        plan = get(raw)
        if code in short:
            if plan is not None:
                if plan[1] == code:
                    add_tag(plan[0])
                    add_text(bytes(data[pos : pos + length]))
                else:
                    _take(walk, encoding, found, plan, raw, code, pos, length)
            pos += length
        else:
            start, pos = pos, walk.skip_other(raw, code, length, pos, encoding, 0)
            if plan is not None:
                _take_long(walk, encoding, found, plan, raw, code, start)
            elif raw == encoding.pixel_data and walk.encapsulated:
                _check_encapsulated(walk, encoding, start)
        if pos >= size:
            break
    else:
        raise NotUnderstood("Too many elements")
    if pos != size:
        raise NotUnderstood(CUT_SHORT)
    return found


def _implicit(walk: Walk, encoding: Encoding, wanted: Mapping[int, Plan]) -> Found:
    """As ``_explicit``, with VRs from the dictionary."""
    found, data, size, unpack, special = Found(), walk.data, walk.size, encoding.head.unpack_from, encoding.special
    get, add_tag, add_text, text = wanted.get, found.tags.append, found.texts.append, walk.limits.text
    pos = 0
    for _ in range(walk.limits.elements):
        raw, length = unpack(data, pos)
        start = pos = pos + 8
        if length <= text and raw not in special:
            pos += length
        else:
            pos = walk.skip_implicit_other(raw, length, pos, encoding, 0)
        plan = get(raw)
        if plan is not None:
            if plan[1] == 0 and length <= text:
                add_tag(plan[0])
                add_text(bytes(data[start : start + length]))
            else:
                _take(walk, encoding, found, plan, raw, 0, start, length)
        if pos >= size:
            break
    else:
        raise NotUnderstood("Too many elements")
    if pos != size:
        raise NotUnderstood(CUT_SHORT)
    return found


def _check_encapsulated(walk: Walk, encoding: Encoding, start: int) -> None:
    """PS3.5 A.4: pixel data of the top level is in fragments, or empty."""
    if encoding.length.unpack_from(walk.data, start)[0] not in (0, UNDEFINED):
        raise NotUnderstood("Native pixel data in a compressed transfer syntax")


def _take_long(walk: Walk, encoding: Encoding, found: Found, plan: Plan, raw: int, code: int, start: int) -> None:
    """A wanted explicit element with a 32-bit length."""
    if code not in encoding.vrs:
        raise NotUnderstood(f"Indexed element {name(encoding, raw)} has an unknown VR")
    (length,) = encoding.length.unpack_from(walk.data, start)
    _take(walk, encoding, found, plan, raw, code, start + 4, length)


def _take(
    walk: Walk, encoding: Encoding, found: Found, plan: Plan, raw: int, code: int, start: int, length: int
) -> None:
    """A wanted element that is not plain text with the VR of the dictionary."""
    if plan.kind == "forbidden":
        raise NotUnderstood(f"Element {name(encoding, raw)} has no place in a data set")
    vr = encoding.vrs[code] if code else plan.vr
    if vr == "US" and length == 2 and plan.kind == "number":  # Rows, Columns, …: in every image
        number = int.from_bytes(walk.data[start : start + 2], "big" if encoding.big else "little")
        found.numbers.append((plan.tag, str(number)))
        return
    if length == UNDEFINED or vr == "SQ":
        value = b""
    elif length > walk.limits.text:
        raise NotUnderstood(f"Indexed element {name(encoding, raw)} is too long")
    else:
        value = bytes(walk.data[start : start + length])
    found.others.append(Other(raw, vr, plan, value, start, length))
