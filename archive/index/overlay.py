"""Corrections laid over rows: what operations say of a row, and the row made to agree with it.

Rules that hold here: a row is settled from what is written of it (said.py), whatever was done before, so that carrying
out an operation, undoing one and receiving a late object are the same; rows that an operation names and that are
missing are made from its snapshots.
"""

from __future__ import annotations

from archive.dicom.attributes import Level
from archive.index import rows
from archive.index.database import Session
from archive.index.edits import lay
from archive.index.flags import flag_patient, flag_study
from archive.index.person import Person
from archive.index.rows import Columns
from archive.index.said import (
    PATIENT,
    SERIES,
    STUDY,
    Effect,
    effects,
    forget_received,
    keep_received,
    received,
    resolve,
)
from archive.index.snapshots import Snapshots, merge_snapshots, owner_of, snapshots_by, snapshots_of

# -- rows that are missing ------------------------------------------------------------------------


def make(session: Session, level: Level, owner: str, snapshots: Snapshots, now: float) -> Columns:
    """The row that is known by ``owner``, made from a snapshot if it is not there; locked."""
    found = _find(session, level, owner) if owner else None
    if found:
        return found
    snapshot = snapshots.get(f"{int(level)} {owner}", {})
    columns = rows.columns_for(level, snapshot.get("values", {}))
    if level is Level.PATIENT:
        return _make_patient(session, owner, columns, now)
    above = make(session, Level(level - 1), snapshot.get("above", ""), snapshots, now)
    own: Columns = {rows.KEYS[level]: owner, "number_of_instances": 0, "created": now}
    if level is Level.STUDY:
        own |= {"patient": above["id"], "number_of_series": 0, "total_size": 0, "updated": now}
        own |= {"modalities_in_study": "", "sop_classes_in_study": ""}
    else:
        own |= {"study": above["id"]}
    forget_received(session, level, owner)
    key = rows.insert(session, level, columns | own)
    row = rows.by_id(session, level, key, lock=True)
    assert row is not None
    rows.write(session, level, row, columns)
    settle(session, level, owner, now)
    made = _find(session, level, owner)
    assert made is not None
    if level is Level.STUDY:
        refresh_patient(session, made["patient"])
    return made


def _find(session: Session, level: Level, owner: str) -> Columns | None:
    if level is Level.PATIENT:
        return rows.patient_of(session, *Person.of(owner), lock=True)
    return rows.by_uid(session, level, owner, lock=True)


def _make_patient(session: Session, owner: str, columns: Columns, now: float) -> Columns:
    patient_id, issuer = Person.of(owner) if owner else (None, "")
    own = {"patient_id": patient_id, "issuer": issuer, "number_of_studies": 0, "created": now, "corrected": 1}
    if issuer:
        own["issuer_of_patient_id"] = issuer
    if owner:
        forget_received(session, Level.PATIENT, owner)
    row = _insert_patient(session, columns | own) or _find(session, Level.PATIENT, owner)
    assert row is not None
    rows.write(session, Level.PATIENT, row, columns | own)
    if owner:
        lay(session, Level.PATIENT, owner, row)
    return row


def _insert_patient(session: Session, columns: Columns) -> Columns | None:
    """None when somebody else has made the same one at this very moment."""
    names = [name for name in columns if name != "id"]
    made = session.row(
        f"INSERT INTO patient ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        " ON CONFLICT (patient_id, issuer) DO NOTHING RETURNING id",
        [columns[name] for name in names],
    )
    return rows.by_id(session, Level.PATIENT, made[0], lock=True) if made else None


# -- places ---------------------------------------------------------------------------------------


def settle(session: Session, level: Level, owner: str, now: float) -> None:
    """Make a row agree with what is written of it; of a patient only its attributes."""
    row = _find(session, level, owner)
    if row is None:
        return
    lay(session, level, owner, row)
    if level is Level.PATIENT:
        flag_patient(session, row["id"], owner)
    elif level is Level.STUDY:
        place_study(session, row, now)
    else:
        _place(session, level, owner, row, now)


def settle_patient(session: Session, owner: str, before: str, snapshots: Snapshots, now: float) -> None:
    """The same for a patient whose studies were those of ``before`` until now."""
    row = make(session, Level.PATIENT, owner, snapshots, now)
    lay(session, Level.PATIENT, owner, row)
    after = resolve(session, owner)
    if after != before:
        _move_studies(session, before, now)
        if before == owner:
            row = rows.by_id(session, Level.PATIENT, row["id"], lock=True) or row
            rows.renew_patient(session, row)
    row = _find(session, Level.PATIENT, owner) or row
    for (study,) in session.rows("SELECT id FROM study WHERE patient = ? ORDER BY id", (row["id"],)):
        flag_study(session, study)
    flag_patient(session, row["id"], owner)
    rows.recount_patient(session, row["id"])


def _move_studies(session: Session, before: str, now: float) -> None:
    """Place the studies of a patient anew."""
    row = _find(session, Level.PATIENT, before)
    if row is None:
        return
    for (uid,) in session.rows("SELECT study_instance_uid FROM study WHERE patient = ? ORDER BY id", (row["id"],)):
        study = rows.by_uid(session, Level.STUDY, uid, lock=True)
        if study:
            place_study(session, study, now)


def place_study(session: Session, row: Columns, now: float) -> None:
    """Give a study to the patient it belongs to."""
    said = rows.by_id(session, Level.PATIENT, row["said_patient"] or row["patient"], lock=True)
    assert said is not None
    effect = effects(session, Level.STUDY, row["study_instance_uid"]).get(PATIENT)
    target = _patient_for(session, said, effect, now)
    keep = said["id"] if effect or target["id"] != said["id"] else None
    if (row["patient"], row["said_patient"]) != (target["id"], keep):
        session.run("UPDATE study SET patient = ?, said_patient = ? WHERE id = ?", (target["id"], keep, row["id"]))
        for key in sorted({row["patient"], target["id"], said["id"]}):
            refresh_patient(session, key)
    flag_study(session, row["id"])


def _patient_for(session: Session, said: Columns, effect: Effect | None, now: float) -> Columns:
    start = effect.value if effect and effect.value else owner_of(Level.PATIENT, said)
    if not start:
        return said
    snapshots = snapshots_by(session, effect.operation) if effect else {}
    owner = resolve(session, start)
    if owner != start:  # its last merge knows what the patient was like
        snapshots = merge_snapshots(session, start)
    elif not effect:
        return said
    return make(session, Level.PATIENT, owner, snapshots, now)


def _place(session: Session, level: Level, owner: str, row: Columns, now: float) -> None:
    """Put a series into its study, or an instance into its series."""
    keyword = STUDY if level is Level.SERIES else SERIES
    upper = Level(level - 1)
    effect, origin = effects(session, level, owner).get(keyword), received(session, level, owner).get(keyword)
    above = rows.by_id(session, upper, row["study" if level is Level.SERIES else "series"], lock=True)
    assert above is not None
    if effect and effect.value:
        if origin is None:
            kept = {"owner": owner_of(upper, above), "snapshots": snapshots_of(session, upper, above)}
            keep_received(session, level, owner, keyword, kept)
        target, snapshots = effect.value, snapshots_by(session, effect.operation)
    elif origin is not None:
        forget_received(session, level, owner, keyword)
        target, snapshots = origin["owner"], origin["snapshots"]
    else:
        target, snapshots = owner_of(upper, above), {}
    if target != owner_of(upper, above):
        into = make(session, upper, target, snapshots, now)
        _move(session, level, row, above, into, now)
    elif level is Level.SERIES:
        flag_study(session, above["id"])


def _move(session: Session, level: Level, row: Columns, above: Columns, into: Columns, now: float) -> None:
    if level is Level.SERIES:
        rows.renew_series(session, row, into["id"])
        close_study(session, above["id"], now)
        close_study(session, into["id"], now)
        return
    session.run("UPDATE instance SET series = ? WHERE id = ?", (into["id"], row["id"]))
    for series in (above, into):
        rows.recount_series(session, series["id"])
    for key in sorted({above["study"], into["study"]}):
        close_study(session, key, now)


def close_study(session: Session, key: int, now: float | None = None) -> None:
    """After something came or went: counts, or no study and perhaps no patient any more."""
    row = rows.by_id(session, Level.STUDY, key, lock=True)
    if row is None:
        return
    if rows.recount_study(session, key, now):
        flag_study(session, key)
        return
    for patient in sorted({row["patient"], row["said_patient"] or row["patient"]}):
        refresh_patient(session, patient)


def refresh_patient(session: Session, key: int) -> None:
    """After a study came or went: mark and count, or no patient any more."""
    row = rows.by_id(session, Level.PATIENT, key, lock=True)
    if row:
        flag_patient(session, key, owner_of(Level.PATIENT, row))
        rows.recount_patient(session, key)
