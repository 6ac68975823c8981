"""Priors are fetched from a second archive of this kind when an order comes: those that matter, once, in time."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from archive.hl7.framing import framed
from archive.index import Index, State, Task, open_index
from archive.services.fetching import FETCH
from archive.services.prefetch import PREFETCH
from tests.dimse import archives
from tests.endtoend.dcmtk import Client, storescp
from tests.endtoend.five import received
from tests.faults.daemon import EVERYTHING, Daemon, free_port, wait_until
from tests.hl7.made import order
from tests.hl7.test_listener import ask

NAME, BORN = "Doe^Jane", "19600102"
PATIENT = {3: "P1^^^HOSP", 5: NAME, 7: BORN, 8: "F"}
RULE: dict[str, Any] = {
    "name": "same part", "on": "order", "match": "Modality = 'CT'",
    "priors": {"max": 2, "within": "5y", "same": ["body_part"]}, "from": ["REMOTE"], "ahead": "4h",
}  # fmt: skip
PATIENCE = 60.0


def days_ago(number: int) -> str:
    return f"{datetime.now() - timedelta(days=number):%Y%m%d}"


def prior(number: int, description: str, modality: str = "CT", age: int = 100, **changes: str) -> list[Dataset]:
    """A study of two images, so many days old."""
    found = []
    for image in (1, 2):
        each = archives.instance(image, study=number, size=16, modality=modality, patient="P1")
        each.PatientName, each.PatientBirthDate, each.PatientSex = NAME, BORN, "F"
        each.IssuerOfPatientID, each.StudyDescription, each.StudyDate = "HOSP", description, days_ago(age)
        for keyword, value in changes.items():
            setattr(each, keyword, value)
        found.append(each)
    return found


def uid(number: int) -> str:
    return f"{archives.ROOT}.{number}"


class Two:
    """The archive with its rules, and the remote one with the priors."""

    def __init__(self, folder: Path, rules: list[dict[str, Any]], **changes: Any) -> None:
        self.folder, self.hl7_port = folder, free_port()
        self.remote = Daemon(folder / "remote", {"ae": {"title": "REMOTE", "aliases": ["ARCHIVE"]}, "processes": 1})
        peers = {"REMOTE": {"host": "127.0.0.1", "port": self.remote.port, "allow": ["echo", "store"]}}
        peers["SENDER"] = {"host": "127.0.0.0/8", "allow": EVERYTHING}
        settings = {"hl7": {"port": self.hl7_port, "host": "127.0.0.1"}, "peers": peers, "prefetch": rules}
        self.archive = Daemon(folder / "archive", settings | {"processes": 1} | changes)
        self.remote.configure({"peers": {"ARCHIVE": {"host": "127.0.0.1", "port": self.archive.port,
                                                     "allow": EVERYTHING}}})  # fmt: skip

    def start(self) -> Two:
        self.remote.start()
        self.archive.start()
        self.index: Index = open_index(f"sqlite:///{self.archive.folder}/index.db")
        return self

    def close(self) -> None:
        self.archive.kill()
        self.remote.kill()

    def fill(self, *studies: list[Dataset]) -> None:
        """Put studies into the remote archive."""
        files = [each for study in studies for each in study]
        archives.write(self.folder / "in", *files)
        Client(self.remote).call("storescu", "+sd", rest=[self.folder / "in"])

    def send(self, data: bytes) -> str:
        with socket.create_connection(("127.0.0.1", self.hl7_port), timeout=60) as sock:
            return ask(sock, framed(data))

    def command(self, *arguments: object, good: int = 0) -> Any:
        options = ["--config", str(self.archive.config_file), "--json"]
        command = [sys.executable, "-m", "archive", *map(str, arguments), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == good, done.stderr
        return json.loads(done.stdout)

    def tasks(self, kind: str, *states: State) -> list[Task]:
        return [task for task in self.index.tasks(kind=kind) if not states or task.state in states]

    def settled(self) -> bool:
        """Whether nothing is to be looked for or fetched any more."""
        open_states = (State.WAITING, State.LEASED)
        return not self.tasks(PREFETCH, *open_states) and not self.tasks(FETCH, *open_states)

    def studies(self) -> set[str]:
        return {each.study_uid for each in self.index.studies()}


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    found = Two(tmp_path, [RULE])
    try:
        yield found.start()
    finally:
        found.close()


def ct_head(number: int = 1, *, hours: float = 1.0, control: str = "", **fields: dict[int, str]) -> bytes:
    """An order for a CT of the head that begins in so many hours."""
    begins = f"{datetime.now() + timedelta(hours=hours):%Y%m%d%H%M%S}"
    obr = {2: f"PL{number}", 3: f"FL{number}", 18: f"ACC{number}", 27: f"^^^{begins}"}
    orc = {2: f"PL{number}", 3: f"FL{number}"} | fields.get("orc", {})
    return order(control or f"M{number}-{time.time_ns()}", orc=orc, obr=obr, patient=PATIENT, zds=False)


def test_an_order_brings_the_relevant_priors_and_a_second_trigger_moves_nothing(two: Two) -> None:
    two.fill(
        prior(1, "CT head"), prior(2, "MR brain", "MR", 700), prior(3, "CT head", age=900), prior(4, "CT abdomen"),
        prior(5, "CT head", age=3000), prior(6, "CT head", IssuerOfPatientID="", PatientBirthDate="19700101"),
        prior(7, "CT head", IssuerOfPatientID="OTHER", PatientName="Roe^Jane"), prior(8, "CT head", PatientID="P2"),
    )  # fmt: skip
    assert two.send(ct_head(1)) == "AA"
    wait_until(lambda: two.tasks(PREFETCH, State.DONE) and two.settled(), PATIENCE, two.archive.log)
    assert two.studies() == {uid(1), uid(3)}
    assert two.index.statistics().instances == 4
    (looked,) = two.tasks(PREFETCH)
    assert looked.reason.startswith("2 priors are fetched, 0 are here")
    sent = two.remote.log().count("C-MOVE")
    assert two.send(ct_head(1)) == "AA"
    wait_until(lambda: len(two.tasks(PREFETCH, State.DONE)) == 2 and two.settled(), PATIENCE, two.archive.log)
    assert len(two.tasks(FETCH)) == 2 and two.remote.log().count("C-MOVE") == sent
    assert two.index.statistics().instances == 4


def test_the_administrator_is_told_which_priors_would_come_and_why(two: Two) -> None:
    two.fill(prior(1, "CT head"), prior(2, "CT abdomen"), prior(3, "", "MR", 10, BodyPartExamined="BRAIN"))
    assert two.send(ct_head(1, hours=48)) == "AA"
    wait_until(lambda: any(task.due > time.time() for task in two.tasks(PREFETCH)), PATIENCE, two.archive.log)
    (said,) = two.command("prefetch", "test", "ACC1")
    assert said["rule"] == "same part" and said["when"] > time.time() + 40 * 3600
    outcome = {each["study"]: (each["outcome"], each["why"]) for each in said["priors"]}
    assert outcome[uid(2)] == ("not", "other body part (abdomen)")
    assert outcome[uid(1)][1].startswith("same procedure, same body part (head), same modality (CT), 10")
    assert outcome[uid(3)][1].startswith("same body part (head), near modality (MR), 1")
    assert {outcome[uid(number)][0] for number in (1, 3)} == {"fetch"}
    (waits,) = two.command("queue", "--kind", PREFETCH)
    assert waits["state"] == "waiting" and "before the examination" in waits["why"]
    two.archive.kill()
    two.remote.kill()
    (said,) = two.command("prefetch", "test", "ACC1", good=1)
    assert "REMOTE" in said["failed"]


def test_priors_that_are_wanted_survive_kill_9_and_go_on_to_the_workstation(tmp_path: Path) -> None:
    with storescp(tmp_path / "received") as port:
        two = Two(tmp_path, [RULE | {"to": ["WS"]}], studies={"ready_after": "1s"})
        two.archive.configure({"peers": {"WS": {"host": "127.0.0.1", "port": port}}})
        try:
            two.remote.start()
            two.fill(prior(1, "CT head"))
            two.remote.kill()
            two.archive.start()
            two.index = open_index(f"sqlite:///{two.archive.folder}/index.db")
            assert two.send(ct_head(1)) == "AA"
            wait_until(lambda: [task for task in two.tasks(PREFETCH) if "REMOTE" in task.reason], PATIENCE)
            two.archive.kill()
            two.remote.start()
            two.archive.start()
            two.command("queue", "retry", *(task.id for task in two.tasks(PREFETCH)))
            wait_until(lambda: len(received(tmp_path / "received")) == 2, PATIENCE, two.archive.log)
            assert two.studies() == {uid(1)}
        finally:
            two.close()
