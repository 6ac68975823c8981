"""Retention by the daemon and the command line: killed in the midst of it, nothing is lost that is to stay."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archive.cli import main
from archive.index import Index, open_index
from archive.index.retention import RetentionRows
from tests import builders
from tests.faults.daemon import Daemon, wait_until

PATIENCE = 120.0
DUE = 6


class Run:
    """The command line on a daemon's configuration."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def __call__(self, *arguments: object, good: int = 0) -> Any:
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            status = main([*map(str, arguments), "--json", "--config", str(self.daemon.config_file)])
        assert status == good, out.getvalue() + errors.getvalue()
        return json.loads(out.getvalue()) if out.getvalue() else errors.getvalue()

    def tested(self) -> dict[str, Any]:
        return {each["study_uid"]: each for each in self("retention", "test", "--all")}


@pytest.fixture
def daemon(tmp_path: Path, index_url: str) -> Iterator[Daemon]:
    made = Daemon(
        tmp_path / "site",
        {
            "processes": 1, "index": {"url": index_url}, "deletion": {"rate": 1, "grace": "0s"},
            "retention": [
                {"name": "teaching", "match": "InstitutionName = 'School'", "keep": "forever"},
                {"name": "old", "match": "Modality = 'CT'", "keep": "7y"},
            ],
        },
    )  # fmt: skip
    yield made
    made.kill()


@pytest.fixture
def index(daemon: Daemon, index_url: str) -> Iterator[Index]:
    found = open_index(index_url)
    yield found
    found.close()


def stored(daemon: Daemon, run: Run) -> dict[str, str]:
    """Studies that are due, and one each that is held, young and kept for ever: name -> UID."""
    made = {f"due {number}": builders.ct(StudyDate="20100101", PatientID=f"D{number}") for number in range(DUE)}
    made["held"] = builders.ct(StudyDate="20100101", PatientID="H1", AccessionNumber="A7")
    made["young"] = builders.ct(StudyDate="20990101", PatientID="Y1")
    made["teaching"] = builders.ct(StudyDate="20100101", PatientID="T1", InstitutionName="School")
    for name, dataset in made.items():
        builders.write(daemon.folder / "in" / f"{name}.dcm", dataset)
    run("import", daemon.folder / "in")
    uids = {name: str(dataset.StudyInstanceUID) for name, dataset in made.items()}
    for uid in uids.values():
        run("studies", "ready", uid)
    return uids


def test_what_is_due_goes_through_a_kill_and_nothing_else(daemon: Daemon, index: Index) -> None:
    run = Run(daemon)
    (daemon.folder / "in").mkdir()
    uids = stored(daemon, run)
    run("studies", "hold", "--accession", "A7", "--why", "case 12")
    tested = run.tested()
    assert {name for name, uid in uids.items() if tested[uid]["is_due"] and not tested[uid]["held_up"]} == {
        name for name in uids if name.startswith("due")
    }
    assert "case 12" in tested[uids["held"]]["held_up"][0]
    assert len(run("retention", "run", "--dry-run")) == DUE
    assert index.statistics().studies == len(uids)

    with daemon:
        wait_until(lambda: index.statistics().studies < len(uids), PATIENCE, daemon.log)
        daemon.kill()
    daemon.configure({"deletion": {"rate": 10_000}})
    with daemon:
        rows = RetentionRows(index.database)
        wait_until(lambda: index.statistics().studies == 3 and not rows.open_tasks(), PATIENCE, daemon.log)
        files = daemon.folder / "files" / "objects"
        wait_until(lambda: len(list(files.rglob("*.dcm"))) == 3, PATIENCE, daemon.log)
        daemon.stop()
    assert {each.study_uid for each in index.studies()} == {uids[name] for name in ("held", "young", "teaching")}
    assert run("fsck")["problems"] == []
    reasons = [each["reason"] for each in run("retention", "history")]
    assert sum("deleted" in reason for reason in reasons) == DUE
    assert all("rule old: was to be kept until 2017-01-01" in each for each in reasons if "by rule" in each)
    assert "hold 1 by" in run("delete", "--yes", uids["held"], good=1)
    run("studies", "release", "--number", 1, "--why", "closed")
    assert run("retention", "run")["deleted"] == 1
    assert run("studies", "holds") == []
