"""Filling in attributes that were configured when objects were here already, and forgetting those that are no more.

Rules that hold here: what is to be done is a row of the index, written in one transaction with the task that does it;
work goes page by page in the order of instances, and the place is kept with each page, so that it goes on after a kill;
a page whose rows have all they need is passed over without a look at its files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from archive.dicom.attributes import Attribute, Level
from archive.dicom.extra import ExtraKeys, name_of
from archive.index import meta
from archive.index.database import Database, Row, Session
from archive.index.extra import WORDS, add
from archive.index.outbox import insert_task
from archive.index.values import Location, NewTask

KIND = "extra_keys"  # of the task
_NAME = "extra_keys"  # of the row in meta

_PAGE = (
    "SELECT i.id, e.id, s.id, s.patient, i.transfer_syntax, i.source, i.sop_instance_uid, i.volume, i.path,"
    " i.data_offset, i.data_size FROM instance i JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study"
    " WHERE i.id > ? ORDER BY i.id LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class Filling:
    """The names that are indexed, which of them are not complete yet, which are to be forgotten, and how far it is."""

    keys: tuple[str, ...] = ()
    filling: tuple[str, ...] = ()
    dropping: tuple[str, ...] = ()
    after: int = 0  # the last instance that was looked at


@dataclass(frozen=True, slots=True)
class Unfilled:
    """An instance of a page: the rows it belongs to, its file, and whether that has to be read."""

    owners: Mapping[Level, int]
    location: Location
    transfer_syntax: str
    source: str
    sop_instance_uid: str
    lacking: bool

    @property
    def id(self) -> int:
        return self.owners[Level.IMAGE]


def read(database: Database) -> Filling:
    return _read(meta.get(database, _NAME))


def _read(text: str | None) -> Filling:
    said = json.loads(text) if text else {}
    keys, filling, dropping = (tuple(said.get(name, ())) for name in ("keys", "filling", "dropping"))
    return Filling(keys, filling, dropping, said.get("after", 0))


def settle(database: Database, extra: ExtraKeys, now: float) -> bool:
    """Note what is configured; True when that is something else than before."""
    names = tuple(sorted(name_of(row) for row in extra.rows))
    if read(database).keys == names:
        return False

    def work(session: Session) -> bool:
        known = _known(session)
        if known.keys == names:  # another process was here
            return False
        gone = {*known.keys, *known.dropping} - {*names}
        new = ({*names} - {*known.keys}) | ({*known.filling} & {*names})
        _write(session, Filling(names, tuple(sorted(new)), tuple(sorted(gone)), 0))
        insert_task(session, NewTask(KIND, {}), now)
        return True

    return database.transact(work)


def _known(session: Session) -> Filling:
    row = session.row("SELECT value FROM meta WHERE name = ?", (_NAME,))
    return _read(row[0] if row else None)


def _write(session: Session, filling: Filling) -> None:
    session.run(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_NAME, json.dumps(asdict(filling))),
    )


def unfilled(database: Database, extra: ExtraKeys, limit: int) -> list[Unfilled]:
    """The next page; empty at the end."""
    known = read(database)
    keys = [row for row in extra.rows if name_of(row) in known.filling]
    if not keys:
        return []

    def work(session: Session) -> list[Unfilled]:
        rows = session.rows(_PAGE, (known.after, limit))
        have = _have(session, keys, rows)
        return [_unfilled(row, keys, have) for row in rows]

    return database.read(work)


def _owners(row: Row) -> dict[Level, int]:
    return {Level.IMAGE: row[0], Level.SERIES: row[1], Level.STUDY: row[2], Level.PATIENT: row[3]}


def _have(session: Session, keys: Sequence[Attribute], rows: Sequence[Row]) -> set[tuple[int, int, str]]:
    """Which of the rows above have a value: level, row and keyword."""
    found: set[tuple[int, int, str]] = set()
    for level in {key.level for key in keys}:
        owners = sorted({_owners(row)[level] for row in rows})
        among = session.dialect.among.format(column="owner")
        sql = f"SELECT level, owner, keyword FROM extra_value WHERE level = ? AND {among}"
        found.update(session.rows(sql, (int(level), session.dialect.listed(owners))))
    return found


def _unfilled(row: Row, keys: Sequence[Attribute], have: set[tuple[int, int, str]]) -> Unfilled:
    owners = _owners(row)
    lacking = any((int(key.level), owners[key.level], key.keyword) not in have for key in keys)
    return Unfilled(owners, Location(*row[7:]), row[4], row[5], row[6], lacking)


def fill(
    database: Database, extra: ExtraKeys, page: Sequence[Unfilled], values: Mapping[int, Mapping[int, str]]
) -> None:
    """One transaction: what the files said, and the place to go on from."""

    def work(session: Session) -> None:
        known = _known(session)
        still = {row[0] for row in session.rows(*_still(session, page))}
        for each in page:
            if each.id in still and each.id in values:
                add(session, extra.rows, each.owners, values[each.id])
        if known.after < page[-1].id:
            _write(session, Filling(known.keys, known.filling, known.dropping, page[-1].id))

    database.transact(work)


def _still(session: Session, page: Sequence[Unfilled]) -> tuple[str, tuple[object, ...]]:
    """The instances of a page that were not deleted meanwhile."""
    among = session.dialect.among.format(column="id")
    return f"SELECT id FROM instance WHERE {among}", (session.dialect.listed([each.id for each in page]),)


def drop_some(database: Database, limit: int) -> bool:
    """Delete some values of names that are no more; False when none of them is left."""

    def work(session: Session) -> bool:
        known = _known(session)
        for name in known.dropping:
            if _drop(session, name, limit):
                return True
        if known.dropping:
            _write(session, Filling(known.keys, known.filling, (), known.after))
        return False

    return database.transact(work)


def _drop(session: Session, name: str, limit: int) -> bool:
    """Some rows of one name; False when there are no more."""
    word, _, keyword = name.partition(".")
    level = int(Level[word.upper()])
    sql = "SELECT owner FROM extra_value WHERE keyword = ? AND level = ? LIMIT ?"
    owners = session.dialect.listed([row[0] for row in session.rows(sql, (keyword, level, limit))])
    among = session.dialect.among.format(column="owner")
    session.run(
        f"DELETE FROM extra_term WHERE level = ? AND {among}"
        " AND (keyword IN (?, ?) OR (keyword >= ? AND keyword < ?))",  # with its words, and those of its items
        (level, owners, keyword, keyword + WORDS, keyword + ".", keyword + "/"),
    )
    sql = f"DELETE FROM extra_value WHERE keyword = ? AND level = ? AND {among}"
    return bool(session.run(sql, (keyword, level, owners)))


def end(database: Database) -> None:
    """Everything is filled in that could be."""
    database.transact(_end)


def _end(session: Session) -> None:
    known = _known(session)
    _write(session, Filling(known.keys, (), known.dropping, 0))
