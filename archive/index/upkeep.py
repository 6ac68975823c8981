"""What compression and repair ask of the index: other forms of an instance, damage, pages of rows to look at.

Rules that hold here: a row is changed only while it still is what was looked at, so that nobody's newer file is
touched; the study's size follows in the same transaction; what was received stays known by its digest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from archive.index.copies import outdate
from archive.index.database import Database, Row, Session
from archive.index.outbox import insert_task
from archive.index.stored import STORED_COLUMNS, stored_instance
from archive.index.values import Location, NewInstance, NewTask, StoredInstance
from archive.index.versions import Version, superseded_before

_FROM = "FROM instance i JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study"
_UNCHANGED = "id = ? AND volume = ? AND path = ? AND sha256 = ?"
_PLACE = (
    "transfer_syntax = ?, volume = ?, path = ?, data_offset = ?, data_size = ?, sha256 = ?,"
    " damage = NULL, damage_found = NULL"
)
# Which files rows point to, besides those of the instances: a table that keeps files adds its own here.
REFERENCES = (
    "SELECT volume, path FROM instance", "SELECT volume, path FROM version", "SELECT volume, path FROM tombstone",
    "SELECT volume, path FROM copy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Received:
    """How an instance came; its digest and syntax are those of the data set that came, whatever is stored now."""

    source: str
    address: str
    when: float
    sha256: bytes
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Form:
    """An instance in another transfer syntax; ``photometric`` is given when it is another one now."""

    location: Location
    transfer_syntax: str
    sha256: bytes
    photometric: str = ""


@dataclass(frozen=True, slots=True)
class Saved:
    """What compressing to a transfer syntax has cost and saved."""

    transfer_syntax: str
    objects: int
    bytes_before: int
    bytes_after: int
    seconds: float


class Upkeep:
    """Of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- damage ---------------------------------------------------------------------------------

    def mark(self, instance: StoredInstance, damage: str, now: float, tasks: Sequence[NewTask] = ()) -> bool | None:
        """Note that a file is damaged: True when that is news, which cause ``tasks``; None when its row has changed."""

        def work(session: Session) -> bool | None:
            rows = session.rows(f"SELECT damage FROM instance WHERE {_UNCHANGED}", _key(instance))
            if not rows:
                return None
            session.run(
                f"UPDATE instance SET damage = ?, damage_found = COALESCE(damage_found, ?) WHERE {_UNCHANGED}",
                (damage, now, *_key(instance)),
            )
            if rows[0][0]:
                return False
            for task in tasks:
                insert_task(session, task, now)
            return True

        return self._database.transact(work, repeatable=not tasks)

    def clear(self, instance: StoredInstance) -> bool:
        """The file is whole after all."""
        sql = f"UPDATE instance SET damage = NULL, damage_found = NULL WHERE {_UNCHANGED} AND damage IS NOT NULL"
        return bool(self._database.transact(lambda session: session.run(sql, _key(instance))))

    def damaged(self, *, limit: int = 1000) -> list[StoredInstance]:
        """Instances whose files are damaged, the first found first."""
        sql = f"SELECT {STORED_COLUMNS} {_FROM} WHERE i.damage_found IS NOT NULL ORDER BY i.damage_found LIMIT ?"
        return [stored_instance(row) for row in self._read(sql, limit)]

    def count_damaged(self) -> int:
        return int(self._read("SELECT COUNT(*) FROM instance WHERE damage_found IS NOT NULL")[0][0])

    # -- other forms ----------------------------------------------------------------------------

    def received(self, instance: StoredInstance) -> Received | None:
        sql = (
            "SELECT source, address, received, COALESCE(received_sha256, sha256),"
            " COALESCE(received_syntax, transfer_syntax) FROM instance WHERE id = ?"
        )
        rows = self._read(sql, instance.id)
        if not rows:
            return None
        source, address, when, sha256, syntax = rows[0]
        return Received(source, address, when, bytes(sha256), syntax)

    def compress(self, old: StoredInstance, form: Form, seconds: float) -> bool:
        """The instance is stored in another form from now on; False when its row has changed meanwhile."""

        def work(session: Session) -> bool:
            keep = (
                ", received_sha256 = COALESCE(received_sha256, sha256)"
                ", received_syntax = COALESCE(received_syntax, transfer_syntax)"
            )
            if not self._move(session, old, form, keep, ()):
                return False
            if form.photometric:
                sql = "UPDATE instance SET photometric_interpretation = ? WHERE id = ?"
                session.later(sql, (form.photometric, old.id))
            saved = (form.transfer_syntax, 1, old.location.size, form.location.size, seconds)
            session.run(_COUNT, saved)
            return True

        return self._database.transact(work)

    def mend(self, old: StoredInstance, new: NewInstance) -> bool:
        """A whole copy of what was received takes the place of the file; False when its row has changed meanwhile."""
        form = Form(new.location, new.transfer_syntax, new.sha256)
        received = (new.received_sha256 or None, new.received_syntax or None)
        keep = ", received_sha256 = ?, received_syntax = ?"
        return self._database.transact(lambda session: self._move(session, old, form, keep, received))

    def _move(self, session: Session, old: StoredInstance, form: Form, keep: str, values: tuple[object, ...]) -> bool:
        place = form.location
        row = session.row(
            f"UPDATE instance SET {_PLACE}{keep} WHERE {_UNCHANGED} RETURNING series",
            (form.transfer_syntax, place.volume, place.path, place.offset, place.size, form.sha256, *values,
             *_key(old)),
        )  # fmt: skip
        if row is None:
            return False
        session.run(
            "UPDATE study SET total_size = total_size + ? WHERE id = (SELECT study FROM series WHERE id = ?)",
            (place.size - old.location.size, row[0]),
        )
        outdate(session, old.id, old.location)
        return True

    def settled(self, sop_instance_uid: str) -> set[tuple[str, str]]:
        """Volume and path of an instance, its copy and earlier versions once every transaction about it has ended."""

        def work(session: Session) -> list[Row]:
            sql = "UPDATE instance SET path = path WHERE sop_instance_uid = ? RETURNING id, volume, path"
            rows = session.rows(sql, (sop_instance_uid,))
            return rows + [
                found
                for row in rows
                for found in session.rows(_BESIDE, (row[0], row[0]))
            ]

        rows = self._database.transact(work, repeatable=True)
        return {(volume, path) for _, volume, path in rows}

    def files_of(self, sop_instance_uid: str) -> set[tuple[str, str]]:
        """The same as it is at this moment."""
        rows = self._read(
            "SELECT volume, path FROM instance WHERE sop_instance_uid = ? UNION ALL"
            " SELECT v.volume, v.path FROM version v JOIN instance i ON i.id = v.instance WHERE i.sop_instance_uid = ?"
            " UNION ALL"
            " SELECT c.volume, c.path FROM copy c JOIN instance i ON i.id = c.instance WHERE i.sop_instance_uid = ?",
            sop_instance_uid, sop_instance_uid, sop_instance_uid,
        )  # fmt: skip
        return {(volume, path) for volume, path in rows}

    def saved(self) -> list[Saved]:
        """What compression has done so far, by transfer syntax."""
        sql = "SELECT transfer_syntax, objects, bytes_before, bytes_after, seconds FROM compression ORDER BY 1"
        return [Saved(*row) for row in self._read(sql)]

    # -- everything, a page at a time -----------------------------------------------------------

    def page(self, after: int, limit: int, study_uid: str = "") -> list[StoredInstance]:
        """Instances in the order in which they came, after an id; of one study or all."""
        where, values = ("i.id > ?", (after,)) if not study_uid else (
            "i.id > ? AND s.study_instance_uid = ?", (after, study_uid)
        )  # fmt: skip
        rows = self._read(f"SELECT {STORED_COLUMNS} {_FROM} WHERE {where} ORDER BY i.id LIMIT ?", *values, limit)
        return [stored_instance(row) for row in rows]

    def versions(self, after: int, limit: int) -> list[Version]:
        """Earlier versions of instances, after an id."""
        return superseded_before(self._database, math.inf, limit=limit, after=after)

    def quarantines(self, path: str) -> bool:
        """Whether the quarantine lists a file."""
        return bool(self._read("SELECT 1 FROM quarantine WHERE path = ?", path))

    def files(self) -> Iterator[tuple[str, str]]:
        """Volume and path of every file that a row points to."""
        for sql in REFERENCES:
            with closing(self._database.stream(sql)) as rows:
                yield from ((volume, path) for volume, path in rows)

    def refers(self, volume: str, path: str) -> bool:
        """Whether a row points to a file. Walks tables: for the few that nothing else is known of."""
        return any(
            self._database.read(
                lambda session, sql=sql: session.row(  # type: ignore[misc]
                    f"SELECT 1 FROM ({sql}) AS files WHERE volume = ? AND path = ? LIMIT 1", (volume, path)
                )
            )
            for sql in REFERENCES
        )

    def has_put_away(self, volume: str, path: str) -> bool:
        """Whether a file is that of an earlier version, a copy, or deleted and to be unlinked."""
        sql = " UNION ALL ".join(
            f"SELECT 1 FROM {table} WHERE volume = ? AND path = ?" for table in ("version", "copy", "tombstone")
        )
        return bool(self._read(sql, *((volume, path) * 3)))

    def _read(self, sql: str, *values: object) -> list[Row]:
        return self._database.read(lambda session: session.rows(sql, values))


_BESIDE = (
    "SELECT instance, volume, path FROM version WHERE instance = ?"
    " UNION ALL SELECT instance, volume, path FROM copy WHERE instance = ?"
)
_COUNT = (
    "INSERT INTO compression (transfer_syntax, objects, bytes_before, bytes_after, seconds) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (transfer_syntax) DO UPDATE SET objects = compression.objects + excluded.objects,"
    " bytes_before = compression.bytes_before + excluded.bytes_before,"
    " bytes_after = compression.bytes_after + excluded.bytes_after, seconds = compression.seconds + excluded.seconds"
)


def _key(instance: StoredInstance) -> tuple[object, ...]:
    return instance.id, instance.location.volume, instance.location.path, instance.sha256
