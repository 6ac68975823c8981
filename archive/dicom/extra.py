"""Attributes that a site indexes beyond the table, by configuration: ``series.ScanningSequence``.

Rules that hold here: a name is a level and a keyword of the dictionary, which gives tag and VR; what the table has at
that level already, what is no text and what belongs to messages is refused in words that say why; of a sequence
every attribute of its items can be asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from archive.dicom.attributes import (
    BY_TAG,
    HEADER_TAGS,
    QUERY_RETRIEVE_LEVEL,
    SPECIFIC_CHARACTER_SET,
    Attribute,
    Key,
    Level,
)
from archive.dicom.dictionary import keyword_of, tag_for_keyword, vr_of
from archive.dicom.tables import ELEMENTS
from archive.dicom.wanted import kind_of
from archive.errors import ConfigurationError

LEVELS = {level.name.lower(): level for level in Level}
NO_OBJECT_S = range(QUERY_RETRIEVE_LEVEL, 0x00080060)  # (0008,0052)-(0008,0058): of messages, and the modality


@dataclass(frozen=True, slots=True)
class ExtraKeys:
    """The attributes of one configuration."""

    rows: tuple[Attribute, ...] = ()
    by_tag: Mapping[int, tuple[Attribute, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Iterable[str]) -> ExtraKeys:
        """The attributes of names such as ``series.ScanningSequence``; raises ConfigurationError."""
        rows = tuple(extra_attribute(name) for name in names)
        return cls(rows, {row.tag: tuple(other for other in rows if other.tag == row.tag) for row in rows})

    @property
    def tags(self) -> frozenset[int]:
        """What a header is read for: the table's attributes and these."""
        return HEADER_TAGS | self.by_tag.keys()


NO_EXTRA = ExtraKeys()


def name_of(attribute: Attribute) -> str:
    """The name that the configuration has for an extra attribute."""
    return f"{attribute.level.name.lower()}.{attribute.keyword}"


def extra_attribute(name: str) -> Attribute:
    """The attribute of a name; raises ConfigurationError."""
    word, dot, keyword = name.strip().partition(".")
    if not dot or word.lower() not in LEVELS:
        raise ConfigurationError(f"{name}: use LEVEL.Keyword, such as series.ScanningSequence")
    tag, level = tag_for_keyword(keyword), LEVELS[word.lower()]
    if not tag:
        near = get_close_matches(keyword, (entry[4] for entry in ELEMENTS.values()), 1)
        raise ConfigurationError(f"{keyword} is no keyword of DICOM" + (f", did you mean {near[0]}?" if near else ""))
    if any(row.level is level for row in BY_TAG.get(tag, ())):
        raise ConfigurationError(f"{keyword} is indexed at this level without being named")
    return _made(tag, level)


def _made(tag: int, level: Level) -> Attribute:
    keyword, vr = keyword_of(tag), vr_of(tag).split(" or ")[0]
    if tag >> 16 in (0x0000, 0x0002, 0x0004, 0x7FE0) or tag in NO_OBJECT_S or tag == SPECIFIC_CHARACTER_SET:
        raise ConfigurationError(f"{keyword} is no attribute that objects are found by")
    if kind_of(vr) == "other" or vr == "UN":
        raise ConfigurationError(f"{keyword} has VR {vr}, which is no text")
    multiple = ELEMENTS[tag][1] != "1" if tag in ELEMENTS else False
    return Attribute(keyword, tag, vr, level, Key.OPTIONAL, "", indexed=True, multiple=multiple, extra=True)


def item_attribute(sequence: Attribute, tag: int) -> Attribute | None:
    """What a key in the item of an extra sequence means; None for what nobody knows or what is no text."""
    vr = vr_of(tag).split(" or ")[0]
    if not tag & 0xFFFF or tag not in ELEMENTS or vr == "SQ" or kind_of(vr) == "other":
        return None
    return Attribute(keyword_of(tag), tag, vr, sequence.level, Key.OPTIONAL, "", multiple=True, extra=True)
