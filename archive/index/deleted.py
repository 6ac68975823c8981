"""Which studies, series and instances were deleted for good, by their UIDs.

Rules that hold here: what is noted is what the journal of corrections says, in the transaction of its operation, so
that an index that is rebuilt knows it too; what was stored again since is known as deleted all the same.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from archive.index.database import Database, Session

if TYPE_CHECKING:
    from archive.index.corrections import Operation

KIND = "delete"  # of the operations that are meant
_CAUGHT_UP = "deleted_uids"  # in meta: the operations that are older than this table are in it
_NOTE = (
    "INSERT INTO deleted_uid (uid, operation, happened) VALUES (?, ?, ?)"
    " ON CONFLICT (uid) DO UPDATE SET operation = excluded.operation, happened = excluded.happened"
)
_OLDER = "SELECT number, happened, what FROM operation WHERE kind = ? AND number > ? ORDER BY number LIMIT 500"
_DONE = "INSERT INTO meta (name, value) VALUES (?, '1') ON CONFLICT (name) DO NOTHING"


def follow(session: Session, operation: Operation) -> None:
    """For ``corrections.FOLLOWERS``: remember what is deleted."""
    if operation.kind == KIND:
        _note(session, operation.number, operation.when, operation.draft.arguments)


def _note(session: Session, number: int, when: float, arguments: Mapping[str, Any]) -> None:
    uid = str(arguments.get("of", ""))
    if uid:
        session.run(_NOTE, (uid, number, when))


def catch_up(database: Database) -> None:
    """Note what was deleted before there was this table, once."""
    if database.read(lambda session: session.row("SELECT 1 FROM meta WHERE name = ?", (_CAUGHT_UP,))):
        return

    def work(session: Session) -> None:
        last = 0
        while found := session.rows(_OLDER, (KIND, last)):
            for number, happened, what in found:
                _note(session, number, happened, json.loads(what)["arguments"])
            last = found[-1][0]
        session.run(_DONE, (_CAUGHT_UP,))

    database.transact(work, repeatable=True)


def among(database: Database, uids: Collection[str]) -> set[str]:
    """Which of these were deleted, as they are: of what was below or above them nothing is said."""
    if not uids:
        return set()
    column = database.dialect.among.format(column="uid")
    sql, keys = f"SELECT uid FROM deleted_uid WHERE {column}", (database.dialect.listed(sorted(uids)),)
    return {str(row[0]) for row in database.read(lambda session: session.rows(sql, keys))}
