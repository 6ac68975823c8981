"""Attributes that the index derives: where they are kept, and where their values come from.

Rules that hold here: what is kept counts everything; whoever may not see everything gets counts and lists made from
the rows below.
"""

from __future__ import annotations

from archive.dicom.attributes import Attribute, Level

MODALITIES = frozenset({"Modality", "ModalitiesInStudy"})
LISTS = MODALITIES | {"SOPClassesInStudy"}
TRANSFER_SYNTAX = "AvailableTransferSyntaxUID"

_COUNTED = {"Studies": Level.STUDY, "Series": Level.SERIES, "Instances": Level.IMAGE}

_KEPT = {
    "NumberOfPatientRelatedStudies": "{alias}.number_of_studies",
    "NumberOfPatientRelatedSeries": "(SELECT SUM(number_of_series) FROM study WHERE patient = {alias}.id)",
    "NumberOfPatientRelatedInstances": "(SELECT SUM(number_of_instances) FROM study WHERE patient = {alias}.id)",
    "NumberOfStudyRelatedSeries": "{alias}.number_of_series",
    "NumberOfStudyRelatedInstances": "{alias}.number_of_instances",
    "NumberOfSeriesRelatedInstances": "{alias}.number_of_instances",
    "Modality": "{alias}.modalities_in_study",
    "ModalitiesInStudy": "{alias}.modalities_in_study",
    "SOPClassesInStudy": "{alias}.sop_classes_in_study",
    TRANSFER_SYNTAX: "{alias}.transfer_syntax",
}


def is_list(attribute: Attribute) -> bool:
    """A list of a study, such as Modalities in Study; a series' own Modality is none."""
    return attribute.computed and attribute.keyword in LISTS


def kept(attribute: Attribute, alias: str) -> str:
    """What is kept of a computed attribute, on the row of its level that ``alias`` stands for."""
    return _KEPT[attribute.keyword].format(alias=alias)


def counted(attribute: Attribute) -> Level:
    """The level whose rows a count counts: NumberOfStudyRelatedInstances counts images."""
    return _COUNTED[attribute.keyword.rpartition("Related")[2]]


def listed(attribute: Attribute) -> tuple[Level, str]:
    """The level and the column in which the values of a list stand one by one."""
    return (Level.SERIES, "modality") if attribute.keyword in MODALITIES else (Level.IMAGE, "sop_class_uid")
