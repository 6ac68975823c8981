"""Objects that come when something above them was corrected: they go where it is now, and contradict nothing.

Rules that hold here: nothing of this runs for an archive without corrections, but one look at each new series; rows are
made as the objects say and settled at once, so that an operation that is undone later finds what it needs; what belongs
to another by an operation never fills in what that one lacks.
"""

from __future__ import annotations

import json
from dataclasses import replace

from archive.dicom.attributes import Level
from archive.dicom.header import Header
from archive.dicom.names import same_name
from archive.index import overlay, rows
from archive.index.columns import CLEANERS, PATIENT_NAME
from archive.index.database import Session
from archive.index.parents import Parents, discard, find_parents, identity, lacking_in
from archive.index.person import Person
from archive.index.rows import share_corrections
from archive.index.said import SERIES, STUDY, Effect, effects, forget_received, keep_received, received, resolve
from archive.index.snapshots import owner_of, snapshots_by, snapshots_of

__all__ = (
    "MustTakeTurns", "belongs", "put_where_it_belongs", "restrict", "settle_new", "share_corrections", "spoken_of",
    "take_back", "was_moved",
)  # fmt: skip

_SPOKEN_OF = (
    "SELECT 1 FROM correction WHERE level = 2 AND owner = ? UNION ALL"
    " SELECT 1 FROM correction WHERE level = 1 AND owner = ?"
)
_OF_PATIENT = " UNION ALL SELECT 1 FROM correction WHERE level = 0 AND owner = ?"


def spoken_of(session: Session, header: Header, parents: Parents) -> bool:
    """Whether an operation says something of rows that were just made."""
    if all(table != "patient" for table, _ in parents.created) or not parents.patient_id:
        return session.row(f"{_SPOKEN_OF} LIMIT 1", (header.series_uid, header.study_uid)) is not None
    owner = Person(parents.patient_id, parents.issuer).owner
    sql = f"{_SPOKEN_OF}{_OF_PATIENT} LIMIT 1"
    return session.row(sql, (header.series_uid, header.study_uid, owner)) is not None


class MustTakeTurns(Exception):
    """What comes is for corrected rows: the transaction is to be done anew, with ``share_corrections`` before all else.

    Waiting for an operation with rows locked already would be waiting in a circle.
    """


def settle_new(session: Session, header: Header, parents: Parents, now: float) -> Parents:
    """The rows above a new series, when all that operations say of them is done; their counts are right."""
    created = {table for table, _ in parents.created}
    if "patient" in created and parents.patient_id:
        owner = Person(parents.patient_id, parents.issuer).owner
        forget_received(session, Level.PATIENT, owner)
        overlay.settle(session, Level.PATIENT, owner, now)
    for table, level, uid in (("study", Level.STUDY, header.study_uid), ("series", Level.SERIES, header.series_uid)):
        if table in created:
            forget_received(session, level, uid)
            overlay.settle(session, level, uid, now)
    found = find_parents(session, header)
    assert found is not None
    if "study" in created:
        overlay.close_study(session, parents.study)
        overlay.refresh_patient(session, found.patient)
    overlay.close_study(session, found.study)
    found.counted = True
    return restrict(session, found, header)


def restrict(session: Session, parents: Parents, header: Header) -> Parents:
    """Let an object fill in only what its own rows lack; of what was edited, what was there before."""
    study = rows.by_id(session, Level.STUDY, parents.study)
    if study is None:
        return parents
    owners = {Level.STUDY: parents.study_uid, Level.SERIES: header.series_uid}
    said = rows.by_id(session, Level.PATIENT, study["said_patient"] or study["patient"])
    if STUDY in received(session, Level.SERIES, header.series_uid):
        parents.missing[Level.STUDY] = parents.missing[Level.PATIENT] = set()
    elif said:
        parents.said_patient = said["id"]
        parents.missing[Level.PATIENT] = lacking_in(CLEANERS[Level.PATIENT], said)
        owners[Level.PATIENT] = owner_of(Level.PATIENT, said)
    for level, owner in owners.items():
        parents.missing[level] = parents.missing.get(level, set()) - _fill_before(session, level, owner, header)
    parents.settle()
    return parents


def _fill_before(session: Session, level: Level, owner: str, header: Header) -> set[int]:
    """Let an object fill in what lay below the edits of a row, where that is empty; return the tags edited."""
    edited: set[int] = set()
    for keyword, kept in received(session, level, owner).items():
        attribute = rows.attribute_of(level, keyword)
        if attribute is None:
            continue
        edited.add(attribute.tag)
        text = header.values.get(attribute.tag)
        if text and not kept["columns"][attribute.column]:
            columns = rows.columns_for(level, {keyword: text})
            verbatim = json.loads(columns["verbatim"] or "{}")
            kept = {"columns": {name: columns[name] for name in kept["columns"]}, "verbatim": verbatim}
            keep_received(session, level, owner, keyword, kept)
    return edited


def take_back(session: Session, parents: Parents) -> None:
    """Undo what was made for an object that was not added."""
    discard(session, parents.created)
    if not parents.counted:
        return
    row = rows.by_id(session, Level.SERIES, parents.series, lock=True)
    if row and not session.row("SELECT 1 FROM instance WHERE series = ? LIMIT 1", (parents.series,)):
        rows.drop(session, Level.SERIES, parents.series)
        overlay.close_study(session, parents.study)


def was_moved(session: Session, header: Header) -> Effect | None:
    """What an operation says, if it gave an instance to another series."""
    effect = effects(session, Level.IMAGE, header.sop_instance_uid).get(SERIES)
    return effect if effect and effect.value and effect.value != header.series_uid else None


def put_where_it_belongs(
    session: Session, header: Header, parents: Parents, effect: Effect, now: float
) -> Parents:
    """The rows above an instance that was moved, instead of those that it names itself."""
    assert effect.value
    above = rows.by_id(session, Level.SERIES, parents.series)
    assert above is not None
    kept = {"owner": header.series_uid, "snapshots": snapshots_of(session, Level.SERIES, above)}
    keep_received(session, Level.IMAGE, header.sop_instance_uid, SERIES, kept)
    take_back(session, parents)
    overlay.make(session, Level.SERIES, effect.value, snapshots_by(session, effect.operation), now)
    found = find_parents(session, replace(header, series_uid=effect.value))
    assert found is not None
    found.counted = found.placed = True
    found.missing = {}
    found.settle()
    return found


def belongs(session: Session, header: Header, parents: Parents, *, check_names: bool) -> bool:
    """Whether an object that contradicts the rows above it said the same before they were corrected."""
    if parents.placed:
        return True
    study = rows.by_id(session, Level.STUDY, parents.study)
    if study is None or not study["corrected"]:
        return False
    origin = received(session, Level.SERIES, header.series_uid).get(STUDY)
    if header.study_uid != (origin["owner"] if origin else parents.study_uid):
        return False
    said = Person(*(text or "" for text in identity(header.values)))
    if _is(parents, said):
        return not check_names or _named_so(session, header, parents)
    if origin:
        return _said_by(origin, header.study_uid) in (said.owner if said.patient_id else "", None)
    if study["said_patient"] is not None:
        row = rows.by_id(session, Level.PATIENT, study["said_patient"])
        if row and _same(row["patient_id"] or "", row["issuer"], said):
            return True
    return bool(said.patient_id) and Person.of(resolve(session, said.owner)) == _person(parents)


def _person(parents: Parents) -> Person:
    return Person(parents.patient_id or "", parents.issuer)


def _is(parents: Parents, said: Person) -> bool:
    return _same(parents.patient_id or "", parents.issuer, said)


def _same(patient_id: str, issuer: str, said: Person) -> bool:
    """Patient IDs without an issuer are those of any."""
    return patient_id == said.patient_id and (not issuer or not said.issuer or issuer == said.issuer)


def _said_by(origin: dict[str, object], study_uid: str) -> object:
    snapshots = origin["snapshots"]
    assert isinstance(snapshots, dict)
    return snapshots.get(f"{int(Level.STUDY)} {study_uid}", {}).get("above")


def _named_so(session: Session, header: Header, parents: Parents) -> bool:
    """Whether the patient had this name before it was edited."""
    kept = received(session, Level.PATIENT, _person(parents).owner).get("PatientName")
    return kept is not None and same_name(header.values.get(PATIENT_NAME) or "", kept["columns"]["patient_name"] or "")
