"""Directory records: which kind an object is of, and what it is made of (PS3.3 F.4 and F.5).

Rules that hold here: the values of a record are the object's own; a value that a record must have and the object lacks
is taken from the next best attribute, or is the plain word of the table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from pydicom.dataset import Dataset

_STORAGE = "1.2.840.10008.5.1.4.1.1."

# PS3.3 table F.4-1 by what follows the root of storage classes; the longest that fits, all others are IMAGE.
_TYPES: Mapping[str, str] = {
    "4.2": "SPECTROSCOPY", "9": "WAVEFORM", "11": "PRESENTATION", "66": "RAW DATA", "66.1": "REGISTRATION",
    "66.2": "FIDUCIAL", "66.3": "REGISTRATION", "66.4": "IMAGE", "66.5": "SURFACE", "66.6": "TRACT", "66.7": "IMAGE",
    "67": "VALUE MAP", "68.1": "SURFACE SCAN", "68.2": "SURFACE SCAN", "77.1.5.3": "STEREOMETRIC",
    "78": "MEASUREMENT", "79.1": "MEASUREMENT", "80.1": "MEASUREMENT", "88": "SR DOCUMENT", "88.59": "KEY OBJECT DOC",
    "90.1": "ASSESSMENT", "104": "ENCAP DOC", "131": "PRESENTATION", "481.2": "RT DOSE", "481.3": "RT STRUCTURE SET",
    "481.4": "RT TREAT RECORD", "481.5": "RT PLAN", "481.6": "RT TREAT RECORD", "481.7": "RT TREAT RECORD",
    "481.8": "RT PLAN", "481.9": "RT TREAT RECORD",
}  # fmt: skip

# What stands for a missing type 1 value: other attributes in their order, then a word.
_DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "PatientID": ("NONE",),
    "StudyDate": ("SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate", "19000101"),
    "StudyTime": ("SeriesTime", "AcquisitionTime", "ContentTime", "InstanceCreationTime", "000000"),
    "StudyID": ("AccessionNumber", "0"),
    "Modality": ("OT",),
    "SeriesNumber": ("0",),
    "InstanceNumber": ("0",),
    "ContentDate": ("InstanceCreationDate", "SeriesDate", "StudyDate"),
    "ContentTime": ("InstanceCreationTime", "SeriesTime", "StudyTime"),
    "InstanceCreationDate": ("ContentDate",),
    "PresentationCreationDate": ("ContentDate",),
    "PresentationCreationTime": ("ContentTime",),
    "ContentLabel": ("NONE",),
    "CompletionFlag": ("PARTIAL",),
    "VerificationFlag": ("UNVERIFIED",),
    "DoseSummationType": ("PLAN",),
    "StructureSetLabel": ("NONE",),
    "RTPlanLabel": ("NONE",),
    "MIMETypeOfEncapsulatedDocument": ("application/octet-stream",),
    "ImageType": ("ORIGINAL",),
    "NumberOfFrames": ("1",), "Rows": ("1",), "Columns": ("1",), "DataPointRows": ("1",), "DataPointColumns": ("1",),
}  # fmt: skip

# Everything that records are made of, PS3.3 F.5.
KEYWORDS = frozenset(
    {
        *_DEFAULTS, "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
        "PatientName", "StudyDescription", "AccessionNumber", "SeriesDate", "SeriesTime", "AcquisitionDate",
        "AcquisitionTime", "InstanceCreationTime", "StructureSetDate", "StructureSetTime", "RTPlanDate", "RTPlanTime",
        "TreatmentDate", "TreatmentTime", "ContentDescription", "ContentCreatorName", "ReferencedSeriesSequence",
        "BlendingSequence", "VerificationDateTime", "ConceptNameCodeSequence", "ContentSequence", "DocumentTitle",
        "ReferencedImageEvidenceSequence", "HL7InstanceIdentifier", "UserContentLabel", "UserContentLongLabel",
    }
)  # fmt: skip
_ONLY_WITH_VALUE = (
    "ReferencedSeriesSequence", "BlendingSequence", "VerificationDateTime", "HL7InstanceIdentifier",
    "ReferencedImageEvidenceSequence", "UserContentLabel", "UserContentLongLabel",
)  # fmt: skip


def record_type(sop_class_uid: str) -> str:
    """The kind of the record for an object of this class."""
    parts = sop_class_uid.removeprefix(_STORAGE).split(".") if sop_class_uid.startswith(_STORAGE) else []
    found = (_TYPES.get(".".join(parts[:count])) for count in range(len(parts), 0, -1))
    return next(filter(None, found), "IMAGE")


def with_defaults(header: Dataset) -> Dataset:
    """A copy that has all that records need."""
    known = Dataset()
    for tag in header.keys():  # noqa: SIM118  a data set's iterator would decode them all
        with contextlib.suppress(Exception):  # a value that is none is a missing one
            if header[tag].keyword in KEYWORDS and header[tag].VM:
                known.add(header[tag])
    for keyword, instead in _DEFAULTS.items():
        if keyword not in known:
            setattr(known, keyword, _instead(known, instead))
    for keyword in _ONLY_WITH_VALUE:
        if keyword in known and not known[keyword].value:
            delattr(known, keyword)
    if "ConceptNameCodeSequence" not in known:
        known.ConceptNameCodeSequence = [_nothing()]
    _keep_modifiers(known)
    return known


def _instead(known: Dataset, names: tuple[str, ...]) -> object:
    for name in names[:-1]:
        if name in known:
            return known[name].value
    return known[names[-1]].value if names[-1] in known else names[-1]


def _keep_modifiers(known: Dataset) -> None:
    """Of a report's content only what modifies its title stands in its record (PS3.3 F.5.25)."""
    if "ContentSequence" not in known:
        return
    kept = [item for item in known.ContentSequence if item.get("RelationshipType") == "HAS CONCEPT MOD"]
    if kept:
        known.ContentSequence = kept
    else:
        del known.ContentSequence


def _nothing() -> Dataset:
    """The title of a report that has none."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "18748-4", "LN", "Diagnostic imaging report"
    return code
