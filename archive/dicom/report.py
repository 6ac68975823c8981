"""Reports as objects: text as Basic Text SR, a document as Encapsulated PDF (PS3.3 A.35.1, A.45.1).

Rules that hold here: the same report gives the same bytes, so that storing it again changes nothing; text is UTF-8;
who is reported about is said with the study's own attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset

from archive.dicom.uids import named_uid

TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
SERIES_NUMBER = "9990"

# What a report repeats of its study (PS3.3 C.7.1.1, C.7.2.1).
_REPEATED = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyDescription",
)  # fmt: skip
_TITLE = ("18748-4", "LN", "Diagnostic imaging report")
_FINDINGS = ("121070", "DCM", "Findings")
LONGEST_TEXT = 4_000_000_000  # VR UT


@dataclass(frozen=True, slots=True)
class Report:
    """One report as it was received: ``text`` or ``pdf``.

    ``key`` tells it from every other, ``when`` is YYYYMMDDHHMMSS.
    """

    key: str
    title: str
    when: str
    text: str = ""
    pdf: bytes = b""
    final: bool = True
    observer: str = ""

    @property
    def sop_class_uid(self) -> str:
        return ENCAPSULATED_PDF if self.pdf else TEXT_SR

    @property
    def sop_instance_uid(self) -> str:
        """A UID below 2.25 (PS3.5 B.2) made of the key."""
        return named_uid(self.key)


def encoded(report: Report, study: Mapping[str, str]) -> bytes:
    """The data set in Explicit VR Little Endian; ``study`` are attributes by keyword."""
    found = _about(report, study)
    _add_pdf(found, report) if report.pdf else _add_text(found, report)
    file = BytesIO()
    target = DicomIO(file)
    target.is_little_endian, target.is_implicit_VR = True, False
    write_dataset(target, found)
    return file.getvalue()


def _about(report: Report, study: Mapping[str, str]) -> Dataset:
    found = Dataset()
    found.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _REPEATED:
        setattr(found, keyword, study.get(keyword, ""))
    found.SOPClassUID, found.SOPInstanceUID = report.sop_class_uid, report.sop_instance_uid
    series = f"reports {study['StudyInstanceUID']} {report.sop_class_uid}"
    found.SeriesInstanceUID = named_uid(series)
    found.Modality = "DOC" if report.pdf else "SR"
    found.SeriesNumber, found.InstanceNumber = SERIES_NUMBER, "1"
    found.SeriesDescription, found.Manufacturer = "Reports", ""
    found.ContentDate, found.ContentTime = report.when[:8], report.when[8:14]
    found.InstanceCreationDate, found.InstanceCreationTime = found.ContentDate, found.ContentTime
    return found


def _add_text(found: Dataset, report: Report) -> None:
    """SR Document General and Content (PS3.3 C.17.2, C.17.3)."""
    found.CompletionFlag = "COMPLETE" if report.final else "PARTIAL"
    found.VerificationFlag = "UNVERIFIED"
    found.PreliminaryFlag = "FINAL" if report.final else "PRELIMINARY"
    found.ReferencedPerformedProcedureStepSequence, found.PerformedProcedureCodeSequence = [], []
    if report.observer:
        author = Dataset()
        author.ObserverType, author.PersonName = "PSN", report.observer
        author.InstitutionName, author.PersonIdentificationCodeSequence = "", []
        found.AuthorObserverSequence = [author]
    found.ValueType, found.ContinuityOfContent = "CONTAINER", "SEPARATE"
    found.ConceptNameCodeSequence = [_code(_TITLE)]
    text = Dataset()
    text.RelationshipType, text.ValueType = "CONTAINS", "TEXT"
    text.ConceptNameCodeSequence = [_code(_FINDINGS)]
    text.TextValue = report.text
    found.ContentSequence = [text]


def _add_pdf(found: Dataset, report: Report) -> None:
    """Encapsulated Document (PS3.3 C.24.2)."""
    found.ConversionType, found.BurnedInAnnotation = "WSD", "YES"
    found.AcquisitionDateTime = report.when
    found.DocumentTitle, found.MIMETypeOfEncapsulatedDocument = report.title[:1024], "application/pdf"
    found.ConceptNameCodeSequence = [_code(_TITLE)]
    found.EncapsulatedDocument = report.pdf + b"\0" * (len(report.pdf) % 2)
    found.EncapsulatedDocumentLength = len(report.pdf)


def _code(code: tuple[str, str, str]) -> Dataset:
    found = Dataset()
    found.CodeValue, found.CodingSchemeDesignator, found.CodeMeaning = code
    return found
