"""Whole rows of patients, studies, series and instances, for the few who change what is above or in them.

Rules that hold here: a row is a dict of its columns; values go in and out by keyword, as text as the objects said it;
what is counted is counted anew under the row's lock and never by steps; a row that is left empty goes, and a patient
stays as long as an operation speaks of it; a series or patient that is moved gets a new id, so that a process that
remembers the old one notices by the foreign key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from archive.dicom.attributes import BY_KEYWORD, Attribute, Level
from archive.index.columns import (
    CLEANERS,
    PATIENT_NAME,
    PATIENT_NAME_COLUMNS,
    REQUEST_COLUMNS,
    TABLES,
    folded_column,
    stored,
)
from archive.index.database import Session
from archive.index.extra import drop as drop_extra
from archive.index.models import Instance, Patient, Series, Study
from archive.index.parents import BESIDE, add_requests, add_words

Columns = dict[str, Any]
Values = Mapping[str, str]  # keyword -> text

COLUMNS = {
    level: tuple(model._meta.columns)
    for level, model in zip(Level, (Patient, Study, Series, Instance), strict=True)
}  # fmt: skip
KEYS = {
    Level.STUDY: "study_instance_uid",
    Level.SERIES: "series_instance_uid",
    Level.IMAGE: "sop_instance_uid",
}
_ABOVE = {Level.STUDY: "patient", Level.SERIES: "study", Level.IMAGE: "series"}

# What two processes must not change at once is locked before it is read; in SQLite there is one writer anyway.
_FOR_UPDATE = {"sqlite": "", "postgresql": " FOR UPDATE"}
_TURNS = 0x4152_4349  # advisory lock: operations one by one, and not beside who receives for corrected rows


def read(
    session: Session, level: Level, where: str, parameters: Sequence[Any], *, lock: bool = False
) -> Columns | None:
    """The row that fulfils a condition."""
    ending = _FOR_UPDATE[session.dialect.name] if lock else ""
    row = session.row(f"SELECT {', '.join(COLUMNS[level])} FROM {TABLES[level]} WHERE {where}{ending}", parameters)
    return dict(zip(COLUMNS[level], row, strict=True)) if row else None


def by_id(session: Session, level: Level, key: int, *, lock: bool = False) -> Columns | None:
    return read(session, level, "id = ?", (key,), lock=lock)


def by_uid(session: Session, level: Level, uid: str, *, lock: bool = False) -> Columns | None:
    return read(session, level, f"{KEYS[level]} = ?", (uid,), lock=lock)


def patient_of(session: Session, patient_id: str, issuer: str, *, lock: bool = False) -> Columns | None:
    return read(session, Level.PATIENT, "patient_id = ? AND issuer = ?", (patient_id, issuer), lock=lock)


def share_corrections(session: Session) -> None:
    """No operation is carried out until this transaction, of which this is the first statement, has ended."""
    if session.dialect.name == "postgresql":
        session.row(f"SELECT pg_advisory_xact_lock_shared({_TURNS})")


def lock_corrections(session: Session) -> None:
    """Nobody else carries out an operation, or receives for something that is corrected, until the end."""
    session.take_turn(_TURNS)


# -- values by keyword ----------------------------------------------------------------------------


def attribute_of(level: Level, keyword: str) -> Attribute | None:
    """The attribute that has a column at a level."""
    rows = (row for row in BY_KEYWORD.get(keyword, ()) if row.level is level and not row.computed)
    return next(rows, None)


def values_of(level: Level, row: Columns) -> dict[str, str]:
    """What a row says, by keyword; what is NULL is missing."""
    verbatim = json.loads(row["verbatim"]) if row["verbatim"] else {}
    texts = {each.keyword: verbatim.get(each.column, row[each.column]) for each in stored(level)}
    return {keyword: str(text) for keyword, text in texts.items() if text is not None}


def columns_for(level: Level, values: Values) -> Columns:
    """All columns of a level that values fill."""
    tags = {attribute.tag: text for keyword, text in values.items() if (attribute := attribute_of(level, keyword))}
    return CLEANERS[level].row(tags)


def names_of(attribute: Attribute) -> tuple[str, ...]:
    """The columns that one attribute fills."""
    if attribute.tag == PATIENT_NAME:
        return (attribute.column, *PATIENT_NAME_COLUMNS)
    if attribute.keyword == "RequestAttributesSequence":
        return (attribute.column, *REQUEST_COLUMNS.values())  # lifted out of it
    folded = folded_column(attribute)
    return (attribute.column, folded) if folded else (attribute.column,)


def write(session: Session, level: Level, row: Columns, columns: Columns) -> None:
    """Change some columns of a row, and what stands beside them."""
    sets = ", ".join(f"{name} = ?" for name in columns)
    session.run(f"UPDATE {TABLES[level]} SET {sets} WHERE id = ?", (*columns.values(), row["id"]))
    row |= columns
    if level is Level.PATIENT and "patient_name" in columns:
        session.run("DELETE FROM patient_word WHERE patient = ?", (row["id"],))
        add_words(session, row["id"], row["patient_name"])
    elif level is Level.STUDY and "study_date" in columns:
        session.run("UPDATE study_modality SET study_date = ? WHERE study = ?", (row["study_date"] or "", row["id"]))
    elif level is Level.SERIES:
        session.run("DELETE FROM series_request WHERE series = ?", (row["id"],))
        add_requests(session, row["id"], row)
        if "modality" in columns:
            list_again(session, row["study"])


# -- making, moving and dropping ------------------------------------------------------------------


def insert(session: Session, level: Level, columns: Columns) -> int:
    """A new row; what is not named has its default."""
    names = [name for name in columns if name != "id"]
    row = session.row(
        f"INSERT INTO {TABLES[level]} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) RETURNING id",
        [columns[name] for name in names],
    )
    assert row is not None
    return int(row[0])


def renew_series(session: Session, row: Columns, study: int) -> Columns:
    """The same series below a study, under a new id."""
    session.run("UPDATE series SET series_instance_uid = series_instance_uid || '~' WHERE id = ?", (row["id"],))
    key = insert(session, Level.SERIES, row | {"study": study})
    session.run("UPDATE instance SET series = ? WHERE series = ?", (key, row["id"]))
    _take_along(session, Level.SERIES, row["id"], key)
    session.run("DELETE FROM series WHERE id = ?", (row["id"],))
    return row | {"id": key, "study": study}


def renew_patient(session: Session, row: Columns) -> Columns:
    """The same patient without studies, under a new id."""
    session.run("UPDATE patient SET patient_id = NULL WHERE id = ?", (row["id"],))
    key = insert(session, Level.PATIENT, row)
    session.run("UPDATE study SET said_patient = ? WHERE said_patient = ?", (key, row["id"]))
    _take_along(session, Level.PATIENT, row["id"], key)
    session.run("DELETE FROM patient WHERE id = ?", (row["id"],))
    return row | {"id": key}


def _take_along(session: Session, level: Level, old: int, new: int) -> None:
    """What stands beside a row goes with it."""
    table, beside = TABLES[level], BESIDE[TABLES[level]]
    session.run(f"UPDATE {beside} SET {table} = ? WHERE {table} = ?", (new, old))
    for extra in ("extra_value", "extra_term"):
        session.run(f"UPDATE {extra} SET owner = ? WHERE level = ? AND owner = ?", (new, int(level), old))


def drop(session: Session, level: Level, key: int) -> None:
    table = TABLES[level]
    session.run(f"DELETE FROM {BESIDE[table]} WHERE {table} = ?", (key,))
    drop_extra(session, level, [key])
    session.run(f"DELETE FROM {table} WHERE id = ?", (key,))


# -- counting -------------------------------------------------------------------------------------


def recount_series(session: Session, key: int) -> bool:
    """Count the instances of a series that is locked; False when it was empty and is gone."""
    session.run(
        "UPDATE series SET number_of_instances = (SELECT COUNT(*) FROM instance WHERE instance.series = series.id)"
        " WHERE id = ?",
        (key,),
    )
    row = session.row("SELECT number_of_instances FROM series WHERE id = ?", (key,))
    if row and not row[0]:
        drop(session, Level.SERIES, key)
    return bool(row and row[0])


def recount_study(session: Session, key: int, now: float | None = None) -> bool:
    """Count what is below a study that is locked; False when it was empty and is gone."""
    row = session.row(
        "SELECT COUNT(*), COALESCE(SUM(number_of_instances), 0) FROM series WHERE study = ?", (key,)
    ) or (0, 0)
    if not row[0]:
        drop(session, Level.STUDY, key)
        return False
    sizes = "SELECT COALESCE(SUM(i.data_size), 0) FROM series e JOIN instance i ON i.series = e.id WHERE e.study = ?"
    size = session.row(sizes, (key,))
    assert size is not None
    session.run(
        "UPDATE study SET number_of_series = ?, number_of_instances = ?, total_size = ?,"
        " updated = COALESCE(?, updated) WHERE id = ?",
        (row[0], int(row[1]), int(size[0]), now, key),
    )
    list_again(session, key)
    return True


def list_again(session: Session, key: int) -> None:
    """The modalities and SOP classes of a study, from what is there."""
    modalities = session.rows("SELECT DISTINCT modality FROM series WHERE study = ?", (key,))
    classes = session.rows(
        "SELECT DISTINCT i.sop_class_uid FROM series e JOIN instance i ON i.series = e.id WHERE e.study = ?", (key,)
    )
    lists = [sorted({row[0] for row in rows if row[0]}) for rows in (modalities, classes)]
    session.run(
        "UPDATE study SET modalities_in_study = ?, sop_classes_in_study = ? WHERE id = ?",
        ("\\".join(lists[0]), "\\".join(lists[1]), key),
    )
    session.run("DELETE FROM study_modality WHERE study = ?", (key,))
    for modality in lists[0]:
        session.run(
            "INSERT INTO study_modality (modality, study_date, study)"
            " SELECT ?, COALESCE(study_date, ''), id FROM study WHERE id = ? ON CONFLICT DO NOTHING",
            (modality, key),
        )


def recount_patient(session: Session, key: int) -> None:
    """Count the studies of a patient that is locked; one that is left empty goes, unless an operation speaks of it."""
    session.run(
        "UPDATE patient SET number_of_studies = (SELECT COUNT(*) FROM study WHERE study.patient = patient.id)"
        " WHERE id = ?",
        (key,),
    )
    row = session.row("SELECT number_of_studies, corrected FROM patient WHERE id = ?", (key,))
    if row == (0, 0):
        drop(session, Level.PATIENT, key)


