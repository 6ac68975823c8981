"""What both databases offer the rest of the index: sessions, transactions and streams.

Rules that hold here: SQL is written once, with ``?`` for values; what differs between the databases is a
field or method of Dialect, never an ``if`` elsewhere; a database that is gone, locked or too slow raises
IndexUnavailable.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

import peewee
import psycopg

from archive.errors import IndexUnavailable
from archive.index.wakes import Wakes

T = TypeVar("T")
C = TypeVar("C")
Parameters = Sequence[Any]
Row = tuple[Any, ...]
Rows = Generator[Row, None, None]

PATIENCE = 5.0  # seconds until a caller hears that the index is unavailable


class Session(Protocol):
    """One connection in use, inside or outside of a transaction."""

    dialect: Dialect

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Row]: ...

    def row(self, sql: str, parameters: Parameters = ()) -> Row | None: ...

    def run(self, sql: str, parameters: Parameters = ()) -> int:
        """Execute and return how many rows were changed."""
        ...

    def later(self, sql: str, parameters: Parameters = ()) -> None:
        """Execute, now or together with the next statement; nobody waits for what comes of it."""
        ...

    def wake(self, kind: str) -> None:
        """When this transaction is committed, wake the workers that wait for tasks of this kind."""
        ...

    def take_turn(self, number: int) -> None:
        """Wait, longer than for a statement, until nobody else has this turn, which ends with the transaction."""
        ...

    def bulk(self, table: str, columns: Sequence[str], rows: Sequence[Parameters]) -> None:
        """Insert many rows in the fastest way the database has."""
        ...

    def query(self, query: peewee.Query) -> list[Row]:
        """The rows of a query built from the models; for statements, how many rows they changed."""
        ...


class Database(Protocol):
    """One database, shared by all threads of a process."""

    dialect: Dialect

    def transact(self, work: Callable[[Session], T], *, durable: bool = True, repeatable: bool = False) -> T:
        """Run ``work`` in one transaction; ``repeatable`` work may run again when nobody knows if it took effect."""
        ...

    def read(self, work: Callable[[Session], T]) -> T: ...

    def stream(self, sql: str, parameters: Parameters = ()) -> Rows:
        """Rows as they are taken; closing the iterator frees connection and cursor."""
        ...

    def listen(self) -> Wakes:
        """Hear of tasks that any process commits from now on. Raises IndexUnavailable."""
        ...

    def sync(self) -> None: ...

    log_full: threading.Event  # set when `trim_log` should run

    def trim_log(self) -> None:
        """Do what would hold up a transaction some time, beside those that go on."""
        ...

    def migrate(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` in one transaction that nobody else's migration runs beside, without time limit."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one database says what the other says differently."""

    name: str
    types: dict[str, str]
    like: str  # "{column} … ?", for patterns made by ``pattern``
    among: str  # for lists made by ``listed``
    found: str  # "{column} … {select}": one of the rows that a query finds, all of which are looked for first
    leading_join: str  # a join whose left side is walked first
    find: str  # function(text, part): position of the part, 0 if none
    aggregate: str  # function(text, delimiter)
    each_value: str  # table expression of the values of a multi-valued column, in column ``value``
    each_item: str  # table expression of the items of a sequence column, in column ``item``
    item_text: str  # text of a keyword in ``item``
    number: str  # a column as a number, NULL if it is none
    pattern: Callable[[str], str]
    listed: Callable[[Sequence[Any]], Any]
    peewee: peewee.Database
    constraint_errors: tuple[type[Exception], ...]


def glob_pattern(pattern: str) -> str:
    """For SQLite's GLOB, which is case-sensitive and in which only ``* ? [`` are special."""
    return pattern.replace("[", "[[]")


_LIKE = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_", "*": "%", "?": "_"})


def like_pattern(pattern: str) -> str:
    """For LIKE with a backslash as escape."""
    return pattern.translate(_LIKE)


_TEXT = 'TEXT COLLATE "C"'  # bytes as they are: an index on it serves ranges and prefixes in every locale

SQLITE = Dialect(
    name="sqlite",
    types={
        "id": "INTEGER PRIMARY KEY AUTOINCREMENT",  # never reused: other processes remember ids
        "text": "TEXT", "int": "INTEGER", "real": "REAL", "blob": "BLOB", "compact": " WITHOUT ROWID", "counters": "",
    },
    like="{column} GLOB ?",
    among="{column} IN (SELECT value FROM json_each(?))",
    found="{column} IN ({select})",
    leading_join="CROSS JOIN",
    find="instr",
    aggregate="group_concat",
    each_value="json_each('[' || replace(json_quote({column}), '\\\\', '\",\"') || ']')",
    each_item="(SELECT value AS item FROM json_each({column}))",
    item_text="json_extract(item, '$.{keyword}')",
    number="CAST(NULLIF({column}, '') AS REAL)",
    pattern=glob_pattern,
    listed=json.dumps,
    peewee=peewee.SqliteDatabase(None),
    constraint_errors=(sqlite3.IntegrityError,),
)  # fmt: skip

POSTGRESQL = Dialect(
    name="postgresql",
    types={
        "id": "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
        "text": _TEXT, "int": "BIGINT", "real": "DOUBLE PRECISION", "blob": "BYTEA",
        "compact": "", "counters": " WITH (fillfactor = 80)",  # room for counters to be updated in place
    },
    like="{column} LIKE ? ESCAPE '\\'",
    among="{column} = ANY(?)",
    found="{column} = ANY(ARRAY({select}))",
    leading_join="JOIN",
    find="strpos",
    aggregate="string_agg",
    each_value="unnest(string_to_array({column}, '\\')) AS each(value)",
    each_item="(SELECT value AS item FROM jsonb_array_elements(CAST({column} AS jsonb))) AS items",
    item_text="(item ->> '{keyword}') COLLATE \"C\"",
    number="CASE WHEN {column} ~ '^[+-]{{0,1}}[0-9]+([.][0-9]*){{0,1}}$' THEN CAST({column} AS double precision) END",
    pattern=like_pattern,
    listed=list,
    peewee=peewee.PostgresqlDatabase(None, prefer_psycopg3=True),
    constraint_errors=(psycopg.IntegrityError,),
)  # fmt: skip


class Pool(Generic[C]):
    """Connections that wait for work, the most recently used first, never more than ``size`` at once."""

    def __init__(self, connect: Callable[[], C], close: Callable[[C], None], size: int) -> None:
        self._connect, self._close, self._size = connect, close, size
        self._idle: list[C] = []
        self._used = 0
        self._closed = False
        self._freed = threading.Condition()

    def take(self) -> C:
        deadline = monotonic() + PATIENCE
        with self._freed:
            while self._used >= self._size:
                if not self._freed.wait(max(0.0, deadline - monotonic())) and monotonic() >= deadline:
                    raise IndexUnavailable("index is busy", f"all {self._size} connections are in use")
            self._used += 1
            if self._idle:
                return self._idle.pop()
        try:
            return self._connect()
        except BaseException:
            self._release()
            raise

    def give(self, connection: C, *, broken: bool = False) -> None:
        """Back to the pool, or away with it; after a broken one the idle ones are not trusted either."""
        doomed = [connection] if broken or self._closed else []
        with self._freed:
            if doomed:
                doomed += self._idle
                self._idle = []
            else:
                self._idle.append(connection)
        self._release()
        for each in doomed:
            self._close(each)

    def _release(self) -> None:
        with self._freed:
            self._used -= 1
            self._freed.notify()

    @contextmanager
    def using(self, broken: tuple[type[BaseException], ...]) -> Iterator[C]:
        connection = self.take()
        try:
            yield connection
        except broken:
            self.give(connection, broken=True)
            raise
        except BaseException:
            self.give(connection)
            raise
        else:
            self.give(connection)

    def close(self) -> None:
        with self._freed:
            self._closed = True
            idle, self._idle = self._idle, []
        for each in idle:
            self._close(each)
