"""Whether an answer of another archive is about the patient that is meant.

Rules that hold here: a Patient ID alone proves nothing; an answer that contradicts what is known of the patient is
somebody else's; what neither contradicts nor confirms anything is nobody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from archive.dicom.names import same_name
from archive.dicom.temporal import canonical_date

Answer = Mapping[str, Any]  # keyword -> text, or the items of a sequence


class Patient(NamedTuple):
    """What is known of whose priors are wanted."""

    id: str
    issuer: str = ""
    name: str = ""
    birth_date: str = ""
    sex: str = ""

    @classmethod
    def of(cls, values: Answer, issuer: str = "") -> Patient:
        """From attributes; an ID with its issuer behind it, as HL7 writes them, is taken apart."""
        given, said = text(values, "PatientID"), text(values, "IssuerOfPatientID")
        if "^" in given:
            parts = given.split("^")
            given, said = parts[0], said or (parts[3].partition("&")[0] if len(parts) > 3 else "")
        birth = canonical_date(text(values, "PatientBirthDate")) or ""
        return cls(given, said or issuer, text(values, "PatientName"), birth, text(values, "PatientSex"))


def stranger(patient: Patient, other: Patient) -> str:
    """Why an answer is of another patient, or of nobody knows whom; empty when it is of this one."""
    if patient.id != other.id:
        return "other patient: Patient ID"
    if patient.issuer and other.issuer and patient.issuer != other.issuer:
        return "other patient: issuer of the Patient ID"
    if patient.birth_date and other.birth_date and patient.birth_date != other.birth_date:
        return "other patient: birth date"
    if not same_name(patient.name, other.name):
        return "other patient: name"
    if {patient.sex, other.sex} == {"M", "F"}:
        return "other patient: sex"
    proofs = ((patient.issuer, other.issuer), (patient.birth_date, other.birth_date), (patient.name, other.name))
    return "" if any(mine and theirs for mine, theirs in proofs) else "nothing but the Patient ID says whose it is"


def codes(values: Answer, keyword: str) -> list[str]:
    """The codes of a sequence with their schemes."""
    items = values.get(keyword)
    found = [each for each in items if isinstance(each, Mapping)] if isinstance(items, list | tuple) else []
    return [f"{text(each, 'CodingSchemeDesignator')}:{code}" for each in found if (code := text(each, "CodeValue"))]


def text(values: Answer, keyword: str) -> str:
    value = values.get(keyword)
    return "" if value is None or isinstance(value, list | tuple) else str(value).strip()
