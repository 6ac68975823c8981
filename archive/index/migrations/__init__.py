"""From any older schema to this one, step by step.

Rules that hold here: each migration is one transaction together with its number, so that a kill leaves the old or
the new schema; a schema that is newer than this code is refused and left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from archive.errors import ConfigurationError
from archive.index.database import Database, Session
from archive.index.migrations import (
    m0001_first,
    m0002_extra_keys,
    m0003_queue,
    m0004_life,
    m0005_integrity,
    m0006_corrections,
    m0007_orders,
    m0008_versions,
    m0009_performed,
    m0010_matches,
    m0011_quarantine,
    m0012_retention,
    m0013_sync,
    m0014_volumes,
    m0015_jobs,
)

Statements = Callable[[], Iterator[str]]

MIGRATIONS: tuple[Statements, ...] = (
    m0001_first.statements, m0002_extra_keys.statements, m0003_queue.statements, m0004_life.statements,
    m0005_integrity.statements, m0006_corrections.statements, m0007_orders.statements, m0008_versions.statements,
    m0009_performed.statements, m0010_matches.statements, m0011_quarantine.statements,
    m0012_retention.statements, m0013_sync.statements, m0014_volumes.statements,
    m0015_jobs.statements,
)  # fmt: skip

_VERSION_TABLE = "CREATE TABLE IF NOT EXISTS schema_version (version {int} NOT NULL)"


def migrate(database: Database, migrations: tuple[Statements, ...] = MIGRATIONS) -> int:
    """Bring the schema up to date; return how many steps that took. Raises ConfigurationError."""
    if database.read(version) == len(migrations):
        return 0
    steps = 0
    while database.migrate(lambda session: _step(session, migrations)):
        steps += 1
    return steps


def version(session: Session) -> int:
    """The number of the last migration that was done, 0 for an empty database."""
    tables = {
        "sqlite": "SELECT 1 FROM sqlite_master WHERE name = 'schema_version'",
        "postgresql": "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'schema_version'",
    }
    if not session.row(tables[session.dialect.name]):
        return 0
    row = session.row("SELECT MAX(version) FROM schema_version")
    return int(row[0]) if row and row[0] is not None else 0


def _step(session: Session, migrations: tuple[Statements, ...]) -> bool:
    """The next migration, if one is left. Looks again inside the transaction: another process may have been here."""
    done = version(session)
    if done > len(migrations):
        raise ConfigurationError(
            f"index.url: the index has schema {done}, this program knows {len(migrations)}; install a newer version"
        )
    if done == len(migrations):
        return False
    types = session.dialect.types
    session.run(_VERSION_TABLE.format(**types))
    for statement in migrations[done]():
        session.run(statement.format(**types))
    session.run("INSERT INTO schema_version (version) VALUES (?)", (done + 1,))
    return True
