"""Corrections laid over rows: what operations say of a row, and the row made to agree with it.

Rules that hold here: a row is settled from what is written of it, whatever was done before, so that carrying out an
operation, undoing one and receiving a late object are the same; what a row said before is kept until nothing is
written over it any more; rows that an operation names and that are missing are made from its snapshots.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from archive.dicom.attributes import Attribute, Level
from archive.index import rows
from archive.index.database import Session
from archive.index.rows import Columns

# Places, as keywords of writes; "@" is less than every letter.
MERGED = "@merged"  # of a patient: its studies are those of another
PATIENT = "@patient"  # of a study: the patient it belongs to
STUDY = "@study"  # of a series
SERIES = "@series"  # of an instance
CONCERNED = "@concerned"  # the target of one of these, or the study from which something was taken
LINKED = "@linked "  # of a patient, with another behind it: they are one person and stay apart

LONGEST_CHAIN = 1000  # of merges, none of which is a circle


class Person(NamedTuple):
    """What a patient is known by."""

    patient_id: str
    issuer: str = ""

    @property
    def owner(self) -> str:
        """As writes name it; an issuer holds no backslash (VR LO, PS3.5 6.2), whatever a Patient ID may hold."""
        return f"{self.patient_id}\\{self.issuer}"

    @classmethod
    def of(cls, owner: str) -> Person:
        return cls(*owner.rsplit("\\", 1))

    def __str__(self) -> str:
        return f"{self.patient_id}^^^{self.issuer}" if self.issuer else self.patient_id


class Effect(NamedTuple):
    """What holds for one keyword, and by which operation."""

    value: str | None
    operation: int


Effects = dict[str, Effect]
Snapshots = Mapping[str, Mapping[str, Any]]  # level and owner -> values, and the owner above


def effects(session: Session, level: Level, owner: str) -> Effects:
    """What the operations that were not undone say of a row, the last one holds."""
    found = session.rows(
        "SELECT keyword, value, operation FROM correction WHERE level = ? AND owner = ? AND active = 1"
        " ORDER BY operation",
        (int(level), owner),
    )
    return {keyword: Effect(value, operation) for keyword, value, operation in found}


def edits(found: Mapping[str, Any]) -> set[str]:
    """Those of the keywords that are attributes."""
    return {keyword for keyword in found if not keyword.startswith("@")}


def resolve(session: Session, owner: str) -> str:
    """The patient to whom the studies of a patient belong now."""
    for _ in range(LONGEST_CHAIN):
        effect = effects(session, Level.PATIENT, owner).get(MERGED)
        if effect is None or effect.value is None:
            return owner
        owner = effect.value
    raise RuntimeError("patients are merged in a circle")


# -- what was there before ------------------------------------------------------------------------


def received(session: Session, level: Level, owner: str) -> dict[str, Any]:
    found = session.rows("SELECT keyword, value FROM received WHERE level = ? AND owner = ?", (int(level), owner))
    return {keyword: json.loads(value) for keyword, value in found}


def keep_received(session: Session, level: Level, owner: str, keyword: str, value: Any) -> None:
    session.run(
        "INSERT INTO received (level, owner, keyword, value) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (level, owner, keyword) DO UPDATE SET value = excluded.value",
        (int(level), owner, keyword, json.dumps(value)),
    )


def forget_received(session: Session, level: Level, owner: str, keyword: str | None = None) -> None:
    also, values = ("", ()) if keyword is None else (" AND keyword = ?", (keyword,))
    session.run(f"DELETE FROM received WHERE level = ? AND owner = ?{also}", (int(level), owner, *values))


def said_values(session: Session, level: Level, owner: str, row: Columns) -> dict[str, str]:
    """What the objects below a row say, by keyword: without the edits."""
    before = row.copy()
    verbatim = json.loads(row["verbatim"]) if row["verbatim"] else {}
    for keyword, kept in received(session, level, owner).items():
        if not keyword.startswith("@"):
            _put_back(before, verbatim, kept)
    before["verbatim"] = json.dumps(verbatim) if verbatim else None
    return rows.values_of(level, before)


def _put_back(row: Columns, verbatim: dict[str, str], kept: Mapping[str, Any]) -> None:
    for name, value in kept["columns"].items():
        row[name] = value
        verbatim.pop(name, None)
    verbatim.update(kept["verbatim"])


# -- snapshots ------------------------------------------------------------------------------------


def snapshots_of(session: Session, level: Level, row: Columns) -> dict[str, dict[str, Any]]:
    """What is needed to make a row, and those above it, once more."""
    owner = owner_of(level, row)
    key = f"{int(level)} {owner or ''}"
    values = said_values(session, level, owner, row) if owner else rows.values_of(level, row)
    found: dict[str, dict[str, Any]] = {key: {"values": values}}
    if level is Level.PATIENT:
        return found
    above = rows.by_id(session, Level(level - 1), _said_above(level, row))
    assert above is not None
    found[key]["above"] = owner_of(Level(level - 1), above) or ""
    return found | snapshots_of(session, Level(level - 1), above)


def _said_above(level: Level, row: Columns) -> int:
    """The row above, as the objects say: of a study the patient that they name."""
    if level is Level.STUDY:
        return int(row["said_patient"] or row["patient"])
    return int(row["study" if level is Level.SERIES else "series"])


def owner_of(level: Level, row: Columns) -> str:
    """What a row is known by; empty for a patient without Patient ID."""
    if level is not Level.PATIENT:
        return str(row[rows.KEYS[level]])
    return Person(row["patient_id"], row["issuer"]).owner if row["patient_id"] else ""


def snapshots_by(session: Session, operation: int) -> Snapshots:
    """What an operation knew of the rows that it names."""
    row = session.row("SELECT what FROM operation WHERE number = ?", (operation,))
    found: Snapshots = json.loads(row[0]).get("snapshots", {}) if row else {}
    return found


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


# -- attributes -----------------------------------------------------------------------------------


def lay(session: Session, level: Level, owner: str, row: Columns) -> None:
    """Write what is said of the attributes of a row over what it said, or put that back."""
    wanted, before = effects(session, level, owner), received(session, level, owner)
    columns: Columns = {}
    verbatim = json.loads(row["verbatim"]) if row["verbatim"] else {}
    for keyword in sorted(edits(wanted) | edits(before)):
        attribute = rows.attribute_of(level, keyword)
        if attribute is None:
            continue
        kept = before.get(keyword) or _kept(attribute, row, verbatim)
        _put_back(columns, verbatim, kept)
        if keyword in wanted:
            if keyword not in before:
                keep_received(session, level, owner, keyword, kept)
            columns |= _laid(level, attribute, wanted[keyword].value, columns[attribute.column], verbatim)
        else:
            forget_received(session, level, owner, keyword)
    if columns:
        columns["verbatim"] = json.dumps(verbatim) if verbatim else None
        rows.write(session, level, row, columns)


def _kept(attribute: Attribute, row: Columns, verbatim: Mapping[str, str]) -> dict[str, Any]:
    names = rows.names_of(attribute)
    return {
        "columns": {name: row[name] for name in names},
        "verbatim": {name: verbatim[name] for name in names if name in verbatim},
    }


def _laid(
    level: Level, attribute: Attribute, value: str | None, before: str | None, verbatim: dict[str, str]
) -> Columns:
    """The columns of an attribute with a new value; of a sequence its first item has the new values."""
    names = rows.names_of(attribute)
    if value is None:
        found: Columns = dict.fromkeys(rows.CLEANERS[level].columns)
    else:
        if attribute.vr == "SQ":
            value = first_item_changed(before, value)
        found = rows.columns_for(level, {attribute.keyword: value})
    for name in names:
        verbatim.pop(name, None)
    verbatim.update(json.loads(found["verbatim"]) if found["verbatim"] else {})
    return {name: found[name] for name in names}


def first_item_changed(before: str | None, value: str) -> str:
    """The items of a sequence, of which the first one has other values now; none leaves the sequence empty."""
    new = json.loads(value)
    if not new:
        return "[]"
    old = json.loads(before) if before else []
    first = {**(old[0] if old else {}), **new[0]}
    return json.dumps([first, *old[1:]], ensure_ascii=False)


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
        snapshots = _merge_snapshots(session, start)
    elif not effect:
        return said
    return make(session, Level.PATIENT, owner, snapshots, now)


def _merge_snapshots(session: Session, owner: str) -> Snapshots:
    found: dict[str, Mapping[str, Any]] = {}
    while effect := effects(session, Level.PATIENT, owner).get(MERGED):
        found |= snapshots_by(session, effect.operation)
        owner = effect.value or ""
    return found


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


# -- flags ----------------------------------------------------------------------------------------


def flag_patient(session: Session, key: int, owner: str) -> None:
    """Mark a patient of whom an operation speaks, or whose objects were given to another."""
    said = "EXISTS (SELECT 1 FROM correction WHERE level = 0 AND owner = ? AND active = 1)"
    lent = "EXISTS (SELECT 1 FROM study WHERE said_patient = ?)"
    session.run(
        f"UPDATE patient SET corrected = CASE WHEN {said} OR {lent} THEN 1 ELSE 0 END WHERE id = ?", (owner, key, key)
    )


def flag_study(session: Session, key: int) -> None:
    """Mark a study that goes out otherwise than it came in, or may."""
    row = session.row(
        "SELECT s.study_instance_uid, s.said_patient, p.patient_id, p.issuer FROM study s"
        " JOIN patient p ON p.id = s.patient WHERE s.id = ?",
        (key,),
    )
    if row is None:
        return
    uid, said, patient_id, issuer = row
    owner = Person(patient_id, issuer).owner if patient_id else ""
    found = session.row(
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM correction WHERE level = 1 AND owner = ? AND active = 1)"
        " OR EXISTS (SELECT 1 FROM correction WHERE level = 0 AND owner = ? AND active = 1 AND keyword >= 'A')"
        " OR EXISTS (SELECT 1 FROM series e JOIN correction c ON c.level = 2 AND c.owner = e.series_instance_uid"
        " AND c.active = 1 WHERE e.study = ?) THEN 1 ELSE 0 END",
        (uid, owner, key),
    )
    flag = 1 if said is not None or (found and found[0]) else 0
    session.run("UPDATE study SET corrected = ? WHERE id = ? AND corrected <> ?", (flag, key, flag))
