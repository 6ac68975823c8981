"""Earlier versions of instances: what a newer object of the same SOP Instance UID took the place of.

Rules that hold here: an instance's row is always its current version, so that nobody who queries or retrieves has to
know of the others; a version keeps its file until it is removed here or its instance is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archive.index.database import Database, Session
from archive.index.values import Location, NewInstance

_PLACE = "volume, path, data_offset, data_size"
_COLUMNS = f"instance, transfer_syntax, {_PLACE}, sha256, received_sha256, source, address, received, superseded"
_KEEP = (
    f"INSERT INTO version ({_COLUMNS}) SELECT id, transfer_syntax, {_PLACE}, sha256, received_sha256, source, address,"
    " received, ? FROM instance WHERE id = ?"
)
_ADD = f"INSERT INTO version ({_COLUMNS}) VALUES ({', '.join('?' * 12)}) ON CONFLICT (volume, path) DO NOTHING"
_OF = (
    "SELECT v.id, i.sop_instance_uid, v.transfer_syntax, v.volume, v.path, v.data_offset, v.data_size, v.sha256,"
    " v.source, v.received, v.superseded FROM version v JOIN instance i ON i.id = v.instance"
)


@dataclass(frozen=True, slots=True)
class Version:
    """One earlier version and where it is."""

    id: int
    sop_instance_uid: str
    transfer_syntax: str
    location: Location
    sha256: bytes
    source: str
    received: float
    superseded: float


def keep(session: Session, instance: int, now: float) -> None:
    """Write down the current version of an instance that is about to be another one."""
    session.run(_KEEP, (now, instance))


def add(session: Session, instance: int, new: NewInstance, now: float) -> None:
    """An arrival that was superseded before it came to be stored."""
    location = new.location
    session.run(
        _ADD,
        (
            instance, new.transfer_syntax, location.volume, location.path, location.offset, location.size, new.sha256,
            new.received_sha256 or None, new.source, new.address, new.received, now,
        ),
    )  # fmt: skip


def of(database: Database, sop_instance_uid: str) -> list[Version]:
    """The earlier versions of one instance, the oldest first."""
    sql = f"{_OF} WHERE i.sop_instance_uid = ? ORDER BY v.id"
    return [_version(row) for row in database.read(lambda session: session.rows(sql, (sop_instance_uid,)))]


def superseded_before(database: Database, when: float, *, limit: int, after: int = 0) -> list[Version]:
    """What was superseded before a moment, a page at a time: for retention and for the check of the files."""
    sql = f"{_OF} WHERE v.superseded < ? AND v.id > ? ORDER BY v.id LIMIT ?"
    return [_version(row) for row in database.read(lambda session: session.rows(sql, (when, after, limit)))]


def of_study(database: Database, study_uid: str, volume: str, *, limit: int, after: int = 0) -> list[Version]:
    """The earlier versions of instances of a study that are on a volume, after an id."""
    sql = (
        f"{_OF} JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study"
        " WHERE s.study_instance_uid = ? AND v.volume = ? AND v.id > ? ORDER BY v.id LIMIT ?"
    )
    values = (study_uid, volume, after, limit)
    return [_version(row) for row in database.read(lambda session: session.rows(sql, values))]


def forget(database: Database, ids: Sequence[int]) -> list[Location]:
    """Delete versions; return the files that no row points to any more."""
    return database.transact(lambda session: _forget(session, "id", ids))


def drop(session: Session, instances: Sequence[int]) -> list[Location]:
    """Delete the versions of instances that are going, as part of their transaction."""
    return _forget(session, "instance", instances)


def forget_in(session: Session, ids: Sequence[int]) -> list[Location]:
    """The same as part of a transaction."""
    return _forget(session, "id", ids) if ids else []


def _forget(session: Session, column: str, keys: Sequence[int]) -> list[Location]:
    which, listed = session.dialect.among.format(column=column), (session.dialect.listed(list(keys)),)
    return [Location(*row) for row in session.rows(f"DELETE FROM version WHERE {which} RETURNING {_PLACE}", listed)]


def _version(row: Sequence[object]) -> Version:
    key, uid, syntax, volume, path, offset, size, sha256, source, received, superseded = row
    place = Location(str(volume), str(path), int(offset), int(size))  # type: ignore[call-overload]
    return Version(key, uid, syntax, place, bytes(sha256), source, received, superseded)  # type: ignore[arg-type,call-overload]
