"""Whether a text may be the value of an attribute: what a person or another system gives us to write (PS3.5 6.2).

Rules that hold here: strict, since what we write ourselves has no excuse; a complaint says what would do and never
repeats the value, which may name a patient.
"""

from __future__ import annotations

import re
import unicodedata

from archive.dicom.temporal import canonical_date, canonical_time, comparable_moment
from archive.dicom.uids import is_uid

# Characters of one value (PS3.5 table 6.2-1); of a person name, of each component group.
LENGTHS = {
    "AE": 16, "AS": 4, "CS": 16, "DA": 8, "DS": 16, "DT": 26, "IS": 12, "LO": 64, "LT": 10240, "PN": 64, "SH": 16,
    "ST": 1024, "TM": 14, "UC": 10240, "UI": 64, "UR": 2048, "UT": 10240,
}  # fmt: skip
NAME_GROUPS, NAME_COMPONENTS = 3, 5  # PS3.5 6.2.1

_MULTILINE = frozenset(("LT", "ST", "UT"))  # their value may be lines, and is one whatever it holds
_PATTERNS = {
    "AE": (re.compile(r"[ -\[\]-~]+"), "printable ASCII without a backslash"),
    "AS": (re.compile(r"\d{3}[DWMY]", re.ASCII), "three digits and D, W, M or Y, such as 018M"),
    "CS": (re.compile(r"[A-Z0-9 _]+"), "capital letters, digits, space and underscore"),
    "DS": (re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *", re.ASCII), "a number such as -1.5"),
    "IS": (re.compile(r" *[+-]?\d+ *", re.ASCII), "a whole number"),
    "US": (re.compile(r"\d{1,5}", re.ASCII), "a whole number from 0 to 65535"),
    "UR": (re.compile(r"[!-\[\]-~]+ *"), "an address without spaces"),
}
_MOMENTS = {
    "DA": (re.compile(r"\d{8}", re.ASCII), canonical_date, "a date as YYYYMMDD"),
    "TM": (
        re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?", re.ASCII), canonical_time,
        "a time as HHMMSS.FFFFFF, or its beginning",
    ),
    "DT": (
        re.compile(r"\d{4,14}(\.\d{1,6})?([+-]\d{4})?", re.ASCII), comparable_moment,
        "date and time as YYYYMMDDHHMMSS",
    ),
}  # fmt: skip
_LINES = frozenset("\t\n\f\r")


def complaint(vr: str, text: str, *, multiple: bool = False) -> str:
    """What is wrong with a text as a value, or nothing; ``multiple`` allows several, between backslashes."""
    if vr not in LENGTHS and vr not in _PATTERNS:
        return f"a value of VR {vr} cannot be given as text"
    wrong = _characters(vr, text)
    if wrong or not text or vr in _MULTILINE:
        return wrong or _length(vr, text)
    values = text.split("\\")
    if len(values) > 1 and not multiple:
        return "it has one value, without a backslash"
    return next((wrong for value in values if (wrong := _one(vr, value))), "")


def _characters(vr: str, text: str) -> str:
    """Control characters are for lines alone; what is no character at all cannot be written in any character set."""
    for character in text:
        category = unicodedata.category(character)
        if category == "Cc" and not (vr in _MULTILINE and character in _LINES):
            return "it holds a control character"
        if category in ("Cs", "Cn"):
            return "it holds what is no character"
    return ""


def _one(vr: str, value: str) -> str:
    if not value:
        return ""
    if vr == "PN":
        return _name(value)
    if vr == "UI":
        return "" if is_uid(value) else "a UID is digits and single dots, 64 at most"
    if vr in _MOMENTS:
        pattern, canonical, words = _MOMENTS[vr]
        return "" if pattern.fullmatch(value) and canonical(value) is not None else words
    if vr in _PATTERNS and not _PATTERNS[vr][0].fullmatch(value):
        return _PATTERNS[vr][1]
    if vr == "US" and int(value) > 0xFFFF:
        return _PATTERNS[vr][1]
    return _length(vr, value)


def _length(vr: str, value: str) -> str:
    longest = LENGTHS.get(vr, len(value))
    return f"it may have {longest} characters" if len(value) > longest else ""


def _name(value: str) -> str:
    groups = value.split("=")
    if len(groups) > NAME_GROUPS:
        return "a name has three groups at most: alphabetic=ideographic=phonetic"
    if any(group.count("^") >= NAME_COMPONENTS for group in groups):
        return "a name has five components at most: family^given^middle^prefix^suffix"
    return next((wrong for group in groups if (wrong := _length("PN", group))), "")
