"""The index in PostgreSQL, by psycopg 3: pooled connections that come back by themselves.

Rules that hold here: a commit is synchronous, whatever the server's default; a server that does not sync at all
is refused; a statement has a time limit on the server, and one on the client for a server that has stopped; when a
connection is lost before COMMIT the work is done again once, when it is lost at COMMIT only repeatable work is.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from time import monotonic, sleep
from typing import TypeVar

import peewee
import psycopg
from psycopg import errors, waiting
from psycopg.abc import RV, PQGen

from archive.errors import ConfigurationError, IndexUnavailable
from archive.index.database import PATIENCE, POSTGRESQL, Parameters, Pool, Row, Rows, Session
from archive.index.wakes import CHANNEL, NotifyWakes, Wakes

T = TypeVar("T")

CONNECTIONS = 30  # of PostgreSQL's default 100, so that three processes fit
FIRST_PAGE, LAST_PAGE = 2, 500  # rows fetched at a time: the first at once, later ones in bulk
TURN = 60.0  # seconds for a turn to come: arrivals of a busy minute go first, and a busy machine takes its time
_GRACE = 0.5  # seconds by which the client waits longer than the server's own limit
_TICK = 0.1
_MIGRATION_LOCK = 0x4152_4348  # advisory lock: one migration at a time
_DEADLOCKS = 8
_PAUSE = 0.02  # seconds, at most, after the first of them; twice as long after each further one

_LOST = (psycopg.OperationalError, psycopg.InterfaceError)
_AGAIN = (errors.DeadlockDetected, errors.SerializationFailure)


@lru_cache(maxsize=2048)
def _translated(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


@contextmanager
def _answering() -> Iterator[None]:
    """psycopg's faults by their name; constraints are the caller's business, and so are mistakes in SQL."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
        words = str(error).strip().splitlines() or [""]
        raise IndexUnavailable("index is not available", f"{type(error).__name__}: {words[0]}") from error


class Connection(psycopg.Connection[Row]):
    """Waits for the server no longer than ``patience``: a stopped server keeps no time limit itself."""

    patience: float | None = PATIENCE + _GRACE

    def wait(self, gen: PQGen[RV], interval: float = _TICK, timeout: float | None = None) -> RV:
        patience = self.patience if timeout is None else timeout
        return super().wait(_limited(gen, patience) if patience else gen, interval)


def _limited(gen: PQGen[RV], patience: float) -> PQGen[RV]:
    deadline = monotonic() + patience
    try:
        state = next(gen)
        while True:
            ready = yield state
            if ready == waiting.Ready.NONE and monotonic() > deadline:
                raise psycopg.OperationalError("the server does not answer")
            state = gen.send(ready)
    except StopIteration as stop:
        found: RV = stop.value
        return found


def _limit(seconds: float, extent: str = "SESSION") -> str:
    return f"SET {extent} statement_timeout = {int(seconds * 1000)}"


class PostgresqlSession:
    """One connection in use."""

    dialect = POSTGRESQL

    def __init__(self, connection: Connection, timeout: float) -> None:
        self.connection = connection
        self._timeout = timeout
        self._queue: list[tuple[str, Parameters]] = []
        self._woken: set[str] = set()

    def _execute(self, sql: str, parameters: Parameters) -> psycopg.Cursor[Row]:
        """Execute, with all that was queued before it, in one round trip."""
        if not self._queue:
            return self.connection.execute(_translated(sql), parameters)
        queue, self._queue = self._queue, []
        with self.connection.pipeline():
            for earlier, values in queue:
                self.connection.execute(_translated(earlier), values)
            return self.connection.execute(_translated(sql), parameters)

    def later(self, sql: str, parameters: Parameters = ()) -> None:
        self._queue.append((sql, parameters))

    def forget(self) -> None:
        """Nothing that is still queued will be executed."""
        self._queue = []
        self._woken = set()

    def wake(self, kind: str) -> None:
        if kind not in self._woken:
            self._woken.add(kind)
            self.later(f"SELECT pg_notify('{CHANNEL}', ?)", (kind,))

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        return self._execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Parameters = ()) -> Row | None:
        return self._execute(sql, parameters).fetchone()

    def run(self, sql: str, parameters: Parameters = ()) -> int:
        return self._execute(sql, parameters).rowcount

    def take_turn(self, number: int) -> None:
        patience, self.connection.patience = self.connection.patience, TURN + _GRACE
        try:
            self.later(_limit(TURN, "LOCAL"))
            self.row(f"SELECT pg_advisory_xact_lock({number})")
        finally:
            self.connection.patience = patience
        self.later(_limit(self._timeout, "LOCAL"))

    def _flush(self) -> None:
        queue, self._queue = self._queue, []
        for sql, parameters in queue:
            self._execute(sql, parameters)

    def bulk(self, table: str, columns: Sequence[str], rows: Sequence[Parameters]) -> None:
        self._flush()
        statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
        with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def query(self, query: peewee.Query) -> list[Row]:
        sql, parameters = POSTGRESQL.peewee.get_sql_context().sql(query).query()
        self._flush()
        cursor = self.connection.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else [(cursor.rowcount,)]


class PostgresqlDatabase:
    """One database, addressed by a URL."""

    dialect = POSTGRESQL

    def __init__(self, url: str, *, statement_timeout: float = PATIENCE) -> None:
        self._url = url
        self._timeout = statement_timeout
        self.log_full = threading.Event()  # never set: the server looks after its log
        self._pool: Pool[PostgresqlSession] = Pool(self._open, lambda session: session.connection.close(), CONNECTIONS)
        self.read(self._check_server)

    def _open(self) -> PostgresqlSession:
        with _answering():
            connection = Connection.connect(
                self._url, autocommit=True, connect_timeout=int(PATIENCE), client_encoding="UTF8",
                tcp_user_timeout=int(PATIENCE * 1000), prepare_threshold=3,
            )  # fmt: skip
            connection.patience = self._timeout + _GRACE
            connection.execute("SET synchronous_commit = on")
            connection.execute(_limit(self._timeout))
            connection.execute("SET jit = off")  # compiling costs more than any of these statements
            # Answers are wanted at once, not all as soon as possible: no sorting or hashing of everything before.
            connection.execute("SET cursor_tuple_fraction = 0.01")
            return PostgresqlSession(connection, self._timeout)

    def _check_server(self, session: Session) -> None:
        encoding = session.row("SHOW server_encoding")
        if encoding != ("UTF8",):
            raise ConfigurationError("index.url: the database must have the encoding UTF8")
        for setting in ("fsync", "full_page_writes"):
            if session.row(f"SHOW {setting}") != ("on",):
                raise ConfigurationError(
                    f"index.url: the server runs with {setting} off and would lose data in a crash"
                )

    def transact(self, work: Callable[[Session], T], *, durable: bool = True, repeatable: bool = False) -> T:
        started = monotonic()
        for attempt in range(_DEADLOCKS):
            committing = False
            try:
                with _answering(), self._session() as session:
                    session.later("BEGIN")
                    result = work(session)
                    committing = True
                    session.run("COMMIT")
                    return result
            except IndexUnavailable as error:
                if isinstance(error.__cause__, _AGAIN):
                    if attempt + 1 < _DEADLOCKS:
                        sleep(random.uniform(0, _PAUSE * 2**attempt))  # the others, which won, go first
                    continue
                if attempt or not _was_lost(error, started) or (committing and not repeatable):
                    raise
        raise IndexUnavailable("index is busy", "too many deadlocks")

    @contextmanager
    def _session(self) -> Iterator[PostgresqlSession]:
        """A connection from the pool; whatever happens, it comes back outside of a transaction, or not at all."""
        session = self._pool.take()
        try:
            yield session
        finally:
            session.forget()
            self._pool.give(session, broken=not _rolled_back(session))

    def listen(self) -> Wakes:
        try:
            return NotifyWakes(
                psycopg.connect(self._url, autocommit=True, connect_timeout=int(PATIENCE), keepalives_idle=30)
            )
        except psycopg.Error as error:
            raise IndexUnavailable("index is not available", str(error)) from error

    def migrate(self, work: Callable[[Session], T]) -> T:
        def alone(session: Session) -> T:
            session.run(_limit(0.0, "LOCAL"))
            session.row(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            return work(session)

        with _answering(), self._session() as session:
            session.connection.patience = None
            try:
                session.run("BEGIN")
                result = alone(session)
                session.run("COMMIT")
                return result
            finally:
                session.connection.patience = self._timeout + _GRACE

    def read(self, work: Callable[[Session], T]) -> T:
        started = monotonic()
        try:
            with _answering(), self._session() as session:
                return work(session)
        except IndexUnavailable as error:
            if not _was_lost(error, started):
                raise
        with _answering(), self._session() as session:
            return work(session)

    def stream(self, sql: str, parameters: Parameters = ()) -> Rows:
        with _answering(), self._session() as session:
            session.later("BEGIN READ ONLY")
            session.later(f"DECLARE answers NO SCROLL CURSOR FOR {sql}", parameters)
            size = FIRST_PAGE
            while rows := session.rows(f"FETCH FORWARD {size} FROM answers"):
                yield from rows
                if len(rows) < size:
                    break
                size = min(8 * size, LAST_PAGE)
            session.run("COMMIT")

    def sync(self) -> None:
        """Every commit is synchronous: nothing is left to do."""

    def trim_log(self) -> None:
        """The server does that by itself."""

    def close(self) -> None:
        self._pool.close()


def _was_lost(error: IndexUnavailable, started: float) -> bool:
    """Whether another connection may do: this one was lost, and soon. A statement that took too long would again."""
    cause = error.__cause__
    return (
        isinstance(cause, _LOST)
        and not isinstance(cause, errors.QueryCanceled)
        and monotonic() - started < PATIENCE / 2
    )


def _rolled_back(session: PostgresqlSession) -> bool:
    """Whether the connection can be used again: a statement still running means that its server has stopped."""
    connection = session.connection
    status = connection.info.transaction_status
    if connection.closed or connection.broken or status is psycopg.pq.TransactionStatus.ACTIVE:
        return False
    try:
        if status is not psycopg.pq.TransactionStatus.IDLE:
            connection.execute("ROLLBACK")
    except psycopg.Error:
        return False
    return True
