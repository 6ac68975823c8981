"""Studies as retention rules look at them, a span of ids at a time, and what was found to be due.

Rules that hold here: a look costs the same wherever it begins: a span of ids, narrowed by what no rule can have let go
yet; what was found, and the tasks that delete, are one transaction; a version that goes leaves a tombstone, and none
goes of a study that is under legal hold.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from archive.dicom.attributes import BY_KEYWORD, Level
from archive.index import deletion, held, versions
from archive.index.batch import SKEW
from archive.index.database import Database, Row, Session
from archive.index.outbox import WATCH, insert_task
from archive.index.rows import share_corrections
from archive.index.values import Location, NewTask

RETIRE = "retire"  # kind of the task that deletes a study for a rule
ROOM = "make room"  # and of the one that does because space is needed
_ALIASES = {Level.PATIENT: "p", Level.STUDY: "s"}
_OWN = (
    "s.id, s.study_instance_uid, s.study_date, s.created, s.updated, s.arrivals, s.state, s.number_of_instances,"
    " s.total_size, s.modalities_in_study, s.sop_classes_in_study"
)
_COUNT = len(_OWN.split(","))
_DUE = "SELECT study_instance_uid, rule, due, disposal, why, looked FROM retention"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A study with what decides on it."""

    id: int
    uid: str
    study_date: str
    created: float
    updated: float
    arrivals: int
    state: str
    instances: int
    size: int
    facts: dict[str, str]
    hold: str = ""  # who holds it and why
    tasks: tuple[str, ...] = ()  # kinds of tasks that are open for it


class Bounds(NamedTuple):
    """What a study must be older than to be worth a look: its date, its arrival where it has none, its last image."""

    study_date: str
    created: float
    updated: float


@dataclass(frozen=True, slots=True)
class Due:
    """A study that was kept for long enough; ``why`` says what holds it up."""

    study_uid: str
    rule: str
    due: float
    then: str
    why: str
    looked: float = field(default=0.0, compare=False)


class RetentionRows:
    """Of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- looking --------------------------------------------------------------------------------

    def last(self) -> int:
        """The id of the newest study."""
        row = self._database.read(lambda session: session.row("SELECT MAX(id) FROM study"))
        return int(row[0] or 0) if row else 0

    def span(self, keywords: Collection[str], after: int, until: int, bounds: Bounds) -> list[Candidate]:
        """The studies of a span of ids that a rule could have let go."""
        where = (
            "s.id > ? AND s.id <= ? AND (s.study_date <= ? OR (s.study_date IS NULL AND s.created <= ?)"
            " OR s.updated <= ?) ORDER BY s.id"
        )
        return self._look(keywords, where, (after, until, *bounds))

    def study(self, keywords: Collection[str], uid: str) -> Candidate | None:
        """One study."""
        return next(iter(self._look(keywords, "s.study_instance_uid = ?", (uid,))), None)

    def page(self, keywords: Collection[str], after: int, limit: int) -> list[Candidate]:
        """All studies, a page at a time."""
        return self._look(keywords, "s.id > ? ORDER BY s.id LIMIT ?", (after, limit))

    def _look(self, keywords: Collection[str], where: str, values: Sequence[object]) -> list[Candidate]:
        columns = _columns(keywords)
        sql = (
            f"SELECT {', '.join([_OWN, *columns.values()])} FROM study s JOIN patient p ON p.id = s.patient"
            f" WHERE {where}"
        )
        found = self._database.read(lambda session: session.rows(sql, values))
        return [_candidate(row, tuple(columns)) for row in found]

    def obstacles(self, uids: Collection[str]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
        """Of some studies those that are held and by what, and those for which tasks are open and of which kinds."""

        def work(session: Session) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
            holds = {uid: held.words(session, number) for uid, number in held.among(session, uids).items()}
            among = session.dialect.among.format(column="study_uid")
            rows = session.rows(
                f"SELECT DISTINCT study_uid, kind FROM task WHERE {among} AND study_uid <> '' AND ready IS NOT NULL"
                " AND kind NOT IN (?, ?, ?) ORDER BY study_uid, kind",
                (session.dialect.listed(list(uids)), RETIRE, ROOM, WATCH),  # its state says the last
            )
            kinds: dict[str, tuple[str, ...]] = {}
            for uid, kind in rows:
                kinds[uid] = (*kinds.get(uid, ()), kind)
            return holds, kinds

        return self._database.read(work) if uids else ({}, {})

    # -- what is due ----------------------------------------------------------------------------

    def note(self, due: Sequence[Due], tasks: Sequence[NewTask], now: float) -> None:
        """Write down what was found, and what is to be done about it; one task of a kind is enough for a study.

        A power cut may take it along, and then the next round finds it again.
        """

        def work(session: Session) -> None:
            for each in due:
                session.later(
                    "INSERT INTO retention (study_instance_uid, rule, due, disposal, why, looked)"
                    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (study_instance_uid) DO UPDATE SET rule = excluded.rule,"
                    " due = excluded.due, disposal = excluded.disposal, why = excluded.why, looked = excluded.looked",
                    (each.study_uid, each.rule, each.due, each.then, each.why[:500], now),
                )
            open_already = _open(session, [task.study_uid for task in tasks])
            for task in tasks:
                if (task.study_uid, task.kind) not in open_already:
                    insert_task(session, task, now)

        self._database.transact(work, durable=False)

    def forget(self, uid: str) -> None:
        """A study is gone, or not due any more."""
        sql = "DELETE FROM retention WHERE study_instance_uid = ?"
        self._database.transact(lambda session: session.run(sql, (uid,)), repeatable=True)

    def forget_before(self, looked: float, limit: int = 1000) -> int:
        """Forget what an earlier round found and this one did not; how many, 0 when none is left."""
        sql = (
            "DELETE FROM retention WHERE study_instance_uid IN"
            " (SELECT study_instance_uid FROM retention WHERE looked < ? LIMIT ?)"
        )
        return self._database.transact(lambda session: session.run(sql, (looked, limit)))

    def due(self, *, limit: int, then: str = "", free: bool = False) -> list[Due]:
        """What is due, the oldest first; only what nothing holds up with ``free``."""
        tests = ["disposal = ?"] * bool(then) + ["why = ''"] * free
        where = f" WHERE {' AND '.join(tests)}" if tests else ""
        values = ([then] if then else []) + [limit]
        sql = f"{_DUE}{where} ORDER BY due LIMIT ?"
        return [Due(*row) for row in self._database.read(lambda session: session.rows(sql, values))]

    def counts(self) -> dict[tuple[str, str, bool], int]:
        """How many studies are due by rule and what happens then, those that are held up (True) apart."""
        sql = "SELECT rule, disposal, why <> '' AS held_up, COUNT(*) FROM retention GROUP BY rule, disposal, held_up"
        rows = self._database.read(lambda session: session.rows(sql))
        return {(rule, then, bool(held_up)): int(count) for rule, then, held_up, count in rows}

    def open_tasks(self, kind: str = RETIRE) -> int:
        """How many studies are about to be deleted."""
        return self._count("SELECT COUNT(*) FROM task WHERE kind = ? AND ready IS NOT NULL", kind)

    def wake(self) -> None:
        """Let who carries out rules look now."""
        self._database.transact(lambda session: session.wake(RETIRE))

    def to_unlink(self, volume: str) -> int:
        """How many deleted files still take their place on a volume."""
        return self._count("SELECT COUNT(*) FROM tombstone WHERE volume = ?", volume)

    def newest(self) -> float | None:
        """When the last image came."""
        row = self._database.read(lambda session: session.row("SELECT MAX(updated) FROM study"))
        return float(row[0]) if row and row[0] is not None else None

    # -- what came by a wrong clock -------------------------------------------------------------

    def last_instance(self) -> int:
        """The id of the newest instance."""
        return deletion.newest(self._database)

    def arrivals(self, after: int, limit: int) -> list[tuple[int, float, int]]:
        """Instances in the order in which they came, after an id: id, by which time, and the id of the series."""
        sql = "SELECT id, received, series FROM instance WHERE id > ? ORDER BY id LIMIT ?"
        found = self._database.read(lambda session: session.rows(sql, (after, limit)))
        return [(int(key), float(received), int(series)) for key, received, series in found]

    def renew(self, series: Collection[int], first: float, last: float, now: float) -> int:
        """The studies of these series count as arrived now, and as made now if they were between two times; how many.
        """
        sql = (
            "UPDATE study SET updated = ?, created = CASE WHEN created >= ? AND created <= ? THEN ? ELSE created END"
            " WHERE updated <= ? AND id IN (SELECT study FROM series WHERE {among})"
        ).format(among=self._database.dialect.among.format(column="id"))
        values = (now, first, last, now, last, self._database.dialect.listed(sorted(series)))
        return self._database.transact(lambda session: session.run(sql, values))

    def _count(self, sql: str, *values: object) -> int:
        row = self._database.read(lambda session: session.row(sql, values))
        return int(row[0]) if row else 0

    # -- earlier versions -----------------------------------------------------------------------

    def drop_versions(self, before: float, after: int, limit: int) -> tuple[int, int | None]:
        """Let some versions go that were superseded before: how many, and the id to go on after, None at the end.

        One that was superseded long before it came was so by a clock that was wrong, and stays.
        """

        def work(session: Session) -> tuple[int, int | None]:
            share_corrections(session)  # a hold that is put on at this moment is seen, or comes after this
            rows = session.rows(
                "SELECT v.id, s.study_instance_uid FROM version v JOIN instance i ON i.id = v.instance"
                " JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study"
                " WHERE v.superseded < ? AND v.superseded > v.received - ? AND v.id > ? ORDER BY v.id LIMIT ?",
                (before, SKEW, after, limit),
            )
            kept = held.among(session, {uid for _, uid in rows})
            files: list[Location] = versions.forget_in(session, [key for key, uid in rows if uid not in kept])
            deletion.lay_tombstones(session, files)
            return len(files), int(rows[-1][0]) if len(rows) == limit else None

        return self._database.transact(work)


def _open(session: Session, uids: Sequence[str]) -> set[tuple[str, str]]:
    """The studies that are about to be deleted already, and by which kind of task."""
    if not uids:
        return set()
    among = session.dialect.among.format(column="study_uid")
    rows = session.rows(
        f"SELECT study_uid, kind FROM task WHERE {among} AND study_uid <> '' AND kind IN (?, ?) AND ready IS NOT NULL",
        (session.dialect.listed(uids), RETIRE, ROOM),
    )
    return {(str(uid), str(kind)) for uid, kind in rows}


def _columns(keywords: Collection[str]) -> dict[str, str]:
    """Keyword -> column of the study, else of the patient."""
    found = {}
    for keyword in sorted(keywords):
        rows = [row for row in BY_KEYWORD.get(keyword, ()) if row.level in _ALIASES and not row.computed]
        if rows:
            lowest = max(rows, key=lambda row: row.level)
            found[keyword] = f"{_ALIASES[lowest.level]}.{lowest.column}"
    return found


def _candidate(row: Row, keywords: Sequence[str]) -> Candidate:
    key, uid, date, created, updated, arrivals, state, instances, size, modalities, classes = row[:_COUNT]
    facts = {keyword: str(value or "") for keyword, value in zip(keywords, row[_COUNT:], strict=True)}
    facts |= {
        "Modality": modalities, "ModalitiesInStudy": modalities, "SOPClassesInStudy": classes,
        "StudyInstanceUID": uid, "StudyState": state, "NumberOfStudyRelatedInstances": str(instances),
    }  # fmt: skip
    return Candidate(key, uid, date or "", created, updated, arrivals, state, instances, size, facts)
