"""The studies of jobs: listed by a peer, put into the queue, and what became of each.

Rules that hold here: what a question has found and how the plan goes on are one transaction, so that a job goes on
where it was killed; a study is in a job once; what became of it is what its task says; of a job that does not run
nothing is begun.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from archive.index.database import Database, Row, Session
from archive.index.jobvalues import COUNTS, FAILED, FETCHED, HERE, QUEUED, TODO, Found, Job, JobStudy, Totals
from archive.index.tasks import insert
from archive.index.values import NewTask

PIECE = 500
MOST_NOTES = 100

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
_AGAIN = (
    "UPDATE job_study SET task = NULL, state = CASE WHEN (SELECT j.state FROM job j WHERE j.id = job_study.job)"
    " = 'cancelled' THEN 'cancelled' ELSE 'todo' END WHERE job = ? AND study_instance_uid = ? AND state = 'queued'"
)
_SUMS = ", ".join(f"SUM({name})" for name in COUNTS)


class JobStudies:
    """The studies of all jobs of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- what is found --------------------------------------------------------------------------

    def answered(
        self, job: Job, found: Sequence[Found], plan: Sequence[Any], notes: Sequence[str], now: float
    ) -> bool:
        """The answers to one question, and how the plan goes on; False for a job that does not run any more."""
        kept = [*job.notes, *(note for note in dict.fromkeys(notes) if note not in job.notes)][:MOST_NOTES]
        going_on = "UPDATE job SET plan = ?, notes = ?, reason = '' WHERE id = ? AND state = 'running'"

        def work(session: Session) -> bool:
            # The job first: whoever changes its state waits, and sees what was found.
            if not session.run(going_on, (json.dumps(list(plan)), json.dumps(kept), job.id)):
                return False
            for each in found:
                session.run(_NEW_STUDY, _row(job.id, each, now))
            return True

        return self._database.transact(work)

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
        """Put some studies of a job that runs into the queue: ``task`` makes the n-th one's; how many they were."""

        def work(session: Session) -> int:
            if not session.run("UPDATE job SET slot = ? WHERE id = ? AND state = 'running'", (slot, key)):
                return 0
            rows = session.rows(
                "SELECT study_instance_uid, wanted FROM job_study WHERE job = ? AND state = 'todo'"
                " ORDER BY study_instance_uid LIMIT ?",
                (key, limit),
            )
            queue = "UPDATE job_study SET state = ?, task = ?, changed = ? WHERE job = ? AND study_instance_uid = ?"
            for number, (uid, wanted) in enumerate(rows):
                added = insert(session, task(uid, tuple(json.loads(wanted)), number), now)
                session.run(queue, (QUEUED, added, now, key, uid))
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
                    session.run(_AGAIN, (key, uid))
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

    # -- for people -----------------------------------------------------------------------------

    def totals(self, key: int) -> Totals:
        def work(session: Session) -> Totals:
            rows = session.rows("SELECT state, COUNT(*) FROM job_study WHERE job = ? GROUP BY state", (key,))
            sums = session.rows(f"SELECT {_SUMS} FROM job_study WHERE job = ?", (key,))[0]
            counts = {name: int(value or 0) for name, value in zip(COUNTS, sums, strict=True)}
            return Totals({str(state): int(number) for state, number in rows}, counts)

        return self._database.read(work)

    def page(self, key: int, *, states: Sequence[str] = (), limit: int = 1000, after: str = "") -> list[JobStudy]:
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


def _row(job: int, found: Found, now: float) -> tuple[Any, ...]:
    here = (found.series, found.instances) if found.is_here else (0, 0)
    counts = (found.series, here[0], 0, 0, found.instances, here[1], 0, 0)
    return (job, found.study_uid, HERE if found.is_here else TODO, json.dumps(found.wanted), *counts, now)


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
