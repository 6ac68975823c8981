"""Which study is of which order, and how that was found.

Rules that hold here: a study is of one order at most; the link and what becomes of the order's steps are one
transaction; what a match corrected is named beside it, so that taking it back undoes just that.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from archive.index.conditions import Sql, any_of
from archive.index.database import Database, Row, Session
from archive.index.ordering import SUMMARY, advance, summary
from archive.index.ordervalues import OrderKeys, OrderSummary, StepState


@dataclass(frozen=True, slots=True)
class Match:
    """A study and the order it is of."""

    study_uid: str
    order_uid: str  # the order's own Study Instance UID
    how: str
    since: float
    operations: tuple[int, ...]  # of the corrections' journal, in the order in which they were carried out


_INSERT = (
    "INSERT INTO order_match (study_instance_uid, order_uid, how, since, operations) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (study_instance_uid) DO NOTHING RETURNING study_instance_uid"
)
_SELECT = "SELECT study_instance_uid, order_uid, how, since, operations FROM order_match"


class Matches:
    """The matches of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, study_uid: str, order_uid: str, how: str, now: float, operations: Sequence[int] = (), *,
        modalities: Collection[str] = (),
    ) -> bool:  # fmt: skip
        """Link a study with an order; False when the study is of an order already.

        Its steps are done by that, of several those of the ``modalities`` that the study has.
        """

        def work(session: Session) -> bool:
            row = session.row(_INSERT, (study_uid, order_uid, how, now, json.dumps(list(operations))))
            if row is not None:
                for step_id in _done(session, order_uid, modalities):
                    advance(session, OrderKeys(order_uid), step_id, StepState.COMPLETED)
            return row is not None

        return self._database.transact(work)

    def remove(self, study_uid: str) -> bool:
        """The study is of no order; the order is to be done again."""

        def work(session: Session) -> bool:
            row = session.row(f"{_SELECT} WHERE study_instance_uid = ?", (study_uid,))
            if row is None:
                return False
            session.run("DELETE FROM order_match WHERE study_instance_uid = ?", (study_uid,))
            if not session.row("SELECT 1 FROM order_match WHERE order_uid = ?", (row[1],)):
                advance(session, OrderKeys(str(row[1])), "", StepState.SCHEDULED)
            return True

        return self._database.transact(work)

    def of(self, study_uid: str) -> Match | None:
        row = self._database.read(lambda session: session.row(f"{_SELECT} WHERE study_instance_uid = ?", (study_uid,)))
        return _match(row) if row else None

    def studies(self, order_uid: str) -> list[str]:
        """The studies that are of an order."""
        sql = "SELECT study_instance_uid FROM order_match WHERE order_uid = ? ORDER BY since"
        return [str(row[0]) for row in self._database.read(lambda session: session.rows(sql, (order_uid,)))]

    def with_accession(self, accession_number: str, patient_id: str) -> list[str]:
        """Two studies at most with this accession number, of this patient if one is given."""
        if not accession_number:
            return []
        sql = (
            "SELECT s.study_instance_uid FROM study s JOIN patient p ON p.id = s.patient WHERE s.accession_number = ?"
            + (" AND p.patient_id = ?" if patient_id else "")
            + " LIMIT 2"
        )
        values = (accession_number, patient_id) if patient_id else (accession_number,)
        return [str(row[0]) for row in self._database.read(lambda session: session.rows(sql, values))]

    def candidates(
        self, *, study_uid: str, accession_number: str, patient_id: str, dates: tuple[str, str], limit: int = 200
    ) -> list[OrderSummary]:
        """Orders that a study may be of: by UID, accession number, patient; then by the days of their steps.

        Of a large department's orders near a day only the latest are looked at, of the others all.
        """
        tests: list[Sql] = [("study_instance_uid = ?", [study_uid])]
        tests += [("accession_number = ?", [accession_number])] if accession_number else []
        tests += [("patient_id = ?", [patient_id])] if patient_id else []
        days = "id IN (SELECT imaging_order FROM scheduled_step WHERE start_date >= ? AND start_date <= ?)"
        surely, near = any_of(tests), (days, list(dates))

        def work(session: Session) -> list[OrderSummary]:
            found: dict[int, Row] = {}
            for sql, values in (surely, near) if dates[0] else (surely,):
                rows = session.rows(f"{SUMMARY} WHERE {sql} ORDER BY id DESC LIMIT ?", (*values, limit))
                found = {row[0]: row for row in rows} | found
            return [summary(session, row) for row in found.values()]

        return self._database.read(work)

    def waiting(self, *, study_uid: str, accession_number: str, patient_id: str, limit: int = 100) -> list[str]:
        """Unmatched studies that a new order may be about."""
        tests: list[Sql] = [("s.study_instance_uid = ?", [study_uid])]
        tests += [("s.accession_number = ?", [accession_number])] if accession_number else []
        tests += [("p.patient_id = ?", [patient_id])] if patient_id else []
        sql, values = any_of(tests)
        rows = self._database.read(
            lambda session: session.rows(
                "SELECT s.study_instance_uid FROM study s JOIN patient p ON p.id = s.patient"
                f" WHERE {sql} AND s.state = 'unmatched' LIMIT ?",
                (*values, limit),
            )
        )
        return [str(row[0]) for row in rows]


def _done(session: Session, order_uid: str, modalities: Collection[str]) -> list[str]:
    """The steps of an order that a study is: where modalities tell of their steps, those say it themselves."""
    steps = session.rows(
        "SELECT s.step_id, s.modality, s.state FROM scheduled_step s JOIN imaging_order o ON o.id = s.imaging_order"
        " WHERE o.study_instance_uid = ? ORDER BY s.id",
        (order_uid,),
    )
    if len(steps) < 2:
        return [str(step_id) for step_id, _, _ in steps]
    if session.row("SELECT 1 FROM performed_step WHERE study_instance_uid = ?", (order_uid,)):
        return []
    ended = (StepState.DISCONTINUED.value, StepState.CANCELLED.value)
    return [str(step_id) for step_id, modality, state in steps if modality in modalities and state not in ended]


def _match(row: Row) -> Match:
    study_uid, order_uid, how, since, operations = row
    return Match(study_uid, order_uid, how, since, tuple(json.loads(operations)))
