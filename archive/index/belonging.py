"""Where the index has the patient, study and series that an object names.

Rules that hold here: the lowest row that is known decides, as it does for whoever queries; values are those that
people see; nothing is changed.
"""

from __future__ import annotations

from archive.dicom.header import Header
from archive.index.database import Database, Row, Session

# Keywords and the columns they are read from, in the order of the SELECT below.
PERSON = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")
_PERSON = "p.patient_id, p.issuer, p.patient_name, p.patient_birth_date, p.patient_sex"
_STUDY = f"SELECT {_PERSON}, s.study_instance_uid FROM study s JOIN patient p ON p.id = s.patient"
_SERIES = (
    f"SELECT {_PERSON}, s.study_instance_uid, e.series_instance_uid FROM series e JOIN study s ON s.id = e.study"
    " JOIN patient p ON p.id = s.patient"
)
_STEPS = (
    (f"{_SERIES} JOIN instance i ON i.series = e.id WHERE i.sop_instance_uid = ?", "sop_instance_uid"),
    (f"{_SERIES} WHERE e.series_instance_uid = ?", "series_uid"),
    (f"{_STUDY} WHERE s.study_instance_uid = ?", "study_uid"),
)


def belonging(database: Database, header: Header) -> dict[str, str]:
    """Identifying values by keyword of what is above the lowest row that is known; of the patient alone if none is."""

    def look(session: Session) -> dict[str, str]:
        for sql, name in _STEPS:
            row = session.row(sql, (getattr(header, name),))
            if row:
                return _named(row, (*PERSON, "StudyInstanceUID", "SeriesInstanceUID"))
        values = header.values
        return _person(session, values.get(0x00100020, ""), values.get(0x00100021, ""))

    return database.read(look)


def patient(database: Database, patient_id: str, issuer: str) -> dict[str, str]:
    """Identifying values of a patient by keyword; nothing when there is none."""
    return database.read(lambda session: _person(session, patient_id, issuer))


def _person(session: Session, patient_id: str, issuer: str) -> dict[str, str]:
    row = session.row(f"SELECT {_PERSON} FROM patient p WHERE p.patient_id = ? AND p.issuer = ?", (patient_id, issuer))
    return _named(row, PERSON) if row else {}


def _named(row: Row, names: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in zip(names, row, strict=False) if value}
