"""Reports by HL7: objects of their study that can be found and fetched, and the state that follows."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from archive.index import State
from tests.endtoend.dcmtk import Client
from tests.endtoend.test_matching import ALL, acquire, state
from tests.endtoend.test_orders import Site, today
from tests.faults.daemon import wait_until
from tests.hl7.made import PATIENT, Fields, message

PDF = b"%PDF-1.4\n% a document \xe2\xe3\n%%EOF\n"
STUDY = "1.2.88"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    studies = {"ready_after": "1h", "on_association_close": "0s"}
    peers = {"SENDER": {"host": "127.0.0.0/8", "allow": ALL}}
    found = Site(tmp_path / "site", peers=peers, studies=studies, timeouts={"idle": "60s"})
    with found.daemon:
        yield found


def result(control: str, status: str, *observations: Fields) -> bytes:
    obr = {2: "PL1^RIS", 3: "FL1^RIS", 4: "CTHEAD^CT head^L", 18: "ACC1", 22: "20261121153000"}
    obr |= {25: status, 32: "7&Rad&Rita"}
    parts = [("OBX", {1: str(number), **found}) for number, found in enumerate(observations, 1)]
    return message("ORU^R01", ("PID", PATIENT), ("OBR", obr), *parts, control=control)


TEXT = (
    {2: "TX", 3: "F^Findings", 5: "No fracture.~Größe normal."},
    {2: "TX", 3: "I^Impression", 5: "Normal \\T\\ well."},
)


def reports(site: Site, folder: Path) -> list[Dataset]:
    """What getscu fetches of the study, without its images."""
    folder.mkdir(exist_ok=True)
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}")
    Client(site.daemon).call("getscu", "-S", "-od", folder, *keys)
    found = [dcmread(path) for path in folder.iterdir()]
    return [each for each in found if each.Modality in ("SR", "DOC")]


def test_a_report_is_kept_with_its_study_and_its_state_follows(site: Site, tmp_path: Path) -> None:
    assert site.send(today(1)) == "AA"
    acquire(site, tmp_path, STUDY, PatientName="Doe^Jane", PatientID="P1", AccessionNumber="ACC1")
    wait_until(lambda: state(site, STUDY) == "ready", 20)
    assert site.send(result("R1", "P", *TEXT)) == "AA"
    wait_until(lambda: state(site, STUDY) == "read", 20)
    assert site.send(result("R2", "F", *TEXT)) == "AA"
    wait_until(lambda: state(site, STUDY) == "reported", 20)
    assert site.send(result("R2", "F", *TEXT)) == "AA"

    got = reports(site, tmp_path / "got")
    preliminary, final = sorted(got, key=lambda each: str(each.PreliminaryFlag), reverse=True)
    assert (preliminary.PreliminaryFlag, final.PreliminaryFlag) == ("PRELIMINARY", "FINAL")
    assert (final.PatientName, final.AccessionNumber, final.StudyInstanceUID) == ("Doe^Jane", "ACC1", STUDY)
    text = final.ContentSequence[0].TextValue
    assert text == "Findings:\r\nNo fracture.\r\nGröße normal.\r\n\r\nImpression:\r\nNormal & well."
    assert final.AuthorObserverSequence[0].PersonName == "Rad^Rita"
    site.run("studies", "complete", STUDY)
    assert state(site, STUDY) == "complete"


def test_a_pdf_waits_for_its_study(site: Site, tmp_path: Path) -> None:
    document = {2: "ED", 3: "PDF^Report", 5: f"RIS^AP^PDF^Base64^{base64.b64encode(PDF).decode()}", 11: "F"}
    assert site.send(result("R1", "F", document)) == "AA"
    wait_until(lambda: any(task.reason for task in site.index.tasks(kind="report")), 20)
    acquire(site, tmp_path, STUDY, PatientName="Doe^Jane", PatientID="P1", AccessionNumber="ACC1")
    wait_until(lambda: bool(reports(site, tmp_path / "got")), 30)
    (found,) = reports(site, tmp_path / "again")
    assert found.EncapsulatedDocument[: found.EncapsulatedDocumentLength] == PDF
    assert found.MIMETypeOfEncapsulatedDocument == "application/pdf"


def test_a_result_without_anything_to_keep_is_refused(site: Site) -> None:
    assert site.send(result("R1", "F")) == "AE"
    assert site.send(result("R2", "F", {2: "ED", 5: "RIS^AP^PDF^Base64^AAAA"})) == "AE"
    assert site.send(result("R3", "F", {2: "ED", 5: "RIS^AP^PDF^Base64^!"})) == "AE"
    assert not site.index.tasks(kind="report")


def test_a_report_of_another_patient_is_not_filed(site: Site, tmp_path: Path) -> None:
    acquire(site, tmp_path, STUDY, PatientName="Doe^Jane", PatientID="P1", AccessionNumber="ACC1")
    wait_until(lambda: state(site, STUDY) in ("ready", "unmatched"), 20)
    other = result("R1", "F", *TEXT).replace(b"P1^^^HOSP", b"P9^^^HOSP").replace(b"Doe^Jane", b"Roe^Rita")
    other = other.rstrip(b"\r") + f"\rZDS|{STUDY}^RIS^Application^DICOM\r".encode()
    assert site.send(other) == "AA"
    wait_until(lambda: bool(site.index.tasks(kind="report", state=State.FAILED)), 20)
    assert reports(site, tmp_path / "got") == [] and state(site, STUDY) in ("ready", "unmatched")


def test_a_preliminary_result_that_comes_late_takes_nothing_back(site: Site, tmp_path: Path) -> None:
    acquire(site, tmp_path, STUDY, PatientName="Doe^Jane", PatientID="P1", AccessionNumber="ACC1")
    wait_until(lambda: state(site, STUDY) in ("ready", "unmatched"), 20)
    assert site.send(result("R1", "F", *TEXT)) == "AA"
    wait_until(lambda: state(site, STUDY) == "reported", 20)
    assert site.send(result("R2", "p", *TEXT)) == "AA"
    wait_until(lambda: len(reports(site, tmp_path / "got")) == 2, 20)
    wait_until(lambda: not site.index.tasks(kind="report", state=State.WAITING), 20)
    assert state(site, STUDY) == "reported"
