"""What messages ask for: orders, schedules, patients, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from archive.hl7 import acknowledge
from archive.hl7.mapping import FieldMap
from archive.hl7.message import Message
from archive.hl7.requests import Request, Unfit, read_request
from archive.index.ordervalues import OrderKeys, StepState
from tests.hl7.made import ORC, PATIENT, message, order

USUAL = FieldMap()


def read(data: bytes, fields: FieldMap = USUAL) -> Request:
    return read_request(Message(data), fields)


def unfit(data: bytes) -> tuple[int, str]:
    with pytest.raises(Unfit) as raised:
        read(data)
    return raised.value.reply.condition, raised.value.reply.where


def test_a_new_order_says_who_what_and_when() -> None:
    (change,) = read(order()).orders
    assert change.keys == OrderKeys("1.2.3.4.5", "PL1", "RIS", "FL1", "RIS", "ACC1")
    assert change.saves and change.reopens and change.state is None
    expected = {
        "PatientName": "Doe^Jane^^Dr", "PatientID": "P1", "IssuerOfPatientID": "HOSP", "PatientBirthDate": "19600102",
        "PatientSex": "F", "AccessionNumber": "ACC1", "RequestedProcedureID": "RP1", "StudyInstanceUID": "1.2.3.4.5",
        "RequestedProcedureDescription": "CT head", "RequestedProcedurePriority": "STAT",
        "RequestingPhysician": "Doc^Dora", "ReferringPhysicianName": "Refer^Rita",
        "PlacerOrderNumberImagingServiceRequest": "PL1", "FillerOrderNumberImagingServiceRequest": "FL1",
        "RequestedProcedureCodeSequence": [
            {"CodeValue": "CTHEAD", "CodingSchemeDesignator": "L", "CodeMeaning": "CT head"}
        ],
    }  # fmt: skip
    assert {key: change.attributes.get(key) for key in expected} == expected
    (step,) = change.steps
    assert (step.step_id, step.attributes["Modality"]) == ("SPS1", "CT")
    assert step.attributes["ScheduledProcedureStepStartDate"] == "20261121"
    assert step.attributes["ScheduledProcedureStepStartTime"] == "093000"


def test_an_order_without_a_study_uid_has_the_same_one_whenever_it_is_read() -> None:
    first, second = (read(order(control, zds=False)).orders[0].defaults for control in ("M1", "M2"))
    assert first["StudyInstanceUID"].startswith("2.25.") and len(first["StudyInstanceUID"]) <= 64
    assert first["StudyInstanceUID"] == second["StudyInstanceUID"]
    other = read(order(orc={2: "PL2^RIS"}, obr={2: "PL2^RIS"}, zds=False)).orders[0].defaults
    assert other["StudyInstanceUID"] != first["StudyInstanceUID"]


def test_what_a_change_does_not_say_is_not_said() -> None:
    data = message("ORM^O01", ("PID", PATIENT), ("ORC", {**ORC, 1: "XO"}), ("OBR", {24: "MR"}))
    (change,) = read(data).orders
    assert "AccessionNumber" not in change.attributes and change.defaults["AccessionNumber"] == "FL1"
    (step,) = change.steps
    assert (step.step_id, dict(step.attributes)) == ("", {"Modality": "MR"})
    assert step.defaults["ScheduledProcedureStepStartDate"] == "20261121"


@pytest.mark.parametrize(
    ("control", "status", "expected"),
    [
        ("CA", "", StepState.CANCELLED), ("OC", "", StepState.CANCELLED), ("DC", "", StepState.DISCONTINUED),
        ("SC", "IP", StepState.STARTED), ("SC", "CM", StepState.COMPLETED), ("SC", "CA", StepState.CANCELLED),
        ("SC", "SC", StepState.SCHEDULED), ("ca", "", StepState.CANCELLED),
    ],
)  # fmt: skip
def test_an_order_control_code_gives_a_state(control: str, status: str, expected: StepState) -> None:
    (change,) = read(order(orc={1: control, 5: status})).orders
    assert (change.state, change.saves) == (expected, False)


def test_several_orders_of_one_message_are_several() -> None:
    groups = [("ORC", {1: "NW", 2: f"PL{n}"}) for n in (1, 2)], [("OBR", {18: f"ACC{n}", 24: "CT"}) for n in (1, 2)]
    data = message("ORM^O01", ("PID", PATIENT), *(part for pair in zip(*groups, strict=True) for part in pair))
    assert [change.keys.placer for change in read(data).orders] == ["PL1", "PL2"]
    assert [change.attributes["AccessionNumber"] for change in read(data).orders] == ["ACC1", "ACC2"]


def test_each_ipc_is_a_step() -> None:
    ipc = {1: "ACC9", 2: "RP9", 3: "1.2.9", 5: "MR", 6: "P1^Protocol^99X", 7: "Magnet", 8: "Room 3", 9: "MR1"}
    data = message(
        "OMI^O23", ("PID", PATIENT), ("ORC", ORC), ("TQ1", {7: "20261122101500", 9: "A"}), ("OBR", {4: "X^Y^Z"}),
        ("IPC", {**ipc, 4: "S1"}), ("IPC", {**ipc, 4: "S2", 9: "MR2"}),
    )  # fmt: skip
    (change,) = read(data).orders
    assert (change.keys.study_uid, change.keys.accession_number) == ("1.2.9", "ACC9")
    assert [(step.step_id, step.attributes["ScheduledStationAETitle"]) for step in change.steps] == [
        ("S1", "MR1"),
        ("S2", "MR2"),
    ]
    step = change.steps[0].attributes
    assert (step["ScheduledStationName"], step["ScheduledProcedureStepLocation"]) == ("Magnet", "Room 3")
    assert (step["ScheduledProcedureStepStartDate"], step["ScheduledProcedureStepStartTime"]) == ("20261122", "101500")
    assert change.attributes["RequestedProcedurePriority"] == "HIGH"


def test_an_appointment_schedules_the_steps_of_its_order() -> None:
    data = message(
        "SIU^S13", ("SCH", {1: "APP1", 2: "F1", 26: "PL1^RIS"}), ("PID", PATIENT), ("RGS", {1: "1"}),
        ("AIS", {1: "1", 3: "CT^CT abdomen^L", 4: "20261201143000"}), ("AIL", {3: "Room 7"}),
    )  # fmt: skip
    (change,) = read(data).orders
    assert (change.keys.placer, change.keys.placer_issuer) == ("PL1", "RIS")
    (step,) = change.steps
    assert step.step_id == "" and step.attributes["ScheduledProcedureStepStartTime"] == "143000"
    assert step.attributes["ScheduledProcedureStepLocation"] == "Room 7"
    (cancelled,) = read(message("SIU^S15", ("SCH", {1: "APP1"}), ("PID", PATIENT))).orders
    assert (cancelled.state, cancelled.keys.placer) == (StepState.CANCELLED, "APP1")


@pytest.mark.parametrize("event", ["A01", "A04", "A05", "A08", "A31"])
def test_a_patient_is_updated(event: str) -> None:
    (change,) = read(message(f"ADT^{event}", ("EVN", {1: event}), ("PID", PATIENT))).patients
    assert (change.patient_id, change.issuer, change.prior_id) == ("P1", "HOSP", "")
    assert change.attributes["PatientName"] == "Doe^Jane^^Dr"


@pytest.mark.parametrize("event", ["A18", "A34", "A40", "A47"])
def test_a_patient_is_merged(event: str) -> None:
    parts = [("PID", PATIENT), ("MRG", {1: "P0^^^OLD"}), ("PID", PATIENT), ("MRG", {1: "P9^^^OLD"})]
    changes = read(message(f"ADT^{event}", *parts)).patients
    assert [(change.patient_id, change.prior_id, change.prior_issuer) for change in changes] == [
        ("P1", "P0", "OLD"),
        ("P1", "P9", "OLD"),
    ]


@pytest.mark.parametrize(
    ("data", "condition", "where"),
    [
        (message("MDM^T02", ("PID", PATIENT)), acknowledge.UNSUPPORTED_TYPE, "MSH-9.1"),
        (message("ORU^R99", ("PID", PATIENT)), acknowledge.UNSUPPORTED_EVENT, "MSH-9.2"),
        (message("", ("PID", PATIENT)), acknowledge.UNSUPPORTED_TYPE, "MSH-9.1"),
        (message("ADT^A99", ("PID", PATIENT)), acknowledge.UNSUPPORTED_EVENT, "MSH-9.2"),
        (message("ADT^A08"), acknowledge.SEQUENCE_ERROR, "PID"),
        (message("ORM^O01", ("PID", PATIENT)), acknowledge.SEQUENCE_ERROR, "ORC"),
        (message("ADT^A40", ("PID", PATIENT)), acknowledge.SEQUENCE_ERROR, "MRG"),
        (message("ADT^A40", ("PID", PATIENT), ("MRG", {1: ""})), acknowledge.REQUIRED_MISSING, "MRG-1"),
        (message("ADT^A40", ("PID", PATIENT), ("MRG", {1: "P1^^^HOSP"})), acknowledge.VALUE_NOT_FOUND, "MRG-1"),
        (message("ADT^A08", ("PID", {5: "Doe"})), acknowledge.REQUIRED_MISSING, "PID-3.1"),
        (order(patient={5: ""}), acknowledge.REQUIRED_MISSING, "PID-5"),
        (order(orc={1: "ZZ"}), acknowledge.VALUE_NOT_FOUND, "ORC-1"),
        (order(orc={1: "SC", 5: "??"}), acknowledge.VALUE_NOT_FOUND, "ORC-5"),
        (message("ORM^O01", ("PID", PATIENT), ("ORC", {1: "NW"})), acknowledge.REQUIRED_MISSING, "ORC-2"),
        (message("SIU^S12", ("PID", PATIENT), ("SCH", {3: "1"})), acknowledge.REQUIRED_MISSING, "SCH-1"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_with_its_place(data: bytes, condition: int, where: str) -> None:
    assert unfit(data) == (condition, where)


def test_a_study_uid_that_is_none_is_refused() -> None:
    data = message("ORM^O01", ("PID", PATIENT), ("ORC", ORC), ("OBR", {24: "CT"}), ("ZDS", {1: "not-a-uid"}))
    assert unfit(data)[0] == acknowledge.DATA_TYPE


def attribute(keyword: str, *segments: tuple[str, dict[int, str]], fields: FieldMap = USUAL) -> Any:
    parts = [("PID", PATIENT), ("ORC", ORC), ("OBR", {24: "CT"}), *segments]
    merged = {name: {} for name, _ in parts}
    data = message("ORM^O01", *((name, {**merged[name], **found}) for name, found in parts))
    (change,) = read(data, fields).orders
    return {**change.attributes, **change.steps[0].attributes}.get(keyword)


@pytest.mark.parametrize(
    ("keyword", "segment", "expected"),
    [
        ("Allergies", ("AL1", {3: "^Penicillin"}), "Penicillin"),
        ("PatientWeight", ("OBX", {2: "NM", 3: "3142-7^Body weight^LN", 5: "72.5", 6: "kg"}), "72.5"),
        ("PatientWeight", ("OBX", {2: "NM", 3: "^WEIGHT", 5: "3400", 6: "g"}), "3.4"),
        ("PatientWeight", ("OBX", {2: "NM", 3: "^WEIGHT", 5: "72"}), None),
        ("PatientSize", ("OBX", {2: "NM", 3: "8302-2", 5: "182", 6: "cm"}), "1.82"),
        ("PregnancyStatus", ("PV1", {15: "B6"}), "0003"),
        ("CurrentPatientLocation", ("PV1", {3: "WARD^12^B"}), "WARD 12 B"),
        ("RequestedProcedureComments", ("NTE", {3: "line"}), "line"),
        ("ScheduledPerformingPhysicianName", ("AIP", {3: "9^Tech^Tom"}), "Tech^Tom"),
    ],
)
def test_a_field_is_read_by_its_data_type(keyword: str, segment: tuple[str, dict[int, str]], expected: object) -> None:
    assert attribute(keyword, segment) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Doe^Jane", "Doe^Jane"),
        ("van^Doe&van^Jane", "van^Doe&van^Jane"),
        ("Doe&van^Jane^M^III^Dr", "Doe^Jane^M^Dr^III"),
        ("Yamada^Tarou^^^^^^A~山田^太郎^^^^^^I~やまだ^たろう^^^^^^P", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("Doe\\S\\Smith^Jane", "Doe Smith^Jane"),
        ('""', ""),
    ],
)
def test_a_name_becomes_a_dicom_name(name: str, expected: str) -> None:
    (change,) = read(message("ADT^A08", ("PID", {3: "P1", 5: name}))).patients
    assert change.attributes["PatientName"] == expected


def test_a_site_reads_its_own_fields() -> None:
    fields = FieldMap({"AccessionNumber": ["ZAC-1.2", "OBR-18"], "PatientComments": ["PID-99"], "Modality": ["ZMO-1"]})
    data = message(
        "ORM^O01", ("PID", PATIENT), ("ORC", ORC), ("OBR", {18: "WRONG", 24: "CT"}), ("ZAC", {1: "x^ACC7"}),
        ("ZMO", {1: "MR"}),
    )  # fmt: skip
    (change,) = read(data, fields).orders
    assert (change.keys.accession_number, change.steps[0].attributes["Modality"]) == ("ACC7", "MR")


@pytest.mark.parametrize("changes", [{"Nonsense": ["PID-3"]}, {"PatientName": ["PID"]}, {"PatientName": ["ABC:PID-5"]}])
def test_a_wrong_table_is_refused(changes: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError):
        FieldMap(changes)


def test_numbers_that_no_index_would_hold_are_refused() -> None:
    assert unfit(order(orc={2: "9" * 300})) == (acknowledge.DATA_TYPE, "ORC-2")


def test_two_double_quotes_empty_dates_and_codes_too() -> None:
    (change,) = read(order(patient={7: '""', 8: '""'})).orders
    assert (change.attributes["PatientBirthDate"], change.attributes["PatientSex"]) == ("", "")


def test_a_prior_identity_is_cut_like_the_patients_own() -> None:
    merge = message("ADT^A40", ("PID", PATIENT), ("MRG", {1: "A  B^^^HOSP"}))
    (change,) = read(merge).patients
    assert (change.prior_id, change.prior_issuer) == ("A B", "HOSP")
