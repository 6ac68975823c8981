"""The attributes the archive indexes: one table for columns, matching, answers and documentation.

Rules that hold here:

* A row is a fact of the standard: keyword, tag and VR as in PS3.6, level and key type as in
  PS3.4 C.6.1.1 and C.6.2.1 (required keys) or in use among workstations (optional keys).
* A tag may stand at two levels (Body Part Examined); ``resolve`` picks the one a query means.
* ``computed`` attributes are never read from a header: the index derives them.
* Columns are named after keywords; the index maps a header's tags to columns, nothing else does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum


class Level(IntEnum):
    """Query/Retrieve levels from top to bottom; ``name`` is the value of (0008,0052)."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    IMAGE = 3


class Key(Enum):
    """Key types of PS3.4 C.2.2.1."""

    UNIQUE = "U"
    REQUIRED = "R"
    OPTIONAL = "O"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute at one level; ``items`` are the attributes of a sequence's items.

    ``extra`` attributes are a site's own (see ``extra``): they have no column.
    """

    keyword: str
    tag: int
    vr: str
    level: Level
    key: Key
    column: str
    computed: bool = False
    indexed: bool = False
    multiple: bool = False
    items: tuple[Attribute, ...] = ()
    extra: bool = False


def column_name(keyword: str) -> str:
    """PatientID -> patient_id, SOPClassesInStudy -> sop_classes_in_study."""
    plain = keyword.replace("UIDs", "Uids").replace("IDs", "Ids")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", plain).lower()


# Flags: i = has an index for matching by value and by prefix, c = computed by the index, m = value multiplicity
# above one: any of its values may match (PS3.6 table 6-1).
Row = tuple[str, int, str, str] | tuple[str, int, str, str, str]

_CODE: tuple[Row, ...] = (  # PS3.3 table 8.8-1
    ("CodeValue", 0x00080100, "SH", "O"),
    ("CodingSchemeDesignator", 0x00080102, "SH", "O"),
    ("CodingSchemeVersion", 0x00080103, "SH", "O"),
    ("CodeMeaning", 0x00080104, "LO", "O"),
)

_REFERENCE: tuple[Row, ...] = (  # PS3.3 table 10-11
    ("ReferencedSOPClassUID", 0x00081150, "UI", "O"),
    ("ReferencedSOPInstanceUID", 0x00081155, "UI", "O"),
)

_ISSUER: tuple[Row, ...] = (  # PS3.3 table 10-17
    ("LocalNamespaceEntityID", 0x00400031, "UT", "O"),
    ("UniversalEntityID", 0x00400032, "UT", "O"),
    ("UniversalEntityIDType", 0x00400033, "CS", "O"),
)

_ITEMS: dict[str, tuple[Row, ...]] = {
    "OtherPatientIDsSequence": (
        ("PatientID", 0x00100020, "LO", "O"),
        ("IssuerOfPatientID", 0x00100021, "LO", "O"),
        ("TypeOfPatientID", 0x00100022, "CS", "O"),
    ),
    "ReferencedPatientSequence": _REFERENCE,
    "ReferencedStudySequence": _REFERENCE,
    "IssuerOfAccessionNumberSequence": _ISSUER,
    "ProcedureCodeSequence": _CODE,
    "ConceptNameCodeSequence": _CODE,
    "ScheduledProcedureStepSequence": (
        ("Modality", 0x00080060, "CS", "O"),
        ("RequestedContrastAgent", 0x00321070, "LO", "O"),
        ("ScheduledStationAETitle", 0x00400001, "AE", "O"),
        ("ScheduledProcedureStepStartDate", 0x00400002, "DA", "O"),
        ("ScheduledProcedureStepStartTime", 0x00400003, "TM", "O"),
        ("ScheduledPerformingPhysicianName", 0x00400006, "PN", "R"),
        ("ScheduledProcedureStepDescription", 0x00400007, "LO", "O"),
        ("ScheduledProcedureStepID", 0x00400009, "SH", "O"),
        ("ScheduledProcedureStepLocation", 0x00400011, "SH", "O"),
        ("PreMedication", 0x00400012, "LO", "O"),
    ),
    "RequestAttributesSequence": (  # PS3.4 table C.6-3, PS3.3 table 10-9
        ("AccessionNumber", 0x00080050, "SH", "O"),
        ("StudyInstanceUID", 0x0020000D, "UI", "O"),
        ("RequestedProcedureDescription", 0x00321060, "LO", "O"),
        ("ScheduledProcedureStepDescription", 0x00400007, "LO", "O"),
        ("ScheduledProcedureStepID", 0x00400009, "SH", "R"),
        ("RequestedProcedureID", 0x00401001, "SH", "R"),
        ("ReasonForTheRequestedProcedure", 0x00401002, "LO", "O"),
    ),
}

# PS3.4 tables C.6-1 and C.6-5.
_PATIENT: tuple[Row, ...] = (
    ("PatientName", 0x00100010, "PN", "R", "i"),
    ("PatientID", 0x00100020, "LO", "U", "i"),
    ("IssuerOfPatientID", 0x00100021, "LO", "O"),
    ("ReferencedPatientSequence", 0x00081120, "SQ", "O"),
    ("PatientBirthDate", 0x00100030, "DA", "O", "i"),
    ("PatientBirthTime", 0x00100032, "TM", "O"),
    ("PatientSex", 0x00100040, "CS", "O"),
    ("OtherPatientIDs", 0x00101000, "LO", "O", "m"),
    ("OtherPatientIDsSequence", 0x00101002, "SQ", "O"),
    ("OtherPatientNames", 0x00101001, "PN", "O", "m"),
    ("EthnicGroup", 0x00102160, "SH", "O"),
    ("PatientSpeciesDescription", 0x00102201, "LO", "O"),
    ("PatientBreedDescription", 0x00102292, "LO", "O"),
    ("ResponsiblePerson", 0x00102297, "PN", "O"),
    ("PatientComments", 0x00104000, "LT", "O"),
    ("NumberOfPatientRelatedStudies", 0x00201200, "IS", "O", "c"),
    ("NumberOfPatientRelatedSeries", 0x00201202, "IS", "O", "c"),
    ("NumberOfPatientRelatedInstances", 0x00201204, "IS", "O", "c"),
)

# PS3.4 tables C.6-2 and C.6-5.
_STUDY: tuple[Row, ...] = (
    ("StudyDate", 0x00080020, "DA", "R", "i"),
    ("StudyTime", 0x00080030, "TM", "R", "i"),
    ("AccessionNumber", 0x00080050, "SH", "R", "i"),
    ("IssuerOfAccessionNumberSequence", 0x00080051, "SQ", "O"),
    ("StudyID", 0x00200010, "SH", "R", "i"),
    ("StudyInstanceUID", 0x0020000D, "UI", "U", "i"),
    ("Modality", 0x00080060, "CS", "O", "cm"),
    ("ModalitiesInStudy", 0x00080061, "CS", "R", "cm"),
    ("SOPClassesInStudy", 0x00080062, "UI", "O", "cm"),
    ("InstitutionName", 0x00080080, "LO", "O"),
    ("ReferringPhysicianName", 0x00080090, "PN", "R", "i"),
    ("TimezoneOffsetFromUTC", 0x00080201, "SH", "O"),
    ("StudyDescription", 0x00081030, "LO", "O", "i"),
    ("ProcedureCodeSequence", 0x00081032, "SQ", "O"),
    ("PhysiciansOfRecord", 0x00081048, "PN", "O", "m"),
    ("NameOfPhysiciansReadingStudy", 0x00081060, "PN", "O", "m"),
    ("AdmittingDiagnosesDescription", 0x00081080, "LO", "O", "m"),
    ("ReferencedStudySequence", 0x00081110, "SQ", "O"),
    ("PatientAge", 0x00101010, "AS", "O"),
    ("PatientSize", 0x00101020, "DS", "O"),
    ("PatientWeight", 0x00101030, "DS", "O"),
    ("MedicalAlerts", 0x00102000, "LO", "O", "m"),
    ("Allergies", 0x00102110, "LO", "O", "m"),
    ("Occupation", 0x00102180, "SH", "O"),
    ("SmokingStatus", 0x001021A0, "CS", "O"),
    ("AdditionalPatientHistory", 0x001021B0, "LT", "O"),
    ("PregnancyStatus", 0x001021C0, "US", "O"),
    ("LastMenstrualDate", 0x001021D0, "DA", "O"),
    ("PatientSexNeutered", 0x00102203, "CS", "O"),
    ("BodyPartExamined", 0x00180015, "CS", "O"),
    ("NumberOfStudyRelatedSeries", 0x00201206, "IS", "O", "c"),
    ("NumberOfStudyRelatedInstances", 0x00201208, "IS", "O", "c"),
    ("StudyStatusID", 0x0032000A, "CS", "O"),
    ("RequestingPhysician", 0x00321032, "PN", "O"),
    ("RequestingService", 0x00321033, "LO", "O"),
    ("RequestedProcedureDescription", 0x00321060, "LO", "O"),
    ("StudyComments", 0x00324000, "LT", "O"),
    ("AdmissionID", 0x00380010, "LO", "O"),
    ("SpecialNeeds", 0x00380050, "LO", "O"),
    ("CurrentPatientLocation", 0x00380300, "LO", "O"),
    ("PatientState", 0x00380500, "LO", "O"),
    ("PatientTransportArrangements", 0x00401004, "LO", "O"),
    ("ConfidentialityConstraintOnPatientDataDescription", 0x00403001, "LO", "O"),
    ("ScheduledProcedureStepSequence", 0x00400100, "SQ", "O"),
)

# PS3.4 table C.6-3. Requested Procedure ID and Scheduled Procedure Step ID are also asked for outside
# their sequence (QIDO-RS): the index lifts them out of Request Attributes Sequence.
_SERIES: tuple[Row, ...] = (
    ("Modality", 0x00080060, "CS", "R", "i"),
    ("SeriesNumber", 0x00200011, "IS", "R"),
    ("SeriesInstanceUID", 0x0020000E, "UI", "U", "i"),
    ("SeriesDescription", 0x0008103E, "LO", "O", "i"),
    ("SeriesDate", 0x00080021, "DA", "O", "i"),
    ("SeriesTime", 0x00080031, "TM", "O"),
    ("Manufacturer", 0x00080070, "LO", "O"),
    ("StationName", 0x00081010, "SH", "O"),
    ("InstitutionalDepartmentName", 0x00081040, "LO", "O"),
    ("PerformingPhysicianName", 0x00081050, "PN", "O", "m"),
    ("OperatorsName", 0x00081070, "PN", "O", "m"),
    ("ManufacturerModelName", 0x00081090, "LO", "O"),
    ("BodyPartExamined", 0x00180015, "CS", "O"),
    ("DeviceSerialNumber", 0x00181000, "LO", "O"),
    ("ProtocolName", 0x00181030, "LO", "O"),
    ("PatientPosition", 0x00185100, "CS", "O"),
    ("ViewPosition", 0x00185101, "CS", "O"),
    ("FrameOfReferenceUID", 0x00200052, "UI", "O"),
    ("Laterality", 0x00200060, "CS", "O"),
    ("NumberOfSeriesRelatedInstances", 0x00201209, "IS", "O", "c"),
    ("PerformedProcedureStepStartDate", 0x00400244, "DA", "R", "i"),
    ("PerformedProcedureStepStartTime", 0x00400245, "TM", "R"),
    ("PerformedProcedureStepID", 0x00400253, "SH", "O"),
    ("PerformedProcedureStepDescription", 0x00400254, "LO", "O"),
    ("RequestAttributesSequence", 0x00400275, "SQ", "O"),
    ("RequestedProcedureID", 0x00401001, "SH", "O", "im"),
    ("ScheduledProcedureStepID", 0x00400009, "SH", "O", "im"),
)

# PS3.4 table C.6-4.
_IMAGE: tuple[Row, ...] = (
    ("InstanceNumber", 0x00200013, "IS", "R"),
    ("SOPInstanceUID", 0x00080018, "UI", "U", "i"),
    ("SOPClassUID", 0x00080016, "UI", "O"),
    ("AvailableTransferSyntaxUID", 0x00083002, "UI", "O", "c"),
    ("ImageType", 0x00080008, "CS", "O", "m"),
    ("AcquisitionDate", 0x00080022, "DA", "O"),
    ("AcquisitionTime", 0x00080032, "TM", "O"),
    ("AcquisitionDateTime", 0x0008002A, "DT", "O"),
    ("ContentDate", 0x00080023, "DA", "O"),
    ("ContentTime", 0x00080033, "TM", "O"),
    ("ContrastBolusAgent", 0x00180010, "LO", "O"),
    ("AcquisitionNumber", 0x00200012, "IS", "O"),
    ("PatientOrientation", 0x00200020, "CS", "O", "m"),
    ("ImageLaterality", 0x00200062, "CS", "O"),
    ("SliceLocation", 0x00201041, "DS", "O"),
    ("ImageComments", 0x00204000, "LT", "O"),
    ("SamplesPerPixel", 0x00280002, "US", "O"),
    ("PhotometricInterpretation", 0x00280004, "CS", "O"),
    ("NumberOfFrames", 0x00280008, "IS", "O"),
    ("Rows", 0x00280010, "US", "O"),
    ("Columns", 0x00280011, "US", "O"),
    ("BitsAllocated", 0x00280100, "US", "O"),
    ("BitsStored", 0x00280101, "US", "O"),
    ("PixelRepresentation", 0x00280103, "US", "O"),
    ("ImageLocation", 0x00280200, "US", "O"),
    ("ConceptNameCodeSequence", 0x0040A043, "SQ", "O"),
    ("CompletionFlag", 0x0040A491, "CS", "O"),
    ("VerificationFlag", 0x0040A493, "CS", "O"),
    ("DocumentTitle", 0x00420010, "ST", "O"),
    ("ContentLabel", 0x00700080, "CS", "O"),
    ("ContentDescription", 0x00700081, "LO", "O"),
    ("ContentCreatorName", 0x00700084, "PN", "O"),
)


def _attribute(row: Row, level: Level) -> Attribute:
    keyword, tag, vr, key, *flags = row
    flag = flags[0] if flags else ""
    items = tuple(_attribute(item, level) for item in _ITEMS[keyword]) if vr == "SQ" else ()
    computed, indexed, multiple = (letter in flag for letter in "cim")
    return Attribute(keyword, tag, vr, level, Key(key), column_name(keyword), computed, indexed, multiple, items)


def _table(level: Level, rows: Iterable[Row]) -> tuple[Attribute, ...]:
    return tuple(_attribute(row, level) for row in rows)


BY_LEVEL: dict[Level, tuple[Attribute, ...]] = {
    Level.PATIENT: _table(Level.PATIENT, _PATIENT),
    Level.STUDY: _table(Level.STUDY, _STUDY),
    Level.SERIES: _table(Level.SERIES, _SERIES),
    Level.IMAGE: _table(Level.IMAGE, _IMAGE),
}

ATTRIBUTES: tuple[Attribute, ...] = tuple(attribute for rows in BY_LEVEL.values() for attribute in rows)

BY_TAG: dict[int, tuple[Attribute, ...]] = {
    attribute.tag: tuple(other for other in ATTRIBUTES if other.tag == attribute.tag) for attribute in ATTRIBUTES
}

BY_KEYWORD: dict[str, tuple[Attribute, ...]] = {rows[0].keyword: rows for rows in BY_TAG.values()}

# The unique key of each level (PS3.4 C.2.2.1.1).
UNIQUE: dict[Level, Attribute] = {row.level: row for row in ATTRIBUTES if row.key is Key.UNIQUE}

# The tags a header is read for: all that is stored, at the top level of the data set.
HEADER_TAGS: frozenset[int] = frozenset(row.tag for row in ATTRIBUTES if not row.computed)

# What every answer may carry whatever its level (PS3.4 C.4.1.1.3.2, C.4.2.1.4).
QUERY_RETRIEVE_LEVEL = 0x00080052
RETRIEVE_AE_TITLE = 0x00080054
INSTANCE_AVAILABILITY = 0x00080056
SPECIFIC_CHARACTER_SET = 0x00080005
TIMEZONE_OFFSET = 0x00080201


def resolve(tag: int, level: Level, more: tuple[Attribute, ...] = ()) -> Attribute | None:
    """The attribute a key means in a query at ``level``: the lowest at or above it, else the highest below.

    ``more`` are rows of the same tag beyond the table.
    """
    rows = BY_TAG.get(tag, ())
    if more:
        rows = tuple(sorted((*rows, *more), key=lambda row: row.level))
    above = [row for row in rows if row.level <= level]
    return above[-1] if above else (rows[0] if rows else None)
