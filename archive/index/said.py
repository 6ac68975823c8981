"""What is written of rows: what operations say of them, and what they said before anything was written over them.

Rules that hold here: of what operations say of a row the last one holds, keyword by keyword; what a row said before is
kept until nothing is written over it any more; nothing here changes a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from archive.dicom.attributes import Level
from archive.index import rows
from archive.index.database import Session
from archive.index.rows import Columns

# Places, as keywords of writes; "@" is less than every letter.
MERGED = "@merged"  # of a patient: its studies are those of another
PATIENT = "@patient"  # of a study: the patient it belongs to
STUDY = "@study"  # of a series
SERIES = "@series"  # of an instance
CONCERNED = "@concerned"  # the target of one of these, or the study from which something was taken
LINKED = "@linked "  # of a patient, with another behind it: they are one person and stay apart

LONGEST_CHAIN = 1000  # of merges, none of which is a circle


class Effect(NamedTuple):
    """What holds for one keyword, and by which operation."""

    value: str | None
    operation: int


Effects = dict[str, Effect]


def effects(session: Session, level: Level, owner: str) -> Effects:
    """What the operations that were not undone say of a row, the last one holds."""
    found = session.rows(
        "SELECT keyword, value, operation FROM correction WHERE level = ? AND owner = ? AND active = 1"
        " ORDER BY operation",
        (int(level), owner),
    )
    return {keyword: Effect(value, operation) for keyword, value, operation in found}


def edits(found: Mapping[str, Any]) -> set[str]:
    """Those of the keywords that are attributes."""
    return {keyword for keyword in found if not keyword.startswith("@")}


def resolve(session: Session, owner: str) -> str:
    """The patient to whom the studies of a patient belong now."""
    for _ in range(LONGEST_CHAIN):
        effect = effects(session, Level.PATIENT, owner).get(MERGED)
        if effect is None or effect.value is None:
            return owner
        owner = effect.value
    raise RuntimeError("patients are merged in a circle")


# -- what was there before ------------------------------------------------------------------------


def received(session: Session, level: Level, owner: str) -> dict[str, Any]:
    found = session.rows("SELECT keyword, value FROM received WHERE level = ? AND owner = ?", (int(level), owner))
    return {keyword: json.loads(value) for keyword, value in found}


def keep_received(session: Session, level: Level, owner: str, keyword: str, value: Any) -> None:
    session.run(
        "INSERT INTO received (level, owner, keyword, value) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (level, owner, keyword) DO UPDATE SET value = excluded.value",
        (int(level), owner, keyword, json.dumps(value)),
    )


def forget_received(session: Session, level: Level, owner: str, keyword: str | None = None) -> None:
    also, values = ("", ()) if keyword is None else (" AND keyword = ?", (keyword,))
    session.run(f"DELETE FROM received WHERE level = ? AND owner = ?{also}", (int(level), owner, *values))


def said_values(session: Session, level: Level, owner: str, row: Columns) -> dict[str, str]:
    """What the objects below a row say, by keyword: without the edits."""
    before = row.copy()
    verbatim = json.loads(row["verbatim"]) if row["verbatim"] else {}
    for keyword, kept in received(session, level, owner).items():
        if not keyword.startswith("@"):
            put_back(before, verbatim, kept)
    before["verbatim"] = json.dumps(verbatim) if verbatim else None
    return rows.values_of(level, before)


def put_back(row: Columns, verbatim: dict[str, str], kept: Mapping[str, Any]) -> None:
    """Let a row that is being made say what was kept of it."""
    for name, value in kept["columns"].items():
        row[name] = value
        verbatim.pop(name, None)
    verbatim.update(kept["verbatim"])
