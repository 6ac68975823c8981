"""Two days of a department, one with a matching order and one without, by the clients that a department has."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]

from tests.endtoend.test_matching import ALL, acquire, found, order_state, state
from tests.endtoend.test_orders import STEP, TODAY, Site
from tests.endtoend.test_performed import Modality, beginning, ending
from tests.faults.daemon import wait_until


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    studies = {"ready_after": "1h", "on_association_close": "0s", **getattr(request, "param", {})}
    peers = {"SENDER": {"host": "127.0.0.0/8", "allow": [*ALL, "mpps"]}}
    made = Site(tmp_path / "site", peers=peers, studies=studies, timeouts={"idle": "60s"})
    with made.daemon:
        yield made


def ris(site: Site, text: str) -> str:
    """A sender that shares nothing with the archive: the message as a RIS writes it, the frame by hand."""
    data = b"\x0b" + text.strip().replace("\n", "\r").encode() + b"\r\x1c\r"
    with socket.create_connection(("127.0.0.1", site.hl7_port), timeout=60) as sock:
        sock.sendall(data)
        answer = b""
        while not answer.endswith(b"\x1c\r"):
            answer += sock.recv(4096)
    return next(line for line in answer.decode().split("\r") if line.startswith("MSA")).split("|")[1]


def ordered(number: str, patient: str, name: str) -> str:
    return f"""\
MSH|^~\\&|RIS|HOSP|ARCHIVE|HOSP|{TODAY}0800||ORM^O01|{number}|P|2.3.1
PID|1||{patient}^^^HOSP||{name}||19600102|F
PV1|1|O|CT^^^HOSP
ORC|NW|PL{number}|FL{number}||SC
OBR|1|PL{number}|FL{number}|CTHEAD^CT head^L||||||||||||||ACC{number}|RP{number}|SPS{number}||||CT|||^^^{TODAY}0930^^R
"""


def reported(number: str, patient: str, name: str) -> str:
    return f"""\
MSH|^~\\&|DICTATION|HOSP|ARCHIVE|HOSP|{TODAY}1130||ORU^R01|R{number}|P|2.3.1
PID|1||{patient}^^^HOSP||{name}||19600102|F
OBR|1|PL{number}|FL{number}|CTHEAD^CT head^L||||||||||||||ACC{number}||||{TODAY}1125||CT|F
OBX|1|TX|F^Findings||No fracture.||||||F
"""


def by_pynetdicom(site: Site) -> list[Dataset]:
    ae = AE("SENDER")
    ae.add_requested_context(ModalityWorklistInformationFind)
    association = ae.associate("127.0.0.1", site.daemon.port, ae_title="ARCHIVE")
    asked, step = Dataset(), Dataset()
    asked.PatientName = asked.PatientID = asked.AccessionNumber = asked.StudyInstanceUID = ""
    step.Modality, step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepID = "CT", TODAY, ""
    asked.ScheduledProcedureStepSequence = [step]
    answers = [each for _, each in association.send_c_find(asked, ModalityWorklistInformationFind) if each]
    association.release()
    return answers


def test_a_day_with_an_order(site: Site, tmp_path: Path) -> None:
    assert ris(site, ordered("1", "D1", "Doe^John")) == "AA"
    (listed,) = site.worklist("0010,0010", "0020,000d", f"{STEP}0040,0009", folder=tmp_path)
    (again,) = by_pynetdicom(site)
    assert (listed.PatientName, listed.StudyInstanceUID) == (again.PatientName, again.StudyInstanceUID)
    uid, step = str(again.StudyInstanceUID), str(again.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID)

    with Modality(site) as modality:
        begun = beginning(uid, "ACC1", step, PatientName="Doe^John", PatientID="D1")
        assert modality.create(begun, "1.2.99.1").Status == 0
        assert order_state(site) == "STARTED"
        acquire(site, tmp_path, uid, PatientName="Doe^John", PatientID="D1", AccessionNumber="ACC1")
        assert modality.set(ending("COMPLETED", f"{uid}.1.1"), "1.2.99.1").Status == 0
    wait_until(lambda: state(site, uid) == "ready" and order_state(site) == "COMPLETED", 20)
    assert by_pynetdicom(site) == []
    assert site.archive("studies", "--state", "ready")[0]["study_uid"] == uid

    site.run("studies", "read", uid)
    assert state(site, uid) == "read"
    assert ris(site, reported("1", "D1", "Doe^John")) == "AA"
    wait_until(lambda: state(site, uid) == "reported", 20)
    assert "SR" in found(site, StudyInstanceUID=uid, ModalitiesInStudy="")


@pytest.mark.parametrize("site", [{"after_report": "complete"}], indirect=True)
def test_a_day_without_an_order_that_fits(site: Site, tmp_path: Path) -> None:
    assert ris(site, ordered("2", "F1", "Fisher^Jane")) == "AA"
    uid = "1.2.66.7"
    acquire(site, tmp_path, uid, PatientName="Smith^Jane", PatientID="S1", AccessionNumber="")
    wait_until(lambda: state(site, uid) == "unmatched", 20)
    assert [each["study_uid"] for each in site.archive("studies", "--unmatched")] == [uid]
    assert "Smith^Jane" in found(site, StudyInstanceUID=uid)

    (candidate,) = site.archive("orders", "candidates", uid)
    site.run("orders", "match", uid, candidate["accession_number"], "--reason", "registered under a wrong name")
    answer = found(site, StudyInstanceUID=uid)
    assert all(text in answer for text in ("Fisher^Jane", "F1", "ACC2")) and "Smith" not in answer
    assert (state(site, uid), order_state(site)) == ("ready", "COMPLETED")
    assert by_pynetdicom(site) == []

    site.run("studies", "read", uid)
    assert ris(site, reported("2", "F1", "Fisher^Jane")) == "AA"
    wait_until(lambda: state(site, uid) == "complete", 20)
    assert "SR" in found(site, StudyInstanceUID=uid, ModalitiesInStudy="", PatientName="Fisher*")
