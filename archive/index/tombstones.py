"""Files that no row points to any more: noted in the transaction that forgets them, unlinked afterwards.

Rules that hold here: a tombstone is a row of the transaction that takes the last reference to its file away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from archive.index.database import Session
from archive.index.values import Location

WORK = "unlink"  # what the worker waits for


def lay_tombstones(session: Session, files: Iterable[Location]) -> None:
    """These files are unlinked once this transaction is committed."""
    session.wake(WORK)
    for each in files:
        session.later(
            "INSERT INTO tombstone (volume, path) VALUES (?, ?) ON CONFLICT (volume, path) DO NOTHING",
            (each.volume, each.path),
        )


def drop_copies(session: Session, instances: Sequence[int]) -> list[Location]:
    """Forget the copies of instances; return their files, which no row points to any more."""
    which, listed = session.dialect.among.format(column="instance"), (session.dialect.listed(list(instances)),)
    sql = f"DELETE FROM copy WHERE {which} RETURNING volume, path, data_offset, data_size"
    return [Location(*row) for row in session.rows(sql, listed)]


def bury_copies(session: Session, instances: Sequence[int]) -> bool:
    """Forget the copies of instances, and their files with them; whether there were any."""
    gone = drop_copies(session, instances)
    if gone:
        lay_tombstones(session, gone)
    return bool(gone)
