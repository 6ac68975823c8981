"""A daemon with a cache and a long-term volume: study after study leaves the cache and is still sent on demand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from archive.cli import main
from tests import builders
from tests.endtoend.dcmtk import Client, query, storescp
from tests.faults.daemon import Daemon, wait_until
from tests.faults.raw import CT, association
from tests.services.test_volumes import lost

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
PATIENCE = 120.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    volumes = [
        {"path": "files", "role": "cache", "high": "0%", "low": "0%"},  # nothing stays that is safe
        {"path": "long", "role": "long-term"},
    ]
    changes = {"processes": 1, "studies": {"ready_after": "1s"}, "storage": {"volumes": volumes}}
    made = Daemon(tmp_path / "archive", changes)
    yield made
    made.kill()


def image(study: str) -> Dataset:
    return builders.ct(StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1")


def send(daemon: Daemon, images: list[Dataset]) -> list[int]:
    with association(daemon.port) as peer:
        return [peer.store(CT, str(each.SOPInstanceUID), builders.bytes_of(each)) for each in images]


def on_long_term(daemon: Daemon) -> int:
    return int(daemon.select("SELECT COUNT(*) FROM instance WHERE volume = 'long-term'")[0][0])


class Said:
    """What the commands print, run in this process: a new one takes longer than all of the rest."""

    def __init__(self, daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
        self._daemon = daemon
        self._capsys = capsys

    def __call__(self, command: str) -> tuple[int, Any]:
        self._capsys.readouterr()
        status = main([command, "--config", str(self._daemon.config_file), "--json"])
        return status, json.loads(self._capsys.readouterr().out)


def test_an_evicted_study_is_moved_and_a_lost_volume_is_named(
    daemon: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Said(daemon, capsys)
    images = [image("1.2.3") for _ in range(4)]
    uids = {str(each.SOPInstanceUID) for each in images}
    with storescp(tmp_path / "got") as port:
        daemon.configure({"peers": {"WORK": {"host": "127.0.0.1", "port": port}}})
        daemon.start()
        assert send(daemon, images) == [SUCCESS] * 4
        wait_until(lambda: on_long_term(daemon) == 4 and not daemon.objects(), PATIENCE, "the cache keeps its files")
        move = ("movescu", "-aem", "WORK", *query("STUDY", StudyInstanceUID="1.2.3"))
        client = Client(daemon)
        client.call(*move)
        assert {str(pydicom.dcmread(path).SOPInstanceUID) for path in (tmp_path / "got").iterdir()} == uids
        assert said("status")[1]["volumes"]["volumes"][1]["files"] == 4

        with lost(daemon.folder / "long"):
            text = client.call(*move, good=range(256))
            assert "Success" not in text.splitlines()[-1] and "storage is not mounted" in daemon.log()
            assert send(daemon, [image("1.2.4")]) == [SUCCESS]
            assert not said("status")[1]["volumes"]["volumes"][1]["there"]
            assert said("fsck")[1]["counts"] == {"volume": 1}
        client.call(*move)
        with lost(daemon.files):
            assert send(daemon, [image("1.2.5"), image("1.2.5")]) == [OUT_OF_RESOURCES] * 2
        assert send(daemon, [image("1.2.5")]) == [SUCCESS]
        wait_until(lambda: on_long_term(daemon) == 6, PATIENCE, "the volume is not used again")
        assert said("fsck") == (0, {"problems": [], "counts": {}, "left": 0})
