"""A department's days with and without a matching order, by DCMTK and HL7, as an administrator sees them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from archive.index import State
from tests.endtoend.dcmtk import Client, query
from tests.endtoend.test_orders import TODAY, Site, today
from tests.faults.daemon import wait_until
from tests.faults.raw import CT
from tests.hl7.made import message, order

ALL = ["echo", "store", "find", "get", "move", "worklist"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    studies = {"ready_after": "1h", "on_association_close": "0s"}
    peers = {"SENDER": {"host": "127.0.0.0/8", "allow": ALL}}
    found = Site(tmp_path / "site", peers=peers, studies=studies, timeouts={"idle": "60s"})
    with found.daemon:
        yield found


def acquire(site: Site, folder: Path, uid: str, **attributes: str) -> None:
    """One image of a study by storescu."""
    found = Dataset()
    found.SOPClassUID, found.SOPInstanceUID = CT, f"{uid}.1.1"
    found.StudyInstanceUID, found.SeriesInstanceUID, found.Modality = uid, f"{uid}.1", "CT"
    found.SpecificCharacterSet = "ISO_IR 192"
    found.StudyDate, found.StudyTime, found.StudyID = TODAY, "100000", "1"
    for keyword, value in attributes.items():
        setattr(found, keyword, value)
    path = folder / "image.dcm"
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.save_as(path, enforce_file_format=True)
    Client(site.daemon).call("storescu", rest=[path])


def state(site: Site, uid: str) -> str:
    return next((each.state for each in site.index.studies() if each.study_uid == uid), "")


def order_state(site: Site) -> str:
    return site.index.orders.latest()[0].state


def found(site: Site, **keys: str) -> str:
    asked = {"PatientName": "", "PatientID": "", "AccessionNumber": "", "StudyInstanceUID": "", **keys}
    return Client(site.daemon).call("findscu", *query("STUDY", **asked))


def test_a_study_with_the_worklists_identifiers_is_of_its_order(site: Site, tmp_path: Path) -> None:
    assert site.send(today(1)) == "AA"
    (listed,) = site.worklist("0020,000d", "0010,0010", "0010,0020", folder=tmp_path)
    uid = str(listed.StudyInstanceUID)
    acquire(site, tmp_path, uid, PatientName="Doe^Jane", PatientID="P1", AccessionNumber="ACC1")
    wait_until(lambda: order_state(site) == "COMPLETED", 20)
    assert state(site, uid) == "ready"
    assert site.worklist(folder=tmp_path) == []


def test_a_study_is_of_the_order_with_its_accession_number(site: Site, tmp_path: Path) -> None:
    assert site.send(today(1)) == "AA"
    acquire(site, tmp_path, "1.2.55", PatientName="DOE^JANE", PatientID="P1", AccessionNumber="ACC1")
    wait_until(lambda: order_state(site) == "COMPLETED", 20)
    acquire(site, tmp_path, "1.2.56", PatientName="Roe^Rita", PatientID="P9", AccessionNumber="ACC1")
    wait_until(lambda: state(site, "1.2.56") == "unmatched", 20)


def test_a_study_without_order_is_matched_by_a_person_and_unmatched_again(site: Site, tmp_path: Path) -> None:
    fisher = {3: "F1^^^HOSP", 5: "Fisher^Jane"}
    assert site.send(today(1, patient=fisher)) == "AA"
    acquire(site, tmp_path, "1.2.66", PatientName="Smith^Jane", PatientID="S1", AccessionNumber="")
    wait_until(lambda: state(site, "1.2.66") == "unmatched", 20)
    assert [each["study_uid"] for each in site.archive("studies", "--unmatched")] == ["1.2.66"]
    (candidate,) = site.archive("orders", "candidates", "1.2.66")
    assert (candidate["accession_number"], candidate["against"]) == ("ACC1", "other patient ID, other name")

    site.run("orders", "match", "1.2.66", "ACC1", "--reason", "wrong patient chosen")
    answer = found(site, StudyInstanceUID="1.2.66")
    assert all(text in answer for text in ("Fisher^Jane", "F1", "ACC1")) and "Smith" not in answer
    assert state(site, "1.2.66") == "ready"
    assert order_state(site) == "COMPLETED"
    site.run("orders", "match", "1.2.66", "ACC1", "--reason", "again", good=1)

    site.run("orders", "unmatch", "1.2.66", "--reason", "it was right")
    answer = found(site, StudyInstanceUID="1.2.66")
    assert "Smith^Jane" in answer and "ACC1" not in answer
    assert state(site, "1.2.66") == "unmatched"
    assert order_state(site) == "SCHEDULED"
    site.run("orders", "match", "1.2.66", "ACC1", "--reason", "no, wrong after all")
    assert "Fisher^Jane" in found(site, StudyInstanceUID="1.2.66")


def test_an_order_that_comes_late_finds_its_study(site: Site, tmp_path: Path) -> None:
    acquire(site, tmp_path, "1.2.77", PatientName="Doe^Jane", PatientID="P1", AccessionNumber="ACC1")
    wait_until(lambda: state(site, "1.2.77") == "unmatched", 20)
    assert site.send(today(1)) == "AA"
    wait_until(lambda: state(site, "1.2.77") == "ready", 20)
    assert order_state(site) == "COMPLETED"
    assert site.send(order("again", obr={18: "ACC1"}, zds=False)) == "AA"


def test_messages_about_a_patient_reach_what_is_stored(site: Site, tmp_path: Path) -> None:
    acquire(site, tmp_path, "1.2.91", PatientName="Doe^Jane", PatientID="P0", IssuerOfPatientID="HOSP")
    new = {3: "P1^^^HOSP", 5: "Roe^Jane", 7: "19700101", 8: "F"}
    merge = message("ADT^A40", ("PID", new), ("MRG", {1: "P0^^^HOSP"}), control="m")
    for _ in range(2):
        assert site.send(merge) == "AA"
    wait_until(lambda: "Roe^Jane" in found(site, StudyInstanceUID="1.2.91"), 20)
    assert "P1" in found(site, StudyInstanceUID="1.2.91")
    assert site.send(message("ADT^A08", ("PID", {**new, 5: "Poe^Jane"}), control="u")) == "AA"
    wait_until(lambda: "Poe^Jane" in found(site, StudyInstanceUID="1.2.91"), 20)
    acquire(site, tmp_path, "1.2.92", PatientName="Doe^Jane", PatientID="P0", IssuerOfPatientID="HOSP")
    assert "Poe^Jane" in found(site, StudyInstanceUID="1.2.92", PatientID="P1")
    assert not site.index.tasks(kind="patient", state=State.FAILED)
