"""The attribute table against the dictionary, the key tables of the standard, and what field systems offer."""

from __future__ import annotations

import pytest
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from archive.dicom.attributes import (
    ATTRIBUTES,
    BY_KEYWORD,
    BY_LEVEL,
    HEADER_TAGS,
    UNIQUE,
    Attribute,
    Key,
    Level,
    column_name,
    resolve,
)

ALL = [*ATTRIBUTES, *(item for attribute in ATTRIBUTES for item in attribute.items)]


@pytest.mark.parametrize("attribute", ALL, ids=lambda a: a.keyword)
def test_keyword_tag_and_vr_are_those_of_the_dictionary(attribute: Attribute) -> None:
    assert tag_for_keyword(attribute.keyword) == attribute.tag
    assert dictionary_VR(attribute.tag) == attribute.vr


def test_attributes_with_many_values_are_marked() -> None:
    unmarked = [a.keyword for a in ATTRIBUTES if dictionary_VM(a.tag) != "1" and not a.multiple and a.vr != "SQ"]
    # An instance is stored in one transfer syntax.
    assert unmarked == ["AvailableTransferSyntaxUID"]


def test_columns_are_unique_within_a_level() -> None:
    for rows in BY_LEVEL.values():
        names = [row.column for row in rows]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("keyword", "column"),
    [
        ("PatientID", "patient_id"), ("StudyInstanceUID", "study_instance_uid"),
        ("OtherPatientIDs", "other_patient_ids"),
        ("SOPClassesInStudy", "sop_classes_in_study"), ("IssuerOfPatientID", "issuer_of_patient_id"),
        ("TimezoneOffsetFromUTC", "timezone_offset_from_utc"),
    ],
)  # fmt: skip
def test_columns_are_named_after_keywords(keyword: str, column: str) -> None:
    assert column_name(keyword) == column


def test_every_level_has_one_unique_key() -> None:
    assert [UNIQUE[level].keyword for level in Level] == [
        "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID",
    ]  # fmt: skip


# PS3.4 tables C.6-1 to C.6-5: the keys that have to be supported.
REQUIRED = {
    Level.PATIENT: "PatientName PatientID",
    Level.STUDY: "StudyDate StudyTime AccessionNumber StudyID StudyInstanceUID",
    Level.SERIES: "Modality SeriesNumber SeriesInstanceUID",
    Level.IMAGE: "InstanceNumber SOPInstanceUID",
}

# What two archives in the field document at each level.
OFFERED = {
    Level.PATIENT: "PatientName PatientID PatientBirthDate PatientBirthTime PatientSex",
    Level.STUDY: """StudyDate StudyTime AccessionNumber InstitutionName Modality ModalitiesInStudy
        ReferringPhysicianName StudyDescription PatientAge PatientWeight PatientSize MedicalAlerts Allergies
        PregnancyStatus BodyPartExamined StudyID StudyInstanceUID NumberOfStudyRelatedSeries
        NumberOfStudyRelatedInstances StudyStatusID SpecialNeeds PatientState PatientTransportArrangements
        ConfidentialityConstraintOnPatientDataDescription ScheduledProcedureStepSequence""",
    Level.SERIES: """Modality SeriesNumber SeriesInstanceUID SeriesDescription NumberOfSeriesRelatedInstances
        ViewPosition BodyPartExamined RequestAttributesSequence RequestedProcedureID ScheduledProcedureStepID
        PerformedProcedureStepStartDate PerformedProcedureStepStartTime""",
    Level.IMAGE: """InstanceNumber SOPInstanceUID SOPClassUID SamplesPerPixel Rows Columns BitsAllocated BitsStored
        ImageLocation PatientOrientation PhotometricInterpretation PixelRepresentation""",
}

# Items of Scheduled Procedure Step Sequence that are offered as keys.
STEP = """RequestedContrastAgent ScheduledPerformingPhysicianName ScheduledProcedureStepDescription
    ScheduledProcedureStepID ScheduledProcedureStepLocation PreMedication"""


def test_required_and_offered_keys_are_there() -> None:
    for level in Level:
        keys = {row.keyword: row for row in BY_LEVEL[level]}
        assert set(OFFERED[level].split()) <= set(keys)
        assert all(keys[keyword].key is not Key.OPTIONAL for keyword in REQUIRED[level].split())
    (steps,) = BY_KEYWORD["ScheduledProcedureStepSequence"]
    assert set(STEP.split()) <= {item.keyword for item in steps.items}


def test_headers_are_read_for_what_is_stored_and_not_for_what_is_computed() -> None:
    assert {0x00100010, 0x0020000D, 0x00080060, 0x00400275} <= HEADER_TAGS
    assert not {0x00080061, 0x00201206, 0x00201208, 0x00201209} & HEADER_TAGS


def test_a_tag_means_the_nearest_level() -> None:
    def level(tag: int, at: Level) -> Level | None:
        found = resolve(tag, at)
        return found.level if found else None

    body_part = 0x00180015
    assert level(body_part, Level.STUDY) is Level.STUDY
    assert level(body_part, Level.IMAGE) is Level.SERIES
    assert level(body_part, Level.PATIENT) is Level.STUDY
    assert level(0x00100010, Level.IMAGE) is Level.PATIENT
    assert level(0x00091001, Level.STUDY) is None
