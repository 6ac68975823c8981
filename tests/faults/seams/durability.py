"""What keeps objects: syncs, the order of file and row, recovery, errors that are told.

Rules that hold here: those of the package.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.faults.seams.registry import nothing, replace, seam


@seam("answer before commit")
def _answer_before_commit() -> None:
    """The peer is told before anything is durable."""
    from archive.index import Added, Outcome
    from archive.services.commit import Committer

    commit = Committer.commit

    def later(self: Any, arrival: Any) -> Any:
        threading.Timer(0.05, commit, (self, arrival)).start()
        return Added(Outcome.STORED)

    replace(Committer, "commit", later)


@seam("row before file")
def _row_before_file() -> None:
    """Neither journal nor file when the row is committed."""
    from archive.services.commit import Committer

    def commit(self: Any, group: Any) -> None:
        self._add(group, 0)
        time.sleep(0.005)
        for arrival in group:
            self._place(arrival)

    replace(Committer, "_commit", commit)
    _small_objects_are_files()


def _small_objects_are_files() -> None:
    """No object lives in the journal."""
    from archive.services.commit import Committer

    replace(Committer, "largest_in_journal", property(lambda self: 0))


@seam("no recovery")
def _no_recovery() -> None:
    """A journal that a crash left is not looked at."""
    from archive.services.commit import Recovery

    def forget(self: Any) -> int:
        there = (record.sequence for records in self._journal.replay() for record in records)
        self._journal.start(max([self._applied, *there]))
        return 0

    replace(Recovery, "steps", lambda self: iter(()))
    replace(Recovery, "end", forget)


@seam("no sync")
def _no_sync() -> None:
    """Nothing that Python writes is made durable; SQLite still syncs its own."""
    from archive.storage import file_systems

    replace(os, "fsync", nothing)
    replace(os, "fdatasync", nothing)
    replace(file_systems, "sync", nothing)


@seam("no sync of folders")
def _no_sync_of_folders() -> None:
    from archive.storage import files, local

    replace(local, "sync_folder", nothing)
    replace(files, "sync_below", nothing)


@seam("commit not synced")
def _commit_not_synced() -> None:
    """What `synchronous=NORMAL` without a journal is: files are durable, rows are not."""
    from archive.index.sqlite import SqliteDatabase

    writing = SqliteDatabase._writing
    replace(SqliteDatabase, "_writing", lambda self, durable: writing(self, False))
    _no_recovery()
    _small_objects_are_files()


@seam("asynchronous commit")
def _asynchronous_commit() -> None:
    """PostgreSQL answers before its log is durable, and what the journal knows is forgotten."""
    from archive.index.postgresql import PostgresqlDatabase

    opened = PostgresqlDatabase._open

    def careless(self: Any) -> Any:
        session = opened(self)
        session.connection.execute("SET synchronous_commit = off")
        return session

    replace(PostgresqlDatabase, "_open", careless)
    _no_recovery()


@seam("errors of sync ignored")
def _errors_of_sync_ignored() -> None:
    """fsync is tried and its answer thrown away."""

    def careless(sync: Callable[[int], None]) -> Callable[[int], None]:
        def attempt(fd: int) -> None:
            try:
                sync(fd)
            except OSError:
                pass

        return attempt

    replace(os, "fsync", careless(os.fsync))
    replace(os, "fdatasync", careless(os.fdatasync))


@seam("errors of write ignored")
def _errors_of_write_ignored() -> None:
    """What cannot be written is taken for written."""
    from archive.storage import journal, local

    write_all = local.write_all

    def careless(fd: int, pieces: Any) -> None:
        try:
            write_all(fd, pieces)
        except OSError:
            pass

    replace(local, "write_all", careless)
    replace(journal, "write_all", careless)


@seam("no cleaning up")
def _no_cleaning_up() -> None:
    """What failed stays where it is."""
    from archive.storage.local import Part, Volume

    replace(Volume, "remove", nothing)
    replace(Part, "discard", nothing)


@seam("no sweep")
def _no_sweep() -> None:
    """What a killed process left in the spool stays."""
    from archive.storage import spool

    replace(spool, "_abandoned", lambda folder: False)


@seam("unknown outcome is success")
def _unknown_outcome_is_success() -> None:
    """The peer is told 0000 although nobody knows what became of the row."""
    from archive.errors import IndexUnavailable
    from archive.index import Added, Outcome
    from archive.services.commit import Committer

    commit = Committer.commit

    def hopeful(self: Any, arrival: Any) -> Any:
        try:
            return commit(self, arrival)
        except IndexUnavailable:
            return Added(Outcome.STORED)

    replace(Committer, "commit", hopeful)


@seam("no patience with the index")
def _no_patience_with_the_index() -> None:
    """Whoever waits for a database that has stopped waits for ever."""
    from archive.index import postgresql

    replace(postgresql, "_limited", lambda gen, patience: gen)


@seam("length not compared")
def _length_not_compared() -> None:
    """A stored file is sent whatever became of it."""
    from archive.storage.local import Volume

    def trusting(self: Any, path: str, expected_size: int) -> int:
        return os.open(self.root / path, os.O_RDONLY | os.O_CLOEXEC | os.O_CREAT)

    replace(Volume, "open_file", trusting)


@seam("no sentinel")
def _no_sentinel() -> None:
    """An empty folder is as good as the volume."""
    from archive.storage import local

    replace(local, "SENTINEL", ".")


@seam("schema in pieces")
def _schema_in_pieces() -> None:
    """Each statement of a migration is committed by itself."""
    from archive.index import migrations

    step = migrations._step

    class Hasty:
        def __init__(self, session: Any) -> None:
            self._session, self.dialect, self.row = session, session.dialect, session.row

        def run(self, sql: str, parameters: Any = ()) -> int:
            changed: int = self._session.run(sql, parameters)
            self._session.run("COMMIT")
            self._session.run("BEGIN")
            return changed

    replace(migrations, "_step", lambda session, steps: step(Hasty(session), steps))
