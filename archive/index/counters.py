"""The numbers and lists that rows keep of what is below them: compared with what is there, and set right.

Rules that hold here: a comparison is one statement, so that it sees one moment of a busy index; a page of rows at a
time, so that arrivals do not wait; what a study says is set right in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass

from archive.index.database import Database, Session

PAGE = 100  # studies, of some hundred instances each

_BELOW = "FROM series e JOIN instance i ON i.series = e.id WHERE e.study = s.id"
_STUDIES = f"""
    SELECT s.id, s.study_instance_uid,
        s.number_of_series, (SELECT COUNT(*) FROM series e WHERE e.study = s.id),
        s.number_of_instances, (SELECT COUNT(*) {_BELOW}),
        s.total_size, CAST((SELECT COALESCE(SUM(i.data_size), 0) {_BELOW}) AS BIGINT),
        s.modalities_in_study,
        (SELECT {{aggregate}}(m, '\\') FROM
            (SELECT DISTINCT e.modality AS m FROM series e WHERE e.study = s.id AND e.modality <> '') AS modalities),
        s.sop_classes_in_study,
        (SELECT {{aggregate}}(c, '\\') FROM (SELECT DISTINCT i.sop_class_uid AS c {_BELOW}) AS classes),
        0, (SELECT COUNT(*) FROM series e WHERE e.study = s.id AND e.number_of_instances <>
            (SELECT COUNT(*) FROM instance i WHERE i.series = e.id))
    FROM study s WHERE {{where}} ORDER BY s.id LIMIT ?
"""
_NAMES = (
    "number of series", "number of instances", "total size", "modalities", "SOP classes",
    "number of instances of its series",
)  # fmt: skip
_PATIENTS = (
    "SELECT p.id, p.number_of_studies, (SELECT COUNT(*) FROM study s WHERE s.patient = p.id) FROM patient p"
    " WHERE p.id > ? ORDER BY p.id LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class Miscount:
    """A row whose numbers are not those of what is below it; ``study_uid`` is empty for a patient."""

    id: int
    study_uid: str
    what: tuple[str, ...]


def wrong_studies(database: Database, after: int, study_uid: str = "") -> tuple[list[Miscount], int | None]:
    """What is wrong with the next studies, and the id to go on after; None at the end."""
    where, key = ("s.study_instance_uid = ? AND s.id > ?", (study_uid, after)) if study_uid else ("s.id > ?", (after,))
    sql = _STUDIES.format(aggregate=database.dialect.aggregate, where=where)
    rows = database.read(lambda session: session.rows(sql, (*key, PAGE)))
    found = []
    for row in rows:
        pairs = zip(row[2::2], row[3::2], strict=True)
        what = tuple(name for name, pair in zip(_NAMES, pairs, strict=True) if _plain(pair[0]) != _plain(pair[1]))
        if what:
            found.append(Miscount(int(row[0]), str(row[1]), what))
    return found, int(rows[-1][0]) if len(rows) == PAGE else None


def _plain(value: object) -> object:
    """Numbers as they are; lists in any order."""
    return sorted(filter(None, value.split("\\"))) if isinstance(value, str) else value or []


def wrong_patients(database: Database, after: int) -> tuple[list[Miscount], int | None]:
    rows = database.read(lambda session: session.rows(_PATIENTS, (after, 10 * PAGE)))
    found = [Miscount(int(row[0]), "", ("number of studies",)) for row in rows if row[1] != row[2]]
    return found, int(rows[-1][0]) if len(rows) == 10 * PAGE else None


def recount(database: Database, wrong: Miscount) -> None:
    """Set right what a row says of what is below it."""
    database.transact(lambda session: _study(session, wrong.id) if wrong.study_uid else _patient(session, wrong.id))


def _patient(session: Session, key: int) -> None:
    count = "(SELECT COUNT(*) FROM study s WHERE s.patient = patient.id)"
    session.run(f"UPDATE patient SET number_of_studies = {count} WHERE id = ?", (key,))


def _study(session: Session, key: int) -> None:
    instances = "FROM series e JOIN instance i ON i.series = e.id WHERE e.study = ?"
    session.run(
        "UPDATE series SET number_of_instances = (SELECT COUNT(*) FROM instance i WHERE i.series = series.id)"
        " WHERE study = ?",
        (key,),
    )
    session.run(
        "UPDATE study SET number_of_series = (SELECT COUNT(*) FROM series e WHERE e.study = ?),"
        f" number_of_instances = (SELECT COUNT(*) {instances}),"
        f" total_size = (SELECT COALESCE(SUM(i.data_size), 0) {instances}) WHERE id = ?",
        (key, key, key, key),
    )
    modalities = [
        row[0] for row in session.rows("SELECT DISTINCT modality FROM series WHERE study = ?", (key,)) if row[0]
    ]
    classes = [row[0] for row in session.rows(f"SELECT DISTINCT i.sop_class_uid {instances}", (key,))]
    row = session.row(
        "UPDATE study SET modalities_in_study = ?, sop_classes_in_study = ? WHERE id = ? RETURNING study_date",
        ("\\".join(sorted(modalities)), "\\".join(sorted(classes)), key),
    )
    session.run("DELETE FROM study_modality WHERE study = ?", (key,))
    for modality in modalities if row else ():
        session.run(
            "INSERT INTO study_modality (modality, study_date, study) VALUES (?, ?, ?)",
            (modality, (row and row[0]) or "", key),
        )
