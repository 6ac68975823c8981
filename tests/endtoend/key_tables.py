"""The keys that two conformance statements promise, table by table: what the archive must match and return.

A row is keyword, tag as printed, and the values of the two entities that the test tells apart; no values: the key is
computed and only returned. `ITEM` rows are keys within the items of a sequence.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    table: str
    level: str
    keyword: str
    tag: str
    first: str = ""
    second: str = ""
    sequence: str = ""  # tag of the sequence in whose item the key is


def rows(table: str, level: str, *keys: tuple[str, ...]) -> list[Row]:
    return [Row(table, level, *key) for key in keys]


# -- an archive's statement: "Keys Supported for Patient Root / Patient and Study Information Model" --

TABLE_4 = rows(
    "4", "PATIENT",
    ("PatientName", "00100010", "Ångström^Alma", "Bohr^Niels"),
    ("PatientID", "00100020", "ID-1", "JD-2"),
    ("PatientBirthDate", "00100030", "19600229", "19850817"),
    ("PatientBirthTime", "00100032", "061500", "233000"),
    ("PatientSex", "00100040", "F", "M"),
)  # fmt: skip

TABLE_5 = rows(
    "5", "STUDY",
    ("StudyDate", "00080020", "20240105", "20250607"),
    ("StudyTime", "00080030", "081530", "170000.25"),
    ("AccessionNumber", "00080050", "ACC-1", "BCC-2"),  # printed as 0080,0050
    ("InstitutionName", "00080080", "St. Elsewhere", "General"),
    ("Modality", "00080060", "CT", "US"),
    ("ModalitiesInStudy", "00080061", "CT", "US"),
    ("ReferringPhysicianName", "00080090", "House^Gregory", "Quinn^Mike"),
    ("StudyDescription", "00081030", "CT thorax 100% [a_b]", "Sono abdomen"),
    ("PatientAge", "00101010", "063Y", "039Y"),
    ("PatientWeight", "00101030", "61.5", "80"),
    ("PatientSize", "00101020", "1.68", "1.9"),
    ("MedicalAlerts", "00102000", "Pacemaker", "Diabetes"),
    ("Allergies", "00102110", "Iodine", "Latex"),
    ("PregnancyStatus", "001021C0", "4", "1"),
    ("BodyPartExamined", "00180015", "CHEST", "ABDOMEN"),
    ("StudyID", "00200010", "S1", "T2"),
    ("StudyInstanceUID", "0020000D", "1.2.826.0.1.3680043.8.498.9.1", "1.2.826.0.1.3680043.8.498.9.2"),
    ("NumberOfStudyRelatedSeries", "00201206"),
    ("NumberOfStudyRelatedInstances", "00201208"),
    ("StudyStatusID", "0032000A", "READ", "VERIFIED"),
    ("SpecialNeeds", "00380050", "Wheelchair", "Interpreter"),
    ("PatientState", "00380500", "Sedated", "Awake"),
    ("PatientTransportArrangements", "00401004", "Ambulance", "On foot"),
    ("ConfidentialityConstraintOnPatientDataDescription", "00403001", "VIP", "None"),
    ("RequestedContrastAgent", "00321070", "Iohexol", "Gadobutrol", "00400100"),
    ("ScheduledPerformingPhysicianName", "00400006", "Curie^Marie", "Koch^Robert", "00400100"),
    ("ScheduledProcedureStepDescription", "00400007", "Thorax low dose", "Liver", "00400100"),
    ("ScheduledProcedureStepID", "00400009", "SPS1", "TPS2", "00400100"),
    ("ScheduledProcedureStepLocation", "00400011", "Room 1", "Ward 2", "00400100"),
    ("PreMedication", "00400012", "Midazolam", "Buscopan", "00400100"),
)  # fmt: skip

TABLE_6 = rows(
    "6", "SERIES",
    ("Modality", "00080060", "CT", "PR"),
    ("SeriesNumber", "00200011", "1", "22"),
    ("SeriesInstanceUID", "0020000E", "1.2.826.0.1.3680043.8.498.9.1.1", "1.2.826.0.1.3680043.8.498.9.1.2"),
    ("SeriesDescription", "0008103E", "Lung window", "Marks"),
    ("NumberOfSeriesRelatedInstances", "00201209"),
    ("ViewPosition", "00185101", "AP", "LL"),
    ("BodyPartExamined", "00180015", "CHEST", "LUNG"),
)  # fmt: skip

TABLE_7 = rows(
    "7", "IMAGE",
    ("InstanceNumber", "00200013", "1", "2"),
    ("SOPInstanceUID", "00080018", "1.2.826.0.1.3680043.8.498.9.1.1.1", "1.2.826.0.1.3680043.8.498.9.1.1.2"),
    ("SOPClassUID", "00080016", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"),
    ("SamplesPerPixel", "00280002", "1", "3"),
    ("Rows", "00280010", "512", "64"),
    ("Columns", "00280011", "256", "32"),
    ("BitsAllocated", "00280100", "16", "8"),
    ("BitsStored", "00280101", "12", "8"),
    ("ImageLocation", "00280200", "40", "41"),  # retired; printed as 0028,0020
    ("PatientOrientation", "00200020", "L\\P", "A\\F"),
    ("PhotometricInterpretation", "00280004", "MONOCHROME2", "RGB"),
    ("PixelRepresentation", "00280103", "1", "0"),
)  # fmt: skip

# -- a cloud store's statement: "Supported Matching and Return keys for Study / Series / Instance Level" --

_OF_STUDY = {row.keyword: row for row in [*TABLE_4, *TABLE_5]}
_OF_SERIES = {row.keyword: row for row in TABLE_6}
_OF_IMAGE = {row.keyword: row for row in TABLE_7}

TABLE_9 = [
    _OF_STUDY[keyword]._replace(table="9", level="STUDY")
    for keyword in (
        "StudyDate", "StudyTime", "AccessionNumber", "PatientName", "PatientID", "StudyID", "StudyInstanceUID",
        "ModalitiesInStudy", "PatientBirthDate", "PatientSex", "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    )
]  # fmt: skip

TABLE_10 = [
    *(
        _OF_SERIES[keyword]._replace(table="10")
        for keyword in (
            "Modality", "SeriesNumber", "SeriesInstanceUID", "NumberOfSeriesRelatedInstances", "SeriesDescription",
        )
    ),
    Row("10", "SERIES", "RequestedProcedureID", "00401001", "RP1", "SP2"),
    Row("10", "SERIES", "RequestedProcedureID", "00401001", "RP1", "SP2", sequence="00400275"),
    Row("10", "SERIES", "ScheduledProcedureStepID", "00400009", "SPS1", "TPS2", sequence="00400275"),
]  # fmt: skip

TABLE_11 = [_OF_IMAGE[keyword]._replace(table="11") for keyword in ("SOPClassUID", "SOPInstanceUID", "InstanceNumber")]

ALL = [*TABLE_4, *TABLE_5, *TABLE_6, *TABLE_7, *TABLE_9, *TABLE_10, *TABLE_11]
