"""Deleting for good: rows and tombstones of their files in one transaction, files afterwards, tombstones last.

Rules that hold here: what is deleted is not found, sent or counted from its transaction on; before that is committed a
ledger has the names of the files, and after it that this was done, so that an index that is rebuilt does not take them
in again, and a deletion that was broken off never takes what was stored since; a tombstone goes when its file is
unlinked, durably, so that no file is left for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from archive.dicom.attributes import Level
from archive.errors import Conflict
from archive.index import held, rows
from archive.index.corrections import Ledger
from archive.index.database import Database, Session
from archive.index.removal import CHUNK, Removal
from archive.index.tombstones import WORK as WORK
from archive.index.tombstones import lay_tombstones
from archive.index.values import Location, Removed

IsThere = Callable[[str, str], bool]  # whether a volume has a file

_APPLIED = "deletions"  # in meta: the last entry of the ledger that this index has seen

_BELOW = {
    Level.STUDY: "SELECT i.id FROM instance i JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study"
    " WHERE s.study_instance_uid = ? AND i.id <= ? ORDER BY i.id LIMIT ?",
    Level.SERIES: "SELECT i.id FROM instance i JOIN series e ON e.id = i.series"
    " WHERE e.series_instance_uid = ? AND i.id <= ? ORDER BY i.id LIMIT ?",
    Level.IMAGE: "SELECT id FROM instance WHERE sop_instance_uid = ? AND id <= ? LIMIT ?",
}
_COUNT = {
    Level.STUDY: "SELECT COUNT(*), COALESCE(SUM(i.data_size), 0) FROM instance i JOIN series e ON e.id = i.series"
    " JOIN study s ON s.id = e.study WHERE s.study_instance_uid = ?",
    Level.SERIES: "SELECT COUNT(*), COALESCE(SUM(i.data_size), 0) FROM instance i JOIN series e ON e.id = i.series"
    " WHERE e.series_instance_uid = ?",
    Level.IMAGE: "SELECT COUNT(*), COALESCE(SUM(data_size), 0) FROM instance WHERE sop_instance_uid = ?",
}


_LIFE = "SELECT updated, number_of_instances, arrivals FROM study WHERE study_instance_uid = ?"
_ANY = 2**62  # an id above all that there will ever be


class Seen(NamedTuple):
    """A study as it was when it was decided on: only that is deleted."""

    updated: float
    instances: int
    last: int  # id of its last instance: what comes behind it stays


def seen(database: Database, uid: str) -> Seen | None:
    """A study as it is now; None when it is not here."""
    last = "SELECT MAX(i.id) FROM instance i JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study"

    def look(session: Session) -> Seen | None:
        life = session.row(_LIFE, (uid,))
        row = session.row(f"{last} WHERE s.study_instance_uid = ?", (uid,))
        return Seen(life[0], life[1], int(row[0] or 0)) if life and row else None

    return database.read(look)


def newest(database: Database) -> int:
    """The id of the last instance that is here: what comes from now on has another one."""
    row = database.read(lambda session: session.row("SELECT MAX(id) FROM instance"))
    return int(row[0] or 0) if row else 0


def level_of(database: Database, uid: str) -> Level | None:
    """Whether a UID is that of a study, series or instance that is here."""

    def look(session: Session) -> Level | None:
        levels = (level for level in (Level.STUDY, Level.SERIES, Level.IMAGE) if rows.by_uid(session, level, uid))
        return next(levels, None)

    return database.read(look)


def count(database: Database, level: Level, uid: str) -> tuple[int, int]:
    """Instances below, and their bytes."""
    row = database.read(lambda session: session.row(_COUNT[level], (uid,)))
    return (int(row[0]), int(row[1])) if row else (0, 0)


def bury(
    database: Database, ledger: Ledger, level: Level, uid: str, entry: Mapping[str, Any],
    only: Seen | None = None, *, begun: bool = False, until: int = _ANY,
) -> Removed:  # fmt: skip
    """Delete what is below a UID, as much as one transaction may hold up; nothing is left when it returns nothing.

    With ``only`` just what was there when the study was looked at; unless that has ``begun``, images that came since
    raise Conflict. Without it what has ids up to ``until``. What is under legal hold raises OnHold.
    """
    last = only.last if only else until

    def work(session: Session) -> Removed:
        _take_turn(session)
        with ledger.alone():
            _catch_up(session, ledger, _perhaps)
            held.refuse(session, level, uid)
            fresh = only if not begun else None
            _require(session, uid, fresh, 0)
            keys = [row[0] for row in session.rows(_BELOW[level], (uid, last, CHUNK))]
            removed = Removal(session).run(keys)
            _require(session, uid, fresh, len(keys))
            if removed.files:
                lay_tombstones(session, removed.files)
                session.row("SELECT 1")  # nothing is left in a queue that could fail behind the ledger's back
                files = [[each.volume, each.path] for each in removed.files]
                _note(session, ledger.append({**entry, "files": files}))
        return removed

    return database.transact(work)


def _require(session: Session, uid: str, only: Seen | None, removed: int) -> None:
    """Raise Conflict when a study is not what was seen, less what was removed of it.

    Before, and once more when its row is locked by the removal: nobody's arrival is in between then.
    """
    if only is None:
        return
    row = session.row(_LIFE, (uid,))
    left = only.instances - removed
    if row is None and left == 0:
        return
    if row is None or tuple(row) != (only.updated, left, 0):
        raise Conflict("images came for the study", uid)


def settle(database: Database, ledger: Ledger, is_there: IsThere) -> int:
    """Bring ledger and index to agree, after a crash or on an index that was rebuilt; return how many files that is."""

    def work(session: Session) -> int:
        _take_turn(session)
        with ledger.alone():
            return _catch_up(session, ledger, is_there)

    return database.transact(work) if ledger.last() else 0


def look_again(database: Database) -> None:
    """The next ``settle`` goes through the whole ledger: files that were deleted may have come back from journals."""
    database.transact(lambda session: session.run("DELETE FROM meta WHERE name = ?", (_APPLIED,)), repeatable=True)


def _take_turn(session: Session) -> None:
    rows.lock_corrections(session)


def _applied(session: Session) -> int:
    row = session.row("SELECT value FROM meta WHERE name = ?", (_APPLIED,))
    return int(row[0]) if row else 0


def _note(session: Session, number: int) -> None:
    session.run(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_APPLIED, str(number)),
    )


def _perhaps(volume: str, path: str) -> bool:
    return True


def _catch_up(session: Session, ledger: Ledger, is_there: IsThere) -> int:
    """What this index has done is confirmed; what another index did before it is done here too."""
    applied, noted, count = _applied(session), ledger.last(), 0
    if applied == noted:
        if any("files" in entry for entry in ledger.entries(noted - 1)):
            _note(session, ledger.append({"done": noted}))
        return 0
    new = list(ledger.entries(applied)) if noted > applied else []
    done = {entry.get("done") for entry in new}
    for entry in new:
        if "files" in entry and entry["number"] in done:
            files = [Location(volume, path, 0, 0) for volume, path in entry["files"]]
            Removal(session).run(_rows_of(session, files))
            _forget_versions(session, files)
            left = [each for each in files if is_there(each.volume, each.path)]
            lay_tombstones(session, left)
            count += len(left)
    if new and "files" in new[-1]:  # its transaction failed: nobody may ever take it for done
        noted = ledger.append({"broken off": noted})
    _note(session, noted)
    return count


def _rows_of(session: Session, files: Sequence[Location]) -> list[int]:
    among = session.dialect.among.format(column="path")
    listed = session.dialect.listed([each.path for each in files])
    wanted = {(each.volume, each.path) for each in files}
    found = session.rows(f"SELECT id, volume, path FROM instance WHERE {among}", (listed,))
    return [key for key, volume, path in found if (volume, path) in wanted]


def _forget_versions(session: Session, files: Sequence[Location]) -> None:
    """A rebuilt index takes what is still there for earlier versions of what came after it."""
    for each in files:
        session.later("DELETE FROM version WHERE volume = ? AND path = ?", (each.volume, each.path))


# -- tombstones -----------------------------------------------------------------------------------


def tombstones(database: Database, *, limit: int, after: int = 0) -> list[tuple[int, str, str]]:
    """Id, volume and path of files that are to be unlinked, in the order in which they were deleted."""
    found = database.read(
        lambda session: session.rows(
            "SELECT id, volume, path FROM tombstone WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
        )
    )
    return [(int(key), str(volume), str(path)) for key, volume, path in found]


def unlinked(database: Database, ids: Sequence[int]) -> None:
    """These files are gone, durably."""
    among = database.dialect.among.format(column="id")
    database.transact(lambda session: session.run(f"DELETE FROM tombstone WHERE {among}", (
        session.dialect.listed(list(ids)),
    )), repeatable=True)  # fmt: skip


def waiting(database: Database) -> int:
    """How many files are still to be unlinked."""
    row = database.read(lambda session: session.row("SELECT COUNT(*) FROM tombstone"))
    return int(row[0]) if row else 0


class DeletionRows:
    """The functions of this module for one index; ``changed`` is told when rows are gone."""

    def __init__(self, database: Database, changed: Callable[[], None]) -> None:
        self._database = database
        self._changed = changed

    def level_of(self, uid: str) -> Level | None:
        return level_of(self._database, uid)

    def count(self, level: Level, uid: str) -> tuple[int, int]:
        return count(self._database, level, uid)

    def seen(self, uid: str) -> Seen | None:
        return seen(self._database, uid)

    def newest(self) -> int:
        return newest(self._database)

    def refuse_held(self, level: Level, uid: str) -> None:
        """Raise OnHold for what is under legal hold."""
        self._database.read(lambda session: held.refuse(session, level, uid))

    def bury(
        self, ledger: Ledger, level: Level, uid: str, entry: Mapping[str, Any], only: Seen | None = None, *,
        begun: bool = False, until: int = _ANY,
    ) -> Removed:  # fmt: skip
        try:
            return bury(self._database, ledger, level, uid, entry, only, begun=begun, until=until)
        finally:
            self._changed()

    def settle(self, ledger: Ledger, is_there: IsThere) -> int:
        try:
            return settle(self._database, ledger, is_there)
        finally:
            self._changed()

    def look_again(self) -> None:
        look_again(self._database)

    def tombstones(self, *, limit: int, after: int = 0) -> list[tuple[int, str, str]]:
        return tombstones(self._database, limit=limit, after=after)

    def unlinked(self, ids: Sequence[int]) -> None:
        unlinked(self._database, ids)

    def waiting(self) -> int:
        return waiting(self._database)
