"""Copies of instances on other volumes: the very same bytes in a second file.

Rules that hold here: an instance's row names the file that is read, a copy's row another one that was verified against
its digest; a copy is noted, exchanged with the file or forgotten only while the row of the instance is still what was
looked at; whatever gives an instance other bytes forgets its copy in the same transaction, and wants a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from archive.index.database import Database, Row, Session
from archive.index.outbox import insert_task
from archive.index.stored import STORED_COLUMNS, stored_instance
from archive.index.tombstones import bury_copies, lay_tombstones
from archive.index.values import Location, NewTask, StoredInstance
from archive.index.versions import Version
from archive.index.versions import of_study as versions_of_study

COPY = "copy"  # kind of the task that copies a study
RECALL = "recall"  # and of the one that brings it back
MAIN = "main"  # the volume that takes what arrives, and that copies are made for

_PLACE = "volume, path, data_offset, data_size"
_FROM = "FROM instance i JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study"
_UNCHANGED = "id = ? AND volume = ? AND path = ? AND sha256 = ?"
_LOCK = {"sqlite": "", "postgresql": " FOR UPDATE"}


@dataclass(frozen=True, slots=True)
class Pair:
    """An instance and its copy."""

    instance: StoredInstance
    copy: Location


@dataclass(frozen=True, slots=True)
class Held:
    """Files and bytes on one volume, and how much of it is there once more."""

    volume: str
    files: int
    size: int


def copy_study(uid: str) -> NewTask:
    """The task that copies what a study has in the cache alone."""
    return NewTask(COPY, {"study": uid}, lane=uid, study_uid=uid, once=True)


def recall_study(uid: str) -> NewTask:
    return NewTask(RECALL, {"study": uid}, lane=uid, study_uid=uid, once=True)


def outdate(session: Session, instance: int, old: Location) -> None:
    """The instance has another file now, in the cache: its copy goes, and another one is wanted."""
    gone = bury_copies(session, [instance])
    if gone or old.volume != MAIN:
        sql = "SELECT s.study_instance_uid, s.updated FROM instance i JOIN series e ON e.id = i.series"
        row = session.row(f"{sql} JOIN study s ON s.id = e.study WHERE i.id = ?", (instance,))
        if row:
            insert_task(session, copy_study(str(row[0])), float(row[1]))


class Copies:
    """Of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- look -----------------------------------------------------------------------------------

    def missing(self, study_uid: str, limit: int, after: int = 0) -> list[StoredInstance]:
        """Instances of a study that are in the cache alone, and whole as far as is known."""
        sql = (
            f"SELECT {STORED_COLUMNS} {_FROM} LEFT JOIN copy c ON c.instance = i.id WHERE s.study_instance_uid = ?"
            " AND i.id > ? AND i.volume = ? AND c.instance IS NULL AND i.damage IS NULL ORDER BY i.id LIMIT ?"
        )
        return [stored_instance(row) for row in self._read(sql, study_uid, after, MAIN, limit)]

    def missing_versions(self, study_uid: str, limit: int, after: int = 0) -> list[Version]:
        """Earlier versions in a study that are in the cache."""
        return versions_of_study(self._database, study_uid, MAIN, limit=limit, after=after)

    def away(self, study_uid: str, limit: int, after: int = 0) -> list[StoredInstance]:
        """Instances of a study that are not in the cache."""
        sql = (
            f"SELECT {STORED_COLUMNS} {_FROM} WHERE s.study_instance_uid = ? AND i.id > ? AND i.volume <> 'main'"
            " AND i.damage IS NULL ORDER BY i.id LIMIT ?"
        )
        return [stored_instance(row) for row in self._read(sql, study_uid, after, limit)]

    def of(self, instance: int) -> Location | None:
        """The copy of an instance."""
        rows = self._read(f"SELECT {_PLACE} FROM copy WHERE instance = ?", instance)
        return Location(*rows[0]) if rows else None

    def of_study(self, study_uid: str, limit: int) -> list[Pair]:
        """Instances of a study that are in the cache and on another volume."""
        sql = (
            f"SELECT c.volume, c.path, c.data_offset, c.data_size, {STORED_COLUMNS} {_FROM}"
            " JOIN copy c ON c.instance = i.id WHERE s.study_instance_uid = ? AND i.volume = ? AND i.damage IS NULL"
            " ORDER BY i.id LIMIT ?"
        )
        return [_pair(row) for row in self._read(sql, study_uid, MAIN, limit)]

    def page(self, after: int, limit: int) -> list[Pair]:
        """All copies, in the order of their instances, after an id."""
        sql = (
            f"SELECT c.volume, c.path, c.data_offset, c.data_size, {STORED_COLUMNS} {_FROM}"
            " JOIN copy c ON c.instance = i.id WHERE c.instance > ? ORDER BY c.instance LIMIT ?"
        )
        return [_pair(row) for row in self._read(sql, after, limit)]

    def oldest(self, limit: int, after: tuple[float, str] = (0.0, "")) -> list[tuple[float, str]]:
        """Studies that could leave the cache and when they were used, the one that was not for longest first."""
        sql = (
            "SELECT used, study_instance_uid FROM residence WHERE (used, study_instance_uid) > (?, ?)"
            " ORDER BY used, study_instance_uid LIMIT ?"
        )
        return [(float(used), str(uid)) for used, uid in self._read(sql, *after, limit)]

    def survey(self, after: int, limit: int) -> tuple[list[str], int | None]:
        """Of the next studies those that have instances in the cache alone, and the id to go on after."""
        sql = (
            "SELECT s.id, s.study_instance_uid, EXISTS (SELECT 1 FROM series e"
            " JOIN instance i ON i.series = e.id LEFT JOIN copy c ON c.instance = i.id"
            " WHERE e.study = s.id AND i.volume = ? AND c.instance IS NULL) FROM study s"
            " WHERE s.id > ? ORDER BY s.id LIMIT ?"
        )
        rows = self._read(sql, MAIN, after, limit)
        return [str(uid) for _, uid, wanted in rows if wanted], int(rows[-1][0]) if len(rows) == limit else None

    # -- numbers --------------------------------------------------------------------------------

    def held(self) -> list[Held]:
        """What is on volumes besides the cache: copies, and what is there alone."""
        sql = (
            "SELECT volume, SUM(files), CAST(SUM(size) AS BIGINT) FROM"
            " (SELECT volume, COUNT(*) AS files, SUM(data_size) AS size FROM instance WHERE volume <> 'main'"
            " GROUP BY volume UNION ALL SELECT volume, COUNT(*), SUM(data_size) FROM copy GROUP BY volume) AS kinds"
            " GROUP BY volume ORDER BY volume"
        )
        return [Held(str(volume), int(files), int(size)) for volume, files, size in self._read(sql)]

    def evictable(self) -> tuple[int, int]:
        """Files and bytes of the cache that are safe on another volume."""
        row = self._read("SELECT COUNT(*), CAST(COALESCE(SUM(data_size), 0) AS BIGINT) FROM copy")[0]
        return int(row[0]), int(row[1])

    def waiting(self, kind: str) -> tuple[int, int]:
        """Studies that wait for a task of a kind, and their bytes."""
        sql = (
            "SELECT COUNT(*), CAST(COALESCE(SUM(s.total_size), 0) AS BIGINT) FROM"
            " (SELECT DISTINCT study_uid FROM task WHERE kind = ? AND ready IS NOT NULL AND study_uid <> '') AS t"
            " JOIN study s ON s.study_instance_uid = t.study_uid"
        )
        row = self._read(sql, kind)[0]
        return int(row[0]), int(row[1])

    # -- change ---------------------------------------------------------------------------------

    def add(self, found: Sequence[tuple[StoredInstance, Location]], now: float) -> list[bool]:
        """Note verified copies: False for those whose row has changed meanwhile, or that have one by now."""

        def work(session: Session) -> list[bool]:
            added = [_add(session, instance, place, now) for instance, place in found]
            for uid in sorted({instance.study_uid for (instance, _), done in zip(found, added, strict=True) if done}):
                session.run(_USED, (uid, now))
            return added

        return self._database.transact(work)

    def move_version(self, version: Version, place: Location) -> bool:
        """An earlier version is in another file from now on, and its old one is unlinked."""

        def work(session: Session) -> bool:
            # Whoever settles the note of its new file waits for this transaction by the row of the instance.
            lock = f"SELECT 1 FROM instance WHERE sop_instance_uid = ?{_LOCK[session.dialect.name]}"
            session.row(lock, (version.sop_instance_uid,))
            sql = "UPDATE version SET volume = ?, path = ?, data_offset = ?, data_size = ? WHERE id = ? AND path = ?"
            values = (place.volume, place.path, place.offset, place.size, version.id, version.location.path)
            if not session.run(sql, values):
                return False
            lay_tombstones(session, [version.location])
            return True

        return self._database.transact(work)

    def evict(self, pairs: Iterable[Pair]) -> list[Pair]:
        """From now on these are read where their copies are, and their files are unlinked; which they were."""
        chosen = list(pairs)

        def work(session: Session) -> list[Pair]:
            return [pair for pair in chosen if _exchange(session, pair.instance, pair.copy)]

        return self._database.transact(work)

    def left(self, study_uid: str) -> None:
        """Forget when a study was used, if nothing of it could leave the cache."""
        sql = (
            "DELETE FROM residence WHERE study_instance_uid = ? AND NOT EXISTS (SELECT 1"
            f" {_FROM} JOIN copy c ON c.instance = i.id WHERE s.study_instance_uid = ?)"
        )
        self._database.transact(lambda session: session.run(sql, (study_uid, study_uid)), repeatable=True)

    def recall(self, instance: StoredInstance, place: Location, now: float) -> bool:
        """The instance is read from a new file in the cache, and what was read before is its copy."""

        def work(session: Session) -> bool:
            if not _read_from(session, instance, place):
                return False
            session.run(_COPY, (instance.id, *_placed(instance.location), now))
            session.run(_USED, (instance.study_uid, now))
            return True

        return self._database.transact(work)

    def fall_back(self, pair: Pair, now: float) -> bool:
        """The file in the cache is damaged and its copy is whole: read that, and bring it back."""

        def work(session: Session) -> bool:
            if not _exchange(session, pair.instance, pair.copy):
                return False
            insert_task(session, recall_study(pair.instance.study_uid), now)
            return True

        return self._database.transact(work)

    def lose(self, pair: Pair, now: float) -> bool:
        """A copy is damaged or missing: it is forgotten, its file is unlinked, and another one is made."""

        def work(session: Session) -> bool:
            sql = "DELETE FROM copy WHERE instance = ? AND volume = ? AND path = ?"
            if not session.run(sql, (pair.instance.id, pair.copy.volume, pair.copy.path)):
                return False
            lay_tombstones(session, [pair.copy])
            insert_task(session, copy_study(pair.instance.study_uid), now)
            return True

        return self._database.transact(work)

    def touch(self, study_uid: str, now: float) -> None:
        """A study was used."""
        sql = "UPDATE residence SET used = ? WHERE study_instance_uid = ? AND used < ?"
        self._database.transact(lambda session: session.run(sql, (now, study_uid, now)), durable=False, repeatable=True)

    def _read(self, sql: str, *values: object) -> list[Row]:
        return self._database.read(lambda session: session.rows(sql, values))


_COPY = f"INSERT INTO copy (instance, {_PLACE}, verified) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (instance) DO NOTHING"
_USED = (
    "INSERT INTO residence (study_instance_uid, used) VALUES (?, ?)"
    " ON CONFLICT (study_instance_uid) DO UPDATE SET used = excluded.used"
)


def _add(session: Session, instance: StoredInstance, place: Location, now: float) -> bool:
    sql = f"SELECT 1 FROM instance WHERE {_UNCHANGED}{_LOCK[session.dialect.name]}"
    if not session.row(sql, _key(instance)):
        return False
    return bool(session.run(_COPY, (instance.id, *_placed(place), now)))


def _exchange(session: Session, instance: StoredInstance, copy: Location) -> bool:
    """Read the copy, and unlink the file."""
    if not _read_from(session, instance, copy):
        return False
    if not session.run("DELETE FROM copy WHERE instance = ? AND path = ?", (instance.id, copy.path)):
        back = "UPDATE instance SET volume = ?, path = ?, data_offset = ?, data_size = ? WHERE id = ?"
        session.run(back, (*_placed(instance.location), instance.id))
        return False
    lay_tombstones(session, [instance.location])
    return True


def _read_from(session: Session, instance: StoredInstance, place: Location) -> bool:
    sql = (
        "UPDATE instance SET volume = ?, path = ?, data_offset = ?, data_size = ?, damage = NULL, damage_found = NULL"
        f" WHERE {_UNCHANGED}"
    )
    return bool(session.run(sql, (*_placed(place), *_key(instance))))


def _placed(place: Location) -> tuple[object, ...]:
    return place.volume, place.path, place.offset, place.size


def _key(instance: StoredInstance) -> tuple[object, ...]:
    return instance.id, instance.location.volume, instance.location.path, instance.sha256


def _pair(row: Row) -> Pair:
    return Pair(stored_instance(row[4:]), Location(*row[:4]))
