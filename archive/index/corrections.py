"""The journal of corrections: operations carried out, undone, and carried out anew on an index that was rebuilt.

Rules that hold here: an operation is an entry of the ledger before its transaction is committed, and what the ledger
has and the index has not is carried out before anything else, so that the two agree again after any crash; an operation
that is known by its name is not carried out twice; one process at a time.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from archive.dicom.attributes import Level
from archive.errors import Damaged
from archive.index import deleted, held, overlay, rows
from archive.index.database import Database, Row, Session
from archive.index.said import resolve
from archive.index.snapshots import Snapshots

T = TypeVar("T")

CHUNK = 100  # entries of the ledger in one transaction, when an index was rebuilt
_ATTEMPTS = 5  # when a row that was about to be changed is taken away by somebody who receives

UNDO = "undo"


class Write(NamedTuple):
    """What an operation says: an attribute's value, or a place (see ``overlay``)."""

    level: Level
    owner: str
    keyword: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Draft:
    """An operation that was decided on: what it writes, and snapshots of the rows it names."""

    kind: str
    arguments: Mapping[str, Any]
    writes: tuple[Write, ...] = ()
    snapshots: Snapshots = field(default_factory=dict)
    undoes: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the journal; ``undone_by`` is 0 while it holds."""

    number: int
    id: str
    actor: str
    reason: str
    when: float
    draft: Draft
    undone_by: int = 0

    @property
    def kind(self) -> str:
        return self.draft.kind


class Ledger(Protocol):
    """Where operations outlive the index."""

    def alone(self) -> contextlib.AbstractContextManager[None]: ...
    def last(self) -> int: ...
    def entries(self, after: int = 0) -> Iterator[dict[str, Any]]: ...
    def append(self, entry: dict[str, Any]) -> int: ...


class By(NamedTuple):
    """Who wants an operation, why, and under which name; the same name again has no effect."""

    actor: str
    reason: str
    id: str


Decide = Callable[[Session], Draft | None]

# What else follows an operation in its transaction, whether it is carried out, undone or repeated on a new index.
Follower = Callable[[Session, Operation], None]
FOLLOWERS: tuple[Follower, ...] = (held.follow, deleted.follow)


class _OnlyTried(Exception):
    """Rolls back what was only to be tried."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation


def perform(
    database: Database, ledger: Ledger, by: By, decide: Decide, now: float, *, dry_run: bool = False
) -> Operation | None:
    """Carry out what ``decide`` finds to be done, durably; None when there is nothing to do.

    Whoever calls with the name of an operation that is known gets that one. Raises what ``decide`` raises,
    StorageFailed, or IndexUnavailable: whether it took effect is not known then, and asking again is safe.
    """
    replay(database, ledger)

    def work(session: Session) -> Operation | None:
        rows.lock_corrections(session)
        with ledger.alone():
            _catch_up(session, ledger, CHUNK)
            if known := by_name(session, by.id):
                return known
            draft = decide(session)
            if draft is None:
                return None
            operation = Operation(ledger.last() + 1, by.id, by.actor, by.reason, now, draft)
            _carry_out(session, operation)
            if dry_run:
                raise _OnlyTried(operation)
            session.row("SELECT 1")  # nothing is left in a queue that could fail behind the ledger's back
            ledger.append(_entry(operation))
            return operation

    try:
        return _insisting(database, work)
    except _OnlyTried as tried:
        return tried.operation


def replay(database: Database, ledger: Ledger) -> int:
    """Bring index and ledger to agree, after a crash or on a rebuilt index; return how many operations that took."""
    done = 0
    while ledger.last() != database.read(last):

        def work(session: Session) -> int:
            rows.lock_corrections(session)
            with ledger.alone():
                return _catch_up(session, ledger, CHUNK)

        done += _insisting(database, work)
    return done


def _insisting(database: Database, work: Callable[[Session], Any]) -> Any:
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(*database.dialect.constraint_errors):
            return database.transact(work)
    return database.transact(work)


def check(database: Database, ledger: Ledger) -> None:
    """Raise Damaged when the journal of the index and the ledger are not of one archive."""
    known = min(ledger.last(), database.read(last))
    entry = next(ledger.entries(known - 1), None) if known else None
    found = database.read(lambda session: by_number(session, known))
    if entry is not None and found is not None and entry["id"] != found.id:
        words = f"operation {known} is {found.id} in the index and {entry['id']} in the storage folder"
        raise Damaged("journal of corrections is another's", words)


def _catch_up(session: Session, ledger: Ledger, limit: int) -> int:
    """Carry out what only the ledger has, or note there what only the index has."""
    known, noted, done = last(session), ledger.last(), 0
    for entry in ledger.entries(known) if noted > known else ():
        _carry_out(session, _from_entry(entry))
        done += 1
        if done == limit:
            break
    for row in session.rows(f"{_SELECT} WHERE number > ? ORDER BY number", (noted,)) if noted < known else ():
        ledger.append(_entry(_operation(row)))
        done += 1
    return done


# -- one operation --------------------------------------------------------------------------------


def _carry_out(session: Session, operation: Operation) -> None:
    draft = operation.draft
    writes = [*draft.writes] if draft.kind != UNDO else writes_of(session, draft.undoes)
    people = sorted({write.owner for write in writes if write.level is Level.PATIENT})
    before = {owner: resolve(session, owner) for owner in people}
    session.run(
        "INSERT INTO operation (number, operation, kind, actor, reason, happened, what) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (operation.number, operation.id, draft.kind, operation.actor, operation.reason, operation.when, _what(draft)),
    )
    if draft.kind == UNDO:
        session.run("UPDATE operation SET undone_by = ? WHERE number = ?", (operation.number, draft.undoes))
        session.run("UPDATE correction SET active = 0 WHERE operation = ?", (draft.undoes,))
    for write in draft.writes:
        session.run(
            "INSERT INTO correction (level, owner, keyword, operation, value, active) VALUES (?, ?, ?, ?, ?, 1)",
            (int(write.level), write.owner, write.keyword, operation.number, write.value),
        )
    _settle(session, operation, writes, before)
    for follow in FOLLOWERS:
        follow(session, operation)


def _settle(session: Session, operation: Operation, writes: list[Write], before: Mapping[str, str]) -> None:
    """What is below first, as those who receive lock it in this order too."""
    now, snapshots = operation.when, operation.draft.snapshots
    for level in (Level.IMAGE, Level.SERIES, Level.STUDY):
        for owner in sorted({write.owner for write in writes if write.level is level}):
            overlay.settle(session, level, owner, now)
    for owner, was in before.items():
        overlay.settle_patient(session, owner, was, snapshots, now)


def writes_of(session: Session, number: int) -> list[Write]:
    found = session.rows(
        "SELECT level, owner, keyword, value FROM correction WHERE operation = ? ORDER BY level, owner, keyword",
        (number,),
    )
    return [Write(Level(level), *rest) for level, *rest in found]


# -- reading the journal --------------------------------------------------------------------------

_SELECT = "SELECT number, operation, kind, actor, reason, happened, what, undone_by FROM operation"


def last(session: Session) -> int:
    """The number of the last operation, 0 for none."""
    row = session.row("SELECT MAX(number) FROM operation")
    return int(row[0]) if row and row[0] is not None else 0


def by_name(session: Session, name: str) -> Operation | None:
    row = session.row(f"{_SELECT} WHERE operation = ?", (name,))
    return _operation(row) if row else None


def by_number(session: Session, number: int) -> Operation | None:
    row = session.row(f"{_SELECT} WHERE number = ?", (number,))
    return _operation(row) if row else None


def entries(session: Session, *, limit: int, before: int | None = None, about: str = "") -> list[Operation]:
    """The last operations, newest first; ``about`` is a UID, or a Patient ID with or without its issuer."""
    where = ["number < ?"] if before is not None else []
    values: list[Any] = [before] if before is not None else []
    if about:
        where.append("number IN (SELECT operation FROM correction WHERE owner = ? OR (owner >= ? AND owner < ?))")
        values += [about, f"{about}\\", f"{about}]"]  # "]" follows the backslash
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    found = session.rows(f"{_SELECT}{condition} ORDER BY number DESC LIMIT ?", (*values, limit))
    return [_operation(row) for row in found]


def _operation(row: Row) -> Operation:
    number, name, kind, actor, reason, happened, what, undone_by = row
    return Operation(number, name, actor, reason, happened, _draft(kind, json.loads(what)), undone_by or 0)


def _draft(kind: str, what: Mapping[str, Any]) -> Draft:
    writes = tuple(Write(Level(level), *rest) for level, *rest in what.get("writes", ()))
    return Draft(kind, what["arguments"], writes, what.get("snapshots", {}), what.get("undoes", 0))


def _what(draft: Draft) -> str:
    return json.dumps(_plain(draft), ensure_ascii=True)


def _plain(draft: Draft) -> dict[str, Any]:
    found: dict[str, Any] = {"arguments": dict(draft.arguments)}
    if draft.writes:
        found["writes"] = [[int(level), *rest] for level, *rest in draft.writes]
    if draft.snapshots:
        found["snapshots"] = draft.snapshots
    if draft.undoes:
        found["undoes"] = draft.undoes
    return found


def _entry(operation: Operation) -> dict[str, Any]:
    """An operation as the ledger keeps it; the number is the ledger's."""
    return {
        "id": operation.id, "kind": operation.kind, "actor": operation.actor, "reason": operation.reason,
        "when": operation.when, **_plain(operation.draft),
    }  # fmt: skip


def _from_entry(entry: Mapping[str, Any]) -> Operation:
    return Operation(
        entry["number"], entry["id"], entry["actor"], entry["reason"], entry["when"], _draft(entry["kind"], entry)
    )


class CorrectionJournal:
    """The journal of one index; ``changed`` is told when rows may have moved."""

    def __init__(self, database: Database, changed: Callable[[], None]) -> None:
        self._database = database
        self._changed = changed

    def perform(
        self, ledger: Ledger, by: By, decide: Decide, now: float, *, dry_run: bool = False
    ) -> Operation | None:
        """See the function of this name."""
        try:
            return perform(self._database, ledger, by, decide, now, dry_run=dry_run)
        finally:
            self._changed()

    def replay(self, ledger: Ledger) -> int:
        """Bring index and ledger to agree; return how many operations that took."""
        check(self._database, ledger)
        try:
            return replay(self._database, ledger)
        finally:
            self._changed()

    def entries(self, *, limit: int = 100, before: int | None = None, about: str = "") -> list[Operation]:
        """The last operations, newest first; ``about`` is a UID, or a Patient ID with or without its issuer."""
        return self.ask(lambda session: entries(session, limit=limit, before=before, about=about))

    def operation(self, name: str | int) -> Operation | None:
        """An operation by its number or its name."""
        return self.ask(
            lambda session: by_number(session, name) if isinstance(name, int) else by_name(session, name)
        )

    def ask(self, question: Callable[[Session], T]) -> T:
        return self._database.read(question)
