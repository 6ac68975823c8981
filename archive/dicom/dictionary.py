"""The data dictionary: tag to value representation and keyword, and back (PS3.6), from pydicom's tables.

Rules that hold here: an answer never depends on a data set except through the arguments; a tag nobody
knows is "UN"; an ambiguous entry ("US or SS") is returned as it stands, whoever asks resolves it; pydicom itself is
asked for what is rare, and imported then.
"""

from __future__ import annotations

from functools import lru_cache

from archive.dicom.tables import ELEMENTS

UNKNOWN = "UN"

# PS3.6 chapter 6: the entries without repeating groups, ready for direct look-up.
_VRS: dict[int, str] = {tag: entry[0] for tag, entry in ELEMENTS.items()}
_TAGS: dict[str, int] = {entry[4]: tag for tag, entry in ELEMENTS.items()}

SEQUENCE_TAGS: frozenset[int] = frozenset(tag for tag, vr in _VRS.items() if vr == "SQ")

# Groups of commands (PS3.7 annex E) and of file meta information (PS3.10 7.1): never part of a data set.
MISPLACED_GROUPS = (0x0000, 0x0002)
MISPLACED_TAGS: frozenset[int] = frozenset(tag for tag in _VRS if tag >> 16 in MISPLACED_GROUPS)


def vr_of(tag: int) -> str:
    """The VR of a standard tag; private tags are UN, their creators LO, group lengths UL."""
    return _VRS.get(tag) or _rare_vr(tag)


@lru_cache(maxsize=4096)
def _rare_vr(tag: int) -> str:
    group, element = tag >> 16, tag & 0xFFFF
    if element == 0:
        return "UL"
    if group & 1:
        return "LO" if 0x10 <= element <= 0xFF else UNKNOWN
    from pydicom import datadict

    try:
        return datadict.dictionary_VR(tag)  # repeating groups: overlays, curves, …
    except KeyError:
        return UNKNOWN


@lru_cache(maxsize=4096)
def private_vr(tag: int, creator: str) -> str:
    """The VR that a known private creator gives to a tag of its block."""
    from pydicom import datadict

    try:
        return datadict.private_dictionary_VR(tag, creator)
    except KeyError:
        return UNKNOWN


def keyword_of(tag: int) -> str:
    """The keyword of a standard tag, or its eight hexadecimal digits."""
    return (ELEMENTS[tag][4] if tag in ELEMENTS else _rare_keyword(tag)) or f"{tag:08X}"


@lru_cache(maxsize=4096)
def _rare_keyword(tag: int) -> str:
    from pydicom import datadict

    return datadict.keyword_for_tag(tag)


def tag_for_keyword(keyword: str) -> int | None:
    """The tag of a standard keyword."""
    return _TAGS.get(keyword)
