"""Jobs that fetch from a peer: what is still to be asked, which studies were listed, and what became of each.

Rules that hold here: what a question has found and how the plan goes on are one transaction, so that a job goes on
where it was killed; a study is in a job once; what became of it is what its task says; whoever changes the state of a
job has looked at the state it had.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from archive.index.database import Database, Row, Session
from archive.index.tasks import insert
from archive.index.values import NewTask

CARRY = "job"  # kind of the task that carries a job on
WAITS = "waits for what is being fetched"  # its reason meanwhile
RUNNING, PAUSED, CANCELLED, DONE = "running", "paused", "cancelled", "done"
TODO, QUEUED, HERE, FETCHED, FAILED, DROPPED = "todo", "queued", "here", "fetched", "failed", "cancelled"
PIECE = 500
MOST_NOTES = 100

COUNTS = ("series", "series_here", "series_fetched", "series_failed", "instances", "here", "fetched", "failed")
_JOB = "id, kind, peer, state, options, plan, notes, reason, task, slot, created, finished"
_NEW_JOB = (
    "INSERT INTO job (kind, peer, state, options, plan, notes, reason, slot, created)"
    " VALUES (?, ?, 'running', ?, ?, '[]', '', 0, ?) RETURNING id"
)
_NEW_STUDY = (
    f"INSERT INTO job_study (job, study_instance_uid, state, wanted, {', '.join(COUNTS)}, reason, changed)"
    f" VALUES (?, ?, ?, ?, {', '.join('?' * len(COUNTS))}, '', ?) ON CONFLICT DO NOTHING"
)
_ENDED = (
    "SELECT s.study_instance_uid, t.state, t.payload, t.reason FROM job_study s LEFT JOIN task t ON t.id = s.task"
    " WHERE s.job = ? AND s.state = 'queued' AND t.ready IS NULL LIMIT ?"
)
_MENDED = (  # failed, tried again by a person, and came
    "SELECT s.study_instance_uid, t.state, t.payload, t.reason FROM job_study s JOIN task t ON t.id = s.task"
    " WHERE s.job = ? AND s.state = 'failed' AND t.state = 'done' LIMIT ?"
)
_END = (
    f"UPDATE job_study SET state = ?, {', '.join(f'{name} = ?' for name in COUNTS)}, reason = ?, changed = ?"
    " WHERE job = ? AND study_instance_uid = ?"
)
_WAITING = (
    "SELECT t.id, t.payload FROM job_study s JOIN task t ON t.id = s.task WHERE s.job = ? AND s.state = 'queued'"
    " AND t.state = 'waiting'"
)
_SUMS = ", ".join(f"SUM({name})" for name in COUNTS)


@dataclass(frozen=True, slots=True)
class Job:
    """One job; ``options`` and ``plan`` are plain values for services/jobs.py."""

    id: int
    kind: str
    peer: str
    state: str
    options: Mapping[str, Any]
    plan: Sequence[Any]
    notes: Sequence[str]
    reason: str
    task: int | None
    slot: float
    created: float
    finished: float | None


@dataclass(frozen=True, slots=True)
class Found:
    """A study that the peer lists: what it says of its size, which series are wanted, and whether all of it is here."""

    study_uid: str
    series: int = 0
    instances: int = 0
    wanted: tuple[str, ...] = ()
    is_here: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """Studies by state, and the sums of all counts."""

    studies: Mapping[str, int]
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobStudy:
    """What became of one study of a job."""

    study_uid: str
    state: str
    reason: str
    counts: Mapping[str, int]


class Jobs:
    """The jobs of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- jobs -----------------------------------------------------------------------------------

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
        held = {name_of(*row) for row in session.rows("SELECT kind, id FROM job WHERE state <> 'running'")}
        ids = [int(task) for task, payload in session.rows(_WAITING, (key,)) if _wanted_by(payload) <= held]
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
        """Why it does not go on; empty when it does."""
        sql = "UPDATE job SET reason = ? WHERE id = ? AND reason <> ?"
        self._database.transact(lambda session: session.run(sql, (reason[:500], key, reason[:500])), durable=False)

    # -- what is found --------------------------------------------------------------------------

    def answered(
        self, job: Job, found: Sequence[Found], plan: Sequence[Any], notes: Sequence[str], now: float
    ) -> None:
        """The answers to one question, and how the plan goes on."""

        def work(session: Session) -> None:
            for each in found:
                session.run(_NEW_STUDY, _row(job.id, each, now))
            kept = [*job.notes, *(note for note in dict.fromkeys(notes) if note not in job.notes)][:MOST_NOTES]
            sql = "UPDATE job SET plan = ?, notes = ?, reason = '' WHERE id = ? AND state = 'running'"
            session.run(sql, (json.dumps(list(plan)), json.dumps(kept), job.id))

        self._database.transact(work)

    def sizes(self, uids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Study -> how many series and instances of it are here."""

        def work(session: Session) -> list[Row]:
            among = session.dialect.among.format(column="study_instance_uid")
            sql = f"SELECT study_instance_uid, number_of_series, number_of_instances FROM study WHERE {among}"
            return session.rows(sql, (session.dialect.listed(list(uids)),))

        return {row[0]: (int(row[1]), int(row[2])) for row in self._database.read(work)} if uids else {}

    def feed(
        self, key: int, limit: int, slot: float, task: Callable[[str, tuple[str, ...], int], NewTask], now: float
    ) -> int:
        """Put some studies into the queue: ``task`` makes the n-th one's; how many they were."""

        def work(session: Session) -> int:
            rows = session.rows(
                "SELECT study_instance_uid, wanted FROM job_study WHERE job = ? AND state = 'todo'"
                " ORDER BY study_instance_uid LIMIT ?",
                (key, limit),
            )
            queue = "UPDATE job_study SET state = ?, task = ?, changed = ? WHERE job = ? AND study_instance_uid = ?"
            for number, (uid, wanted) in enumerate(rows):
                added = insert(session, task(uid, tuple(json.loads(wanted)), number), now)
                session.run(queue, (QUEUED, added, now, key, uid))
            session.run("UPDATE job SET slot = ? WHERE id = ?", (slot, key))
            return len(rows)

        return self._database.transact(work)

    # -- what becomes of it ---------------------------------------------------------------------

    def settle(self, key: int, now: float) -> int:
        """Write down what has become of studies whose tasks ended; how many."""

        def work(session: Session) -> int:
            ended = session.rows(_ENDED, (key, PIECE))
            mended = session.rows(_MENDED, (key, PIECE))
            for uid, state, payload, reason in [*ended, *mended]:
                result = json.loads(payload).get("result") if payload else None
                if state is None:  # taken out of the queue and its history: it is looked at again
                    again = "UPDATE job_study SET state = 'todo' WHERE job = ? AND study_instance_uid = ?"
                    session.run(again, (key, uid))
                else:
                    _end(session, key, uid, state == "done", result, reason, now)
            return len(ended) + len(mended)

        total = 0
        while number := self._database.transact(work):
            total += number
            if number < PIECE:
                break
        return total

    def open(self, key: int) -> dict[str, int]:
        """How many studies are to do or in the queue."""
        sql = "SELECT state, COUNT(*) FROM job_study WHERE job = ? AND state IN ('todo', 'queued') GROUP BY state"
        rows = self._database.read(lambda session: session.rows(sql, (key,)))
        return {str(state): int(number) for state, number in rows}

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

    # -- for people -----------------------------------------------------------------------------

    def totals(self, key: int) -> Totals:
        def work(session: Session) -> Totals:
            rows = session.rows("SELECT state, COUNT(*) FROM job_study WHERE job = ? GROUP BY state", (key,))
            sums = session.rows(f"SELECT {_SUMS} FROM job_study WHERE job = ?", (key,))[0]
            counts = {name: int(value or 0) for name, value in zip(COUNTS, sums, strict=True)}
            return Totals({str(state): int(number) for state, number in rows}, counts)

        return self._database.read(work)

    def studies(self, key: int, *, states: Sequence[str] = (), limit: int = 1000, after: str = "") -> list[JobStudy]:
        """A page in the order of their UIDs."""

        def work(session: Session) -> list[Row]:
            among = session.dialect.among.format(column="state")
            only, values = (f" AND {among}", (session.dialect.listed(list(states)),)) if states else ("", ())
            sql = (
                f"SELECT study_instance_uid, state, reason, {', '.join(COUNTS)} FROM job_study WHERE job = ?"
                f" AND study_instance_uid > ?{only} ORDER BY study_instance_uid LIMIT ?"
            )
            return session.rows(sql, (key, after, *values, limit))

        rows = self._database.read(work)
        return [JobStudy(row[0], row[1], row[2], dict(zip(COUNTS, map(int, row[3:]), strict=True))) for row in rows]


def name_of(kind: str, key: int) -> str:
    """What the tasks of a job say whom they are for."""
    return f"{kind} {key}"


def _wanted_by(payload: str) -> set[str]:
    found = json.loads(payload)
    return {found.get("by", ""), *found.get("also", ())}


def _job(row: Row) -> Job:
    key, kind, peer, state, options, plan, notes, *rest = row
    return Job(key, kind, peer, state, json.loads(options), json.loads(plan), json.loads(notes), *rest)


def _row(job: int, found: Found, now: float) -> tuple[Any, ...]:
    here = (found.series, found.instances) if found.is_here else (0, 0)
    counts = (found.series, here[0], 0, 0, found.instances, here[1], 0, 0)
    return (job, found.study_uid, HERE if found.is_here else TODO, json.dumps(found.wanted), *counts, now)


def _enter(session: Session, key: int, state: str, before: Sequence[str], finished: float | None) -> bool:
    listed = ", ".join(f"'{each}'" for each in before)
    sql = f"UPDATE job SET state = ?, reason = '', finished = ? WHERE id = ? AND state IN ({listed})"
    return bool(session.run(sql, (state, finished, key)))


def _carry_on(session: Session, key: int, peer: str, now: float) -> None:
    task = insert(session, NewTask(CARRY, {"job": key}, lane=peer), now)
    session.run("UPDATE job SET task = ? WHERE id = ?", (task, key))


def _end(
    session: Session, key: int, uid: str, is_done: bool, result: Mapping[str, int] | None, reason: str, now: float
) -> None:
    """What a task has come to; one that never looked has failed with all that the peer counted."""
    if result is None:
        row = session.rows(
            "SELECT series, instances FROM job_study WHERE job = ? AND study_instance_uid = ?", (key, uid)
        )[0]
        result = {"series": row[0], "series_failed": row[0], "instances": row[1], "failed": row[1]}
    state = FAILED if not is_done else FETCHED if result.get("fetched") else HERE
    counts = [int(result.get(name, 0)) for name in COUNTS]
    session.run(_END, (state, *counts, "" if is_done else reason, now, key, uid))
