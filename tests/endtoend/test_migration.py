"""Another archive is migrated and imported from: a second daemon of this one, or DCMTK; daemons are killed."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from archive.cli import main
from archive.index import Index, State, Which, open_index
from archive.index.jobs import Jobs
from archive.services.fetching import FETCH, enqueue
from tests.dimse.archives import ROOT as UIDS
from tests.dimse.archives import instance, write
from tests.endtoend.dcmtk import run
from tests.faults.daemon import EVERYTHING, Daemon, free_port, wait_until

STUDIES, SERIES, INSTANCES = 10, 2, 2
ALL = STUDIES * SERIES * INSTANCES


def images(folder: Path) -> Path:
    """Studies of ten months, every fifth without a date."""
    for study in range(1, STUDIES + 1):
        made = [
            instance(number, study=study, series=series, patient=f"P{study}", size=16)
            for series in range(1, SERIES + 1)
            for number in range(1, INSTANCES + 1)
        ]
        for each in made:
            each.StudyDate = "" if study % 5 == 0 else f"2020{study:02}15"
        write(folder, *made)
    return folder


def near(folder: Path, peer: str, port: int, **fetch: Any) -> Daemon:
    """An archive that knows another one, and sends whatever comes to a folder."""
    (folder / "copies").mkdir()
    entry = {"host": "127.0.0.1", "port": port, "allow": EVERYTHING, "fetch": fetch}
    route = {"name": "copy", "to": [f"folder:{folder / 'copies'}"]}
    return Daemon(folder / "near", {"processes": 1, "peers": {peer: entry}, "routes": [route]})


Said = Callable[..., tuple[int, Any]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """The answer of a command for a daemon."""

    def run_command(daemon: Daemon, *words: str) -> tuple[int, Any]:
        capsys.readouterr()
        status = main([*words, "--config", str(daemon.config_file), "--json"])
        answer, errors = capsys.readouterr()
        assert answer, errors
        return status, json.loads(answer)

    return run_command


def part(found: dict[str, Any], name: str) -> tuple[int, ...]:
    return tuple(found[name][each] for each in ("listed", "failed", "open"))


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "far", {"processes": 1, "ae": {"title": "FAR", "aliases": ["ARCHIVE"]}})
    yield daemon
    daemon.kill()


def test_an_archive_is_migrated_while_both_are_killed(tmp_path: Path, far: Daemon, said: Said) -> None:
    daemon = near(tmp_path, "FAR", far.port, retry="100x0.5s")
    far.configure({"peers": {"ARCHIVE": {"host": "127.0.0.1", "port": daemon.port, "allow": EVERYTHING}}})
    far.start()
    run("storescu", "-aet", "SENDER", "-aec", "FAR", "127.0.0.1", far.port, "+sd", images(tmp_path / "in"))
    with contextlib.ExitStack() as ends:
        index = open_index(f"sqlite:///{daemon.folder}/index.db")
        ends.callback(daemon.kill)
        ends.callback(index.close)
        daemon.start()
        assert said(daemon, "migrate", "--from", "FAR") == (0, {"job": 1, "known": False, "daemon": True})
        wait_until(lambda: index.statistics().instances >= 1, 120, daemon.log)
        daemon.kill()
        far.kill()
        far.start()
        daemon.start()
        jobs = Jobs(index.database)
        wait_until(lambda: (job := jobs.get(1)) and job.state == "done", 300, daemon.log)
        status, report = said(daemon, "import", "show", "1")
        assert status == 0, report
        assert [part(report, each)[0] for each in ("studies", "series", "instances")] == [
            STUDIES, STUDIES * SERIES, ALL,
        ]  # fmt: skip
        assert all(part(report, each)[1:] == (0, 0) for each in ("studies", "series", "instances"))
        assert index.statistics().instances == ALL
        moved_once(said, daemon, index, tmp_path)


def moved_once(said: Said, daemon: Daemon, index: Index, folder: Path) -> None:
    """A second run, and a thousand who want what is here: nothing is moved, and nothing routed again."""
    for _ in range(20):
        enqueue(index, "FAR", f"{UIDS}.1", 1.0)
    status, again = said(daemon, "migrate", "--from", "FAR", "--wait")
    assert (status, again["studies"]["here"], again["instances"]["here"]) == (0, STUDIES, ALL)
    wait_until(lambda: not index.queue.open([FETCH, "deliver"]), 120, daemon.log)
    assert sum(index.queue.count(Which(("deliver",))).values()) == ALL
    assert len(list((folder / "copies").rglob("*.dcm"))) == ALL


@contextlib.contextmanager
def dcmqrscp(folder: Path, port: int, archive: int) -> Iterator[None]:
    """DCMTK's archive, which may send to ours."""
    files = folder / "qr"
    files.mkdir()
    settings = folder / "qr.cfg"
    settings.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\narchive = (ARCHIVE, 127.0.0.1, {archive})\nHostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\nQR {files} RW (100, 100mb) ANY\nAETable END\n"
    )
    process = subprocess.Popen(
        ["dcmqrscp", "-c", str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: echoes(port), 60, "dcmqrscp does not answer")
        yield
    finally:
        process.kill()
        process.wait(60)


def echoes(port: int) -> bool:
    command = ["echoscu", "-aec", "QR", "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0


@pytest.mark.parametrize("way", ["move", "get"])
def test_studies_are_imported_from_dcmtk(tmp_path: Path, way: str, said: Said) -> None:
    port = free_port()
    daemon = near(tmp_path, "QR", port, retrieve=way)
    with dcmqrscp(tmp_path, port, daemon.port), daemon:
        run("storescu", "-aec", "QR", "127.0.0.1", port, "+sd", images(tmp_path / "in"))
        status, found = said(daemon, "import", "--from", "QR", "--query", "StudyDate=20200201-20200430", "--wait")
        assert (status, found["studies"]["fetched"], found["instances"]["fetched"]) == (0, 3, 12), daemon.log()[-3000:]
        index = open_index(f"sqlite:///{daemon.folder}/index.db")
        kept = index.queue.count(Which((FETCH,)))
        stored = index.known(f"{UIDS}.2.1.1")
        index.close()
        assert kept == {State.DONE: 3}
        assert stored is not None


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "archive.yaml"
    settings.write_text(
        f"peers: {{FAR: {{host: 127.0.0.1, port: 104}}}}\nstorage: {{path: {tmp_path}/files}}\n"
        f"index: {{url: 'sqlite:///{tmp_path}/index.db'}}\nlisteners: [{{port: {free_port()}}}]\n"
    )

    def told(*words: str) -> tuple[int, str]:
        return main([*words, "--config", str(settings)]), capsys.readouterr().err

    for words, complaint in (
        (["import"], "needs paths"),
        (["import", "--from", "FAR"], "needs keys"),
        (["import", "--from", "FAR", "-k", "SOPInstanceUID=1"], "cannot be asked for"),
        (["import", "--from", "FAR", "-k", "PatientID"], "KEYWORD=VALUE"),
        (["import", "folder", "--from", "FAR"], "not both"),
        (["import", "folder", "-k", "PatientID=1"], "keys are for"),
        (["import", "show"], "numbers of jobs"),
        (["import", "show", "7"], "no job 7"),
        (["migrate", "--from", "FAR", "--since", "2020"], "no date"),
        (["migrate", "--from", "FAR", "--slice", "1d"], "--since"),
        (["migrate", "--from", "FAR", "--slice", "week"], "no slice"),
        (["migrate", "--from", "FAR", "--window", "noon"], "--window"),
    ):
        status, errors = told(*words)
        assert status == 2 and complaint in errors, (words, errors)
    assert told("migrate", "--from", "NOBODY")[0] == 1
    assert told("migrate", "--from", "FAR", "--since", "2020-01-01")[0] == 0
    assert told("import", "pause", "1")[0] == 0
    assert told("migrate", "--from", "FAR", "--since", "2020-01-01")[0] == 0  # the same job goes on
    assert told("import", "cancel", "1")[0] == 0
    assert told("import", "resume", "1") == (1, "archive: job 1 is cancelled: it cannot resume\n")
    assert told("import", "status")[0] == 0
    assert told("import", "./status") == (2, "archive: status does not exist\n")  # a folder of that name
