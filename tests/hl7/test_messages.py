"""Messages as senders in use write them: what each was answered, and what became of it. The files are in messages/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archive.hl7.inbound import Inbound
from archive.hl7.mapping import FieldMap
from archive.index import Index
from archive.services.orders import Orders

FOLDER = Path(__file__).parent / "messages"
FILES = sorted(FOLDER.glob("*.hl7"))


def outcomes(index: Index) -> dict[str, str]:
    """All files in their order, to one archive: number to answer."""
    inbound = Inbound(
        Orders(index), clock=lambda: 1000.0, fields=FieldMap(), charset="UNICODE UTF-8", application="ARCHIVE"
    )
    return {file.name[:2]: _code(inbound.receive(file.read_bytes().strip(), "10.0.0.1")) for file in FILES}


def _code(answer: bytes) -> str:
    segment = answer.split(b"\r")[1].decode()
    return segment[4:6]


# Of the order with this placer number: keyword -> value, and keyword -> value of its first step.
BECAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "P1": ({"PatientName": "Doe^Jane^M^Mrs", "AdmissionID": "V99", "StudyInstanceUID": "1.2.840.1.1"}, {}),
    "P2": (
        {"PatientID": "4712", "PatientSex": "F", "AccessionNumber": "P2"},
        {"Modality": "DX", "ScheduledProcedureStepStartTime": "100000"},
    ),
    "P3": (
        {"PatientID": "MRN5", "IssuerOfPatientID": "CITY", "AccessionNumber": "A3", "PatientName": "DOE^JOHN^Q^^JR"},
        {"ScheduledProcedureStepStartDate": "20261121", "ScheduledProcedureStepStartTime": "110000"},
    ),
    "P4": (
        {"PatientName": "O&Neil^Ann|e", "RequestedProcedureDescription": "a ^ b"},
        {"ScheduledProcedureStepStartTime": "120000"},
    ),
    "P5": ({"PatientName": "Müller^Jürgen", "PatientBirthDate": "19600103"}, {}),
    "P6": ({"PatientName": "Łukasz^Żaneta", "RequestedProcedureDescription": "Głowa"}, {}),
    "P7": ({"PatientName": "YAMADA^TARO=山田^太郎=やまだ^たろう", "RequestedProcedureDescription": "頭部"}, {}),
    "P8": ({"PatientName": "Unix^Ulla", "AccessionNumber": "A8"}, {"Modality": "CR"}),
    "P9": ({"PatientName": "Dos^Dora", "AccessionNumber": "A9"}, {"Modality": "CR"}),
    "P10": ({"PatientSex": "F", "RequestedProcedurePriority": "STAT"}, {}),
    "P11": ({"FillerOrderNumberImagingServiceRequest": "F11", "AccessionNumber": "A11"}, {}),
    "P12": ({"RequestedProcedureDescription": "Skull with contrast"}, {}),
    "P13": ({"PatientName": "Ancient^Anna"}, {}),
    "AP14": (
        {"RequestedProcedureID": "AP14", "RequestedProcedureDescription": "CT abdomen"},
        {"ScheduledProcedureStepStartTime": "140000", "ScheduledProcedureStepLocation": "CTROOM1"},
    ),
    "P16": (
        {"PatientID": "P99", "IssuerOfPatientID": "H", "StudyInstanceUID": "1.2.840.1.16"},
        {"ScheduledStationAETitle": "CT1", "Modality": "CT"},
    ),
    "P21": ({"PatientName": "Odd^Olga"}, {"Modality": "CT"}),
}
REFUSED = {"22": "AR", "23": "AE"}
STATES = {"P1": "CANCELLED", "AP14": "CANCELLED"}  # of the others: SCHEDULED


def test_messages_of_many_senders_are_taken(index: Index) -> None:
    assert outcomes(index) == {file.name[:2]: REFUSED.get(file.name[:2], "AA") for file in FILES}
    orders = {order.placer: order for order in index.orders.latest(limit=1000)}
    assert set(orders) == set(BECAME)
    for placer, (above, step) in BECAME.items():
        order = orders[placer]
        assert {key: order.attributes.get(key) for key in above} == above
        assert {key: order.steps[0][2].get(key) for key in step} == step
        assert order.state == STATES.get(placer, "SCHEDULED")
    assert [step_id for step_id, _, _ in orders["P16"].steps] == ["SPS16A", "SPS16B"]
    (report,) = index.tasks(kind="report")
    assert report.payload["report"]["final"] and report.payload["report"]["text"].startswith("GDT:\r\nNo fracture.")
    assert len(index.orders.messages(limit=1000)) == len(FILES)


def test_the_same_messages_again_change_nothing(index: Index) -> None:
    outcomes(index)
    before = index.orders.latest(limit=1000), len(index.tasks())
    assert outcomes(index) == {file.name[:2]: REFUSED.get(file.name[:2], "AA") for file in FILES}
    assert (index.orders.latest(limit=1000), len(index.tasks())) == before


