"""Jobs that fetch from a peer: what is still to be asked, whether it runs, and the task that carries it on.

Rules that hold here: whoever changes the state of a job has looked at the state it had; a job that runs has a task, and
one that does not has none for long; what waits for others as well stays in the queue when a job is held up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from archive.index.database import Database, Row, Session
from archive.index.jobstudies import JobStudies
from archive.index.jobvalues import CANCELLED, DONE, DROPPED, PAUSED, RUNNING, TODO, Job
from archive.index.tasks import insert
from archive.index.values import NewTask

CARRY = "job"  # kind of the task that carries a job on
WAITS = "waits for what is being fetched"  # its reason meanwhile
PIECE = 500

_JOB = "id, kind, peer, state, options, plan, notes, reason, task, slot, created, finished"
_NEW_JOB = (
    "INSERT INTO job (kind, peer, state, options, plan, notes, reason, slot, created)"
    " VALUES (?, ?, 'running', ?, ?, '[]', '', 0, ?) RETURNING id"
)
_WAITING = (
    "SELECT t.id, t.payload FROM job_study s JOIN task t ON t.id = s.task WHERE s.job = ? AND s.state = 'queued'"
    " AND t.state = 'waiting'"
)
# Nobody joins a task between a look at who wants it and its end; in SQLite there is one writer anyway.
_LOCK = {"sqlite": "", "postgresql": " FOR UPDATE OF t"}


class Jobs:
    """The jobs of one database; ``studies`` are theirs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.studies = JobStudies(database)

    def create(self, kind: str, peer: str, options: Mapping[str, Any], plan: Sequence[Any], now: float) -> int:
        """A job that runs, with the task that carries it on."""

        def work(session: Session) -> int:
            values = (kind, peer, json.dumps(dict(options)), json.dumps(list(plan)), now)
            key = int(session.rows(_NEW_JOB, values)[0][0])
            _carry_on(session, key, peer, now)
            return key

        return self._database.transact(work)

    def get(self, key: int) -> Job | None:
        row = self._database.read(lambda session: session.row(f"SELECT {_JOB} FROM job WHERE id = ?", (key,)))
        return _job(row) if row else None

    def all(self, *, unfinished: bool = False) -> list[Job]:
        """In the order in which they were made."""
        where = " WHERE state IN ('running', 'paused')" if unfinished else ""
        rows = self._database.read(lambda session: session.rows(f"SELECT {_JOB} FROM job{where} ORDER BY id"))
        return [_job(row) for row in rows]

    def pause(self, key: int, now: float) -> bool:
        """What is under way ends, nothing is begun; False for a job that does not run."""

        def work(session: Session) -> bool:
            if not _enter(session, key, PAUSED, (RUNNING,), None):
                return False
            self._withdraw(session, key, TODO, now)
            return True

        return self._database.transact(work)

    def resume(self, key: int, now: float) -> bool:
        """A paused job goes on, and one whose task was taken away; False for one that has ended."""

        def work(session: Session) -> bool:
            if not _enter(session, key, RUNNING, (PAUSED, RUNNING), None):
                return False
            carried = "SELECT t.id FROM job j JOIN task t ON t.id = j.task WHERE j.id = ? AND t.ready IS NOT NULL"
            found = session.row(carried, (key,))
            if found:
                sooner = "UPDATE task SET ready = ?, due = ? WHERE id = ? AND state = 'waiting'"
                session.run(sooner, (now, now, found[0]))
                session.wake(CARRY)
            else:
                peer = session.rows("SELECT peer FROM job WHERE id = ?", (key,))[0][0]
                _carry_on(session, key, peer, now)
            return True

        return self._database.transact(work)

    def cancel(self, key: int, now: float) -> bool:
        """Nothing more is asked or fetched for it; False for one that has ended."""

        def work(session: Session) -> bool:
            if not _enter(session, key, CANCELLED, (RUNNING, PAUSED), now):
                return False
            self._withdraw(session, key, DROPPED, now)
            drop = "UPDATE job_study SET state = ?, changed = ? WHERE job = ? AND state = 'todo'"
            session.run(drop, (DROPPED, now, key))
            return True

        return self._database.transact(work)

    def _withdraw(self, session: Session, key: int, state: str, now: float) -> None:
        """Take what waits for no one else out of the queue; jobs that are held up as well want it later."""
        waiting = session.rows(_WAITING + _LOCK[session.dialect.name], (key,))
        held = {name_of(*row) for row in session.rows("SELECT kind, id FROM job WHERE state <> 'running'")}
        ids = [int(task) for task, payload in waiting if _wanted_by(payload) <= held]
        among = session.dialect.among
        for start in range(0, len(ids), PIECE):
            listed = session.dialect.listed(ids[start : start + PIECE])
            gone = f"DELETE FROM task WHERE {among.format(column='id')} AND state = 'waiting' RETURNING id"
            deleted = session.dialect.listed([int(row[0]) for row in session.rows(gone, (listed,))])
            change = (
                "UPDATE job_study SET state = CASE WHEN job = ? THEN ? ELSE 'todo' END, task = NULL, changed = ?"
                f" WHERE state = 'queued' AND {among.format(column='task')}"
            )
            session.run(change, (key, state, now, deleted))

    def end(self, key: int, now: float) -> bool:
        """Everything was asked, and nothing is open."""
        return self._database.transact(lambda session: _enter(session, key, DONE, (RUNNING,), now))

    def say(self, key: int, reason: str) -> None:
        """Why a job that runs does not go on; empty when it does."""
        sql = "UPDATE job SET reason = ? WHERE id = ? AND state = 'running' AND reason <> ?"
        self._database.transact(lambda session: session.run(sql, (reason[:500], key, reason[:500])), durable=False)

    # -- its task -------------------------------------------------------------------------------

    def leave(self, key: int, task: int, owner: str) -> bool:
        """Take away the task of a job that does not run, or has another one; False when the job is to go on.

        Whoever resumes the job meanwhile waits, and then finds that it has none.
        """

        def work(session: Session) -> bool:
            found = session.rows("UPDATE job SET task = task WHERE id = ? RETURNING state, task", (key,))
            if found and tuple(found[0]) == (RUNNING, task):
                return False
            session.run("DELETE FROM task WHERE id = ? AND state = 'leased' AND owner = ?", (task, owner))
            return True

        return self._database.transact(work)

    def hear(self, task: int, now: float, later: float) -> None:
        """A fetch has ended: jobs that wait for it look after ``later`` seconds, so that many ends are one look."""
        sql = (
            "UPDATE task SET ready = ?, due = ? WHERE kind = ? AND state = 'waiting' AND reason = ? AND ready > ?"
            " AND id IN (SELECT j.task FROM job j JOIN job_study s ON s.job = j.id WHERE s.task = ?"
            " AND s.state = 'queued')"
        )

        def work(session: Session) -> None:
            if session.run(sql, (now + later, now + later, CARRY, WAITS, now + later, task)):
                session.wake(CARRY)

        self._database.transact(work, durable=False)

    def look_again(self, key: int, task: int, now: float) -> None:
        """What ended while nobody listened: the job goes on at once."""
        sql = (
            "UPDATE task SET ready = ?, due = ? WHERE id = ? AND state = 'waiting' AND EXISTS (SELECT 1"
            " FROM job_study s LEFT JOIN task t ON t.id = s.task WHERE s.job = ? AND s.state = 'queued'"
            " AND t.ready IS NULL)"
        )
        self._database.transact(lambda session: session.run(sql, (now, now, task, key)), durable=False)


def name_of(kind: str, key: int) -> str:
    """What the tasks of a job say whom they are for."""
    return f"{kind} {key}"


def _wanted_by(payload: str) -> set[str]:
    found = json.loads(payload)
    return {found.get("by", ""), *found.get("also", ())}


def _job(row: Row) -> Job:
    key, kind, peer, state, options, plan, notes, *rest = row
    return Job(key, kind, peer, state, json.loads(options), json.loads(plan), json.loads(notes), *rest)


def _enter(session: Session, key: int, state: str, before: Sequence[str], finished: float | None) -> bool:
    listed = ", ".join(f"'{each}'" for each in before)
    sql = f"UPDATE job SET state = ?, reason = '', finished = ? WHERE id = ? AND state IN ({listed})"
    return bool(session.run(sql, (state, finished, key)))


def _carry_on(session: Session, key: int, peer: str, now: float) -> None:
    task = insert(session, NewTask(CARRY, {"job": key}, lane=peer), now)
    session.run("UPDATE job SET task = ? WHERE id = ?", (task, key))
