"""Tasks of the outbox: work that was caused by a transaction (outbox.py) and is done by workers of any process.

Rules that hold here: a task is leased, never taken; ``ready`` is when it may be leased next: its due time, or the
end of its lease, NULL when it is done or failed; only the owner of a lease ends it, so a worker that was too slow
learns that somebody else has the task; attempts are counted when a lease begins.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import peewee

from archive.index.database import Database, Row, Session
from archive.index.models import TaskRow
from archive.index.outbox import insert
from archive.index.values import NewTask, State, Task

REASON_LENGTH = 500
PRIORITIES = (1, 0, -1)
OPEN = (State.WAITING, State.LEASED)

COLUMNS = (
    TaskRow.id, TaskRow.kind, TaskRow.lane, TaskRow.payload, TaskRow.state, TaskRow.due, TaskRow.attempts,
    TaskRow.lease_until, TaskRow.owner, TaskRow.created, TaskRow.finished, TaskRow.reason, TaskRow.study_uid,
    TaskRow.priority,
)  # fmt: skip
NAMES = ", ".join(column.column_name for column in COLUMNS)

# Two processes never wait for each other here: what one is about to lease, the other skips (PostgreSQL); in SQLite
# there is one writer anyway.
_LOCK = {"sqlite": "", "postgresql": " FOR UPDATE SKIP LOCKED"}


def add(database: Database, new: Sequence[NewTask], now: float) -> list[int]:
    def work(session: Session) -> list[int]:
        return [key for task in new if (key := insert(session, task, now)) is not None]

    return database.transact(work)


def lease(
    database: Database, kind: str, owner: str, now: float, *, seconds: float, limit: int, lane: str | None,
    durable: bool = True,
) -> list[Task]:  # fmt: skip
    if lane is None:
        parts: list[tuple[str, tuple[Any, ...]]] = [("kind = ? AND ready <= ?", (kind, now))]
    else:
        where = "kind = ? AND lane = ? AND priority = ? AND ready <= ?"
        parts = [(where, (kind, lane, priority, now)) for priority in PRIORITIES]

    def work(session: Session) -> list[Task]:
        found: list[Task] = []
        for where, keys in parts:
            if len(found) < limit:
                found += _lease(session, where, keys, limit - len(found), (owner, now + seconds, now + seconds))
        return found

    return database.transact(work, durable=durable)


def _lease(
    session: Session, where: str, keys: tuple[Any, ...], limit: int, lease: tuple[str, float, float]
) -> list[Task]:
    rows = session.rows(
        "UPDATE task SET state = 'leased', attempts = attempts + 1, owner = ?, lease_until = ?, ready = ?"
        f" WHERE id IN (SELECT id FROM task WHERE {where} ORDER BY ready, id LIMIT ?{_LOCK[session.dialect.name]})"
        f" RETURNING {NAMES}",
        (*lease, *keys, limit),
    )
    return sorted((task_of(row) for row in rows), key=lambda task: (task.due, task.id))


def heartbeat(database: Database, ids: Collection[int], owner: str, now: float, *, seconds: float) -> list[int]:
    query = (
        TaskRow.update(lease_until=now + seconds, ready=now + seconds)
        .where(TaskRow.id.in_(list(ids)), _is_mine(owner))
        .returning(TaskRow.id)
    )
    return [int(row[0]) for row in database.transact(lambda session: session.query(query))]


def _is_mine(owner: str) -> peewee.Expression:
    return (TaskRow.state == State.LEASED.value) & (TaskRow.owner == owner)


def _end(database: Database, key: int, holder: str, **changes: Any) -> bool:
    query = TaskRow.update(lease_until=None, **changes).where(TaskRow.id == key, _is_mine(holder))
    return bool(database.transact(lambda session: session.query(query))[0][0])


def finish(database: Database, key: int, owner: str, now: float, *, reason: str, keep: bool) -> bool:
    if keep:
        return _end(
            database, key, owner, state=State.DONE.value, ready=None, finished=now, reason=reason[:REASON_LENGTH]
        )
    query = TaskRow.delete().where(TaskRow.id == key, _is_mine(owner))
    return bool(database.transact(lambda session: session.query(query))[0][0])


def retry(database: Database, key: int, owner: str, due: float, reason: str) -> bool:
    return _end(
        database, key, owner, state=State.WAITING.value, ready=due, due=due, owner="", reason=reason[:REASON_LENGTH]
    )


def fail(database: Database, key: int, owner: str, now: float, reason: str) -> bool:
    return _end(database, key, owner, state=State.FAILED.value, ready=None, finished=now, reason=reason[:REASON_LENGTH])


def requeue(database: Database, ids: Collection[int], now: float) -> int:
    query = TaskRow.update(
        state=State.WAITING.value, ready=now, due=now, attempts=0, owner="", finished=None, lease_until=None
    ).where(TaskRow.id.in_(list(ids)), TaskRow.state != State.LEASED.value).returning(TaskRow.kind)

    def work(session: Session) -> int:
        kinds = [str(row[0]) for row in session.query(query)]
        for kind in set(kinds):
            session.wake(kind)
        return len(kinds)

    return database.transact(work)


def delete(database: Database, ids: Collection[int]) -> int:
    query = TaskRow.delete().where(TaskRow.id.in_(list(ids)), TaskRow.state != State.LEASED.value)
    return int(database.transact(lambda session: session.query(query))[0][0])


def entries(
    database: Database, *, kind: str | None, lane: str | None, state: State | None, limit: int, after: int
) -> list[Task]:
    query = TaskRow.select(*COLUMNS).where(TaskRow.id > after).order_by(TaskRow.id).limit(limit)
    for column, value in ((TaskRow.kind, kind), (TaskRow.lane, lane), (TaskRow.state, state and state.value)):
        if value is not None:
            query = query.where(column == value)
    if state in OPEN:
        # It never is NULL then; said here, the index that leaves out the history serves.
        query = query.where(TaskRow.ready.is_null(False))
    return [task_of(row) for row in database.read(lambda session: session.query(query))]


def counts(database: Database) -> dict[tuple[str, str, State], int]:
    group = (TaskRow.kind, TaskRow.lane, TaskRow.state)
    query = TaskRow.select(*group, peewee.fn.COUNT(TaskRow.id)).group_by(*group)
    rows = database.read(lambda session: session.query(query))
    return {(kind, lane, State(state)): int(number) for kind, lane, state, number in rows}


def lanes(database: Database, kind: str, now: float) -> list[str]:
    query = TaskRow.select(TaskRow.lane).distinct().where(TaskRow.kind == kind, TaskRow.ready <= now)
    return sorted(str(row[0]) for row in database.read(lambda session: session.query(query)))


def next_due(database: Database, kind: str, lane: str | None) -> float | None:
    if lane is None:
        keys: tuple[Any, ...] = (kind,)
        sql = "SELECT MIN(ready) FROM task WHERE kind = ? AND ready IS NOT NULL"
    else:
        parts = ("SELECT MIN(ready) AS ready FROM task WHERE kind = ? AND lane = ? AND priority = ?"
                 " AND ready IS NOT NULL",) * len(PRIORITIES)  # fmt: skip
        sql = f"SELECT MIN(ready) FROM ({' UNION ALL '.join(parts)}) AS parts"
        keys = tuple(value for priority in PRIORITIES for value in (kind, lane, priority))
    row = database.read(lambda session: session.row(sql, keys))
    return None if row is None or row[0] is None else float(row[0])


def purge(database: Database, before: float) -> int:
    query = TaskRow.delete().where(TaskRow.finished < before)
    return int(database.transact(lambda session: session.query(query))[0][0])


def task_of(row: Row) -> Task:
    """A row of COLUMNS as a value."""
    key, kind, lane, payload, state, *rest = row
    return Task(key, kind, lane, json.loads(payload), State(state), *rest)
