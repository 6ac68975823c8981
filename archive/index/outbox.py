"""How tasks get into the outbox: as rows of the transaction that causes them.

Rules that hold here: a task that waits ``once`` already is not added again, and one that is ``single`` joins the one
that waits (single.py); whoever does such work is woken by the commit.
"""

from __future__ import annotations

import json
from typing import Any

from archive.index.database import Session
from archive.index.single import joins
from archive.index.values import NewTask

WATCH = "study"  # kind of the task that follows a study

_INSERT = (
    "INSERT INTO task (kind, lane, payload, state, ready, due, attempts, owner, created, reason, study_uid, priority)"
    " VALUES (?, ?, ?, 'waiting', ?, ?, 0, '', ?, '', ?, ?)"
)
_WAITS = "SELECT 1 FROM task WHERE kind = ? AND lane = ? AND state = 'waiting' AND ready IS NOT NULL LIMIT 1"


def watch_study(uid: str) -> NewTask:
    """The task that follows a study until it is ready: one for each study that something came for."""
    return NewTask(WATCH, {"study": uid}, lane=uid, study_uid=uid)


def insert_task(session: Session, task: NewTask, now: float) -> None:
    """Without waiting for the database to say its id."""
    if _waits(session, task):
        return
    if task.single and joins(session, task, now) is not None:
        return
    session.later(_INSERT, _row(session, task, now))


def insert(session: Session, task: NewTask, now: float) -> int | None:
    """The id of a task that is added, or that does its work; None for one that is there ``once`` already."""
    if _waits(session, task):
        return None
    if task.single and (waits := joins(session, task, now)) is not None:
        return waits
    return int(session.rows(f"{_INSERT} RETURNING id", _row(session, task, now))[0][0])


def _waits(session: Session, task: NewTask) -> bool:
    return task.once and session.row(_WAITS, (task.kind, task.lane)) is not None


def _row(session: Session, task: NewTask, now: float) -> tuple[Any, ...]:
    session.wake(task.kind)
    due = task.due or now
    return task.kind, task.lane, json.dumps(dict(task.payload)), due, due, now, task.study_uid, task.priority
