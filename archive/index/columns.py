"""Which columns an attribute has, and how a header's text becomes their values.

Rules that hold here: equal on every database; text that no database can hold is made possible, never
refused; a value that is no date or time leaves its column NULL and is kept in ``verbatim`` (JSON, column to
text); names have folded columns beside them, so that matching never folds in SQL; lengths are bounded, since
an index entry must fit its page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from archive.dicom.attributes import BY_KEYWORD, BY_LEVEL, Attribute, Level, column_name
from archive.dicom.keys import canonical_number
from archive.dicom.names import folded_names, name_groups, possible
from archive.dicom.temporal import canonical_date, canonical_time, comparable_moment

TABLES = {Level.PATIENT: "patient", Level.STUDY: "study", Level.SERIES: "series", Level.IMAGE: "instance"}

# Characters. PS3.5 allows 64 in the VRs that have an index; PostgreSQL allows 2,704 bytes in an entry.
INDEXED_LENGTH = 400
LENGTH = 2_000
ITEMS_LENGTH = 60_000

PATIENT_NAME_COLUMNS = ("patient_name_folded", "patient_name_ideographic", "patient_name_phonetic")
PATIENT_NAME = 0x00100010

# Attributes that are also looked for in the items of a sequence: keyword -> sequence tag.
LIFTED = {"RequestedProcedureID": 0x00400275, "ScheduledProcedureStepID": 0x00400275}

REQUEST_COLUMNS = {keyword: column_name(keyword) for keyword in LIFTED}

# Text that comparisons work on, of VRs whose values may be no valid date or time.
COMPARABLE: dict[str, Callable[[str], str | None]] = {
    "DA": canonical_date,
    "TM": canonical_time,
    "DT": comparable_moment,
}
_NUMBERS = ("IS", "US")


def stored(level: Level) -> tuple[Attribute, ...]:
    """The attributes of a level that have a column of their own."""
    return tuple(row for row in BY_LEVEL[level] if not row.computed)


def folded_column(attribute: Attribute) -> str | None:
    """The column that matching of a name, or of a sequence with names, works on."""
    if attribute.tag == PATIENT_NAME:
        return PATIENT_NAME_COLUMNS[0]
    has_names = attribute.vr == "PN" or any(item.vr == "PN" for item in attribute.items)
    return f"{attribute.column}_folded" if has_names else None


def columns(level: Level) -> tuple[str, ...]:
    """All columns of a level that come from a header, in the order of ``Cleaner.row``."""
    names: list[str] = []
    for attribute in stored(level):
        names.append(attribute.column)
        if attribute.tag == PATIENT_NAME:
            names += PATIENT_NAME_COLUMNS
        elif folded := folded_column(attribute):
            names.append(folded)
    return (*names, "verbatim")


@dataclass(frozen=True, slots=True)
class _Column:
    attribute: Attribute
    name: str
    length: int
    special: bool  # a name or a sequence


def _clean(vr: str, length: int, text: str) -> tuple[str | None, str | None]:
    """What the column holds, and what the object said when that is something else."""
    text = possible(text)[:length]
    if vr in COMPARABLE and text:
        comparable = COMPARABLE[vr](text)
        return comparable, None if comparable == text else text
    return canonical_number(vr, text) if vr in _NUMBERS else text, None


# The instances of a series say nearly the same.
_SHORT = 64
_clean_short = lru_cache(maxsize=16_384)(_clean)


class Cleaner:
    """Makes the column values of one level from header values."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.columns = columns(level)
        self.by_tag = {row.tag: self._column(row) for row in stored(level)}
        self.tags = self.by_tag.keys()
        self._empty = dict.fromkeys(self.columns)
        self._lifted = [row for row in stored(level) if row.keyword in LIFTED]

    def _column(self, row: Attribute) -> _Column:
        length = INDEXED_LENGTH if row.indexed else LENGTH
        return _Column(row, row.column, length, row.vr in ("PN", "SQ"))

    def row(self, values: Mapping[int, str]) -> dict[str, Any]:
        """Column -> value for every column of the level; what the header lacks is NULL."""
        found: dict[str, Any] = self._empty.copy()
        verbatim: dict[str, str] = {}
        by_tag = self.by_tag
        for tag in self.tags & values.keys():
            column, text = by_tag[tag], values[tag]
            if column.special:
                self._put(found, column, text)
                continue
            clean = _clean_short if len(text) <= _SHORT else _clean
            found[column.name], said = clean(column.attribute.vr, column.length, text)
            if said is not None:
                verbatim[column.name] = said
        for row in self._lifted:
            if not found[row.column] and (lifted := _lift(row.keyword, values.get(LIFTED[row.keyword]))):
                found[row.column] = lifted[:INDEXED_LENGTH]
        if verbatim:
            found["verbatim"] = json.dumps(verbatim)
        return found

    def _put(self, found: dict[str, Any], column: _Column, text: str) -> None:
        """Names and sequences, which fill more than one column."""
        if column.attribute.vr == "SQ":
            self._put_items(found, column.attribute, text)
            return
        text = found[column.name] = possible(text)[: column.length]
        if column.attribute.tag == PATIENT_NAME:
            groups = (group[:INDEXED_LENGTH] for group in name_groups(text))
            found.update(zip(PATIENT_NAME_COLUMNS, (group or None for group in groups), strict=True))
        else:
            found[f"{column.name}_folded"] = folded_names(text)[: column.length]

    def _put_items(self, found: dict[str, Any], attribute: Attribute, text: str) -> None:
        items = _items(text)
        if items is None:
            return
        found[attribute.column] = json.dumps(items, ensure_ascii=False)
        if folded := folded_column(attribute):
            names = {item.keyword for item in attribute.items if item.vr == "PN"}
            found[folded] = json.dumps(
                [
                    {key: folded_names(value) if key in names else value for key, value in item.items()}
                    for item in items
                ],
                ensure_ascii=False,
            )


def _items(text: str) -> list[dict[str, str]] | None:
    """The items of a sequence's JSON text, with possible text in them; None for what is not a list of items."""
    if not text or len(text) > ITEMS_LENGTH:
        return None
    try:
        items = json.loads(text)
    except ValueError:
        return None
    if not isinstance(items, list):
        return None
    return [
        {possible(key): possible(value) for key, value in item.items() if isinstance(value, str)}
        for item in items
        if isinstance(item, dict)
    ]


def _lift(keyword: str, text: str | None) -> str:
    values = [item.get(keyword, "") for item in _items(text or "") or ()]
    return "\\".join(dict.fromkeys(value for value in values if value))


CLEANERS = {level: Cleaner(level) for level in Level}

PATIENT_ID, ISSUER = (BY_KEYWORD[keyword][0].tag for keyword in ("PatientID", "IssuerOfPatientID"))
MODALITY = BY_KEYWORD["Modality"][-1].tag
