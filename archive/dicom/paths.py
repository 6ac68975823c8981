"""Where an attribute is inside a data set: tags, and item numbers between them.

Rules that hold here: a path is a tuple that begins and ends with a tag, with one item between two tags; a tag of a
private block is known by its creator, because the block differs from object to object; an item is counted from 0,
ALL means every item that is there, NEW one more behind the last, NEW - 1 another one behind that.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from archive.dicom.dictionary import MISPLACED_GROUPS, keyword_of, private_vr, tag_for_keyword, vr_of
from archive.dicom.encoding import LONG_VRS, NUMBERS, SHORT_VRS, TEXT_VRS

ALL = -1
NEW = -2

VALUES = TEXT_VRS | NUMBERS.keys()  # the value representations that a text can give a value to


class Private(NamedTuple):
    """An element of the block that a private creator has reserved (PS3.5 7.8.1)."""

    group: int
    creator: str
    element: int  # the last two digits

    def __str__(self) -> str:
        return f"({self.group:04X},{self.creator},{self.element:02X})"


Step = int | Private
Path = tuple[Step, ...]

_PRIVATE = re.compile(r"\(([0-9A-F]{4}),(.{1,64}),(?:xx)?([0-9A-F]{2})\)", re.IGNORECASE)
_TAG = re.compile(r"\(([0-9A-F]{4}),([0-9A-F]{4})\)", re.IGNORECASE)
_ITEM = re.compile(r"(.+)\[(\*|[0-9]{1,6})\]", re.DOTALL)
_VR = re.compile(r"(.+\)):([A-Z]{2})")
_DOT = re.compile(r"(?<=\])\.")


class Target(NamedTuple):
    """A path as a rule names it, and the VR it gives to a private element."""

    path: Path
    vr: str

    def __str__(self) -> str:
        return path_text(self.path)


def parse_path(text: str) -> Target:
    """``PatientName``, ``(0010,0010)``, ``RequestAttributesSequence[0].RequestedProcedureID``, ``…[*]…``, and

    ``(0021,Creator,90)`` or ``(0021,1090)`` of private groups, with ``:VR`` behind it where the dictionary does not
    know it. Raises ValueError with words for whoever wrote it.
    """
    text, vr = text.strip(), ""
    if match := _VR.fullmatch(text):
        text, vr = match[1], match[2]
        if vr not in SHORT_VRS | LONG_VRS:
            raise ValueError(f"{vr} is no value representation")
    path: list[Step] = []
    parts = _DOT.split(text)
    for number, part in enumerate(parts):
        match = _ITEM.fullmatch(part)
        if bool(match) != (number + 1 < len(parts)):
            raise ValueError(f"{part!r}: an item number belongs behind a sequence and nowhere else")
        path.append(_step(match[1] if match else part))
        if match:
            path.append(ALL if match[2] == "*" else int(match[2]))
            _check_sequence(path[-2])
    return Target(tuple(path), vr or step_vr(path[-1]))


def _step(text: str) -> Step:
    text = text.strip()
    if match := _TAG.fullmatch(text):
        tag = int(match[1] + match[2], 16)
    elif match := _PRIVATE.fullmatch(text):
        if not int(match[1], 16) & 1:
            raise ValueError(f"{text!r}: group {match[1]} is not private")
        return Private(int(match[1], 16), match[2].strip(), int(match[3], 16))
    else:
        found = tag_for_keyword(text)
        if not text or found is None:
            raise ValueError(f"{text!r} is no attribute: a keyword such as PatientID or a tag such as (0010,0020)")
        tag = found
    if tag >> 16 in (*MISPLACED_GROUPS, 0xFFFE) or not tag & 0xFFFF:
        raise ValueError(f"{text!r} is not an attribute of a data set")
    return tag


def _check_sequence(step: Step) -> None:
    if isinstance(step, int) and not step >> 16 & 1 and vr_of(step) != "SQ":
        raise ValueError(f"{step_text(step)} is no sequence")


def step_vr(step: Step) -> str:
    """The VR by the dictionary; LO for private elements that it does not know."""
    if isinstance(step, Private):
        vr = private_vr(step.group << 16 | 0x1000 | step.element, step.creator)
        return "LO" if vr == "UN" else vr
    vr = vr_of(step).split(" or ")[0]
    return "LO" if vr == "UN" and step >> 16 & 1 else vr


def step_text(step: Step) -> str:
    if isinstance(step, Private):
        return str(step)
    found = keyword_of(step)
    return f"({step >> 16:04X},{step & 0xFFFF:04X})" if found == f"{step:08X}" else found


def path_text(path: Path) -> str:
    """A path as people write it."""
    out = ""
    for number, step in enumerate(path):
        if number % 2:
            out += "[*]" if step == ALL else "[+]" if isinstance(step, int) and step <= NEW else f"[{step}]"
        else:
            out += ("." if number else "") + step_text(step)
    return out
