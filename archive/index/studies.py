"""What an administrator sees: how much there is, what came last, and in which state it is."""

from __future__ import annotations

import peewee

from archive.index.database import Database, Row
from archive.index.models import Patient, Study
from archive.index.values import Statistics, StudySummary


def statistics(database: Database) -> Statistics:
    sums = [peewee.fn.COALESCE(peewee.fn.SUM(column), 0) for column in (
        Study.number_of_series, Study.number_of_instances, Study.total_size
    )]  # fmt: skip
    patients = Patient.select(peewee.fn.COUNT(Patient.id))
    merged = Patient.select(peewee.fn.COUNT(Patient.id)).where(Patient.corrected == 1, Patient.number_of_studies == 0)
    query = Study.select(patients, merged, peewee.fn.COUNT(Study.id), *sums)
    all_patients, without, *rest = (int(number) for number in database.read(lambda session: session.query(query))[0])
    return Statistics(all_patients - without, *rest)


# A study is what its images make of it before anybody has looked: something came for it, or it was here before.
STATE = peewee.Case(
    None,
    (
        ((Study.state == "") & (Study.arrivals > 0), "received"),
        (Study.state == "", "ready"),
        ((Study.arrivals > 0) & (Study.state != "received"), "updated"),
    ),
    Study.state,
)


def latest(database: Database, *, limit: int, before: int | None, state: str = "", uid: str = "") -> list[StudySummary]:
    query = (
        Study.select(
            Study.id, Study.study_instance_uid, Patient.patient_id, Patient.patient_name, Study.study_date,
            Study.accession_number, Study.study_description, Study.modalities_in_study, Study.number_of_series,
            Study.number_of_instances, Study.created, Study.updated, STATE,
        )
        .join(Patient)
        .order_by(Study.id.desc())
        .limit(limit)
    )  # fmt: skip
    if before is not None:
        query = query.where(Study.id < before)
    if state:
        query = query.where(state == STATE)
    if uid:
        query = query.where(Study.study_instance_uid == uid)
    return [_summary(row) for row in database.read(lambda session: session.query(query))]


def _summary(row: Row) -> StudySummary:
    key, uid, *texts = row[:8]
    patient_id, name, date, accession, description, modalities = (text or "" for text in texts[:6])
    names = tuple(filter(None, modalities.split("\\")))
    return StudySummary(key, uid, patient_id, name, date, accession, description, names, *row[8:])
