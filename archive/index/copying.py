"""Moving a whole index from one database to another.

Rules that hold here: the target is empty, or holds a copy that was broken off and is begun anew, and serves nobody
until it is whole; ids stay, so that tasks and quarantine keep pointing to what they did; the source is only read, and
when somebody wrote to it meanwhile the copy is no good and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from urllib.parse import unquote

import peewee

from archive.errors import ConfigurationError
from archive.index.database import Database, Row, Session
from archive.index.index import open_database
from archive.index.meta import UNFINISHED_COPY
from archive.index.migrations import MIGRATIONS, migrate, version
from archive.index.models import MODELS

CHUNK = 5_000  # rows of one transaction
PATIENCE = 3600.0  # seconds for a statement: ANALYZE takes minutes, and nobody else waits for it

Progress = Callable[[str, int, int], None]  # table, rows done, rows in all

_SQLITE = "sqlite:///"


def copy(source_url: str, target_url: str, progress: Progress | None = None) -> dict[str, int]:
    """Copy every row; return the number of rows by table. Raises ConfigurationError when that cannot be."""
    if source_url == target_url:
        raise ConfigurationError("source and target are the same index")
    source = _open_source(source_url)
    try:
        before = source.read(_state)
        target = open_database(target_url, statement_timeout=PATIENCE)
        try:
            migrate(target)
            _begin(target)
            counts = {_table(model): _copy_table(source, target, model, progress) for model in MODELS}
            if source.read(_state) != before:
                raise ConfigurationError("the source index was written to meanwhile; stop its daemon and copy again")
            target.transact(_end)
            return counts
        finally:
            target.close()
    finally:
        source.close()


def _open_source(url: str) -> Database:
    """The database to copy from, which has to be there and whole."""
    if url.startswith(_SQLITE) and not Path(unquote(url.removeprefix(_SQLITE))).is_file():
        raise ConfigurationError(f"{url}: there is no such file")
    source = open_database(url)
    try:
        found = source.read(version)
        if found != len(MIGRATIONS):
            words = "no index" if not found else f"an index with schema {found}, this program knows {len(MIGRATIONS)}"
            raise ConfigurationError(f"the source is {words}; `archive status` brings an older one up to date")
        if source.read(lambda session: session.row("SELECT 1 FROM meta WHERE name = ?", (UNFINISHED_COPY,))):
            raise ConfigurationError("the source is a copy that was broken off itself")
    except BaseException:
        source.close()
        raise
    return source


def _state(session: Session) -> list[Row]:
    """What changes with every arrival, deletion and task."""
    return session.rows(
        "SELECT (SELECT MAX(id) FROM instance), (SELECT COUNT(*) FROM instance), (SELECT MAX(id) FROM task),"
        " (SELECT COUNT(*) FROM task WHERE finished IS NULL), (SELECT SUM(sequence) FROM journal)"
    )


def _table(model: type[peewee.Model]) -> str:
    return str(model._meta.table_name)


def _begin(target: Database) -> None:
    unfinished = target.read(lambda session: session.row("SELECT 1 FROM meta WHERE name = ?", (UNFINISHED_COPY,)))
    filled = target.read(lambda session: session.row("SELECT 1 FROM patient LIMIT 1"))
    if filled and not unfinished:
        raise ConfigurationError("the target index is not empty; name an empty database or a new file")
    mark = "INSERT INTO meta (name, value) VALUES (?, '') ON CONFLICT DO NOTHING"
    target.transact(lambda session: session.run(mark, (UNFINISHED_COPY,)))
    for model in reversed(MODELS):
        mine = f" WHERE name <> '{UNFINISHED_COPY}'" if _table(model) == "meta" else ""
        sql = f"DELETE FROM {_table(model)}{mine}"
        target.migrate(lambda session, sql=sql: session.run(sql))  # type: ignore[misc]


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
    session.run("DELETE FROM meta WHERE name = ?", (UNFINISHED_COPY,))
