"""Storage commitment transactions: who asked whom about which instances, what was found, and whether that is told.

Rules that hold here: a transaction is known by its UID and the peer it is shared with; its request, its findings and
their delivery are each committed with the task that goes on with them; what was found once is never found again, so
that a report that is repeated says the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from archive.dicom.references import Failure, Reference
from archive.index.commitment_tasks import CHECK, REPORT, Lease, add_task, bring_forward, end_report, hasten
from archive.index.database import Database, Row, Session
from archive.index.tasks import REASON_LENGTH

ANSWERED = "commit-answer"  # of no task: wakes who waits for the report of a peer

ASKED, ASKING = "asked", "asking"  # a peer asked us; we asked a peer
CHECKING, REPORTING, REPORTED, UNDELIVERED = "checking", "reporting", "reported", "undelivered"  # of ASKED
WAITING, COMMITTED, INCOMPLETE, REFUSED = "waiting", "committed", "incomplete", "refused"  # of ASKING

_HEAD = (
    "id, direction, peer, transaction_uid, calling, called, study_instance_uid, state, number_of_items,"
    " number_of_failures, reason, created, finished"
)
_INSERT = (
    "INSERT INTO commitment (direction, peer, transaction_uid, calling, called, study_instance_uid, state,"
    " number_of_items, number_of_failures, items, failures, reason, created)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, '[]', '', ?)"
    " ON CONFLICT (direction, peer, transaction_uid) DO NOTHING RETURNING id"
)
_KNOWN = "SELECT id, state, items FROM commitment WHERE direction = ? AND peer = ? AND transaction_uid = ?"
_PENDING = "SELECT COUNT(*) FROM commitment WHERE direction = ? AND peer = ? AND finished IS NULL"
_END_TASK = "DELETE FROM task WHERE id = ? AND owner = ? AND state = 'leased'"
_OURS = "SELECT 1 FROM task WHERE id = ? AND owner = ? AND state = 'leased'"


@dataclass(frozen=True, slots=True)
class NewTransaction:
    """A request that is about to be kept."""

    direction: str
    peer: str
    transaction: str
    items: tuple[Reference, ...]
    calling: str = ""
    called: str = ""
    study_uid: str = ""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction, without its instances."""

    id: int
    direction: str
    peer: str
    transaction: str
    calling: str
    called: str
    study_uid: str
    state: str
    items: int
    failures: int
    reason: str
    created: float
    finished: float | None


@dataclass(frozen=True, slots=True)
class Contents:
    """The instances of a transaction, and which of them are not committed; all others are once it was checked."""

    items: tuple[Reference, ...]
    failures: tuple[Failure, ...]


class Taken(Enum):
    """What became of a request."""

    NEW = "new"
    PENDING = "pending"  # the same is under way already
    AGAIN = "again"  # the same was reported before, and is reported again
    OTHER = "other"  # the UID belongs to other instances
    FULL = "full"


class Commitments:
    """The transactions of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- peers ask us ---------------------------------------------------------------------------

    def take(
        self, new: NewTransaction, now: float, *, most: int, lease: Lease | None = None
    ) -> tuple[Taken, int, int]:
        """Keep a request together with its task: what became of it, the ids of transaction and task (0 = none).

        Whoever gives a ``lease`` holds the task from the beginning.
        """
        text = _items_text(new.items)

        def work(session: Session) -> tuple[Taken, int, int]:
            known = session.row(_KNOWN, (new.direction, new.peer, new.transaction))
            if known:
                return self._known(session, new, text, known, now, lease)
            pending = session.row(_PENDING, (new.direction, new.peer))
            if pending and pending[0] >= most:
                return Taken.FULL, 0, 0
            row = session.row(_INSERT, _values(new, text, CHECKING, now))
            if row is None:  # at this very moment, by another process
                return Taken.PENDING, 0, 0
            # Whoever asks is there: what could not be delivered to him is tried now.
            hasten(session, new.peer, now)
            return Taken.NEW, row[0], add_task(session, CHECK, new.peer, row[0], now, now, lease)

        return self._database.transact(work)

    def _known(
        self, session: Session, new: NewTransaction, text: str, known: Row, now: float, lease: Lease | None
    ) -> tuple[Taken, int, int]:
        key, state, items = known
        if items != text:
            return Taken.OTHER, key, 0
        hasten(session, new.peer, now)
        # In the meantime the peer may have come to call itself, and us, by other titles.
        session.run("UPDATE commitment SET calling = ?, called = ? WHERE id = ?", (new.calling, new.called, key))
        if state not in (REPORTED, UNDELIVERED):
            return Taken.PENDING, key, bring_forward(session, new.peer, key, now, lease)
        session.run("UPDATE commitment SET state = ?, finished = NULL, reason = '' WHERE id = ?", (REPORTING, key))
        end_report(session, new.peer, key)
        return Taken.AGAIN, key, add_task(session, REPORT, new.peer, key, now, now, lease)

    def checked(
        self, key: int, failures: Sequence[Failure], task: int, owner: str, now: float, lease: Lease | None = None
    ) -> int:
        """Keep what was found, and let it be reported: the id of that task, 0 when the lease was lost."""

        def work(session: Session) -> int:
            row = session.row("SELECT peer FROM commitment WHERE id = ?", (key,))
            if row is None or not session.run(_END_TASK, (task, owner)):
                return 0
            session.run(
                "UPDATE commitment SET state = ?, number_of_failures = ?, failures = ? WHERE id = ?",
                (REPORTING, len(failures), json.dumps(list(failures)), key),
            )
            return add_task(session, REPORT, str(row[0]), key, now, now, lease)

        return self._database.transact(work)

    def reported(self, key: int, task: int, owner: str, now: float) -> bool:
        """The peer has the report; what else waits for it because it was not to be reached is due now."""

        def work(session: Session) -> bool:
            row = session.row(
                "UPDATE commitment SET state = ?, finished = ?, reason = '' WHERE id = ? RETURNING peer",
                (REPORTED, now, key),
            )
            if row:
                hasten(session, str(row[0]), now)
            return bool(session.run(_END_TASK, (task, owner)))

        return self._database.transact(work)

    def put_off(self, key: int, task: int, owner: str, due: float, reason: str) -> bool:
        """The report is tried again at ``due``; False when the lease was lost."""

        def work(session: Session) -> bool:
            changed = session.run(
                "UPDATE task SET state = 'waiting', owner = '', lease_until = NULL, ready = ?, due = ?, reason = ?"
                " WHERE id = ? AND owner = ? AND state = 'leased'",
                (due, due, reason[:REASON_LENGTH], task, owner),
            )
            session.run("UPDATE commitment SET reason = ? WHERE id = ?", (reason[:REASON_LENGTH], key))
            for kind in (CHECK, REPORT):
                session.wake(kind)
            return bool(changed)

        return self._database.transact(work)

    def give_up(self, key: int, task: int, owner: str, now: float, reason: str) -> bool:
        """The report is not tried any more, unless the peer asks again; False when the lease was lost."""

        def work(session: Session) -> bool:
            if not session.row(_OURS, (task, owner)):
                return False
            session.run(
                "UPDATE task SET state = 'failed', ready = NULL, lease_until = NULL, finished = ?, reason = ?"
                " WHERE id = ?",
                (now, reason[:REASON_LENGTH], task),
            )
            session.run(
                "UPDATE commitment SET state = ?, finished = ?, reason = ? WHERE id = ?",
                (UNDELIVERED, now, reason[:REASON_LENGTH], key),
            )
            return True

        return self._database.transact(work)

    def put_off_others(self, peer: str, now: float, due: float, reason: str) -> int:
        """All reports that are due for a peer wait until then, without losing a try."""
        sql = (
            "UPDATE task SET ready = ?, due = ?, reason = ? WHERE kind = ? AND lane = ? AND state = 'waiting'"
            " AND ready <= ?"
        )
        values = (due, due, reason[:REASON_LENGTH], REPORT, peer, now)
        return self._database.transact(lambda session: session.run(sql, values))

    # -- we ask peers ---------------------------------------------------------------------------

    def ask(self, new: NewTransaction, now: float) -> int:
        """Keep what we are about to ask a peer; return its id."""
        values = _values(new, _items_text(new.items), WAITING, now)
        row = self._database.transact(lambda session: session.row(_INSERT, values))
        assert row is not None, "transaction UIDs are made by us"
        return int(row[0])

    def refused(self, key: int, now: float, reason: str) -> None:
        """The peer did not take what we asked; what it reported nevertheless stays."""
        sql = "UPDATE commitment SET state = ?, finished = ?, reason = ? WHERE id = ? AND state = ?"
        values = (REFUSED, now, reason[:REASON_LENGTH], key, WAITING)
        self._database.transact(lambda session: session.run(sql, values))

    def answered(self, peer: str, transaction: str, failures: Sequence[Failure], now: float) -> None:
        """Keep a peer's report, and wake who waits for it."""

        def work(session: Session) -> None:
            session.run(
                "UPDATE commitment SET state = ?, number_of_failures = ?, failures = ?, finished = ?, reason = ''"
                " WHERE direction = ? AND peer = ? AND transaction_uid = ?",
                (INCOMPLETE if failures else COMMITTED, len(failures), json.dumps(list(failures)), now, ASKING, peer,
                 transaction),
            )  # fmt: skip
            session.wake(ANSWERED)

        self._database.transact(work)

    # -- both -----------------------------------------------------------------------------------

    def get(self, key: int) -> Transaction | None:
        sql = f"SELECT {_HEAD} FROM commitment WHERE id = ?"
        row = self._database.read(lambda session: session.row(sql, (key,)))
        return Transaction(*row) if row else None

    def known(self, direction: str, peer: str, transaction: str) -> Transaction | None:
        sql = f"SELECT {_HEAD} FROM commitment WHERE direction = ? AND peer = ? AND transaction_uid = ?"
        row = self._database.read(lambda session: session.row(sql, (direction, peer, transaction)))
        return Transaction(*row) if row else None

    def contents(self, key: int) -> Contents:
        row = self._database.read(
            lambda session: session.row("SELECT items, failures FROM commitment WHERE id = ?", (key,))
        )
        items, failures = (json.loads(text) for text in row) if row else ((), ())
        return Contents(tuple(Reference(*each) for each in items), tuple(Failure(*each) for each in failures))

    def latest(self, *, limit: int, direction: str = "", state: str = "", peer: str = "") -> list[Transaction]:
        """The last transactions, the newest first."""
        wanted = {"direction": direction, "state": state, "peer": peer}
        tests = [f"{column} = ?" for column, value in wanted.items() if value]
        where = f" WHERE {' AND '.join(tests)}" if tests else ""
        sql = f"SELECT {_HEAD} FROM commitment{where} ORDER BY id DESC LIMIT ?"
        values = (*filter(None, wanted.values()), limit)
        return [Transaction(*row) for row in self._database.read(lambda session: session.rows(sql, values))]

    def purge(self, before: float, limit: int = 500) -> int:
        """Forget some that ended before, or that a peer has not answered since; how many, 0 when none is left."""
        sql = (
            "DELETE FROM commitment WHERE id IN (SELECT id FROM commitment WHERE finished < ?"
            " OR (finished IS NULL AND direction = ? AND created < ?) LIMIT ?)"
        )
        return self._database.transact(lambda session: session.run(sql, (before, ASKING, before, limit)))


def _items_text(items: Sequence[Reference]) -> str:
    return json.dumps(list(items))


def _values(new: NewTransaction, text: str, state: str, now: float) -> tuple[Any, ...]:
    return (
        new.direction, new.peer, new.transaction, new.calling, new.called, new.study_uid, state, len(new.items), text,
        now,
    )  # fmt: skip
