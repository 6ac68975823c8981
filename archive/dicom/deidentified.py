"""What stands in a de-identified data set: dummies in place of values, and the attributes that say what was done.

Rules that hold here: a dummy fits its VR and tells nothing without the key; every value of VR UI or of a date that
stays is made of nothing but what such values are made of.
"""

from __future__ import annotations

from collections.abc import Collection

from archive.dicom.confidentiality import METHODS
from archive.dicom.edit import element, item, size_of
from archive.dicom.encoding import NUMBERS, TEXT_VRS, Encoding
from archive.dicom.pseudonyms import Pseudonyms
from archive.dicom.spans import head
from archive.dicom.uids import is_uid

# PS3.3 C.7.1.1 and C.12.1: what says what was done, and how.
IDENTITY_REMOVED, METHOD, METHOD_CODES, TEMPORAL = 0x00120062, 0x00120063, 0x00120064, 0x00280303

# PS3.5 6.2: a value of each VR that says nothing.
_DUMMIES = {
    "AE": "ANON", "AS": "000Y", "CS": "ANON", "DA": "19000101", "DS": "0", "DT": "19000101000000", "IS": "0",
    "TM": "000000", "UR": "about:blank",
}  # fmt: skip
# PS3.5 6.2: what dates and times may be made of.
_MADE_OF = {
    "DA": frozenset("0123456789.\\ "), "TM": frozenset("0123456789.:\\ "), "DT": frozenset("0123456789.+-\\ ")
}  # fmt: skip
CHECKED = frozenset(("UI", *_MADE_OF))  # values of these VRs are looked at even when they stay


def dummy(vr: str, text: str, raw: bytes, names: Pseudonyms) -> bytes:
    """A value in place of another one that says nothing."""
    if vr in _DUMMIES:
        return _DUMMIES[vr].encode()
    if vr in TEXT_VRS:
        return f"ANON{names.word('text', text)}".encode()
    return bytes(len(raw)) if vr in NUMBERS else b"\0\0"


def values(text: str) -> list[str]:
    return [value.strip(" \0") for value in text.split("\\")]


def may_stay(vr: str, text: str) -> bool:
    """Whether a value is no more than what values of its VR are."""
    return is_uids(text) if vr == "UI" else not set(text) - _MADE_OF.get(vr, set(text))


def is_uids(text: str) -> bool:
    return all(is_uid(each, lenient=True) for each in values(text))


def said(encoding: Encoding, tag: int, options: Collection[str]) -> bytes:
    """One of the elements that say what was done with these options of the profile."""
    if tag == IDENTITY_REMOVED:
        return element(encoding, tag, "CS", b"YES")
    if tag == METHOD:
        return element(encoding, tag, "LO", "\\".join(["PS3.15 E.2 basic profile", *sorted(options)]).encode())
    if tag == TEMPORAL:
        word = "UNMODIFIED" if "retain-dates" in options else "MODIFIED" if "shift-dates" in options else "REMOVED"
        return element(encoding, tag, "CS", word.encode())
    return _codes(encoding, ["basic", *(name for name in METHODS if name in options)])


def _codes(encoding: Encoding, names: list[str]) -> bytes:
    """De-identification Method Code Sequence (PS3.3 C.7.1.1)."""
    items = []
    for code, meaning in (METHODS[name] for name in names):
        found = ((0x00080100, "SH", code), (0x00080102, "SH", "DCM"), (0x00080104, "LO", meaning))
        items += item(encoding, [element(encoding, tag, vr, text.encode()) for tag, vr, text in found], False)
    return b"".join((head(METHOD_CODES, "SQ", size_of(items), encoding), *map(bytes, items)))
