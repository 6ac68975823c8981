"""What a message asks for: orders, schedules and patients as plain changes.

Rules that hold here: the table of triggers says what is served; what a message must have and has not is Unfit with its
field; an order without a Study Instance UID gets one that depends on its numbers alone, so that it is the same
whenever and however often it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from archive.dicom.uids import named_uid
from archive.errors import NotUnderstood
from archive.hl7 import acknowledge
from archive.hl7.acknowledge import Reply
from archive.hl7.mapping import ORDER_DEFAULTS, PRIOR, STEP_DEFAULTS, FieldMap, attributes
from archive.hl7.message import Message, Segment
from archive.hl7.results import NotReadable, read_report
from archive.index import NewTask
from archive.index.ordervalues import NewStep, OrderChange, OrderKeys, PatientChange, StepState

LONGEST_KEY = 250  # characters of an order number, a control ID, a sender: what databases keep in an index
REPORT_TASK, PATIENT_TASK = "report", "patient"


class Unfit(Exception):  # noqa: N818 - an answer, not an error of the archive
    """A message that cannot be carried out, and what its sender is told."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"{reply.words} ({reply.where})" if reply.where else reply.words)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Request:
    """What one message asks for."""

    orders: tuple[OrderChange, ...] = ()
    patients: tuple[PatientChange, ...] = ()
    tasks: tuple[NewTask, ...] = ()  # what is done about it afterwards
    attributes: Mapping[str, Any] = field(default_factory=dict)  # of the patient and the first order


# HL7 v2.5.1 table 0119, order control codes: the state an order gets, None for the one it has.
_SAVES = {"NW": None, "XO": None, "XX": None, "RO": None, "PA": None, "CH": None, "RL": None, "": None}
_ENDS = {
    "CA": StepState.CANCELLED, "OC": StepState.CANCELLED, "RP": StepState.CANCELLED, "DC": StepState.DISCONTINUED,
    "OD": StepState.DISCONTINUED,
}  # fmt: skip
# HL7 v2.5.1 table 0038, order status.
_STATUSES = {
    "SC": StepState.SCHEDULED, "HD": StepState.SCHEDULED, "IP": StepState.STARTED, "A": StepState.STARTED,
    "CM": StepState.COMPLETED, "CA": StepState.CANCELLED, "DC": StepState.DISCONTINUED,
}  # fmt: skip


def read_request(message: Message, fields: FieldMap) -> Request:
    """What the message asks for; raises Unfit."""
    kind, _, event = message.kind.upper().partition("^")
    events = TRIGGERS.get(kind)
    if events is None:
        raise Unfit(Reply(acknowledge.UNSUPPORTED_TYPE, f"{kind or 'no'} messages are not taken", "MSH-9.1"))
    if not event and len(events) == 1:
        event = next(iter(events))  # senders of version 2.1 and 2.2 say the type alone
    if event not in events:
        raise Unfit(Reply(acknowledge.UNSUPPORTED_EVENT, f"{kind} {event} is not taken", "MSH-9.2"))
    if not message.has("PID"):
        raise Unfit(Reply(acknowledge.SEQUENCE_ERROR, "PID is missing", "PID"))
    try:
        return events[event](message, fields)
    except NotReadable as error:
        raise Unfit(Reply(acknowledge.DATA_TYPE, error.comment, "OBX-5")) from error
    except NotUnderstood as error:
        raise Unfit(Reply(acknowledge.DATA_TYPE, error.comment)) from error


# -- orders -----------------------------------------------------------------------------------------


def _orders(message: Message, fields: FieldMap) -> Request:
    common, groups = _groups(message.segments)
    if not groups:
        raise Unfit(Reply(acknowledge.SEQUENCE_ERROR, "ORC or OBR is missing", "ORC"))
    patient = _patient(message, fields, common)
    changes = tuple(_order(message, fields, patient, common + group) for group in groups)
    return Request(changes, attributes=changes[0].attributes)


def _groups(segments: list[Segment]) -> tuple[list[Segment], list[list[Segment]]]:
    """What stands before the first order, and each order's segments: from ORC, or from OBR where there is none."""
    common: list[Segment] = []
    groups: list[list[Segment]] = []
    for segment in segments:
        fresh = segment.name == "OBR" and (not groups or any(each.name == "OBR" for each in groups[-1]))
        if segment.name == "ORC" or fresh:
            groups.append([])
        (groups[-1] if groups else common).append(segment)
    return common, groups


def _patient(message: Message, fields: FieldMap, within: list[Segment]) -> dict[str, Any]:
    found = attributes(message, fields.patient, within)
    if not found.get("PatientID"):
        raise Unfit(Reply(acknowledge.REQUIRED_MISSING, "patient ID is missing", "PID-3.1"))
    return found


def _order(message: Message, fields: FieldMap, patient: dict[str, Any], within: list[Segment]) -> OrderChange:
    control = message.text("ORC-1", within).upper()
    above = {**patient, **attributes(message, fields.order, within)}
    keys = _keys(message, within, above)
    if control in _SAVES:
        if not patient.get("PatientName"):
            raise Unfit(Reply(acknowledge.REQUIRED_MISSING, "patient name is missing", "PID-5"))
        defaults = {
            **attributes(message, ORDER_DEFAULTS, within), "StudyInstanceUID": _stable_uid(keys, above),
        }  # fmt: skip
        steps = tuple(_steps(message, fields, within))
        return OrderChange(keys, None, above, defaults, steps, reopens=control == "NW")
    status = message.text("ORC-5", within).upper() if control in ("SC", "SN") else ""
    state = _ENDS.get(control) or _STATUSES.get(status)
    if state is None:
        where = "ORC-5" if control in ("SC", "SN") else "ORC-1"
        raise Unfit(Reply(acknowledge.VALUE_NOT_FOUND, "order control or status is not known", where))
    return OrderChange(keys, state, saves=False)


def _keys(message: Message, within: list[Segment], above: Mapping[str, Any]) -> OrderKeys:
    def number(*paths: str) -> str:
        return next(filter(None, (message.text(each, within) for each in paths)), "")

    keys = OrderKeys(
        str(above.get("StudyInstanceUID", "")),
        number("ORC-2.1", "OBR-2.1"),
        number("ORC-2.2", "OBR-2.2"),
        number("ORC-3.1", "OBR-3.1"),
        number("ORC-3.2", "OBR-3.2"),
        str(above.get("AccessionNumber", "")),
    )
    _check_lengths(keys)
    if not any((keys.study_uid, keys.placer, keys.filler, keys.accession_number)):
        raise Unfit(Reply(acknowledge.REQUIRED_MISSING, "placer or filler order number is missing", "ORC-2"))
    return keys


def _check_lengths(keys: OrderKeys) -> None:
    if max(map(len, (keys.placer, keys.placer_issuer, keys.filler, keys.filler_issuer))) > LONGEST_KEY:
        raise Unfit(Reply(acknowledge.DATA_TYPE, f"order number is longer than {LONGEST_KEY} characters", "ORC-2"))


def _stable_uid(keys: OrderKeys, above: Mapping[str, Any]) -> str:
    """A UID below 2.25 (PS3.5 B.2) made of the order's own numbers."""
    if keys.placer:
        name = ("placer", keys.placer_issuer, keys.placer)
    elif keys.filler:
        name = ("filler", keys.filler_issuer, keys.filler)
    else:
        name = ("accession", str(above.get("IssuerOfPatientID", "")), keys.accession_number)
    return named_uid(chr(31).join(name))


def _steps(message: Message, fields: FieldMap, within: list[Segment]) -> Iterator[NewStep]:
    """One step for each IPC, or one for the whole order."""
    parts = [segment for segment in within if segment.name == "IPC"]
    others = [segment for segment in within if segment.name != "IPC"]
    for own in [[part, *others] for part in parts] or [others]:
        found = attributes(message, fields.steps, own)
        step_id = found.get("ScheduledProcedureStepID", "")
        yield NewStep(step_id, found, defaults=attributes(message, STEP_DEFAULTS, [*own, *message.all("MSH")]))


# -- schedules (SIU) --------------------------------------------------------------------------------


def _schedule(message: Message, fields: FieldMap) -> Request:
    patient = _patient(message, fields, message.segments)
    above = {**patient, **attributes(message, fields.order, message.segments)}
    placer = message.text("SCH-26.1") or message.text("SCH-1.1")
    filler = message.text("SCH-27.1") or message.text("SCH-2.1")
    if not placer and not filler:
        raise Unfit(Reply(acknowledge.REQUIRED_MISSING, "appointment ID is missing", "SCH-1"))
    keys = OrderKeys(
        str(above.get("StudyInstanceUID", "")), placer, message.text("SCH-26.2"), filler, message.text("SCH-27.2")
    )
    _check_lengths(keys)
    if message.text("MSH-9.2") == "S15":
        return Request((OrderChange(keys, StepState.CANCELLED, saves=False),), attributes=above)
    defaults = {
        **attributes(message, ORDER_DEFAULTS, message.segments), "StudyInstanceUID": _stable_uid(keys, above),
    }  # fmt: skip
    reopens = message.text("MSH-9.2") == "S12"
    steps = tuple(_steps(message, fields, message.segments))
    return Request((OrderChange(keys, None, above, defaults, steps, reopens=reopens),), attributes=above)


# -- patients (ADT) ---------------------------------------------------------------------------------


def _update(message: Message, fields: FieldMap) -> Request:
    found = _patient(message, fields, message.segments)
    change = _change(found)
    return Request(patients=(change,), tasks=_for_studies(message, (change,)), attributes=found)


def _merge(message: Message, fields: FieldMap) -> Request:
    """Each PID with the MRG behind it: the prior identity ends in this one."""
    changes = []
    current: list[Segment] = []
    for segment in message.segments:
        if segment.name == "PID":
            current = [segment]
        elif segment.name == "MRG" and current:
            changes.append(_merged(message, fields, [*current, segment]))
    if not changes:
        raise Unfit(Reply(acknowledge.SEQUENCE_ERROR, "MRG is missing", "MRG"))
    return Request(
        patients=tuple(changes), tasks=_for_studies(message, changes), attributes=changes[0].attributes
    )


def _merged(message: Message, fields: FieldMap, within: list[Segment]) -> PatientChange:
    found = _patient(message, fields, within)
    told = attributes(message, PRIOR, within)  # cut like the patient's own
    prior, issuer = str(told.get("PatientID", "")), str(told.get("IssuerOfPatientID", ""))
    if not prior:
        raise Unfit(Reply(acknowledge.REQUIRED_MISSING, "prior patient ID is missing", "MRG-1"))
    change = _change(found, prior, issuer)
    if (change.patient_id, change.issuer) == (prior, issuer):
        raise Unfit(Reply(acknowledge.VALUE_NOT_FOUND, "a patient cannot be merged into itself", "MRG-1"))
    return change


def _for_studies(message: Message, changes: Sequence[PatientChange]) -> tuple[NewTask, ...]:
    """The same for what is stored, one after the other behind the message."""
    said = {"kind": message.kind, "control_id": message.control_id}
    return tuple(
        NewTask(
            PATIENT_TASK,
            {
                **said, "name": f"{message.sender}:{message.control_id}:{number}", "patient_id": change.patient_id,
                "issuer": change.issuer, "prior_id": change.prior_id, "prior_issuer": change.prior_issuer,
                "attributes": dict(change.attributes),
            },
            lane=PATIENT_TASK,
        )
        for number, change in enumerate(changes)
    )  # fmt: skip


def _change(found: dict[str, Any], prior: str = "", prior_issuer: str = "") -> PatientChange:
    return PatientChange(found["PatientID"], str(found.get("IssuerOfPatientID", "")), found, prior, prior_issuer)


# -- reports (ORU) ----------------------------------------------------------------------------------


def _reports(message: Message, fields: FieldMap) -> Request:
    patient = _patient(message, fields, message.segments)
    common, groups = _groups(message.segments)
    if not groups:
        raise Unfit(Reply(acknowledge.SEQUENCE_ERROR, "OBR is missing", "OBR"))
    tasks = []
    for number, group in enumerate(groups):
        found = read_report(message, common + group, number)
        about = {**_about(message, fields, common + group), "patient_id": patient["PatientID"]}
        about["patient_name"] = str(patient.get("PatientName", ""))
        tasks.append(NewTask(REPORT_TASK, {"about": about, "report": found}, lane=REPORT_TASK))
    above = {**patient, **attributes(message, fields.order, message.segments)}
    return Request(tasks=tuple(tasks), attributes=above)


def _about(message: Message, fields: FieldMap, within: list[Segment]) -> dict[str, str]:
    above = attributes(message, fields.order, within)
    keys = _keys(message, within, above)
    return {
        "study_uid": keys.study_uid, "placer": keys.placer, "filler": keys.filler,
        "accession_number": keys.accession_number,
    }  # fmt: skip


Reader = Callable[[Message, FieldMap], Request]

# Message type and trigger event (HL7 v2.5.1 table 0003) to how it is read.
TRIGGERS: Mapping[str, Mapping[str, Reader]] = {
    "ORM": {"O01": _orders},
    "OMI": {"O23": _orders},
    "OMG": {"O19": _orders},
    "ORU": {"R01": _reports},
    "SIU": dict.fromkeys(("S12", "S13", "S14", "S15"), _schedule),
    "ADT": {
        **dict.fromkeys(("A01", "A02", "A03", "A04", "A05", "A08", "A28", "A31"), _update),
        **dict.fromkeys(("A18", "A34", "A40", "A47"), _merge),
    },
}
