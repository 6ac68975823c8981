"""What is to be done for a correction that is wanted, decided on what is there.

Rules that hold here: nothing is changed; None means that all is as it is wanted already; what is refused is refused in
words that name the earlier operation or the way that is open; what an operation refers to goes along as snapshots, so
that it can be carried out once more on an index that was rebuilt in another order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from archive.dicom.attributes import Level
from archive.errors import NotPossible, NotThere
from archive.index import corrections, rows
from archive.index.corrections import UNDO, Draft, Operation, Write
from archive.index.database import Session
from archive.index.edits import first_item_changed
from archive.index.person import Person
from archive.index.rows import Columns
from archive.index.said import CONCERNED, LINKED, MERGED, PATIENT, SERIES, STUDY, effects, resolve, said_values
from archive.index.snapshots import Snapshots, snapshots_of

Values = Mapping[str, str]

_PEOPLE, _STUDIES, _SERIES, _IMAGES = Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE


class NewSeries(NamedTuple):
    """A series, or a study without ``series_uid``, that is made for what is moved into it."""

    study_uid: str
    series_uid: str = ""


def _concerned(level: Level, *owners: str) -> list[Write]:
    return [Write(level, owner, CONCERNED, None) for owner in dict.fromkeys(owners)]


def _known(session: Session, person: Person) -> Columns | None:
    return rows.patient_of(session, *person)


def _person_snapshots(session: Session, person: Person, values: Values) -> Snapshots:
    row = _known(session, person)
    if row:
        return snapshots_of(session, _PEOPLE, row)
    return {f"{int(_PEOPLE)} {person.owner}": {"values": _named(person, values)}}


def _named(person: Person, values: Values) -> dict[str, str]:
    issuer = {"IssuerOfPatientID": person.issuer} if person.issuer else {}
    return {**values, "PatientID": person.patient_id, **issuer}


def _refuse(comment: str, operation: int | None, then: str) -> NotPossible:
    return NotPossible(comment, f"operation {operation} did that; {then}" if operation else then)


# -- patients -------------------------------------------------------------------------------------


def merge(session: Session, source: Person, target: Person, values: Values, *, unknown: bool) -> Draft | None:
    """``source`` was ``target`` all the time: its studies are those of the other from now on."""
    if source == target:
        raise NotPossible("a patient cannot be merged into itself")
    effect = effects(session, _PEOPLE, source.owner).get(MERGED)
    end = resolve(session, target.owner)
    if end == source.owner:
        back = effects(session, _PEOPLE, target.owner)[MERGED].operation
        raise _refuse("patients would be merged in a circle", back, "the other patient was merged into this one")
    if effect and resolve(session, source.owner) == end:
        return None
    if effect:
        raise _refuse("patient is merged into another already", effect.operation, "undo it first")
    here, there = _known(session, source), _known(session, target)
    if not unknown and not here:
        raise NotThere("no such patient", "the one to be merged")
    if not unknown and not there and not values:
        raise NotThere("no such patient", "the one to merge into; give its values to make it")
    if here and not there and not values:  # another ID of the same person
        own = said_values(session, _PEOPLE, source.owner, here)
        values = {keyword: text for keyword, text in own.items() if keyword not in ("PatientID", "IssuerOfPatientID")}
    arguments = {"patient": str(source), "into": str(target), "studies": _studies_of(session, here)}
    writes = (Write(_PEOPLE, source.owner, MERGED, target.owner), *_concerned(_PEOPLE, target.owner))
    snapshots = {**_person_snapshots(session, target, values), **_person_snapshots(session, source, {})}
    return Draft("merge", arguments, writes, snapshots)


def _studies_of(session: Session, patient: Columns | None) -> list[str]:
    if patient is None:
        return []
    found = session.rows("SELECT study_instance_uid FROM study WHERE patient = ? ORDER BY id", (patient["id"],))
    return [str(row[0]) for row in found]


def merged(session: Session, source: Person) -> int:
    """The operation that merged a patient. Raises NotThere."""
    effect = effects(session, _PEOPLE, source.owner).get(MERGED)
    if effect is None:
        raise NotThere("patient is not merged into another")
    return effect.operation


def link(session: Session, one: Person, other: Person, *, unknown: bool) -> Draft | None:
    """Both are one person and stay two patients."""
    if one == other:
        raise NotPossible("a patient cannot be linked with itself")
    if not unknown and not (_known(session, one) and _known(session, other)):
        raise NotThere("no such patient")
    if LINKED + other.owner in effects(session, _PEOPLE, one.owner):
        return None
    writes = (
        Write(_PEOPLE, one.owner, LINKED + other.owner, None), Write(_PEOPLE, other.owner, LINKED + one.owner, None)
    )  # fmt: skip
    snapshots = {**_person_snapshots(session, one, {}), **_person_snapshots(session, other, {})}
    return Draft("link", {"patient": str(one), "with": str(other)}, writes, snapshots)


def linked(session: Session, one: Person, other: Person) -> int:
    """The operation that linked two patients. Raises NotThere."""
    effect = effects(session, _PEOPLE, one.owner).get(LINKED + other.owner)
    if effect is None:
        raise NotThere("patients are not linked")
    return effect.operation


def links(session: Session, person: Person) -> list[Person]:
    """The patients that are the same person, directly or by others between them."""
    found, waiting = [person.owner], [person.owner]
    while waiting:
        said = effects(session, _PEOPLE, resolve(session, waiting.pop()))
        new = {resolve(session, key.removeprefix(LINKED)) for key in said if key.startswith(LINKED)}
        waiting += sorted(new - {*found})
        found += sorted(new - {*found})
    return [Person.of(owner) for owner in found[1:]]


def survivor(session: Session, person: Person) -> Person:
    """The patient to whom the studies of one belong now."""
    return Person.of(resolve(session, person.owner))


# -- studies --------------------------------------------------------------------------------------


def move_studies(
    session: Session, uids: Sequence[str], target: Person, values: Values, *, kind: str = "move", unknown: bool = False
) -> Draft | None:
    """These studies are of another patient, who is made from ``values`` if nobody has this ID."""
    target = survivor(session, target)
    there = _known(session, target)
    found = [_row(session, _STUDIES, uid) for uid in dict.fromkeys(uids)]
    if there is None and not values and not unknown:
        raise NotThere("no such patient", "give the values of the patient to make one")
    moved = [row for row in found if there is None or row["patient"] != there["id"]]
    if not moved:
        return None
    writes = [Write(_STUDIES, row["study_instance_uid"], PATIENT, target.owner) for row in moved]
    people = sorted({str(_patient_name(session, row)) for row in moved})
    arguments = {
        "studies": [row["study_instance_uid"] for row in moved], "from": people, "to": str(target),
        "made": [] if there else [f"{int(_PEOPLE)} {target.owner}"],
    }  # fmt: skip
    snapshots = _person_snapshots(session, target, values)
    return Draft(kind, arguments, (*writes, *_concerned(_PEOPLE, target.owner)), snapshots)


def split(session: Session, person: Person, uids: Sequence[str], new: Person, values: Values) -> Draft | None:
    """Some of a patient's studies are of another one, who is not known yet."""
    row = _known(session, survivor(session, person))
    if row is None:
        raise NotThere("no such patient")
    found = [_row(session, _STUDIES, uid) for uid in uids]
    if any(study["patient"] != row["id"] for study in found):
        there = _known(session, new)
        if there and all(study["patient"] == there["id"] for study in found):
            return None
        raise NotPossible("a study to be split off is not one of this patient's")
    if _known(session, new):
        raise NotPossible("the new patient is known already", "move the studies there instead")
    own = said_values(session, _PEOPLE, survivor(session, person).owner, row)
    own = {keyword: own[keyword] for keyword in ("PatientName", "PatientBirthDate", "PatientSex") if own.get(keyword)}
    return move_studies(session, uids, new, {**own, **values}, kind="split")


def _patient_name(session: Session, study: Columns) -> Person | str:
    row = rows.by_id(session, _PEOPLE, study["patient"])
    return Person(row["patient_id"], row["issuer"]) if row and row["patient_id"] else "(no Patient ID)"


def _row(session: Session, level: Level, uid: str) -> Columns:
    row = rows.by_uid(session, level, uid)
    if row is None:
        word = {_STUDIES: "study", _SERIES: "series", _IMAGES: "instance"}[level]
        raise NotThere(f"no such {word}", uid)
    return row


# -- series and instances -------------------------------------------------------------------------


def move_series(session: Session, uids: Sequence[str], into: NewSeries) -> Draft | None:
    """These series are of another study, which is made like the one they are in if it is not there."""
    target = rows.by_uid(session, _STUDIES, into.study_uid)
    found = [_row(session, _SERIES, uid) for uid in dict.fromkeys(uids)]
    moved = [row for row in found if target is None or row["study"] != target["id"]]
    if not moved:
        return None
    origins = [_above(session, _STUDIES, row["study"]) for row in moved]
    if target is None and len({row["study"] for row in moved}) > 1:
        raise NotPossible("series of several studies cannot make a new study", "move those of one study first")
    snapshots = _study_snapshots(session, into.study_uid, target, origins[0])
    names = [row["study_instance_uid"] for row in origins]
    writes = [Write(_SERIES, row["series_instance_uid"], STUDY, into.study_uid) for row in moved]
    arguments = {
        "series": [row["series_instance_uid"] for row in moved], "from": sorted(set(names)), "to": into.study_uid,
        "made": [] if target else [f"{int(_STUDIES)} {into.study_uid}"],
    }  # fmt: skip
    return Draft("move series", arguments, (*writes, *_concerned(_STUDIES, into.study_uid, *names)), snapshots)


def _above(session: Session, level: Level, key: int) -> Columns:
    row = rows.by_id(session, level, key)
    assert row is not None
    return row


def _study_snapshots(session: Session, uid: str, target: Columns | None, like: Columns) -> Snapshots:
    """Of a study that is there, or of one that is to be made like another."""
    found = snapshots_of(session, _STUDIES, target or like)
    if target is None:
        key = f"{int(_STUDIES)} {like['study_instance_uid']}"
        new = found.pop(key)
        found[f"{int(_STUDIES)} {uid}"] = {**new, "values": {**new["values"], "StudyInstanceUID": uid}}
    return found


def move_instances(session: Session, uids: Sequence[str], into: NewSeries) -> Draft | None:
    """These instances are of another series, which is made like the one they are in if it is not there."""
    target = rows.by_uid(session, _SERIES, into.series_uid)
    found = [_row(session, _IMAGES, uid) for uid in dict.fromkeys(uids)]
    moved = [row for row in found if target is None or row["series"] != target["id"]]
    if not moved:
        return None
    origins = {row["series"]: _above(session, _SERIES, row["series"]) for row in moved}
    first = origins[moved[0]["series"]]
    modalities = {row["modality"] for row in (*origins.values(), *([target] if target else []))}
    if len(modalities) > 1:
        raise NotPossible("a series has one modality", "PS3.3 C.7.3.1; move instances of one modality")
    studies = [_above(session, _STUDIES, row["study"]) for row in origins.values()]
    snapshots = _series_snapshots(session, into, target, first)
    above = snapshots[f"{int(_SERIES)} {into.series_uid}"]["above"]
    writes = [Write(_IMAGES, row["sop_instance_uid"], SERIES, into.series_uid) for row in moved]
    arguments = {
        "instances": [row["sop_instance_uid"] for row in moved],
        "from": sorted(row["series_instance_uid"] for row in origins.values()), "to": into.series_uid,
        "made": [] if target else [f"{int(_SERIES)} {into.series_uid}"],
    }  # fmt: skip
    concerned = _concerned(_STUDIES, above, *(row["study_instance_uid"] for row in studies))
    return Draft("move instances", arguments, (*writes, *concerned), snapshots)


def _series_snapshots(
    session: Session, into: NewSeries, target: Columns | None, like: Columns
) -> dict[str, dict[str, Any]]:
    found = snapshots_of(session, _SERIES, target or like)
    if target is not None:
        return found
    study = rows.by_uid(session, _STUDIES, into.study_uid)
    if study is None:
        raise NotThere("no such study", into.study_uid)
    new = found.pop(f"{int(_SERIES)} {like['series_instance_uid']}")
    values = {**new["values"], "SeriesInstanceUID": into.series_uid}
    made = {f"{int(_SERIES)} {into.series_uid}": {"values": values, "above": into.study_uid}}
    return snapshots_of(session, _STUDIES, study) | made


# -- attributes -----------------------------------------------------------------------------------


def edit(session: Session, level: Level, owner: str, values: Mapping[str, str | None]) -> Draft | None:
    """These attributes have other values; None takes one away."""
    if level is _PEOPLE:
        owner = resolve(session, owner)
        row = _known(session, Person.of(owner))
        if row is None:
            raise NotThere("no such patient")
    else:
        row = _row(session, level, owner)
    now = rows.values_of(level, row)
    changed = {keyword: value for keyword, value in values.items() if not _is_so(level, keyword, now, value)}
    if not changed:
        return None
    name = str(Person.of(owner)) if level is _PEOPLE else owner
    arguments = {"level": level.name, "of": name, "values": changed, "before": {key: now.get(key) for key in changed}}
    writes = tuple(Write(level, owner, keyword, value) for keyword, value in sorted(changed.items()))
    return Draft("edit", arguments, writes, snapshots_of(session, level, row) if level is _PEOPLE else {})


def _is_so(level: Level, keyword: str, now: Values, value: str | None) -> bool:
    attribute = rows.attribute_of(level, keyword)
    if attribute and attribute.vr == "SQ" and value is not None:
        before = now.get(keyword)
        return json.loads(first_item_changed(before, value)) == json.loads(before or "[]")
    return now.get(keyword) == value


# -- undoing --------------------------------------------------------------------------------------


def undo(session: Session, number: int) -> Draft | None:
    """Take back an operation, unless something later rests on it."""
    operation = corrections.by_number(session, number)
    if operation is None:
        raise NotThere("no such operation", str(number))
    if operation.kind in (UNDO, "delete"):
        raise NotPossible("this cannot be undone", "carry out once more what was undone")
    if operation.undone_by:
        return None
    later = _dependent(session, operation)
    if later:
        raise NotPossible(
            "a later correction depends on it", f"operation {later.number} ({later.kind}); undo that one first"
        )
    arguments = {"operation": operation.number, "kind": operation.kind}
    return Draft(UNDO, arguments, undoes=operation.number)


def _dependent(session: Session, operation: Operation) -> Operation | None:
    """The last operation that rests on this one and holds."""
    arguments, found = operation.draft.arguments, {0}
    for write in operation.draft.writes:
        if write.keyword != CONCERNED:
            found |= _later(session, operation, write.level, write.owner, "keyword = ?", write.keyword)
        if write.level is _PEOPLE and not write.keyword.startswith("@"):
            found |= _later(session, operation, write.level, write.owner, "keyword = ?", MERGED)
        if write.keyword == MERGED:  # the studies it took along were given to somebody else since
            found |= _later(session, operation, _PEOPLE, write.value or "", "keyword = ?", MERGED)
            for uid in {*arguments["studies"], *_came_since(session, write.owner)}:
                found |= _later(session, operation, _STUDIES, uid, "keyword = ?", PATIENT)
    for name in arguments.get("made", ()):
        level, owner = name.split(" ", 1)
        found |= _later(session, operation, Level(int(level)), owner, "1 = 1")
    return corrections.by_number(session, max(found)) if max(found) else None


def _came_since(session: Session, owner: str) -> list[str]:
    """Studies whose objects name a patient that was merged into another."""
    row = _known(session, Person.of(owner))
    if row is None:
        return []
    found = session.rows("SELECT study_instance_uid FROM study WHERE said_patient = ?", (row["id"],))
    return [str(uid) for (uid,) in found]


def _later(session: Session, operation: Operation, level: Level, owner: str, condition: str, *values: Any) -> set[int]:
    found = session.rows(
        "SELECT operation FROM correction WHERE level = ? AND owner = ? AND operation > ? AND active = 1"
        f" AND {condition}",
        (int(level), owner, operation.number, *values),
    )
    return {int(number) for (number,) in found}
