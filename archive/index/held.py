"""Legal holds as rows: what an operation of the journal says must not be deleted, and which studies that concerns.

Rules that hold here: a hold is an operation of the journal of corrections, so that an index that is rebuilt has it
before its first study; a hold on a patient or an accession number also holds the studies that are there at the moment
by themselves, so that no correction takes them out of it; whoever deletes asks in the transaction that deletes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from archive.dicom.attributes import Level
from archive.errors import OnHold
from archive.index import rows
from archive.index.database import Row, Session

if TYPE_CHECKING:
    from archive.index.corrections import Operation

HOLD, RELEASE, _UNDO = "hold", "release", "undo"  # kinds of operations
STUDY, PATIENT, ACCESSION = "study", "patient", "accession"
SCOPES = (STUDY, PATIENT, ACCESSION)

_ENTER = "INSERT INTO hold (scope, owner, operation) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_NAMES = (
    "SELECT s.study_instance_uid, s.accession_number, p.patient_id, p.issuer, q.patient_id, q.issuer FROM study s"
    " JOIN patient p ON p.id = s.patient LEFT JOIN patient q ON q.id = s.said_patient"
)
_STUDY_OF = {
    Level.STUDY: "s.study_instance_uid = ?",
    Level.SERIES: "s.id = (SELECT study FROM series WHERE series_instance_uid = ?)",
    Level.IMAGE: "s.id = (SELECT e.study FROM instance i JOIN series e ON e.id = i.series"
    " WHERE i.sop_instance_uid = ?)",
}


class Name(NamedTuple):
    """What a hold is on: a study by its UID, a patient by ID and issuer (see Person.owner), an accession number."""

    scope: str
    owner: str


def follow(session: Session, operation: Operation) -> None:
    """What an operation means for the rows, also when it is carried out once more on a new index."""
    kind, arguments = operation.kind, operation.draft.arguments
    if kind == HOLD:
        _enter(session, operation.number, arguments)
    elif kind == RELEASE:
        _leave(session, arguments["holds"])
    elif kind == _UNDO:
        _take_back(session, operation.draft.undoes)


def _take_back(session: Session, number: int) -> None:
    kind, arguments = _said(session, number)
    if kind == HOLD:
        _leave(session, [number])
    elif kind == RELEASE:
        for each in arguments["holds"]:
            _enter(session, each, _said(session, each)[1])


def _said(session: Session, number: int) -> tuple[str, Mapping[str, Any]]:
    row = session.row("SELECT kind, what FROM operation WHERE number = ?", (number,))
    return (str(row[0]), json.loads(row[1])["arguments"]) if row else ("", {})


def _enter(session: Session, number: int, arguments: Mapping[str, Any]) -> None:
    names = [Name(arguments["scope"], arguments["owner"]), *(Name(STUDY, uid) for uid in arguments["studies"])]
    for name in dict.fromkeys(names):
        session.run(_ENTER, (*name, number))


def _leave(session: Session, numbers: Iterable[int]) -> None:
    for number in numbers:
        session.run("DELETE FROM hold WHERE operation = ?", (number,))


# -- who is held ----------------------------------------------------------------------------------


def refuse(session: Session, level: Level, uid: str) -> None:
    """Raise OnHold when the study that this is, or is in, must not be deleted."""
    if operation := of(session, level, uid):
        raise OnHold("study is under legal hold", words(session, operation))


def of(session: Session, level: Level, uid: str) -> int:
    """The operation by which a study, or that of a series or instance, is held; 0 when it is not."""
    if not _any(session):
        return 0
    row = session.row(f"{_NAMES} WHERE {_STUDY_OF[level]}", (uid,))
    return _holding(session, [row]).get(str(row[0]), 0) if row else 0


def of_row(session: Session, study: int) -> int:
    """The same for the row of a study."""
    if not _any(session):
        return 0
    row = session.row(f"{_NAMES} WHERE s.id = ?", (study,))
    return _holding(session, [row]).get(str(row[0]), 0) if row else 0


def among(session: Session, uids: Collection[str]) -> dict[str, int]:
    """Those of some studies that are held, and by which operation."""
    if not uids or not _any(session):
        return {}
    which = session.dialect.among.format(column="s.study_instance_uid")
    return _holding(session, session.rows(f"{_NAMES} WHERE {which}", (session.dialect.listed(list(uids)),)))


def _any(session: Session) -> bool:
    return session.row("SELECT 1 FROM hold WHERE operation > 0 LIMIT 1") is not None


def _holding(session: Session, studies: Iterable[Row]) -> dict[str, int]:
    names = {str(row[0]): _names_of(row) for row in studies}
    owners = sorted({name.owner for found in names.values() for name in found})
    which = session.dialect.among.format(column="owner")
    found = session.rows(f"SELECT scope, owner, operation FROM hold WHERE {which}", (session.dialect.listed(owners),))
    held = {Name(scope, owner): int(operation) for scope, owner, operation in sorted(found, reverse=True)}
    return {
        uid: min(held[name] for name in mine if name in held)
        for uid, mine in names.items() if any(name in held for name in mine)
    }  # fmt: skip


def _names_of(row: Row) -> list[Name]:
    """By what a study can be held: the patient that its objects name too, where it was given to another."""
    uid, accession, patient_id, issuer, said_id, said_issuer = row
    names = [Name(STUDY, str(uid))]
    if accession:
        names.append(Name(ACCESSION, str(accession)))
    for person, where in ((patient_id, issuer), (said_id, said_issuer)):
        if person:
            names.append(Name(PATIENT, f"{person}\\{where or ''}"))
    return names


def words(session: Session, number: int) -> str:
    """Who holds it and why."""
    row = session.row("SELECT actor, reason FROM operation WHERE number = ?", (number,))
    return f"hold {number} by {row[0]}: {row[1]}" if row else f"hold {number}"


# -- what a name means ----------------------------------------------------------------------------


def studies_of(session: Session, name: Name) -> list[str]:
    """The studies of a patient or an accession number that are there now, those given to somebody else included."""
    if name.scope == STUDY:
        return [name.owner] if rows.by_uid(session, Level.STUDY, name.owner) else []
    if name.scope == ACCESSION:
        where, values = "s.accession_number = ?", [name.owner]
    else:
        patient_id, issuer = name.owner.rsplit("\\", 1)
        person = "(SELECT id FROM patient WHERE patient_id = ? AND issuer = ?)"
        where = f"s.patient IN {person} OR s.said_patient IN {person}"
        values = [patient_id, issuer] * 2
    found = session.rows(f"SELECT s.study_instance_uid FROM study s WHERE {where} ORDER BY s.id", values)
    return [str(uid) for (uid,) in found]
