"""Performed procedure steps, and the scheduled steps and orders they carry out.

Rules that hold here: a performed step and what follows for its scheduled steps are one transaction; a step that has
ended is final; what a later message says goes over what earlier ones said, attribute by attribute.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from archive.index.database import Database, Row, Session
from archive.index.ordering import LOCK, advance
from archive.index.ordervalues import OrderKeys, StepState
from archive.index.outbox import insert_task
from archive.index.values import NewTask

Attributes = Mapping[str, Any]


class Performed(Enum):
    """Performed Procedure Step Status (PS3.3 C.4.14)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


# What becomes of the scheduled steps.
FOLLOWS = {
    Performed.IN_PROGRESS: StepState.STARTED,
    Performed.COMPLETED: StepState.COMPLETED,
    Performed.DISCONTINUED: StepState.DISCONTINUED,
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A scheduled step that is carried out; ``step_id`` may be empty."""

    study_uid: str
    accession_number: str
    step_id: str


@dataclass(frozen=True, slots=True)
class PerformedStep:
    """One performed step as it is known now."""

    id: int
    uid: str
    state: Performed
    study_uid: str
    station: str
    source: str
    attributes: Attributes
    created: float
    changed: float


class Result(Enum):
    """What became of a change."""

    DONE = "done"
    DUPLICATE = "duplicate"
    MISSING = "missing"
    FINAL = "final"


_COLUMNS = "id, sop_instance_uid, state, study_instance_uid, station, source, attributes, created, changed"
_INSERT = (
    "INSERT INTO performed_step (sop_instance_uid, state, study_instance_uid, station, source, attributes, created,"
    " changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sop_instance_uid) DO NOTHING RETURNING id"
)


class PerformedSteps:
    """The performed steps of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, uid: str, attributes: Attributes, references: Sequence[Reference], *, station: str, source: str,
        now: float, tasks: Sequence[NewTask] = (),
    ) -> Result:  # fmt: skip
        """A step that begins: DONE or DUPLICATE. Raises IndexUnavailable."""
        study_uid = references[0].study_uid if references else ""
        state = Performed.IN_PROGRESS
        values = (uid, state.value, study_uid, station, source, json.dumps(dict(attributes)), now, now)

        def work(session: Session) -> Result:
            if session.row(_INSERT, values) is None:
                return Result.DUPLICATE
            _settle(session, references, state, tasks, now)
            return Result.DONE

        return self._database.transact(work)

    def change(
        self, uid: str, attributes: Attributes, references: Sequence[Reference], state: Performed, *, now: float,
        tasks: Sequence[NewTask] = (),
    ) -> Result:  # fmt: skip
        """Attributes go over those that are known: DONE, MISSING or FINAL. Raises IndexUnavailable."""

        def work(session: Session) -> Result:
            sql = f"SELECT state, attributes FROM performed_step WHERE sop_instance_uid = ?{LOCK[session.dialect.name]}"
            row = session.row(sql, (uid,))
            if row is None:
                return Result.MISSING
            if row[0] != Performed.IN_PROGRESS.value:
                return Result.FINAL
            merged = {**json.loads(row[1]), **attributes}
            session.run(
                "UPDATE performed_step SET state = ?, attributes = ?, changed = ? WHERE sop_instance_uid = ?",
                (state.value, json.dumps(merged), now, uid),
            )
            _settle(session, references, state, tasks, now)
            return Result.DONE

        return self._database.transact(work)

    def get(self, uid: str) -> PerformedStep | None:
        sql = f"SELECT {_COLUMNS} FROM performed_step WHERE sop_instance_uid = ?"
        row = self._database.read(lambda session: session.row(sql, (uid,)))
        return _step(row) if row else None

    def latest(self, *, limit: int = 100, before: int | None = None, study_uid: str = "") -> list[PerformedStep]:
        """The newest first, a page at a time; of one study if it is given."""
        where, values = "1 = 1", list[Any]()
        if study_uid:
            where, values = "study_instance_uid = ?", [study_uid]
        if before is not None:
            where, values = f"{where} AND id < ?", [*values, before]
        sql = f"SELECT {_COLUMNS} FROM performed_step WHERE {where} ORDER BY id DESC LIMIT ?"
        return [_step(row) for row in self._database.read(lambda session: session.rows(sql, (*values, limit)))]


def _settle(
    session: Session, references: Sequence[Reference], state: Performed, tasks: Sequence[NewTask], now: float
) -> None:
    for each in references:
        keys = OrderKeys(study_uid=each.study_uid, accession_number=each.accession_number)
        advance(session, keys, each.step_id, FOLLOWS[state])
    for task in tasks:
        insert_task(session, task, now)


def _step(row: Row) -> PerformedStep:
    key, uid, state, study_uid, station, source, attributes, created, changed = row
    return PerformedStep(
        key, uid, Performed(state), study_uid, station, source, json.loads(attributes), created, changed
    )
