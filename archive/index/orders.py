"""Orders, their scheduled steps, and the messages that brought them.

Rules that hold here: a message and what it causes are one transaction, so that an acknowledged message has taken
effect once, however often it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from archive.dicom.worklist import WorklistQuery
from archive.errors import Conflict
from archive.index.conditions import Sql, all_of
from archive.index.database import Database, Session
from archive.index.ordering import SUMMARY, change_order, change_patient, known, summary
from archive.index.ordervalues import (
    Applied,
    KeptMessage,
    NewMessage,
    NewStep,
    OrderChange,
    OrderKeys,
    OrderSummary,
    PatientChange,
    StepState,
)
from archive.index.outbox import insert_task
from archive.index.values import NewTask
from archive.index.worklist import Steps, worklist

_INSERT_MESSAGE = (
    "INSERT INTO hl7_message (sender, address, control_id, unique_key, digest, kind, received, code, reason,"
    " patient_id, accession_number, content) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (unique_key) DO NOTHING RETURNING id"
)


class Orders:
    """The orders of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- messages -------------------------------------------------------------------------------

    def apply(
        self,
        message: NewMessage,
        orders: Sequence[OrderChange] = (),
        patients: Sequence[PatientChange] = (),
        tasks: Sequence[NewTask] = (),
    ) -> Applied:
        """Keep a message together with all it changes and causes, in one transaction. Raises IndexUnavailable."""

        def work(session: Session) -> Applied:
            if not _keep(session, message, unique=True):
                row = session.row("SELECT digest FROM hl7_message WHERE unique_key = ?", (_unique_key(message),))
                return Applied.REPEATED if row == (message.digest,) else Applied.DIFFERENT
            for patient in patients:
                change_patient(session, patient, message.received)
            for change in orders:
                if not change_order(session, change, message.received):
                    raise _Unknown
            for task in tasks:
                insert_task(session, task, message.received)
            return Applied.DONE

        try:
            return self._database.transact(work, repeatable=False)
        except _Unknown:
            return Applied.UNKNOWN_ORDER
        except Conflict:
            return Applied.OTHER_ORDER

    def keep(self, message: NewMessage) -> None:
        """Keep a message that was refused, which may come as often as it likes."""
        self._database.transact(lambda session: _keep(session, message, unique=False))

    def messages(
        self, *, limit: int = 100, before: int | None = None, control_id: str = "", patient_id: str = "",
        accession_number: str = "", code: str = "",
    ) -> list[KeptMessage]:  # fmt: skip
        """The history, newest first, a page at a time; what is given must be equal."""
        wanted = {
            "control_id": control_id, "patient_id": patient_id, "accession_number": accession_number, "code": code,
        }  # fmt: skip
        tests: list[Sql] = [(f"{name} = ?", [value]) for name, value in wanted.items() if value]
        tests += [("id < ?", [before])] if before is not None else []
        sql, values = all_of(tests)
        rows = self._database.read(
            lambda session: session.rows(
                "SELECT id, sender, address, control_id, kind, received, code, reason, patient_id, accession_number,"
                f" content FROM hl7_message WHERE {sql} ORDER BY id DESC LIMIT ?",
                (*values, limit),
            )
        )
        return [KeptMessage(*row) for row in rows]

    def purge_messages(self, before: float) -> int:
        """Forget messages received before; return how many."""
        return self._database.transact(
            lambda session: session.run("DELETE FROM hl7_message WHERE received < ?", (before,))
        )

    # -- orders ---------------------------------------------------------------------------------

    def latest(
        self, *, limit: int = 100, before: int | None = None, patient_id: str = "", accession_number: str = "",
        study_uid: str = "", state: str = "", placer: str = "", filler: str = "",
    ) -> list[OrderSummary]:  # fmt: skip
        """Orders, newest first, a page at a time; what is given must be equal."""
        wanted = {
            "patient_id": patient_id, "accession_number": accession_number, "study_instance_uid": study_uid,
            "state": state, "placer": placer, "filler": filler,
        }  # fmt: skip
        tests: list[Sql] = [(f"{name} = ?", [value]) for name, value in wanted.items() if value]
        tests += [("id < ?", [before])] if before is not None else []
        sql, values = all_of(tests)

        def work(session: Session) -> list[OrderSummary]:
            rows = session.rows(f"{SUMMARY} WHERE {sql} ORDER BY id DESC LIMIT ?", (*values, limit))
            return [summary(session, row) for row in rows]

        return self._database.read(work)

    def find(self, keys: OrderKeys) -> OrderSummary | None:
        """The order that a message with these keys is about."""

        def work(session: Session) -> OrderSummary | None:
            row = known(session, keys, lock=False)
            sql = f"{SUMMARY} WHERE id = ?"
            return summary(session, session.rows(sql, (row[0],))[0]) if row else None

        return self._database.read(work)

    def save(self, change: OrderChange, now: float, tasks: Sequence[NewTask] = ()) -> bool:
        """An order that came by no message, from an imported worklist for example; False when it had to be there.

        Raises Conflict when its Study Instance UID is that of an order with other numbers.
        """

        def work(session: Session) -> bool:
            for task in tasks:
                insert_task(session, task, now)
            return change_order(session, change, now)

        return self._database.transact(work)

    def set_state(self, study_uid: str, state: StepState, now: float, *, step_id: str = "") -> bool:
        """Set the state of an order and its steps, or of one step; False when there is none."""
        steps = (NewStep(step_id, {}, state),) if step_id else ()
        change = OrderChange(OrderKeys(study_uid=study_uid), None if step_id else state, steps=steps, saves=False)
        return self.save(change, now)

    def worklist(self, query: WorklistQuery, **narrowed: Any) -> Steps:
        """As ``archive.index.worklist.worklist``."""
        return worklist(self._database, query, **narrowed)


class _Unknown(Exception):  # noqa: N818 - rolls a transaction back, and is no error of anybody
    """An order that had to be there is not."""


def _unique_key(message: NewMessage) -> str:
    return f"{message.sender}\x1f{message.control_id}"


def _keep(session: Session, message: NewMessage, *, unique: bool) -> bool:
    row = session.row(
        _INSERT_MESSAGE,
        (
            message.sender, message.address, message.control_id, _unique_key(message) if unique else None,
            message.digest, message.kind, message.received, message.code, message.reason, message.patient_id,
            message.accession_number, message.content,
        ),
    )  # fmt: skip
    return row is not None
