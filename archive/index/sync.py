"""What synchronisation asks of the index: studies by date, images of a study, and how far a comparison has come.

Rules that hold here: what a comparison has found, what it puts into the queue and where it goes on are one
transaction, and only the owner of its task may write it; studies come in an order that nobody changes, so that it can
go on behind any of them; nothing that grows with the archive is read at once.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from archive.index import deleted
from archive.index.database import Database, Row, Session
from archive.index.outbox import insert_task
from archive.index.tasks import OPEN
from archive.index.values import NewTask, State

KEPT = 30  # runs of each sync
_STUDY = (
    "s.study_instance_uid, s.study_date, s.number_of_series, s.number_of_instances, p.patient_id, p.patient_name,"
    " s.state, s.arrivals, s.updated, a.agreed, a.instances"
)
_STUDIES = (
    "FROM study s JOIN patient p ON p.id = s.patient"
    " LEFT JOIN sync_agreed a ON a.study_uid = s.study_instance_uid AND a.peer = ?"
)
_IMAGES = (
    "SELECT e.series_instance_uid, i.sop_instance_uid, i.source, i.received, i.damage FROM instance i"
    " JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study WHERE s.study_instance_uid = ? ORDER BY i.id"
)
_RUN = "id, name, peer, cause, plan, position, counts, words, started, finished"
_AGREE = (
    "INSERT INTO sync_agreed (study_uid, peer, agreed, instances) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (study_uid, peer) DO UPDATE SET agreed = excluded.agreed, instances = excluded.instances"
)
_DIFFERENCE = "run, study_uid, found, push, pull, waiting, remaining, details"
_FOUND = (
    f"INSERT INTO sync_difference ({_DIFFERENCE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run, study_uid) DO"
    " UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in _DIFFERENCE.split(", ")[2:])
)


@dataclass(frozen=True, slots=True)
class OurStudy:
    """A study as the index has it; ``agreed`` is when it was equal with the peer's, of how many images."""

    uid: str
    date: str
    series: int
    instances: int
    patient_id: str
    patient_name: str
    state: str
    arrivals: int
    updated: float
    agreed: float | None
    agreed_instances: int | None


@dataclass(frozen=True, slots=True)
class OurImage:
    series_uid: str
    uid: str
    source: str
    received: float
    damage: str


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not equal about one study; ``details`` are plain values."""

    study_uid: str
    push: int = 0
    pull: int = 0
    waiting: bool = False
    remaining: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    found: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One comparison."""

    id: int
    name: str
    peer: str
    cause: str
    plan: Mapping[str, Any]
    position: Mapping[str, Any]
    counts: Mapping[str, int]
    words: str
    started: float
    finished: float | None


@dataclass(frozen=True, slots=True)
class Step:
    """What a comparison has come to: where it goes on, what was found, what is to be done."""

    position: Mapping[str, Any]
    counts: Mapping[str, int]  # of this step
    differences: Sequence[Difference] = ()
    agreed: Mapping[str, tuple[float, int]] = field(default_factory=dict)  # study -> when it was looked at, images
    tasks: Sequence[NewTask] = ()
    words: str = ""
    finished: bool = False


class SyncRows:
    """Of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- what we have ---------------------------------------------------------------------------

    def dates(self, since: str, until: str) -> Generator[tuple[str, int], None, None]:
        """Study dates and how many studies have them, the latest first; an empty bound is none."""
        where, keys = _between(since, until)
        sql = f"SELECT s.study_date, COUNT(*) FROM study s WHERE {where} GROUP BY s.study_date ORDER BY 1 DESC"
        with closing(self._database.stream(sql, keys)) as rows:
            yield from ((str(date), int(number)) for date, number in rows)

    def between(self, peer: str, since: str, until: str) -> dict[str, OurStudy]:
        """Studies of a span of dates."""
        where, keys = _between(since, until)
        return self._studies(where, (peer, *keys))

    def named(self, peer: str, uids: Collection[str]) -> dict[str, OurStudy]:
        among = self._database.dialect.among.format(column="s.study_instance_uid")
        return self._studies(among, (peer, self._database.dialect.listed(sorted(uids)))) if uids else {}

    def changed(self, peer: str, since: float, dates: tuple[str, str], after: str, limit: int) -> dict[str, OurStudy]:
        """Studies something came for since, that a span of dates leaves out, in the order of their UIDs."""
        where, keys = _between(*dates)
        where = (
            f"s.updated >= ? AND s.study_instance_uid > ? AND (COALESCE(s.study_date, '') = '' OR NOT ({where}))"
            " ORDER BY s.study_instance_uid LIMIT ?"
        )
        return self._studies(where, (peer, since, after, *keys, limit))

    def _studies(self, where: str, keys: Sequence[Any]) -> dict[str, OurStudy]:
        sql = f"SELECT {_STUDY} {_STUDIES} WHERE {where}"
        rows = self._database.read(lambda session: session.rows(sql, keys))
        return {row[0]: _study(row) for row in rows}

    def images(self, study_uid: str) -> list[OurImage]:
        """The images of one study."""
        rows = self._database.read(lambda session: session.rows(_IMAGES, (study_uid,)))
        return [OurImage(series, uid, source, received, damage or "") for series, uid, source, received, damage in rows]

    # -- what is known of differences -----------------------------------------------------------

    def deleted(self, uids: Collection[str]) -> set[str]:
        """Which of these studies, series or instances were deleted here."""
        return deleted.among(self._database, uids)

    def quarantined(self, uids: Collection[str]) -> set[str]:
        """Which of these instances are in quarantine."""
        among = self._database.dialect.among.format(column="sop_instance_uid")
        sql, keys = f"SELECT sop_instance_uid FROM quarantine WHERE {among}", (self._listed(uids),)
        return {str(row[0]) for row in self._database.read(lambda session: session.rows(sql, keys))}

    def elsewhere(self, uids: Collection[str]) -> dict[str, str]:
        """The study in which each of these instances is, of those that are here."""
        among = self._database.dialect.among.format(column="i.sop_instance_uid")
        sql = (
            "SELECT i.sop_instance_uid, s.study_instance_uid FROM instance i JOIN series e ON e.id = i.series"
            f" JOIN study s ON s.id = e.study WHERE {among}"
        )
        keys = (self._listed(uids),)
        return {str(row[0]): str(row[1]) for row in self._database.read(lambda session: session.rows(sql, keys))}

    def busy(self, kinds: Sequence[str], lanes: Collection[str], studies: Collection[str]) -> set[str]:
        """Which of these studies have tasks of these kinds and lanes that wait or run."""
        dialect, listed = self._database.dialect, self._listed
        tests = " AND ".join(dialect.among.format(column=name) for name in ("study_uid", "kind", "lane"))
        sql = (
            f"SELECT DISTINCT study_uid FROM task WHERE {tests} AND study_uid <> '' AND ready IS NOT NULL"
            f" AND state IN ({', '.join(repr(state.value) for state in OPEN)})"
        )
        keys = (listed(studies), listed(kinds), listed(lanes))
        return {str(row[0]) for row in self._database.read(lambda session: session.rows(sql, keys))}

    def fates(self, kinds: Sequence[str], lane: str, study_uid: str) -> dict[str, tuple[State, str]]:
        """What became the last time of each image of a study that was sent to a lane, and the reason."""
        among = self._database.dialect.among.format(column="kind")
        sql = (
            f"SELECT payload, state, reason FROM task WHERE study_uid = ? AND study_uid <> '' AND lane = ? AND {among}"
            " ORDER BY id"
        )
        keys = (study_uid, lane, self._listed(kinds))
        rows = self._database.read(lambda session: session.rows(sql, keys))
        return {json.loads(payload).get("sop", ""): (State(state), reason) for payload, state, reason in rows}

    def tasks_since(
        self, kind: str, lane: str, since: float, studies: Collection[str]
    ) -> dict[str, dict[State, tuple[int, str]]]:
        """Of these studies: how many tasks that were added since are in which state, and a reason of each."""
        among = self._database.dialect.among.format(column="study_uid")
        sql = (
            f"SELECT study_uid, state, COUNT(*), MAX(reason) FROM task WHERE {among} AND study_uid <> '' AND kind = ?"
            " AND lane = ? AND created >= ? GROUP BY study_uid, state"
        )
        keys = (self._listed(studies), kind, lane, since)
        found: dict[str, dict[State, tuple[int, str]]] = {}
        for study, state, number, reason in self._database.read(lambda session: session.rows(sql, keys)):
            found.setdefault(str(study), {})[State(state)] = (int(number), str(reason))
        return found

    # -- comparisons ----------------------------------------------------------------------------

    def begin(self, name: str, peer: str, cause: str, plan: Mapping[str, Any], now: float, *, tasks: Sequence[NewTask]
              = ()) -> int:  # fmt: skip
        """Note a comparison that is to be made, and forget the oldest ones; its id. Tasks get it as ``run``."""

        def work(session: Session) -> int:
            keys = (name, peer, cause, json.dumps(dict(plan)), now)
            sql = (
                "INSERT INTO sync_run (name, peer, cause, plan, position, counts, words, started) VALUES"
                " (?, ?, ?, ?, '{}', '{}', '', ?) RETURNING id"
            )
            key = int(session.rows(sql, keys)[0][0])
            _forget(session, name)
            for task in tasks:
                insert_task(session, NewTask(task.kind, {**task.payload, "run": key}, task.due, task.lane), now)
            return key

        return self._database.transact(work)

    def run(self, key: int) -> Run | None:
        rows = self._read(f"SELECT {_RUN} FROM sync_run WHERE id = ?", key)
        return _run(rows[0]) if rows else None

    def unfinished(self, name: str, cause: str) -> Run | None:
        """The comparison that was begun last by a cause and is not at its end."""
        sql = f"SELECT {_RUN} FROM sync_run WHERE name = ? AND cause = ? AND finished IS NULL ORDER BY id DESC LIMIT 1"
        rows = self._read(sql, name, cause)
        return _run(rows[0]) if rows else None

    def runs(self, name: str, limit: int) -> list[Run]:
        """The last comparisons of a sync, the latest first."""
        return [_run(row) for row in self._read(
            f"SELECT {_RUN} FROM sync_run WHERE name = ? ORDER BY id DESC LIMIT ?", name, limit
        )]  # fmt: skip

    def advance(self, run: int, task: int, owner: str, step: Step, now: float) -> bool:
        """Write a step; False, and nothing is written, when the task is somebody else's by now, or all is over."""

        def work(session: Session) -> bool:
            mine = "UPDATE task SET owner = owner WHERE id = ? AND owner = ? AND state = 'leased'"
            rows = session.rows("SELECT peer, counts FROM sync_run WHERE id = ? AND finished IS NULL", (run,))
            if not rows or not session.run(mine, (task, owner)):
                return False
            self._write(session, run, step, rows[0], now)
            return True

        return self._database.transact(work)

    def _write(self, session: Session, run: int, step: Step, known: Row, now: float) -> None:
        counts = json.loads(known[1])
        for name, number in step.counts.items():
            counts[name] = counts.get(name, 0) + number
        session.run(
            "UPDATE sync_run SET position = ?, counts = ?, words = ?, finished = ? WHERE id = ?",
            (json.dumps(dict(step.position)), json.dumps(counts), step.words, now if step.finished else None, run),
        )
        for each in step.differences:
            numbers = (each.push, each.pull, int(each.waiting), each.remaining)
            session.later(_FOUND, (run, each.study_uid, now, *numbers, json.dumps(dict(each.details))))
        for uid, (when, instances) in step.agreed.items():
            session.later(_AGREE, (uid, known[0], when, instances))
        for task in step.tasks:
            insert_task(session, task, now)

    def say(self, run: int, words: str) -> None:
        """What a comparison waits for; one that has ended waits for nothing."""
        sql, keys = "UPDATE sync_run SET words = ? WHERE id = ? AND finished IS NULL", (words[:500], run)
        self._database.transact(lambda session: session.run(sql, keys), repeatable=True)

    def end(self, run: int, words: str, now: float) -> None:
        sql = "UPDATE sync_run SET words = ?, finished = ? WHERE id = ? AND finished IS NULL"
        self._database.transact(lambda session: session.run(sql, (words[:500], now, run)), repeatable=True)

    def differences(self, run: int, *, after: str = "", limit: int = 500) -> list[Difference]:
        """What a comparison found, in the order of study UIDs, a page at a time."""
        sql = f"SELECT {_DIFFERENCE} FROM sync_difference WHERE run = ? AND study_uid > ? ORDER BY study_uid LIMIT ?"
        return [
            Difference(uid, push, pull, bool(waiting), remaining, json.loads(details), found)
            for _, uid, found, push, pull, waiting, remaining, details in self._read(sql, run, after, limit)
        ]

    def reschedule(self, task: int, due: float) -> None:
        """A task that waits is due at another moment."""
        sql = "UPDATE task SET due = ?, ready = ? WHERE id = ? AND state = 'waiting'"
        self._database.transact(lambda session: session.run(sql, (due, due, task)), repeatable=True)

    def _read(self, sql: str, *values: object) -> list[Row]:
        return self._database.read(lambda session: session.rows(sql, values))

    def _listed(self, values: Collection[str]) -> Any:
        return self._database.dialect.listed(sorted(values))


def _study(row: Row) -> OurStudy:
    uid, date, series, instances, patient_id, patient_name, *life = row
    return OurStudy(uid, date or "", series, instances, patient_id or "", patient_name or "", *life)


def _between(since: str, until: str) -> tuple[str, tuple[str, ...]]:
    """Studies that have a date, of a span; the bounds are part of it, an empty one is none."""
    tests = ["s.study_date > ''", *(["s.study_date >= ?"] if since else []), *(["s.study_date <= ?"] if until else [])]
    return " AND ".join(tests), tuple(bound for bound in (since, until) if bound)


def _forget(session: Session, name: str) -> None:
    old = "SELECT id FROM sync_run WHERE name = ? AND finished IS NOT NULL ORDER BY id DESC LIMIT 1000 OFFSET ?"
    for (key,) in session.rows(old, (name, KEPT)):
        session.run("DELETE FROM sync_difference WHERE run = ?", (key,))
        session.run("DELETE FROM sync_run WHERE id = ?", (key,))


def _run(row: Row) -> Run:
    key, name, peer, cause, plan, position, counts, *rest = row
    return Run(key, name, peer, cause, json.loads(plan), json.loads(position), json.loads(counts), *rest)
