"""Values by name: small facts that all processes share."""

from __future__ import annotations

from archive.index.database import Database

UNFINISHED_COPY = "copy_unfinished"  # the index is being made, or was left half made, from another


def get(database: Database, name: str) -> str | None:
    row = database.read(lambda session: session.row("SELECT value FROM meta WHERE name = ?", (name,)))
    return str(row[0]) if row else None


def put(database: Database, name: str, value: str) -> None:
    sql = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    database.transact(lambda session: session.run(sql, (name, value)), repeatable=True)
