"""What an instance says on its way out that its file does not: the corrections that lie over it.

Rules that hold here: what an operation says of an attribute is said in every object below; what was given to another
patient, study or series says all of that one's module, so that nothing of the wrong one is left; one state of the
index, never half an operation.
"""

from __future__ import annotations

from collections.abc import Mapping

from archive.dicom.attributes import BY_LEVEL, Level
from archive.index import rows
from archive.index.corrections import last
from archive.index.database import Database, Session
from archive.index.person import Person
from archive.index.rows import Columns
from archive.index.said import PATIENT, SERIES, STUDY, edits, effects, received
from archive.index.snapshots import owner_of

Laid = dict[str, str | None]  # keyword -> text, None takes the attribute away

# PS3.3 tables C.7-1, C.7-3 and C.7-5a: attributes of type 2, which are empty rather than missing.
TYPE_2 = frozenset(
    ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
     "ReferringPhysicianName", "StudyID", "SeriesNumber")
)  # fmt: skip

# PS3.3 tables C.2-3 and C.7-1: what names a patient beyond the attributes that have columns.
ONLY_OF_THE_PATIENT = (
    "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID", "PatientBirthName", "PatientMotherBirthName",
    "MilitaryRank", "BranchOfService", "MedicalRecordLocator", "InsurancePlanIdentification", "PatientAddress",
    "RegionOfResidence", "CountryOfResidence", "PatientTelephoneNumbers", "PatientTelecomInformation",
    "PatientReligiousPreference", "PatientPrimaryLanguageCodeSequence", "PatientInsurancePlanCodeSequence",
    "PatientBirthDateInAlternativeCalendar", "PatientDeathDateInAlternativeCalendar", "PatientAlternativeCalendar",
)  # fmt: skip

# PS3.3 table C.7-3 and the attributes of table C.7-4a that belong to the visit or order.
STUDY_MODULE = (
    "StudyDate", "StudyTime", "AccessionNumber", "IssuerOfAccessionNumberSequence", "StudyID", "StudyDescription",
    "ReferringPhysicianName", "ProcedureCodeSequence", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy",
    "ReferencedStudySequence", "RequestingPhysician", "RequestingService", "RequestedProcedureDescription",
    "AdmissionID", "AdmittingDiagnosesDescription",
)  # fmt: skip

# PS3.3 table C.7-5a, as far as it names the series and not how its images were made.
SERIES_MODULE = ("SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime", "ProtocolName")


def laid_over(database: Database, instance: int) -> Laid | None:
    """What differs from the file of an instance, by its id; None when it is not there any more."""
    while True:
        before, found, after = database.read(lambda session: (last(session), _laid(session, instance), last(session)))
        if before == after:
            return found


def _laid(session: Session, key: int) -> Laid | None:
    image = rows.by_id(session, Level.IMAGE, key)
    series = image and rows.by_id(session, Level.SERIES, image["series"])
    study = series and rows.by_id(session, Level.STUDY, series["study"])
    patient = study and rows.by_id(session, Level.PATIENT, study["patient"])
    if not (image and series and study and patient):
        return None
    origin = received(session, Level.IMAGE, image["sop_instance_uid"]).get(SERIES)
    found = _of_series(session, series, bool(origin))
    origin = origin or received(session, Level.SERIES, series["series_instance_uid"]).get(STUDY)
    came = _came_as(origin)
    elsewhere = came[0] not in ("", study["study_instance_uid"])
    found |= _of_study(session, study, elsewhere)
    given = elsewhere and came[1] != owner_of(Level.PATIENT, patient)
    return found | _of_patient(session, study, patient, given)


def _came_as(origin: Mapping[str, object] | None) -> tuple[str, str]:
    """Study and patient that an object names which was moved out of them."""
    snapshots = origin["snapshots"] if origin else {}
    assert isinstance(snapshots, dict)
    prefix = f"{int(Level.STUDY)} "
    found = ((key.removeprefix(prefix), said["above"]) for key, said in snapshots.items() if key.startswith(prefix))
    return next(found, ("", ""))


def _of_series(session: Session, row: Columns, moved: bool) -> Laid:
    found = _module(Level.SERIES, row, SERIES_MODULE) if moved else {}
    if moved:
        found["SeriesInstanceUID"] = row["series_instance_uid"]
    return found | _edited(session, Level.SERIES, row["series_instance_uid"])


def _of_study(session: Session, row: Columns, elsewhere: bool) -> Laid:
    found = _module(Level.STUDY, row, STUDY_MODULE) if elsewhere else {}
    if elsewhere:
        found["StudyInstanceUID"] = row["study_instance_uid"]
    return found | _edited(session, Level.STUDY, row["study_instance_uid"])


def _of_patient(session: Session, study: Columns, row: Columns, given: bool) -> Laid:
    names = tuple(attribute.keyword for attribute in BY_LEVEL[Level.PATIENT] if not attribute.computed)
    found: Laid = {}
    if given or PATIENT in effects(session, Level.STUDY, study["study_instance_uid"]):
        found = _module(Level.PATIENT, row, names) | dict.fromkeys(ONLY_OF_THE_PATIENT)
    elif study["said_patient"] is not None:  # merged: the same person, of whom these objects may know more
        own = rows.values_of(Level.PATIENT, row)
        found = {name: own[name] for name in names if own.get(name) and not name.endswith("Sequence")}
        found |= {"IssuerOfPatientID": row["issuer"] or None, "IssuerOfPatientIDQualifiersSequence": None}
    owner = Person(row["patient_id"], row["issuer"]).owner if row["patient_id"] else ""
    return found | _edited(session, Level.PATIENT, owner)


def _module(level: Level, row: Columns, names: tuple[str, ...]) -> Laid:
    """All of a module as a row has it; sequences of the wrong one are taken away."""
    own = rows.values_of(level, row)
    return {name: None if name.endswith("Sequence") else own.get(name) or _nothing(name) for name in names}


def _nothing(keyword: str) -> str | None:
    return "" if keyword in TYPE_2 else None


def _edited(session: Session, level: Level, owner: str) -> Laid:
    found = effects(session, level, owner)
    values = {name: found[name].value for name in edits(found)}
    return {name: _nothing(name) if value is None else value for name, value in values.items()}
