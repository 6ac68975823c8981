"""From the fields of a message to attributes: the table that a site can change.

Rules that hold here: an attribute is the first of its fields that has a value; a field's data type says how it is
read (HL7 v2.5.1 chapter 2A); what is not there leaves no attribute, so that a later message does not empty what an
earlier one said; two double quotes empty it; a value is cut to what its VR can hold, and never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

from archive.dicom.worklist import ABOVE, STEP
from archive.errors import NotUnderstood
from archive.hl7.message import Message, Path, Segment, path

DELETED = '""'  # HL7 v2.5.1 2.5.3: the value is to be emptied

# PS3.5 table 6.2-1, characters of one value.
_LONGEST = {"SH": 16, "LO": 64, "CS": 16, "AE": 16, "ST": 1024, "LT": 10_240, "PN": 64, "DS": 16, "UI": 64}

Value = str | list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Source:
    """One field and its data type."""

    kind: str
    at: Path


Table = Mapping[str, tuple[Source, ...]]


def _row(text: str) -> tuple[str, tuple[Source, ...]]:
    keyword, *words = text.split()
    return keyword, tuple(source(word, keyword) for word in words)


def source(text: str, keyword: str) -> Source:
    """``PID-5`` or ``XCN:OBR-16``; raises ValueError."""
    kind, _, where = text.rpartition(":")
    kind = kind or _usual(keyword, where)
    if kind not in READERS:
        raise ValueError(f"{kind} is no data type that can be read; {', '.join(READERS)} are")
    return Source(kind, path(where))


def _usual(keyword: str, where: str) -> str:
    """The data type when none is given, by the VR of the attribute."""
    vr = dictionary_VR(tag_for_keyword(keyword) or 0)
    if vr == "PN":
        return "XPN" if where.startswith(("PID", "NK1", "MRG")) else "XCN"
    return {"DA": "DATE", "TM": "TIME", "SQ": "CODE"}.get(vr, "TEXT")


# What is read from PID, PV1, AL1, ...: IHE RAD TF-2 4.1, and PS3.3 annexes C.2 and C.3.
_PATIENT = """
    PatientName PID-5
    PatientID PID-3.1 PID-2.1
    IssuerOfPatientID PID-3.4.1
    PatientBirthDate PID-7
    PatientSex SEX:PID-8
    OtherPatientNames PID-9
    PatientMotherBirthName PID-6
    PatientAddress ADDRESS:PID-11
    PatientTelephoneNumbers PID-13.1
    PatientReligiousPreference PID-17.1
    EthnicGroup PID-22.1 PID-10.1
    PatientSpeciesDescription PID-35.2
    PatientBreedDescription PID-37
"""
_PRIOR = """
    PatientID MRG-1.1
    IssuerOfPatientID MRG-1.4.1
"""
_VISIT = """
    AdmissionID PV1-19.1 PID-18.1
    CurrentPatientLocation LOCATION:PV1-3
    ReferringPhysicianName PV1-8
    PregnancyStatus PREGNANCY:PV1-15
    SpecialNeeds PV1-15.2
    ConfidentialityConstraintOnPatientDataDescription PV1-16.1
    PatientState PV2-3.2
    Allergies LIST:AL1-3.2 LIST:AL1-3.1
    PatientWeight WEIGHT:OBX-5
    PatientSize HEIGHT:OBX-5
"""
# IHE RAD TF-2 4.4 (ORM^O01), TF-2 4.2 and HL7 v2.5.1 4.5 (ORC, OBR, IPC, TQ1, ZDS).
_ORDER = """
    AccessionNumber IPC-1.1 OBR-18
    RequestedProcedureID IPC-2.1 OBR-19
    StudyInstanceUID IPC-3.1 ZDS-1.1
    RequestedProcedureDescription OBR-44.2 OBR-4.2 OBR-4.5 AIS-3.2 SCH-7.2
    RequestedProcedureCodeSequence OBR-44 OBR-4 AIS-3
    RequestedProcedurePriority PRIORITY:TQ1-9.1 PRIORITY:ORC-7.6 PRIORITY:OBR-27.6 PRIORITY:OBR-5
    RequestedProcedureComments LINES:NTE-3
    ReasonForTheRequestedProcedure OBR-31.2 OBR-31.1
    PatientTransportArrangements OBR-30
    RequestingPhysician OBR-16 ORC-12
    ReferringPhysicianName PV1-8
    RequestingService ORC-17.2 ORC-17.1
    PlacerOrderNumberImagingServiceRequest ORC-2.1 OBR-2.1
    FillerOrderNumberImagingServiceRequest ORC-3.1 OBR-3.1
    IssueDateOfImagingServiceRequest ORC-9 ORC-15
    IssueTimeOfImagingServiceRequest ORC-9 ORC-15
    OrderEnteredBy ORC-10
    OrderCallbackPhoneNumber ORC-14.1 OBR-17.1
    AdditionalPatientHistory OBR-13
    MedicalAlerts OBR-12.2 OBR-12.1
"""
_STEP = """
    ScheduledProcedureStepID IPC-4.1 OBR-20
    Modality IPC-5.1 OBR-24
    ScheduledProtocolCodeSequence IPC-6 LOCALCODE:OBR-4 OBR-4 AIS-3
    ScheduledProcedureStepDescription IPC-6.2 OBR-4.5 OBR-4.2 AIS-3.2 SCH-7.2
    ScheduledStationName IPC-7.1 OBR-21
    ScheduledProcedureStepLocation IPC-8.1 AIL-3.1
    ScheduledStationAETitle IPC-9
    ScheduledProcedureStepStartDate TQ1-7 ORC-7.4 OBR-27.4 OBR-36 AIS-4 SCH-11.4 OBR-6
    ScheduledProcedureStepStartTime TQ1-7 ORC-7.4 OBR-27.4 OBR-36 AIS-4 SCH-11.4 OBR-6
    ScheduledPerformingPhysicianName NDL:OBR-34 AIP-3
    PreMedication OBR-13
"""
# What an order that is new gets when its message does not say it: a later message says it, or changes nothing.
_ORDER_DEFAULTS = """
    AccessionNumber ORC-3.1 OBR-3.1 ORC-2.1 OBR-2.1 SCH-27.1 SCH-26.1
    RequestedProcedureID ORC-2.1 OBR-2.1 ORC-3.1 OBR-3.1 SCH-26.1 SCH-1.1
"""
_STEP_DEFAULTS = """
    ScheduledProcedureStepID IPC-2.1 OBR-19 ORC-2.1 OBR-2.1 ORC-3.1 SCH-2.1 SCH-1.1
    ScheduledProcedureStepStartDate ORC-9 MSH-7
    ScheduledProcedureStepStartTime ORC-9 MSH-7
"""


def _table(text: str) -> dict[str, tuple[Source, ...]]:
    return dict(_row(line) for line in text.strip().splitlines())


# -- how each data type is read ---------------------------------------------------------------------


def _at(segment: Segment, where: Path, component: int = 0) -> str:
    return segment.text(where.field, component or where.component, where.subcomponent, where.repetition)


def _plain(segment: Segment, where: Path) -> str:
    """Text; of a field that has parts and none was named, the first."""
    return _at(segment, where, where.component or 1)


def _bare(text: str) -> str:
    """Text within a component of a name: its delimiters are no text there."""
    return re.sub(r"[\^=\\]+", " ", text).strip()


def _name(parts: Sequence[str]) -> str:
    """Family, given, middle, suffix, prefix to a name of PS3.5 6.2.1, where the prefix comes before the suffix."""
    family, given, middle, suffix, prefix = (_bare(part) for part in parts)
    return "^".join((family, given, middle, prefix, suffix)).rstrip("^")


_GROUPS = {"": 0, "A": 0, "I": 1, "P": 2}  # HL7 v2.5.1 table 4000: alphabetic, ideographic, phonetic


def _xpn(segment: Segment, where: Path) -> str:
    """Repetitions that differ by their representation code are the component groups of one name."""
    groups = ["", "", ""]
    for number in range(1, segment.repetitions(where.field) + 1):
        group = _GROUPS.get(segment.text(where.field, 8, 0, number), 0)
        parts = [segment.text(where.field, 1, 1, number)]
        parts += [segment.text(where.field, component, 0, number) for component in (2, 3, 4, 5)]
        groups[group] = groups[group] or _name(parts)
    return "=".join(groups).rstrip("=")


def _xcn(segment: Segment, where: Path) -> str:
    """A person with an ID before the name."""
    parts = [segment.text(where.field, 2, 1, where.repetition)]
    parts += [segment.text(where.field, component, 0, where.repetition) for component in (3, 4, 5, 6)]
    return _name(parts)


def _ndl(segment: Segment, where: Path) -> str:
    """The name within the first component, its parts being subcomponents behind the ID."""
    return _name([segment.text(where.field, 1, part, where.repetition) for part in (2, 3, 4, 5, 6)])


def _date(segment: Segment, where: Path) -> str:
    found = re.match(r"\d{8}", _plain(segment, where))
    return found[0] if found else ""


def _time(segment: Segment, where: Path) -> str:
    """Hours, minutes and seconds behind the date; what is missing counts as nothing."""
    found = re.match(r"\d{8}(\d{2,6})", _plain(segment, where))
    return found[1][: len(found[1]) // 2 * 2].ljust(6, "0") if found else ""


def _code(segment: Segment, where: Path, first: int = 1) -> list[dict[str, Any]]:
    """CE or CWE to an item of a code sequence (PS3.3 table 8.8-1)."""
    code, meaning, scheme = (segment.text(where.field, first + number, 0, where.repetition) for number in range(3))
    if not code:
        return []
    value = {"CodeValue" if len(code) <= 16 else "LongCodeValue": code}
    return [{**value, "CodingSchemeDesignator": (scheme or "L")[:16], "CodeMeaning": (meaning or code)[:64]}]


def _local_code(segment: Segment, where: Path) -> list[dict[str, Any]]:
    """The alternate code behind the first."""
    return _code(segment, where, 4)


# HL7 v2.5.1 table 0001, and what German senders write, to PS3.3 C.7.1.1.
_SEXES = {
    "M": "M", "F": "F", "O": "O", "A": "O", "N": "O", "U": "", "MALE": "M", "FEMALE": "F", "W": "F", "D": "O",
}  # fmt: skip
# HL7 v2.5.1 tables 0027 and 0485 to PS3.3 C.4.11.
_PRIORITIES = {"S": "STAT", "A": "HIGH", "C": "HIGH", "P": "HIGH", "T": "MEDIUM", "R": "ROUTINE", "L": "LOW"}
_PREGNANT = {"B6": "0003"}  # HL7 v2.5.1 table 0009 to PS3.3 C.2.3: pregnant


def _coded(table: Mapping[str, str]) -> Callable[[Segment, Path], str]:
    return lambda segment, where: table.get(_plain(segment, where).upper(), "")


def _location(segment: Segment, where: Path) -> str:
    """Point of care, room, bed."""
    return " ".join(filter(None, (segment.text(where.field, component) for component in (1, 2, 3))))


def _address(segment: Segment, where: Path) -> str:
    """Street, other, postal code and city, state, country."""
    return ", ".join(filter(None, (segment.text(where.field, component) for component in (1, 2, 5, 3, 4, 6))))


# OBX-3 of weight and height, by LOINC or by name.
_WEIGHT = re.compile(r"3141-9|3142-7|29463-7|(body )?weight", re.IGNORECASE)
_HEIGHT = re.compile(r"8302-2|3137-7|(body )?height", re.IGNORECASE)


def _measured(named: re.Pattern[str], units: Mapping[str, float]) -> Callable[[Segment, Path], str]:
    """An observation of this name in one of these units, as kilograms or metres; never without knowing the unit."""

    def read(segment: Segment, where: Path) -> str:
        factor = units.get(segment.text(6, 1).lower())
        number = _plain(segment, where)
        is_named = any(named.fullmatch(segment.text(3, component)) for component in (1, 2))
        if not is_named or factor is None or not re.fullmatch(r"\d+(\.\d+)?", number):
            return ""
        return f"{float(number) * factor:.5g}"

    return read


READERS: Mapping[str, Callable[[Segment, Path], Value]] = {
    "TEXT": _plain,
    "LINES": _plain,
    "LIST": _plain,
    "WEIGHT": _measured(_WEIGHT, {"kg": 1.0, "g": 0.001, "lb": 0.45359237, "[lb_av]": 0.45359237}),
    "HEIGHT": _measured(_HEIGHT, {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "[in_i]": 0.0254}),
    "XPN": _xpn,
    "XCN": _xcn,
    "NDL": _ndl,
    "DATE": _date,
    "TIME": _time,
    "CODE": _code,
    "LOCALCODE": _local_code,
    "SEX": _coded(_SEXES),
    "PRIORITY": _coded(_PRIORITIES),
    "PREGNANCY": _coded(_PREGNANT),
    "LOCATION": _location,
    "ADDRESS": _address,
}

PATIENT: Table = _table(_PATIENT)
PRIOR: Table = _table(_PRIOR)
VISIT: Table = _table(_VISIT)
ORDER: Table = _table(_ORDER)
STEPS: Table = _table(_STEP)
ORDER_DEFAULTS: Table = _table(_ORDER_DEFAULTS)
STEP_DEFAULTS: Table = _table(_STEP_DEFAULTS)

# What is read from every segment of its name, and joined by.
_JOINED = {"LINES": "\r\n", "LIST": ", "}


class FieldMap:
    """The tables with what a site has changed."""

    def __init__(self, changes: Mapping[str, Sequence[str]] | None = None) -> None:
        """``changes``: keyword to fields; raises ValueError naming the keyword or field that is none."""
        own = {keyword: _changed(keyword, texts) for keyword, texts in (changes or {}).items()}
        steps, above = {row.keyword for row in STEP.values()}, {row.keyword for row in ABOVE.values()}
        for keyword in own:
            if keyword not in steps | above:
                raise ValueError(f"{keyword} is no attribute of the modality worklist")
        self.patient = {**PATIENT, **{keyword: own[keyword] for keyword in own if keyword in PATIENT}}
        self.order = {**VISIT, **ORDER, **{key: own[key] for key in own if key not in PATIENT and key in above}}
        self.steps = {**STEPS, **{key: own[key] for key in own if key in steps}}


def _changed(keyword: str, texts: Sequence[str]) -> tuple[Source, ...]:
    if tag_for_keyword(keyword) is None:
        raise ValueError(f"{keyword} is no keyword of the data dictionary")
    return tuple(source(text, keyword) for text in texts)


def attributes(message: Message, table: Table, within: list[Segment]) -> dict[str, Any]:
    """What the table finds in these segments; raises NotUnderstood for a UID that is none."""
    found: dict[str, Any] = {}
    for keyword, sources in table.items():
        value = _first(message, keyword, sources, within)
        if value is not None:
            found[keyword] = value
    return found


def _first(message: Message, keyword: str, sources: Sequence[Source], within: list[Segment]) -> Value | None:
    for each in sources:
        if message.text(f"{each.at.segment}-{each.at.field}", within) == DELETED:
            return [] if dictionary_VR(tag_for_keyword(keyword) or 0) == "SQ" else ""
        values = [READERS[each.kind](segment, each.at) for segment in message.all(each.at.segment, within)]
        if each.kind in _JOINED:
            values = [_JOINED[each.kind].join(str(value) for value in values if value)]
        value = next((value for value in values if value), None)
        if value == DELETED:
            return ""
        if value is not None:
            return _fitting(keyword, value)
    return None


def _fitting(keyword: str, value: Value) -> Value:
    if isinstance(value, list):
        return value
    vr = dictionary_VR(tag_for_keyword(keyword) or 0)
    if vr == "UI" and not re.fullmatch(r"[0-9]+(\.[0-9]+)*", value[:65]):
        raise NotUnderstood("Study Instance UID is no UID")
    if vr in ("SH", "LO", "CS", "AE"):
        value = re.sub(r"\s+", " ", value)
        return "\\".join(part[: _LONGEST[vr]] for part in value.split("\\"))
    if vr == "PN":
        return "=".join(group[: _LONGEST[vr]] for group in value.split("="))
    return value[: _LONGEST.get(vr, len(value))]
