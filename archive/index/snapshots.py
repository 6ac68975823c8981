"""What operations know of the rows that they name, so that these can be made once more.

Rules that hold here: a snapshot has what the objects say, never what was written over it; it names the row above, of
which there is a snapshot too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from archive.dicom.attributes import Level
from archive.index import rows
from archive.index.database import Session
from archive.index.person import Person
from archive.index.rows import Columns
from archive.index.said import MERGED, effects, said_values

Snapshots = Mapping[str, Mapping[str, Any]]  # level and owner -> values, and the owner above


def snapshots_of(session: Session, level: Level, row: Columns) -> dict[str, dict[str, Any]]:
    """What is needed to make a row, and those above it, once more."""
    owner = owner_of(level, row)
    key = f"{int(level)} {owner or ''}"
    values = said_values(session, level, owner, row) if owner else rows.values_of(level, row)
    found: dict[str, dict[str, Any]] = {key: {"values": values}}
    if level is Level.PATIENT:
        return found
    above = rows.by_id(session, Level(level - 1), _said_above(level, row))
    assert above is not None
    found[key]["above"] = owner_of(Level(level - 1), above) or ""
    return found | snapshots_of(session, Level(level - 1), above)


def _said_above(level: Level, row: Columns) -> int:
    """The row above, as the objects say: of a study the patient that they name."""
    if level is Level.STUDY:
        return int(row["said_patient"] or row["patient"])
    return int(row["study" if level is Level.SERIES else "series"])


def owner_of(level: Level, row: Columns) -> str:
    """What a row is known by; empty for a patient without Patient ID."""
    if level is not Level.PATIENT:
        return str(row[rows.KEYS[level]])
    return Person(row["patient_id"], row["issuer"]).owner if row["patient_id"] else ""


def snapshots_by(session: Session, operation: int) -> Snapshots:
    """What an operation knew of the rows that it names."""
    row = session.row("SELECT what FROM operation WHERE number = ?", (operation,))
    found: Snapshots = json.loads(row[0]).get("snapshots", {}) if row else {}
    return found


def merge_snapshots(session: Session, owner: str) -> Snapshots:
    """What the merges of a patient, and of those it was merged into, knew."""
    found: dict[str, Mapping[str, Any]] = {}
    while effect := effects(session, Level.PATIENT, owner).get(MERGED):
        found |= snapshots_by(session, effect.operation)
        owner = effect.value or ""
    return found
