"""The modality worklist: its attributes, and an identifier to a question (PS3.4 annex K).

Rules that hold here: every attribute of the table can be matched and returned, required or not; keys the table does
not have are returned empty and say FF01; a scheduled step is answered as one item of its sequence; type 2 attributes
without a value are returned empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archive.dicom.attributes import SPECIFIC_CHARACTER_SET, TIMEZONE_OFFSET, Attribute, Key, Level, column_name
from archive.dicom.dictionary import tag_for_keyword, vr_of
from archive.dicom.keys import read_key
from archive.dicom.moments import combined
from archive.dicom.query import Condition, Return, Test, Within
from archive.errors import InvalidQuery

STEP_SEQUENCE = "ScheduledProcedureStepSequence"

# PS3.3 table 8.8-1: what an item of any code sequence holds.
_CODE = "CodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning LongCodeValue URNCodeValue"
# PS3.3 table 10-11 and 10-17.
_REFERENCE = "ReferencedSOPClassUID ReferencedSOPInstanceUID"
_ISSUER = "LocalNamespaceEntityID UniversalEntityID UniversalEntityIDType"

# PS3.4 table K.6-1: the scheduled procedure step. R = required matching key.
_STEP = f"""
    ScheduledStationAETitle*R ScheduledProcedureStepStartDate*R ScheduledProcedureStepStartTime*R Modality*R
    ScheduledPerformingPhysicianName*R ScheduledProcedureStepEndDate ScheduledProcedureStepEndTime
    ScheduledProcedureStepDescription ScheduledStationName ScheduledProcedureStepLocation PreMedication
    ScheduledProcedureStepID RequestedContrastAgent ScheduledProcedureStepStatus
    CommentsOnTheScheduledProcedureStep ScheduledProtocolCodeSequence({_CODE})
"""
# PS3.4 table K.6-1: requested procedure, imaging service request, visit and patient.
_ABOVE = f"""
    RequestedProcedureID*R RequestedProcedureDescription RequestedProcedureCodeSequence({_CODE}) StudyInstanceUID*R
    StudyDate StudyTime ReferencedStudySequence({_REFERENCE}) RequestedProcedurePriority PatientTransportArrangements
    ReasonForTheRequestedProcedure ReasonForRequestedProcedureCodeSequence({_CODE}) RequestedProcedureComments
    RequestedProcedureLocation ConfidentialityCode ReportingPriority NamesOfIntendedRecipientsOfResults
    AccessionNumber*R IssuerOfAccessionNumberSequence({_ISSUER}) RequestingPhysician ReferringPhysicianName
    RequestingService PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest
    ImagingServiceRequestComments IssueDateOfImagingServiceRequest IssueTimeOfImagingServiceRequest
    OrderEnteredBy OrderEntererLocation OrderCallbackPhoneNumber InstitutionName InstitutionalDepartmentName
    AdmissionID IssuerOfAdmissionIDSequence({_ISSUER}) CurrentPatientLocation PatientInstitutionResidence
    AdmittingDiagnosesDescription ReferencedPatientSequence({_REFERENCE}) VisitStatusID VisitComments
    PatientName*R PatientID*R IssuerOfPatientID OtherPatientIDs OtherPatientNames PatientBirthDate PatientBirthTime
    PatientSex PatientSexNeutered PatientAge PatientSize PatientWeight PatientAddress PatientTelephoneNumbers
    PatientMotherBirthName EthnicGroup Occupation SmokingStatus AdditionalPatientHistory PregnancyStatus
    LastMenstrualDate MedicalAlerts Allergies SpecialNeeds PatientState PatientReligiousPreference PatientComments
    ConfidentialityConstraintOnPatientDataDescription ResponsiblePerson ResponsibleOrganization
    PatientSpeciesDescription PatientBreedDescription
"""

_MULTIPLE = frozenset({"ScheduledStationAETitle", "ScheduledStationName", "OtherPatientIDs", "OtherPatientNames"})


def _attribute(word: str) -> Attribute:
    name, _, inner = word.rstrip(")").partition("(")
    keyword, _, required = name.partition("*")
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return Attribute(
        keyword,
        tag,
        vr_of(tag),
        Level.STUDY,
        Key.REQUIRED if required else Key.OPTIONAL,
        column_name(keyword),
        multiple=keyword in _MULTIPLE,
        items=tuple(map(_attribute, inner.split())),
    )


def _words(text: str) -> list[str]:
    """Words, a parenthesis with its inner words being part of one."""
    words, depth, current = [], 0, ""
    for sign in " ".join(text.split()) + " ":
        depth += (sign == "(") - (sign == ")")
        if sign == " " and not depth:
            words.append(current)
            current = ""
        else:
            current += sign
    return words


def _table(text: str) -> dict[int, Attribute]:
    rows = [_attribute(word) for word in _words(text)]
    return {row.tag: row for row in rows}


STEP: Mapping[int, Attribute] = _table(_STEP)
ABOVE: Mapping[int, Attribute] = _table(_ABOVE)
BY_KEYWORD: Mapping[str, Attribute] = {row.keyword: row for row in (*ABOVE.values(), *STEP.values())}

STEP_SEQUENCE_TAG = tag_for_keyword(STEP_SEQUENCE) or 0
_SEQUENCE = Attribute(
    STEP_SEQUENCE, STEP_SEQUENCE_TAG, "SQ", Level.STUDY, Key.REQUIRED, "", items=tuple(STEP.values())
)
_NO_KEYS = frozenset({SPECIFIC_CHARACTER_SET, TIMEZONE_OFFSET})
KEYS = 1_000  # elements of one identifier


@dataclass(frozen=True, slots=True)
class WorklistQuery:
    """What is asked of orders (``above``) and of their steps, and what is answered."""

    above: tuple[Condition, ...] = ()
    step: tuple[Condition, ...] = ()
    returns: tuple[Return, ...] = ()
    unsupported: bool = False

    def asks(self, keyword: str) -> bool:
        """Whether a step is matched by an attribute."""
        return any(each.attribute.keyword == keyword for each in self.step)

    def row(self, above: Mapping[str, Any], step: Mapping[str, Any]) -> tuple[str | None, ...]:
        """The values of one step in the order of ``returns``."""
        values = {**above, STEP_SEQUENCE: [step]}
        return tuple(_text(values.get(each.attribute.keyword)) if each.attribute else None for each in self.returns)


def _text(value: Any) -> str | None:
    return json.dumps(value) if isinstance(value, list) else value


def read_worklist_query(identifier: Mapping[int, tuple[str, Any]], *, fuzzy: bool = False) -> WorklistQuery:
    """The question of a worklist identifier; raises InvalidQuery."""
    if len(identifier) > KEYS:
        raise InvalidQuery("Identifier has too many keys")
    reader = _Reader(fuzzy)
    above, step, returns = [], [], []
    for tag in sorted(identifier):
        if not tag & 0xFFFF or tag in _NO_KEYS:
            continue
        vr, value = identifier[tag]
        if tag == STEP_SEQUENCE_TAG:
            tests, items = reader.item(_SEQUENCE, value)
            step += tests
            returns.append(Return(tag, "SQ", _SEQUENCE, items=items))
            continue
        test, found = reader.key(ABOVE.get(tag), tag, vr, value)
        above += [test] if test else []
        returns.append(found)
    return WorklistQuery(tuple(combined(above, 0)), tuple(combined(step, 0)), tuple(returns), reader.unsupported)


class _Reader:
    """Reads keys, and remembers whether there was one that nobody knows."""

    def __init__(self, fuzzy: bool) -> None:
        self._fuzzy = fuzzy
        self.unsupported = False

    def key(self, attribute: Attribute | None, tag: int, vr: str, value: Any) -> tuple[Condition | None, Return]:
        if attribute is None:
            self.unsupported = True
            return None, Return(tag, vr)
        if attribute.vr == "SQ":
            tests, items = self.item(attribute, value)
            test: Test | None = Within(tuple(tests)) if tests else None
        else:
            if not isinstance(value, str):
                raise InvalidQuery(f"{attribute.keyword} is no sequence")
            test, items = read_key(attribute, value, fuzzy=self._fuzzy), ()
        return Condition(attribute, test) if test else None, Return(tag, attribute.vr, attribute, items=items)

    def item(self, sequence: Attribute, value: Any) -> tuple[list[Condition], tuple[Attribute, ...]]:
        """The conditions of a sequence's one item, and which of its attributes are returned: without any, all."""
        items: Sequence[Any] = value if isinstance(value, list | tuple) else ()
        if len(items) > 1:
            raise InvalidQuery(f"{sequence.keyword} must have one item")
        known = {row.tag: row for row in sequence.items}
        if not items or not items[0]:
            return [], sequence.items
        conditions, returned = [], []
        for tag, (vr, inner) in sorted(items[0].items()):
            if not tag & 0xFFFF:
                continue
            test, found = self.key(known.get(tag), tag, vr, inner)
            conditions += [test] if test else []
            returned.append(_asked(found))
        return conditions, tuple(returned)


def _asked(found: Return) -> Attribute:
    """An attribute of an item, with the items that were asked for below it."""
    keyword = found.attribute.keyword if found.attribute else f"{found.tag:08X}"
    return Attribute(keyword, found.tag, found.vr, Level.STUDY, Key.OPTIONAL, "", items=found.items)
