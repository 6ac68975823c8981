"""The index in a SQLite file: WAL, one writer at a time, readers that nobody waits for.

Rules that hold here: a commit is FULL (the log is synced) unless the caller's own journal protects it; writers
of one process queue on a lock and processes on a locked file beside the database, so that nobody polls; a
transaction begins IMMEDIATE, never by upgrade; a statement that runs for too long is interrupted.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import peewee

from archive.errors import ConfigurationError, IndexUnavailable
from archive.index.database import PATIENCE, SQLITE, Parameters, Pool, Row, Rows, Session
from archive.index.wakes import Sockets, SocketWakes, Wakes

T = TypeVar("T")

READERS = 256  # connections for answers in progress; each is one file descriptor and a small cache
FIRST_PAGE, LAST_PAGE = 1, 256  # rows taken from a cursor at a time: the first at once, later ones in bulk
TRIM = 1000  # transactions of a process between two looks at the log: some 7,000 pages of 4 kB
LONG = 12_000  # pages of a log that has to end: it begins anew only when none of them waits to be moved
_STEPS = 50_000  # virtual machine steps between two looks at the clock, about a millisecond
_OLDEST = (3, 35, 0)  # RETURNING

_BOTH = ("PRAGMA foreign_keys = ON", "PRAGMA busy_timeout = 5000", "PRAGMA temp_store = MEMORY")
_WRITER = (
    "PRAGMA synchronous = FULL",
    "PRAGMA cache_size = -65536",  # 64 MB: the upper pages of the UID indexes of some ten million instances
    "PRAGMA wal_autocheckpoint = 32000",  # only where nobody trims the log beside the transactions
    "PRAGMA journal_size_limit = 67108864",
)
_READER = ("PRAGMA query_only = ON", "PRAGMA cache_size = -4096", "PRAGMA mmap_size = 1073741824")


@contextmanager
def _answering() -> Iterator[None]:
    """SQLite's faults by their name; constraints are the caller's business."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.Error as error:
        raise _unavailable(error) from error


def _unavailable(error: sqlite3.Error) -> IndexUnavailable:
    return IndexUnavailable("index is not available", f"{type(error).__name__}: {error}")


class SqliteSession:
    """One connection; interrupts statements that run past their deadline."""

    dialect = SQLITE

    def __init__(self, connection: sqlite3.Connection, patience: float) -> None:
        self.connection = connection
        self.synchronous = "FULL"
        self._patience = patience
        self._deadline = float("inf")
        self.woken: set[str] = set()
        connection.set_progress_handler(self._too_late, _STEPS)

    def _too_late(self) -> bool:
        return monotonic() > self._deadline

    def limit(self) -> None:
        """Give the next statements their time."""
        self._deadline = monotonic() + self._patience

    def unlimit(self) -> None:
        self._deadline = float("inf")

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        return self.connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Parameters = ()) -> Row | None:
        rows = self.connection.execute(sql, parameters).fetchall()
        return rows[0] if rows else None

    def run(self, sql: str, parameters: Parameters = ()) -> int:
        return self.connection.execute(sql, parameters).rowcount

    def later(self, sql: str, parameters: Parameters = ()) -> None:
        self.connection.execute(sql, parameters)

    def wake(self, kind: str) -> None:
        self.woken.add(kind)

    def take_turn(self, number: int) -> None:
        """There is one writer anyway."""

    def bulk(self, table: str, columns: Sequence[str], rows: Sequence[Parameters]) -> None:
        values = ", ".join("?" * len(columns))
        self.connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})", rows)

    def query(self, query: peewee.Query) -> list[Row]:
        sql, parameters = SQLITE.peewee.get_sql_context().sql(query).query()
        cursor = self.connection.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else [(cursor.rowcount,)]


class SqliteDatabase:
    """One database file."""

    dialect = SQLITE

    def __init__(self, path: Path, *, statement_timeout: float = PATIENCE) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise ConfigurationError(f"SQLite {sqlite3.sqlite_version} is too old, 3.35 is needed")
        self.path = path
        self._timeout = statement_timeout
        self._readers: Pool[SqliteSession] = Pool(
            self._open_reader, lambda session: session.connection.close(), READERS
        )
        self._turn = threading.Lock()
        self._doubted = False  # the last sync failed, or is under way
        self._faults = 0
        self._commits = 0
        self._trimmer: SqliteSession | None = None
        self.log_full = threading.Event()  # time for `trim_log`
        self._sockets = Sockets(path.with_name(path.name + "-wakes"))
        self._file = WriterFile(path.with_name(path.name + "-writer"))
        with _answering():
            self._writer: SqliteSession | None = self._open_writer()

    def _open(self, *pragmas: str) -> SqliteSession:
        with _answering():
            connection = sqlite3.connect(
                self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False, cached_statements=512
            )
            for pragma in (*_BOTH, *pragmas):
                connection.execute(pragma)
            return SqliteSession(connection, self._timeout)

    def _open_reader(self) -> SqliteSession:
        return self._open(*_READER)

    def _open_writer(self) -> SqliteSession:
        session = self._open(*_WRITER)
        mode = session.row("PRAGMA journal_mode = WAL")
        if mode != ("wal",):
            raise ConfigurationError(
                f"{self.path}: this file system cannot hold a database in WAL mode; use a local one"
            )
        if session.row("PRAGMA synchronous") != (2,):
            raise ConfigurationError(f"{self.path}: SQLite does not sync its commits")
        return session

    @contextmanager
    def _writing(self, durable: bool) -> Iterator[SqliteSession]:
        """The writing connection, when it is this thread's and this process' turn."""
        self._take_turn()
        try:
            with _answering():
                yield self._session(durable)
        finally:
            self._give_turn()

    def _take_turn(self) -> None:
        if not (self._turn.acquire(False) or self._turn.acquire(timeout=PATIENCE)):
            raise IndexUnavailable("index is busy", "another thread has been writing for too long")
        try:
            self._file.lock()
        except BaseException:
            self._turn.release()
            raise

    def _give_turn(self) -> None:
        try:
            self._file.unlock()
        finally:
            self._turn.release()

    def _session(self, durable: bool) -> SqliteSession:
        session = self._writer = self._writer or self._open_writer()
        synchronous = "FULL" if durable else "NORMAL"
        if session.synchronous != synchronous:
            session.run(f"PRAGMA synchronous = {synchronous}")
            session.synchronous = synchronous
        return session

    def transact(self, work: Callable[[Session], T], *, durable: bool = True, repeatable: bool = False) -> T:
        # As `with self._writing(durable)`, without what generators cost: every arrival comes through here.
        self._take_turn()
        try:
            result, woken = self._transact(self._session(durable), work)
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except sqlite3.Error as error:
            raise _unavailable(error) from error
        finally:
            self._give_turn()
        self._commits += 1
        if self._commits >= TRIM:
            self.log_full.set()
        if woken:
            self._sockets.send(woken)
        return result

    def _transact(self, session: SqliteSession, work: Callable[[Session], T]) -> tuple[T, set[str]]:
        """What came of the work, and whom its transaction wakes."""
        session.run("BEGIN IMMEDIATE")
        try:
            result = work(session)
            session.run("COMMIT")
        except BaseException:
            session.woken.clear()
            self._roll_back(session)
            raise
        woken = session.woken
        if woken:
            session.woken = set()
        return result, woken

    def listen(self) -> Wakes:
        return SocketWakes(self._sockets.folder)

    def _roll_back(self, session: SqliteSession) -> None:
        """Nothing of a failed transaction stays; a connection that cannot even do that is not used again."""
        try:
            if session.connection.in_transaction:
                session.run("ROLLBACK")
        except sqlite3.Error:
            self._writer = None
            session.connection.close()

    def migrate(self, work: Callable[[Session], T]) -> T:
        return self.transact(work)

    def read(self, work: Callable[[Session], T]) -> T:
        with self._readers.using((sqlite3.DatabaseError, IndexUnavailable)) as session, _answering():
            session.limit()
            return work(session)

    def stream(self, sql: str, parameters: Parameters = ()) -> Rows:
        with self._readers.using((sqlite3.DatabaseError, IndexUnavailable)) as session, _answering():
            session.limit()
            cursor = session.connection.execute(sql, parameters)
            try:
                size = FIRST_PAGE
                while rows := cursor.fetchmany(size):
                    yield from rows
                    size = min(size * 2, LAST_PAGE)
                    session.limit()
            finally:
                cursor.close()

    def sync(self) -> None:
        """A FULL commit syncs the log, and with it all that was committed before."""
        if self._doubted:
            self._empty_log()
        # The value has to change: a transaction that leaves every page as it was writes nothing and syncs nothing.
        count = "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE name = 'sync'"
        faults = self._faults
        self._doubted = True
        self.transact(lambda session: session.run(count), durable=True)
        self._doubted = self._faults != faults

    def trim_log(self) -> None:
        """Move the log into the database beside the transactions that go on, and what these add between two of them.

        Otherwise one commit in some hundreds would do it while its caller, and all behind it, wait.
        """
        self._commits = 0
        try:
            with _answering():
                trimmer = self._trimmer = self._trimmer or self._open()
                row = trimmer.row("PRAGMA wal_checkpoint(PASSIVE)")  # busy, pages in the log, pages moved
            if row is None or row[1] == row[2] or row[1] < LONG:
                return
            with self._writing(durable=True) as session:
                session.run("PRAGMA wal_checkpoint(PASSIVE)")
        except BaseException:
            self._faults += 1  # one of its syncs may be what failed
            self._doubted = True
            raise

    def _empty_log(self) -> None:
        """Move the log into the database: after a failed sync a second one may succeed without having written it."""
        with self._writing(durable=True) as session:
            row = session.row("PRAGMA wal_checkpoint(TRUNCATE)")
            if row is None or row[0] != 0:
                raise IndexUnavailable("index is busy", "its log cannot be emptied while others read it")

    def close(self) -> None:
        self._readers.close()
        if self._trimmer:
            self._trimmer.connection.close()
            self._trimmer = None
        with self._turn:
            if self._writer:
                self._writer.connection.close()
                self._writer = None
            self._file.close()
        self._sockets.close()


class WriterFile:
    """An flock'ed file: whose turn it is to write, among processes."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait()

    def unlock(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _wait(self) -> None:
        """flock has no time limit, so a thread waits; should it come too late, it gives the lock back."""
        state: dict[str, Any] = {"mutex": threading.Lock(), "late": False}
        locked = threading.Event()

        def wait() -> None:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            with state["mutex"]:
                if state["late"]:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
                locked.set()

        threading.Thread(target=wait, name="index-writer-lock", daemon=True).start()
        if locked.wait(PATIENCE):
            return
        with state["mutex"]:
            state["late"] = not locked.is_set()
        if state["late"]:
            raise IndexUnavailable("index is busy", "another process has been writing for too long")

    def close(self) -> None:
        os.close(self._fd)
