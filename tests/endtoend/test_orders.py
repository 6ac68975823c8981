"""Orders by HL7 to a running daemon, worklists by DCMTK and pynetdicom, and what the administrator sees of them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]

from archive.hl7.framing import framed
from archive.index import Index, open_index
from tests.endtoend.dcmtk import Client
from tests.faults.daemon import Daemon, free_port, wait_until
from tests.hl7.made import PATIENT, message, order
from tests.hl7.test_listener import ask

TODAY = time.strftime("%Y%m%d")
STEP = "(0040,0100)[0]."
PEERS = {
    "SENDER": {"host": "127.0.0.0/8", "allow": ["echo", "worklist"]},
    "CT1": {"host": "127.0.0.0/8", "allow": ["echo", "worklist"], "worklist": {"stations": ["CT1"]}},
    "NOBODY": {"host": "127.0.0.0/8", "allow": ["echo", "store"]},
}


class Site:
    """A daemon that takes messages."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.hl7_port = free_port()
        self.daemon = Daemon(folder, {"hl7": {"port": self.hl7_port, "host": "127.0.0.1"}, "peers": PEERS} | changes)

    @cached_property
    def index(self) -> Index:
        """The daemon's own, beside it."""
        return open_index(f"sqlite:///{self.daemon.folder}/index.db")

    def send(self, data: bytes) -> str:
        with socket.create_connection(("127.0.0.1", self.hl7_port), timeout=60) as sock:
            return ask(sock, framed(data))

    def archive(self, *arguments: object, good: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", good=good))

    def run(self, *arguments: object, good: int = 0) -> str:
        command = [sys.executable, "-m", "archive", *map(str, arguments), "--config", self.daemon.config_file]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == good, done.stderr
        return done.stdout

    def worklist(self, *keys: str, calling: str = "SENDER", folder: Path) -> list[Dataset]:
        options = [part for key in ("0008,0050", *keys) for part in ("-k", key)]
        out = Path(tempfile.mkdtemp(dir=folder))
        Client(self.daemon, calling=calling).call("findscu", "-W", "-X", "-od", out, *options)
        return [dcmread(path, force=True) for path in sorted(out.glob("*.dcm"))]

    def kill_background(self) -> None:
        """kill -9 of the process that takes the messages; another one follows."""
        for pid in self.daemon.pids():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "background":
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path / "site")
    with found.daemon:
        yield found


def today(number: int, **fields: dict[int, str]) -> bytes:
    """A new order for today's list."""
    obr = {2: f"PL{number}^RIS", 3: f"FL{number}^RIS", 18: f"ACC{number}", 27: f"^^^{TODAY}0930", 21: "Scanner"}
    orc = {2: f"PL{number}^RIS", 3: f"FL{number}^RIS"}
    obr |= fields.get("obr", {})
    return order(f"M{number}", orc=orc, obr=obr, patient=fields.get("patient", {}), zds=False)


def test_an_order_is_on_the_worklist_as_soon_as_it_is_acknowledged(site: Site, tmp_path: Path) -> None:
    assert site.send(today(1)) == "AA"
    (found,) = site.worklist(
        "0010,0010", "0010,0020", "0010,0030", "0010,0040", "0020,000d", "0032,1060", "0040,1001", "0032,1064",
        f"{STEP}0008,0060=CT", f"{STEP}0040,0002={TODAY}", f"{STEP}0040,0003", f"{STEP}0040,0009",
        f"{STEP}0040,0006", f"{STEP}0040,0008", "0038,0010", "0010,2000", folder=tmp_path,
    )  # fmt: skip
    assert (found.PatientName, found.PatientID, found.AccessionNumber) == ("Doe^Jane^^Dr", "P1", "ACC1")
    assert found.StudyInstanceUID.startswith("2.25.")
    assert found.RequestedProcedureCodeSequence[0].CodeValue == "CTHEAD"
    (step,) = found.ScheduledProcedureStepSequence
    assert (step.Modality, step.ScheduledProcedureStepStartTime, step.ScheduledProcedureStepID) == (
        "CT", "093000", "SPS1",
    )  # fmt: skip
    assert step.ScheduledPerformingPhysicianName == "" and found.AdmissionID == "" and found.MedicalAlerts == ""
    assert step.ScheduledProtocolCodeSequence[0].CodeMeaning == "CT head"


def test_a_worklist_follows_its_order(site: Site, tmp_path: Path) -> None:
    def listed() -> list[str]:
        return sorted(str(each.AccessionNumber) for each in site.worklist(f"{STEP}0008,0060", folder=tmp_path))

    for number in (1, 2, 3):
        assert site.send(today(number)) == "AA"
    assert listed() == ["ACC1", "ACC2", "ACC3"]
    assert site.send(order("cancel", orc={1: "CA", 2: "PL1^RIS", 3: "FL1^RIS"}, zds=False)) == "AA"
    done = order("done", orc={1: "SC", 5: "CM", 2: "PL2^RIS", 3: "FL2^RIS"}, obr={18: "ACC2"}, zds=False)
    assert site.send(done) == "AA"
    assert listed() == ["ACC3"]
    assert site.send(order("late", orc={1: "CA", 2: "PL99^RIS", 3: ""}, obr={18: "ACC99"}, zds=False)) == "AE"
    new = {**PATIENT, 3: "P77^^^HOSP", 5: "Roe^Jane"}
    assert site.send(message("ADT^A40", ("PID", new), ("MRG", {1: "P1^^^HOSP"}), control="m")) == "AA"
    (found,) = site.worklist("0010,0020", "0010,0010=roe*", folder=tmp_path)
    assert (found.PatientID, found.PatientName) == ("P77", "Roe^Jane")


def test_a_peer_sees_its_own_stations(site: Site, tmp_path: Path) -> None:
    ipc = {1: "ACC1", 5: "CT", 4: "S1", 9: "CT1"}
    for number, station in enumerate(("CT1", "CT2"), 1):
        parts = [("ORC", {1: "NW", 2: f"PL{number}"}), ("TQ1", {7: f"{TODAY}1000"}), ("OBR", {4: "X^Y^L"})]
        parts += [("IPC", {**ipc, 1: f"ACC{number}", 9: station})]
        assert site.send(message("OMI^O23", ("PID", PATIENT), *parts, control=f"M{number}")) == "AA"
    assert [each.AccessionNumber for each in site.worklist(calling="CT1", folder=tmp_path)] == ["ACC1"]
    assert len(site.worklist(folder=tmp_path)) == 2
    with pytest.raises(AssertionError, match=r"(?i)reject|no acceptable|refused"):
        site.worklist(calling="NOBODY", folder=tmp_path)


def test_a_second_client_asks_in_its_own_character_set(site: Site) -> None:
    names = {
        "8859/1": ("Müller^Jürgen", "ISO_IR 100", "latin-1"),
        "ISO IR87": ("山田^太郎", "ISO_IR 192", "iso2022_jp"),
    }
    for number, (charset, (name, _, codec)) in enumerate(names.items(), 1):
        text = today(number, patient={5: name}).decode().replace("UNICODE UTF-8", charset)
        assert site.send(text.encode(codec)) == "AA"
    ae = AE("SENDER")
    ae.add_requested_context(ModalityWorklistInformationFind)
    association = ae.associate("127.0.0.1", site.daemon.port, ae_title="ARCHIVE")
    for name, term, _ in names.values():
        asked = Dataset()
        asked.SpecificCharacterSet = term
        asked.PatientName = name.split("^")[0] + "*"
        asked.ScheduledProcedureStepSequence = [Dataset()]
        found = [each for _, each in association.send_c_find(asked, ModalityWorklistInformationFind) if each]
        assert [str(each.PatientName) for each in found] == [name]
        assert found[0].SpecificCharacterSet == term
        assert found[0].ScheduledProcedureStepSequence[0].Modality == "CT"
    association.release()


def test_the_administrator_sees_orders_messages_and_what_a_message_would_do(site: Site, tmp_path: Path) -> None:
    site.send(today(1))
    site.send(message("ORU^R99", ("PID", PATIENT), control="bad"))
    (found,) = site.archive("orders")
    assert (found["accession_number"], found["state"], found["patient_name"]) == ("ACC1", "SCHEDULED", "Doe^Jane^^Dr")
    (whole,) = site.archive("orders", "show", "ACC1")
    assert whole["steps"][0]["attributes"]["Modality"] == "CT"
    assert [each["code"] for each in site.archive("orders", "messages")] == ["AR", "AA"]
    (refused,) = site.archive("orders", "messages", "--answer", "AR")
    assert refused["control_id"] == "bad" and "MSH-9.2" in refused["reason"]
    assert site.archive("worklist", "list", "--days", "0")[0]["description"] == "CT head"
    file = tmp_path / "message.hl7"
    file.write_bytes(today(2))
    said = site.archive("orders", "--dry-run", file)
    assert (said["answer"], said["orders"][0]["attributes"]["AccessionNumber"]) == ("AA", "ACC2")
    assert len(site.archive("orders")) == 1
    file.write_bytes(b"nonsense")
    assert site.archive("orders", "--dry-run", file, good=1)["answer"] == "AR"


def test_a_folder_of_worklist_files_is_taken_in(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "wl" / "ARCHIVE"
    folder.mkdir(parents=True)
    for number in range(3):
        _write_worklist_file(folder / f"wl{number}.wl", number)
    (folder / "broken.wl").write_bytes(b"\x00" * 300)
    (folder / "lockfile").write_bytes(b"")
    for _ in range(2):  # the second time changes nothing
        found = site.archive("worklist", "import", tmp_path / "wl", good=1)
        assert found["taken"] == 3 and [Path(each["path"]).name for each in found["refused"]] == ["broken.wl"]
    listed = site.worklist(f"{STEP}0040,0001=WLCT", "0010,0010", folder=tmp_path)
    assert sorted(str(each.AccessionNumber) for each in listed) == ["WL0", "WL1", "WL2"]
    assert {str(each.PatientName) for each in listed} == {"Wörk^List"}


def _write_worklist_file(path: Path, number: int) -> None:
    found, step = Dataset(), Dataset()
    found.SpecificCharacterSet = "ISO_IR 100"
    found.PatientName, found.PatientID, found.AccessionNumber = "Wörk^List", f"W{number}", f"WL{number}"
    found.StudyInstanceUID, found.RequestedProcedureID = f"1.2.99.{number}", f"R{number}"
    step.Modality, step.ScheduledStationAETitle = "CT", "WLCT"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = TODAY, "1200"
    found.ScheduledProcedureStepSequence = [step]
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = ModalityWorklistInformationFind
    found.file_meta.MediaStorageSOPInstanceUID = f"1.2.98.{number}"
    found.save_as(path, enforce_file_format=True)


def test_a_reload_changes_how_messages_are_read(site: Site) -> None:
    site.daemon.configure({"hl7": {"mapping": {"PatientComments": "PID-3.5"}, "senders": ["RIS"]}})
    site.daemon.signal(signal.SIGHUP)
    wait_until(lambda: _answer_of(site, message("ADT^A08", ("PID", PATIENT), header={3: "OTHER"})) == "", 10)
    assert site.send(today(1, patient={3: "P1^^^HOSP^MR"})) == "AA"
    (whole,) = site.archive("orders", "show", "ACC1")
    assert whole["attributes"]["PatientComments"] == "MR"


def _answer_of(site: Site, data: bytes) -> str:
    try:
        return site.send(data)
    except OSError:
        return "none"


class Sender(threading.Thread):
    """Sends orders, each until it is acknowledged: the next is another one."""

    def __init__(self, send: Callable[[bytes], str], name: str) -> None:
        super().__init__(daemon=True)
        self._send, self._name = send, name
        self.acknowledged: list[str] = []
        self.going_on = True

    def run(self) -> None:
        number = 0
        while self.going_on:
            accession = f"{self._name}{number}"
            if self._try(today(0, obr={18: accession, 2: accession, 3: accession, 20: accession}), accession):
                self.acknowledged.append(accession)
                number += 1

    def _try(self, data: bytes, accession: str) -> bool:
        text = data.decode()
        for word in ("PL0^RIS", "FL0^RIS", "M0"):
            text = text.replace(f"|{word}", f"|{accession}")
        try:
            return self._send(text.encode()) == "AA"
        except OSError:
            time.sleep(0.02)
            return False


def test_h03_what_is_acknowledged_survives_kill_9_and_has_one_effect(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    with site.daemon:
        senders = [Sender(site.send, name) for name in ("A", "B")]
        for sender in senders:
            sender.start()
        rng = random.Random(3)
        for _ in range(10):
            time.sleep(rng.uniform(0.05, 0.3))
            site.kill_background()
        wait_until(lambda: sum(len(sender.acknowledged) for sender in senders) > 10, 120)
        for sender in senders:
            sender.going_on = False
            sender.join(60)
        acknowledged = [accession for sender in senders for accession in sender.acknowledged]
        orders = [each.accession_number for each in site.index.orders.latest(limit=100_000)]
        assert len(orders) == len(set(orders))
        assert set(acknowledged) <= set(orders)
        assert len(set(orders) - set(acknowledged)) <= 2
