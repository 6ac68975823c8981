"""Attributes of a row, written over by operations and put back when nothing says otherwise any more.

Rules that hold here: what a row said is kept before the first thing is written over it; of a sequence the first item
is written over, and the others stay.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from archive.dicom.attributes import Attribute, Level
from archive.index import rows
from archive.index.database import Session
from archive.index.rows import Columns
from archive.index.said import edits, effects, forget_received, keep_received, put_back, received


def lay(session: Session, level: Level, owner: str, row: Columns) -> None:
    """Write what is said of the attributes of a row over what it said, or put that back."""
    wanted, before = effects(session, level, owner), received(session, level, owner)
    columns: Columns = {}
    verbatim = json.loads(row["verbatim"]) if row["verbatim"] else {}
    for keyword in sorted(edits(wanted) | edits(before)):
        attribute = rows.attribute_of(level, keyword)
        if attribute is None:
            continue
        kept = before.get(keyword) or _kept(attribute, row, verbatim)
        put_back(columns, verbatim, kept)
        if keyword in wanted:
            if keyword not in before:
                keep_received(session, level, owner, keyword, kept)
            columns |= _laid(level, attribute, wanted[keyword].value, columns[attribute.column], verbatim)
        else:
            forget_received(session, level, owner, keyword)
    if columns:
        columns["verbatim"] = json.dumps(verbatim) if verbatim else None
        rows.write(session, level, row, columns)


def _kept(attribute: Attribute, row: Columns, verbatim: Mapping[str, str]) -> dict[str, Any]:
    names = rows.names_of(attribute)
    return {
        "columns": {name: row[name] for name in names},
        "verbatim": {name: verbatim[name] for name in names if name in verbatim},
    }


def _laid(
    level: Level, attribute: Attribute, value: str | None, before: str | None, verbatim: dict[str, str]
) -> Columns:
    """The columns of an attribute with a new value; of a sequence its first item has the new values."""
    names = rows.names_of(attribute)
    if value is None:
        found: Columns = dict.fromkeys(rows.CLEANERS[level].columns)
    else:
        if attribute.vr == "SQ":
            value = first_item_changed(before, value)
        found = rows.columns_for(level, {attribute.keyword: value})
    for name in names:
        verbatim.pop(name, None)
    verbatim.update(json.loads(found["verbatim"]) if found["verbatim"] else {})
    return {name: found[name] for name in names}


def first_item_changed(before: str | None, value: str) -> str:
    """The items of a sequence, of which the first one has other values now; none leaves the sequence empty."""
    new = json.loads(value)
    if not new:
        return "[]"
    old = json.loads(before) if before else []
    first = {**(old[0] if old else {}), **new[0]}
    return json.dumps([first, *old[1:]], ensure_ascii=False)
