"""`archive commit` and the daemon, against an independent archive that is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from archive.cli import main
from tests.dimse.archives import ROOT, instance
from tests.endtoend.modality import BOTH, Modality, pause, store
from tests.faults.daemon import Daemon, free_port

STUDY, COUNT = f"{ROOT}.1", 4
PATIENT = dict.fromkeys(("acse", "pdu", "dimse", "idle"), "30s")  # this machine may have other things to do


class Pacs:
    """Takes N-ACTION, and reports in the way a test says."""

    def __init__(self) -> None:
        self.aet, self.port = "PACS", free_port()
        self.status, self.way, self.missing = 0, "same", 0
        self.mentions = True
        self.answers: list[int] = []
        self._daemon: Daemon | None = None
        self._threads: list[threading.Thread] = []

    def listen(self, daemon: Daemon) -> Any:
        self._daemon = daemon
        entity = AE(self.aet)
        entity.add_supported_context(StorageCommitmentPushModel, list(BOTH))
        return entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_N_ACTION, self._take)])

    def _take(self, event: Any) -> tuple[int, None]:
        if self.status == 0 and self.way != "silent":
            self._threads.append(threading.Thread(target=self._report, args=(event.assoc, event.action_information)))
            self._threads[-1].start()
        return self.status, None

    def _report(self, assoc: Any, request: Dataset) -> None:
        found = Dataset()
        found.TransactionUID = request.TransactionUID
        items = list(request.ReferencedSOPSequence)
        failed, found.ReferencedSOPSequence = items[: self.missing], items[self.missing :]
        for item in failed:
            item.FailureReason = 0x0112
        if failed and self.mentions:
            found.FailedSOPSequence = failed
        if self.way == "same":
            self._send(assoc, found)
        else:
            self.call(found)

    def call(self, found: Dataset) -> None:
        """Report on an association of its own, in the SCP role."""
        assert self._daemon is not None
        entity = AE(self.aet)
        entity.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        assoc = entity.associate("127.0.0.1", self._daemon.port, ae_title="ARCHIVE", ext_neg=[role])
        assert assoc.is_established and assoc.accepted_contexts[0].as_scp
        self._send(assoc, found)
        assoc.release()

    def _send(self, assoc: Any, found: Dataset) -> None:
        pause(assoc)
        kind = 2 if "FailedSOPSequence" in found else 1
        status, _ = assoc.send_n_event_report(
            found, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.answers.append(status.get("Status", -1))

    def done(self) -> list[int]:
        for thread in self._threads:
            thread.join(60)
        return self.answers


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Pacs]]:
    """A daemon that holds a study, and a peer that may do nothing but is asked."""
    pacs = Pacs()
    peers = {"PACS": {"host": "127.0.0.1", "port": pacs.port, "allow": ["echo"]}}
    with Daemon(tmp_path_factory.mktemp("asking"), {"processes": 1, "peers": peers, "timeouts": PATIENT}) as daemon:
        with Modality("SENDER").calling(daemon.port, contexts=[CTImageStorage]) as assoc:
            assert {store(assoc, instance(number, size=4)) for number in range(COUNT)} == {0}
        server = pacs.listen(daemon)
        yield daemon, pacs
        server.shutdown()


@pytest.fixture
def daemon(site: tuple[Daemon, Pacs]) -> Daemon:
    return site[0]


@pytest.fixture
def pacs(site: tuple[Daemon, Pacs]) -> Pacs:
    found = site[1]
    found.status, found.way, found.missing, found.mentions = 0, "same", 0, True
    found.answers, found._threads = [], []
    return found


def archive(daemon: Daemon, *arguments: object) -> tuple[int, Any, str]:
    """Exit status, what was said in JSON, and what was complained about."""
    said, complained = StringIO(), StringIO()
    with redirect_stdout(said), redirect_stderr(complained):
        status = main([*map(str, arguments), "--json", "--config", str(daemon.config_file)])
    return status, json.loads(said.getvalue()) if said.getvalue() else None, complained.getvalue()


@pytest.mark.parametrize("way", ["same", "new"])
def test_a_study_that_the_peer_has_is_committed_wherever_it_reports(daemon: Daemon, pacs: Pacs, way: str) -> None:
    pacs.way = way
    status, (said,), _ = archive(daemon, "commit", STUDY, "--at", "PACS", "--wait", 20)
    assert (status, said["state"], said["items"], said["failures"]) == (0, "committed", COUNT, 0)
    assert pacs.done() == [0]


@pytest.mark.parametrize("mentions", [True, False])
def test_what_the_peer_has_not_or_does_not_speak_of_is_not_committed(
    daemon: Daemon, pacs: Pacs, mentions: bool
) -> None:
    pacs.way, pacs.missing, pacs.mentions = "new", 1, mentions
    status, (said,), _ = archive(daemon, "commit", STUDY, "--at", "PACS", "--wait", 20)
    assert (status, said["state"], said["failures"]) == (1, "incomplete", 1)
    _, shown, _ = archive(daemon, "commit", "--show", said["id"])
    (failed,) = shown["failed"]
    assert failed["reason"] == ("0112 (no such SOP instance)" if mentions else "not mentioned in the report")
    assert pacs.done() == [0]


def test_a_report_that_comes_later_is_kept_by_the_daemon(daemon: Daemon, pacs: Pacs) -> None:
    pacs.way = "silent"
    status, (said,), _ = archive(daemon, "commit", STUDY, "--at", "PACS", "--wait", 0.2)
    assert (status, said["state"]) == (1, "waiting")
    found = Dataset()
    found.TransactionUID = said["transaction"]
    found.ReferencedSOPSequence = []
    for number in range(COUNT):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, f"{ROOT}.1.1.{number}"
        found.ReferencedSOPSequence.append(item)
    pacs.call(found)
    _, listed, _ = archive(daemon, "commit", "--list")
    assert {each["id"]: each["state"] for each in listed}[said["id"]] == "committed"
    found.TransactionUID = "1.2.3.4"
    pacs.call(found)
    assert pacs.answers == [0, 0x0115], "nobody asked that"


def test_a_peer_that_refuses_is_said_so(daemon: Daemon, pacs: Pacs) -> None:
    pacs.status = 0x0213
    status, _, complaint = archive(daemon, "commit", STUDY, "--at", "PACS")
    assert status == 1 and "N-ACTION refused: 0213 (resource limitation)" in complaint
    _, listed, _ = archive(daemon, "commit", "--list")
    assert listed[0]["state"] == "refused"


def test_wrong_usage_is_told_from_what_is_not_there(daemon: Daemon) -> None:
    assert archive(daemon, "commit", STUDY)[0] == 2
    assert archive(daemon, "commit", "1.2.3", "--at", "PACS")[0] == 1
    assert archive(daemon, "commit", "--show", 999)[0] == 1
