"""Routing by the daemon as a process: good and bad destinations, kills, loops, duplicates, and a person's hand."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from archive.cli import main
from archive.index import Index, State, open_index
from tests.dimse import archives
from tests.endtoend import five
from tests.endtoend.dcmtk import Client, storescp
from tests.faults.daemon import EVERYTHING, Daemon, wait_until
from tests.faults.destination import Destination, serve

COUNT = 32
BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
PATIENCE = 200  # one image after the other runs into the silence of the destination that hangs


def test_good_destinations_get_all_and_every_failure_has_its_reason(tmp_path: Path) -> None:
    """Four senders, a restart and a kill in between: nothing is lost, nothing called sent that is not there."""
    folders = five.prepare(tmp_path / "in", COUNT)
    with storescp(tmp_path / "first", "--fork") as first, storescp(tmp_path / "second", "--fork") as second:
        made = five.Five(tmp_path / "archive", COUNT, second, first)
        try:
            five.run(made, folders, disturb=True)
            index = made.index()
            lanes = {lane: five.ends(index, lane) for lane in (*five.GOOD, *five.BAD)}
            wait_until(lambda: not waiting(index, *five.BAD), PATIENCE, lambda: five.states(index))
            lanes |= {lane: five.ends(index, lane) for lane in five.BAD}
        finally:
            made.close()
        for lane, folder in (("STORESCP", tmp_path / "first"), ("SECOND", tmp_path / "second")):
            there = five.received(folder)
            assert len(there) == COUNT and set(lanes[lane]) == set(there)
        assert {task.state for lane in five.GOOD for task in lanes[lane].values()} == {State.DONE}
    assert {(task.state, "not reached" in task.reason) for task in lanes["DEAD"].values()} == {(State.FAILED, True)}
    assert {(task.state, "A700" in task.reason) for task in lanes["FULL"].values()} == {(State.FAILED, True)}
    called_sent = {uid for uid, task in lanes["HANGS"].items() if task.state is State.DONE}
    assert called_sent <= set(made.kept) and len(called_sent) < COUNT
    assert all(task.reason for task in lanes["HANGS"].values())


def waiting(index: Index, *lanes: str) -> int:
    found = index.queue.open(["deliver"])
    return sum(found.get((lane, state), 0) for lane in lanes for state in (State.WAITING, State.LEASED))


def test_two_archives_that_route_to_each_other_stop_at_once(tmp_path: Path) -> None:
    """The second may not send back to the first, which would only find that it has the image."""
    there = Daemon(tmp_path / "there", {"ae": {"title": "THERE", "aliases": ["ARCHIVE"]}})
    here = Daemon(tmp_path / "here", {"ae": {"title": "HERE", "aliases": ["ARCHIVE"]}})
    for one, other, name in ((here, there, "THERE"), (there, here, "HERE")):
        peers = {name: {"host": "127.0.0.1", "port": other.port, "allow": EVERYTHING}}
        one.configure({"peers": peers, "routes": [{"name": "mirror", "to": [name]}]})
    with here, there:
        paths = archives.write(tmp_path / "in", archives.instance(1), archives.instance(2))
        for _ in range(2):  # the second time they are there already and cause nothing
            Client(here).call("storescu", rest=paths)
            wait_until(lambda: len(routed(here)) == 2 and all(each == "done" for each in routed(here)), 20)
        assert routed(there) == [] and len(there.rows()) == 2


def routed(daemon: Daemon) -> list[str]:
    index = open_index(f"sqlite:///{daemon.folder}/index.db")
    found = [task.state.value for task in index.tasks(kind="deliver")]
    index.close()
    return found


class Site:
    """A daemon with one good destination and one that is not there, and the commands of its administrator."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.kept: dict[str, bytes] = {}
        self.good = Destination(serve(keep=self.kept))
        self._dead = socket.socket()
        self._dead.bind(("127.0.0.1", 0))
        ports = {"GOOD": self.good.port, "GONE": self._dead.getsockname()[1]}
        peers = {name: {"host": "127.0.0.1", "port": port} for name, port in ports.items()}
        routes = [
            {"name": "ct", "match": "Modality = 'CT'", "to": ["GOOD"]},
            {"name": "mr", "match": "Modality = 'MR' and CallingAETitle = 'SENDER'", "to": ["GONE"]},
        ]
        self.daemon = Daemon(folder, {"peers": peers, "routes": routes})
        self._capsys = capsys

    def close(self) -> None:
        self.daemon.kill()
        self.good.close()
        self._dead.close()

    def run(self, *arguments: object, status: int = 0) -> Any:
        """What a command says, as JSON."""
        self._capsys.readouterr()
        config = ["--config", str(self.daemon.config_file), "--json"]
        assert main([*map(str, arguments), *config]) == status, self._capsys.readouterr().err
        return json.loads(self._capsys.readouterr().out or "null")

    def store(self, *numbers: int, modality: str = "CT", study: int = 1) -> list[str]:
        made = [archives.instance(number, study=study, modality=modality, size=8) for number in numbers]
        Client(self.daemon).call("storescu", rest=archives.write(self.daemon.folder / "in", *made))
        return [str(each.SOPInstanceUID) for each in made]


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    made = Site(tmp_path, capsys)
    made.daemon.start()
    yield made
    made.close()


def test_an_administrator_sees_holds_and_repeats_what_the_queue_does(site: Site) -> None:
    sent = site.store(1, 2)
    waits = site.store(3, modality="MR", study=2)
    wait_until(lambda: set(site.kept) == set(sent), 20)
    wait_until(lambda: any(each["why"] for each in site.run("queue", "show")), 20)
    wait_until(lambda: len(site.run("queue", "show")) == 1, 20)  # what was sent is written down behind the answers
    (lane,) = site.run("queue", "show")
    assert (lane["destination"], lane["waiting"]) == ("GONE", 1) and "refused" in lane["why"]
    (task,) = site.run("queue", "--to", "GONE")
    assert (task["instance"], task["state"], task["route"]) == (waits[0], "waiting", "mr")
    assert "destination is down since" in task["why"]
    assert [each["why"] for each in site.run("queue", "--to", "GOOD", "--state", "sent")] == ["0000 (success)"] * 2
    assert site.run("status")["destinations"] == site.run("queue", "show")
    assert site.run("queue", "cancel", "--to", "GONE") == {"cancelled": 1}
    (task,) = site.run("queue", "--study", task["study"])
    assert (task["state"], task["why"]) == ("failed", "cancelled by hand")
    assert site.run("queue", "purge", "--to", "GONE", "--state", "failed") == {"purged": 1}

    site.run("queue", "pause", "GOOD", "--why", "its disks are changed")
    again = site.run("queue", "retry", "--to", "GOOD", "--state", "sent")
    assert again == {"again": 2}
    assert {each["why"].partition(": ")[2] for each in site.run("queue", "--to", "GOOD")} == {"its disks are changed"}
    site.kept.clear()
    site.run("queue", "resume", "GOOD")
    wait_until(lambda: set(site.kept) == set(sent), 20)
    site.run("queue", "retry", status=2)
    site.run("queue", "pause", "NOBODY", status=2)


def test_a_user_sends_a_study_a_series_or_an_image_through_the_queue(site: Site) -> None:
    (uid,) = site.store(7, modality="US", study=3)
    study, series = f"{archives.ROOT}.3", f"{archives.ROOT}.3.1"
    for what in (study, series, uid):
        site.kept.clear()
        assert site.run("send", what, "--to", "GOOD", "--wait") == {"sent": 1, "failed": []}
        assert set(site.kept) == {uid}
    site.kept.clear()
    assert site.run("send", "-k", f"StudyInstanceUID={study}", "--to", "GOOD", "--now") == {"sent": 1, "failed": []}
    assert set(site.kept) == {uid}
    assert site.run("send", "1.2.3", "--to", "GOOD", status=1) is None
    assert site.run("send", study, "--to", "NOBODY", status=1) is None


def test_keys_that_are_no_uids_choose_among_the_objects_of_a_study(site: Site) -> None:
    (image,) = site.store(1, modality="US", study=4)
    report = archives.instance(2, study=4, series=2, modality="SR", size=8)
    Client(site.daemon).call("storescu", rest=archives.write(site.daemon.folder / "report", report))
    other = str(report.SOPInstanceUID)
    assert site.run("send", "-k", "Modality=SR", "--to", "GOOD", "--wait") == {"sent": 1, "failed": []}
    assert set(site.kept) == {other}
    site.kept.clear()
    study = f"StudyInstanceUID={archives.ROOT}.4"
    sent = site.run("send", "-k", study, "-k", "Modality=US", "--to", "GOOD", "--now")
    assert sent == {"sent": 1, "failed": []} and set(site.kept) == {image}
    assert site.run("send", "-k", "Modality=XA", "--to", "GOOD", status=1) is None
    assert site.run("send", "-k", "PatientBirthTime=1", "--to", "GOOD", status=1) is None  # not indexed: not ignored
    assert site.run("send", "-k", "Modality=", "--to", "GOOD", status=1) is None


def test_a_report_that_arrives_takes_its_study_along_and_a_second_one_goes_alone(site: Site) -> None:
    routes = [
        {"name": "with", "trigger": "report", "to": ["GOOD"]},
        {"name": "alone", "trigger": "report", "match": "Modality = 'SR'", "to": [f"folder:{site.daemon.folder}/sr"]},
    ]
    (site.daemon.folder / "sr").mkdir()
    site.daemon.configure({"routes": routes})
    site.daemon.signal(signal.SIGHUP)
    wait_until(lambda: "configuration reloaded" in site.daemon.log(), 60)
    sent = set(site.store(1, 2, study=5))
    for number in (3, 4):
        report = archives.instance(number, study=5, series=2, modality="SR", sop_class=BASIC_TEXT_SR, size=8)
        Client(site.daemon).call(
            "storescu", rest=archives.write(site.daemon.folder / f"report{number}", report)
        )
        sent.add(str(report.SOPInstanceUID))
        wait_until(lambda: set(site.kept) == sent, 60, site.daemon.log)
        site.kept.clear()
        sent.clear()
    wait_until(lambda: len(list((site.daemon.folder / "sr").rglob("*.dcm"))) == 2, 60)


def test_a_dry_run_says_what_would_go_where_and_why(site: Site) -> None:
    site.store(1, 2)
    site.store(3, modality="MR", study=2)
    found = site.run("routes", "test", "--replay", "1d")
    assert found["instances"] == 3
    ct, mr = found["routes"]
    assert (ct["instances"], ct["to"], mr["instances"], mr["to"]) == (2, {"GOOD": 2}, 1, {"GONE": 1})
    (one,) = [row for row in site.run("routes", "test", f"{archives.ROOT}.2")["routes"] if row["route"] == "ct"]
    assert (one["instances"], one["why"]) == (0, "Modality = 'CT' (is 'MR')")
    assert [route["name"] for route in site.run("routes")] == ["ct", "mr"]
    site.run("routes", "test", "1.2.3", status=1)


def test_routes_are_changed_by_a_reload(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    layout = "{PatientID}/{SOPInstanceUID}.dcm"
    site.daemon.configure({"routes": [{"name": "all", "to": [f"folder:{folder}"], "layout": layout}]})
    site.daemon.signal(signal.SIGHUP)
    wait_until(lambda: "configuration reloaded" in site.daemon.log(), 20)
    deadline, number = time.monotonic() + PATIENCE, 10
    while not list(folder.rglob("*.dcm")):  # each process takes the new routes in its own time
        assert time.monotonic() < deadline
        number += 1
        site.store(number)
        time.sleep(0.1)
    (path,) = list(folder.rglob("*.dcm"))[:1]
    assert path.parent.name == "P1" and path.stem == pydicom.dcmread(path).SOPInstanceUID
