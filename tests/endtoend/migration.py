"""A whole archive is migrated from Orthanc while command and daemon are killed: the report balances, a second run moves
nothing.

``python -m tests.endtoend.migration 200`` runs it and prints its figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from archive.index import Index, open_index
from archive.index.jobs import Jobs
from tests.dimse import archives
from tests.endtoend.five import orthanc
from tests.faults.daemon import EVERYTHING, ROOT, Daemon, free_port, wait_until

SERIES, INSTANCES = 2, 5  # of each study, of each series
PATIENCE = 600.0
LIMIT = 40  # answers to one question, so that there are many


def prepare(folder: Path, studies: int) -> Path:
    """A folder of studies of many days; every tenth has no date."""
    for study in range(1, studies + 1):
        images = [
            archives.instance(number, study=study, series=series, patient=f"P{study}", size=32)
            for series in range(1, SERIES + 1)
            for number in range(1, INSTANCES + 1)
        ]
        for image in images:
            image.StudyDate = "" if study % 10 == 0 else f"20{study % 25:02}{study % 12 + 1:02}{study % 28 + 1:02}"
        archives.write(folder, *images)
    return folder


def command(daemon: Daemon, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "archive", *words, "--config", str(daemon.config_file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def ended(process: subprocess.Popen[bytes]) -> tuple[int, Any]:
    answer, errors = process.communicate(timeout=PATIENCE)
    assert answer, errors.decode()
    return process.returncode, json.loads(answer)


def migrated(index: Index) -> int:
    """How many studies the first job has settled."""
    job = Jobs(index.database).get(1)
    states = Jobs(index.database).studies.totals(job.id).studies if job else {}
    return sum(states.get(state, 0) for state in ("here", "fetched", "failed"))


def interrupted(daemon: Daemon, index: Index, studies: int) -> tuple[int, Any, float]:
    """Migrate; kill the command at a quarter and the daemon at half, and begin both again."""
    begun = time.monotonic()
    first = command(daemon, "migrate", "--from", "SECOND", "--wait", "--json")
    wait_until(lambda: migrated(index) >= studies // 4, PATIENCE, daemon.log)
    first.kill()
    first.communicate(timeout=PATIENCE)
    print(f"command killed after {migrated(index)} studies")
    wait_until(lambda: migrated(index) >= studies // 2, PATIENCE, daemon.log)
    daemon.kill()
    print(f"daemon killed after {migrated(index)} studies, {index.statistics().instances} instances")
    second = command(daemon, "migrate", "--from", "SECOND", "--wait", "--json")
    daemon.start()
    status, report = ended(second)
    return status, report, time.monotonic() - begun


def check(report: dict[str, Any], studies: int, *, fetched: bool) -> None:
    """All that there is was fetched, or was here; what adds up adds up."""
    sizes = {"studies": studies, "series": studies * SERIES, "instances": studies * SERIES * INSTANCES}
    for part, size in sizes.items():
        expected = {"listed": size, "here": 0 if fetched else size, "fetched": size if fetched else 0}
        assert report[part] | expected == report[part], report[part]
        assert report[part]["failed"] == report[part]["open"] == 0, report[part]


def run(folder: Path, studies: int) -> None:
    near = free_port()
    changes = {"DicomModalities": {"archive": ["ARCHIVE", "127.0.0.1", near]}}
    with orthanc(folder / "orthanc", **changes) as (port, _):
        store = ["storescu", "-aec", "SECOND", "127.0.0.1", str(port), "+sd", str(prepare(folder / "in", studies))]
        subprocess.run(store, check=True, timeout=PATIENCE, stdout=subprocess.DEVNULL)
        peers = {"SECOND": {"host": "127.0.0.1", "port": port, "allow": EVERYTHING, "fetch": {"answers": LIMIT}}}
        listeners = [{"host": "127.0.0.1", "port": near}]
        daemon = Daemon(folder / "archive", {"peers": peers, "listeners": listeners})
        daemon.port = near
        daemon.start()
        index = open_index(f"sqlite:///{daemon.folder}/index.db")
        try:
            status, report, seconds = interrupted(daemon, index, studies)
            print(json.dumps({name: report[name] for name in ("studies", "series", "instances", "notes")}, indent=1))
            assert status == 0, report
            check(report, studies, fetched=True)
            assert index.statistics().instances == studies * SERIES * INSTANCES
            print(f"{studies} studies in {seconds:.1f} s, interrupted twice")
            stored = daemon.log().count(" stored")
            begun = time.monotonic()
            status, again = ended(command(daemon, "migrate", "--from", "SECOND", "--wait", "--json"))
            check(again, studies, fetched=False)
            assert (status, daemon.log().count(" stored")) == (0, stored)
            print(f"a second run moved nothing, in {time.monotonic() - begun:.1f} s")
            status, found = ended(command(daemon, "fsck", "--digest", "--json"))
            assert (status, found["problems"]) == (0, [])
        finally:
            daemon.kill()
            index.close()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("studies", type=int)
    folder = Path(tempfile.mkdtemp(prefix="migration-"))
    try:
        run(folder, options.parse_args().studies)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
