"""`archive find` and `archive retrieve`, between two archives: by C-MOVE to the running daemon, and by C-GET."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from archive.cli import main
from tests.dimse.archives import ROOT, instance, write
from tests.endtoend.dcmtk import Client
from tests.faults.daemon import Daemon

STUDY = f"{ROOT}.1"


@dataclass(frozen=True)
class Pair:
    here: Daemon
    there: Daemon

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
        status = main([*arguments, "--config", str(self.here.config_file)])
        said = capsys.readouterr()
        return status, said.out, said.err


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    objects = [instance(n, study=1 + n % 2, series=n % 3, patient=f"P{n % 2}", size=4) for n in range(1, 13)]
    write(folder / "objects", *objects)
    there = Daemon(folder / "there", {"processes": 1, "ae": {"title": "THERE", "aliases": ["ARCHIVE"]}})
    here = Daemon(folder / "here", {"processes": 1, "ae": {"title": "HERE"}})
    everything = ["echo", "store", "find", "move", "get"]
    here.configure({"peers": {"THERE": {"host": "127.0.0.1", "port": there.port, "allow": ["echo", "store"]}}})
    there.configure({"peers": {"HERE": {"host": "127.0.0.1", "port": here.port, "allow": everything}}})
    with there, here:
        Client(there).call("storescu", "+sd", rest=[folder / "objects"])
        yield Pair(here, there)


def test_a_peer_is_searched_at_every_level(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    for level, keys, count in (
        ("patient", ["--root", "patient"], 2),
        ("study", [], 2),
        ("series", ["-k", f"StudyInstanceUID={STUDY}"], 3),
        ("image", ["-k", f"StudyInstanceUID={STUDY}", "-k", f"SeriesInstanceUID={STUDY}.0"], 2),
    ):
        status, out, _ = pair.run(capsys, "find", "--peer", "THERE", "--level", level, *keys, "--json")
        assert (status, len(json.loads(out))) == (0, count), level


def test_answers_are_shown_as_a_table_and_no_more_than_wanted(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = pair.run(capsys, "find", "--peer", "THERE", "-k", "PatientName=name*", "--limit", "1")
    assert status == 0
    assert out.splitlines()[0].split()[:2] == ["StudyInstanceUID", "StudyDate"]
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize(("way", "study"), [((), 1), (("--get",), 2)])
def test_a_study_is_retrieved_and_then_here(
    pair: Pair, capsys: pytest.CaptureFixture[str], way: tuple[str, ...], study: int
) -> None:
    keys = ("-k", f"StudyInstanceUID={ROOT}.{study}")
    status, out, _ = pair.run(capsys, "retrieve", "--from", "THERE", *way, *keys, "--json")
    assert (status, json.loads(out)["completed"]) == (0, 6)
    status, out, _ = pair.run(capsys, "find", *keys, "-k", "NumberOfStudyRelatedInstances=", "--json")
    assert [row["NumberOfStudyRelatedInstances"] for row in json.loads(out)] == ["6"]


def test_what_cannot_be_is_said(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["find", "--peer", "THERE", "--level", "image"], "StudyInstanceUID is missing"),
        (["find", "--peer", "THERE", "-k", "NoSuchKey=1"], "unknown key"),
        (["find", "--peer", "NOBODY"], "NOBODY"),
        (["retrieve", "--from", "THERE", "-k", "StudyInstanceUID=1.2.3"], "no stored object matches"),
        (["retrieve", "--from", "THERE", "--get", "-k", "StudyInstanceUID=1.2.3"], "no stored object matches"),
    ):
        status, _, err = pair.run(capsys, *arguments)
        assert status in (1, 2) and words in err, arguments
