"""Callers that were refused: one row for each title and address, the oldest make room for new ones."""

from __future__ import annotations

import peewee

from archive.dicom.names import possible
from archive.index.database import Database, Session
from archive.index.models import Caller
from archive.index.values import CallerSeen

# A scan of a whole network with made-up titles must neither fill the disk nor push out the one real modality at once.
KEPT = 1000

_NOTE = (
    "INSERT INTO caller (aet, address, called, reason, first, last, times) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (aet, address) DO UPDATE SET called = excluded.called, reason = excluded.reason,"
    " last = excluded.last, times = caller.times + excluded.times RETURNING times"
)
_TRIM = (
    "DELETE FROM caller WHERE last < (SELECT last FROM caller ORDER BY last DESC LIMIT 1 OFFSET ?)"
)  # fmt: skip


def note(database: Database, aet: str, address: str, called: str, reason: str, when: float, times: int = 1) -> None:
    def work(session: Session) -> None:
        texts = [possible(text)[:200] for text in (aet, address, called, reason)]
        row = session.row(_NOTE, (*texts, when, when, times))
        if row and row[0] == times:
            session.run(_TRIM, (KEPT - 1,))

    database.transact(work, durable=False)


def seen(database: Database) -> list[CallerSeen]:
    query = Caller.select(
        Caller.aet, Caller.address, Caller.called, Caller.reason, Caller.first, Caller.last, Caller.times
    ).order_by(Caller.last.desc(), Caller.aet)
    return [CallerSeen(*row) for row in database.read(lambda session: session.query(query))]


def forget(database: Database, aet: str, address: str | None) -> int:
    which: peewee.Expression = Caller.aet == aet
    if address is not None:
        which &= Caller.address == address
    rows = database.transact(lambda session: session.query(Caller.delete().where(which)))
    return int(rows[0][0])
