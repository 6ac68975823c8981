"""Moving a whole index from one database to another.

Rules that hold here: the target is empty, or holds a copy that was broken off and is begun anew; ids stay, so that
tasks and quarantine keep pointing to what they did; the source is only read, and nobody may write to it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import peewee

from archive.errors import ConfigurationError
from archive.index.database import Database, Row, Session
from archive.index.index import open_database
from archive.index.migrations import MIGRATIONS, migrate, version
from archive.index.models import MODELS

CHUNK = 5_000  # rows of one transaction

Progress = Callable[[str, int, int], None]  # table, rows done, rows in all

_UNFINISHED = "copy_unfinished"


def copy(source_url: str, target_url: str, progress: Progress | None = None) -> dict[str, int]:
    """Copy every row; return the number of rows by table. Raises ConfigurationError when that cannot be."""
    source = open_database(source_url)
    try:
        if source.read(version) != len(MIGRATIONS):
            raise ConfigurationError("the source index is of another version; open it with this program first")
        target = open_database(target_url)
        try:
            migrate(target)
            _begin(target)
            counts = {_table(model): _copy_table(source, target, model, progress) for model in MODELS}
            target.transact(_end)
            return counts
        finally:
            target.close()
    finally:
        source.close()


def _table(model: type[peewee.Model]) -> str:
    return str(model._meta.table_name)


def _begin(target: Database) -> None:
    unfinished = target.read(lambda session: session.row("SELECT 1 FROM meta WHERE name = ?", (_UNFINISHED,)))
    filled = target.read(lambda session: session.row("SELECT 1 FROM patient LIMIT 1"))
    if filled and not unfinished:
        raise ConfigurationError("the target index is not empty; name an empty database or a new file")
    for model in reversed(MODELS):
        target.migrate(lambda session, model=model: session.run(f"DELETE FROM {_table(model)}"))  # type: ignore[misc]
    target.transact(lambda session: session.run("INSERT INTO meta (name, value) VALUES (?, '')", (_UNFINISHED,)))


def _copy_table(source: Database, target: Database, model: type[peewee.Model], progress: Progress | None) -> int:
    table, columns = _table(model), tuple(model._meta.columns)
    total = source.read(lambda session: session.row(f"SELECT COUNT(*) FROM {table}"))
    count, done = int(total[0]) if total else 0, 0
    rows = source.stream(f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1, 2")
    for chunk in _chunks(rows):
        target.migrate(lambda session, chunk=chunk: session.bulk(table, columns, chunk))  # type: ignore[misc]
        done += len(chunk)
        if progress:
            progress(table, done, count)
    return done


def _chunks(rows: Iterator[Row]) -> Iterator[Sequence[Row]]:
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


def _end(session: Session) -> None:
    """Ids go on after the highest; the planner learns what the tables look like."""
    if session.dialect.name == "postgresql":
        for model in MODELS:
            if "id" in model._meta.columns:
                table = _table(model)
                sequence = f"pg_get_serial_sequence('{table}', 'id')"
                session.row(f"SELECT setval({sequence}, COALESCE(MAX(id), 0) + 1, false) FROM {table}")
        session.run("ANALYZE")
    session.run("DELETE FROM meta WHERE name = ?", (_UNFINISHED,))
