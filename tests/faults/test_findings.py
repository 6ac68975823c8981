"""What once broke something, or was made to show that replaying works: every finding is sent again."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from tests.faults.badobjects import Case
from tests.faults.campaign import findings
from tests.faults.campaign.findings import Finding, keep, kept
from tests.faults.campaign.fuzzing import ALLOWED, Sender
from tests.faults.daemon import Daemon
from tests.faults.raw import Connection, Ended


def replay_object(archive: Daemon, finding: Finding) -> None:
    how = json.loads(finding.what)
    sender = Sender(archive)
    assert sender.store(Case("B50", finding.what, finding.data, ALLOWED, how["uid"], syntax=how["syntax"])) in ALLOWED
    sender.close()


def replay_pdus(archive: Daemon, finding: Finding) -> None:
    for inside in (False, True):
        with contextlib.suppress(OSError, Ended), Connection(archive.port, patience=1) as connection:
            if inside:
                connection.associate()
            connection.try_send(finding.data)
            with contextlib.suppress(TimeoutError, AssertionError):
                connection.ending(0.5)


def test_every_finding_is_harmless_now(archive: Daemon) -> None:
    """The oracle looks afterwards, at the log too."""
    for finding in kept():
        (replay_object if finding.fault.startswith("B") else replay_pdus)(archive, finding)
        assert archive.echo() == 0, finding.name


def test_a_finding_is_kept_once_and_comes_back_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "FOLDER", tmp_path / "findings")
    finding = Finding("N37b", "0: echo, cut", "a healthy C-ECHO took 2.0 s", b"\x04\0\n\xff" * 9)
    assert keep(finding) == keep(finding)
    assert list(kept()) == [finding]
