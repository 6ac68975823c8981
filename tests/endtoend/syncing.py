"""Two archives that are kept equal while clients store into both and either is killed, again and again.

``python -m tests.endtoend.syncing 2000`` runs it at full size and prints its figures; ``--orthanc`` keeps Orthanc equal
with one archive, both ways; ``--equal 100000`` measures a comparison of two archives that have the same studies.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from archive.cli import main as archive
from archive.index import open_index
from tests.dimse import archives
from tests.endtoend import five
from tests.faults import checker
from tests.faults.daemon import EVERYTHING, Daemon, wait_until
from tests.index.made import arrival

NAMES = ("HERE", "THERE")
# The deadlines of the tests' daemons are shorter than a busy machine takes for a listing of 100,000 studies.
SOON = {"studies": {"ready_after": "2s"}, "timeouts": {"send": "60s", "dimse": "60s", "pdu": "60s"}}
SYNC = {"name": "other", "direction": "both", "reconcile": "off", "within": 0, "retry": "20x1s"}
PATIENCE = 600.0
ENOUGH = 10  # comparisons until nothing waits any more


class Pair:
    """Two daemons, each of them a peer of the other."""

    def __init__(self, folder: Path, **sync: Any) -> None:
        self.folder = folder
        self.daemons = [
            Daemon(folder / name.lower(), {"ae": {"title": name, "aliases": ["ARCHIVE"]}} | SOON) for name in NAMES
        ]
        for one, other, name in zip(self.daemons, reversed(self.daemons), reversed(NAMES), strict=True):
            peers = {name: {"host": "127.0.0.1", "port": other.port, "allow": EVERYTHING}}
            one.configure({"peers": peers, "sync": [SYNC | {"peer": name} | sync]})

    def start(self) -> None:
        for daemon in self.daemons:
            daemon.start()

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.kill()

    def uids(self) -> list[set[str]]:
        """The SOP Instance UIDs of both."""
        return [{row.uid for row in daemon.rows()} for daemon in self.daemons]

    def open_tasks(self) -> int:
        """What waits or runs in both queues, except what follows a sync or a study."""
        sql = "select count(*) from task where kind in ('deliver', 'verify', 'fetch') and ready is not null"
        return sum(int(daemon.select(sql)[0][0]) for daemon in self.daemons)


def command(daemon: Daemon, *arguments: str, good: Sequence[int] = (0,)) -> Any:
    """What the archive's own command says, as JSON."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = archive([*arguments, "--json", "--config", str(daemon.config_file)])
    assert status in good, said.getvalue()[-2000:]
    return json.loads(said.getvalue())


def store(daemon: Daemon, folder: Path) -> None:
    """All of a folder, again and again until all of it was taken."""
    five.send(daemon.port, "SENDER", folder)


def disturb(pair: Pair, threads: Sequence[threading.Thread], times: int, chance: random.Random) -> int:
    """Kill either while clients store, until they have stored everything; how often."""
    kills = 0
    while kills < times or any(thread.is_alive() for thread in threads):
        time.sleep(chance.uniform(0.2, 1.0))
        if kills < times:
            daemon = pair.daemons[kills % 2]
            daemon.kill()
            kills += 1
            time.sleep(chance.uniform(0.0, 0.3))
            daemon.start()
    return kills


def settle(pair: Pair) -> int:
    """Compare both ways until nothing waits; how many comparisons that took."""
    number, end = 0, time.monotonic() + PATIENCE
    while True:
        number += 1
        wait_until(lambda: not pair.open_tasks(), PATIENCE, lambda: states(pair))
        said = [command(daemon, "sync", "run", "--wait", good=(0, 1))[0] for daemon in pair.daemons]
        if not any(each["waiting"] or each["mended"] or each["cannot"] for each in said):
            return number
        assert time.monotonic() < end, json.dumps(said, indent=1)


def states(pair: Pair) -> str:
    sql = "select kind, lane, state, reason, count(*) from task group by kind, lane, state, reason"
    return "\n".join(f"{daemon.folder.name}: {row}" for daemon in pair.daemons for row in daemon.select(sql))


def prepare(folder: Path, images: int, studies: int, size: int = 16) -> list[Path]:
    """A folder of images for each archive: studies of its own, and a last one of which each gets a part."""
    share = max(1, images // (2 * studies))
    folders = []
    for side in (0, 1):
        made = [
            archives.instance(n, study=1 + 2 * study + side, patient=f"P{1 + 2 * study + side}", size=size)
            for study in range(studies)
            for n in range(1, share + 1)
        ]
        made += [archives.instance(10 * n + side, study=999, patient="P999", size=size) for n in range(1, 4)]
        archives.write(folder / str(side), *made)
        folders.append(folder / str(side))
    return folders


def run(pair: Pair, folders: list[Path], kills: int, seed: int = 1) -> dict[str, Any]:
    """Store into both with kills in between, then let them become equal."""
    pair.start()
    begun = time.monotonic()
    threads = [
        threading.Thread(target=store, args=(daemon, folder))
        for daemon, folder in zip(pair.daemons, folders, strict=True)
    ]
    for thread in threads:
        thread.start()
    done = disturb(pair, threads, kills, random.Random(seed))
    for thread in threads:
        thread.join()
    stored = time.monotonic() - begun
    return {"kills": done, "stored_s": stored, "comparisons": settle(pair), "equal_s": time.monotonic() - begun}


def check(pair: Pair, folders: Sequence[Path]) -> list[str]:
    """What does not hold: images that are not on both sides, and the checker's complaints."""
    wanted = {path.stem for folder in folders for path in folder.iterdir()}
    problems = [
        f"{name} has {len(found & wanted)} of {len(wanted)} and {len(found - wanted)} others"
        for name, found in zip(NAMES, pair.uids(), strict=True)
        if found != wanted
    ]
    for daemon in pair.daemons:
        problems += [f"{daemon.folder.name}: {each}" for each in checker.violations(daemon, asked=50)]
    return problems


# -- by hand, at full size --------------------------------------------------------------------------------------


BASE = 1000  # studies that are made as they arrive; the others are copies of their rows
COPIED = {
    "patient": {"id": "id + {by}", "patient_id": "patient_id || '-{n}'", "patient_name": "patient_name"},
    "study": {"id": "id + {by}", "patient": "patient + {by}", "study_instance_uid": "study_instance_uid || '.{n}'"},
    "series": {"id": "id + {by}", "study": "study + {by}", "series_instance_uid": "series_instance_uid || '.{n}'"},
    "instance": {"id": "id + {by}", "series": "series + {by}", "sop_instance_uid": "sop_instance_uid || '.{n}'"},
}


def fill(file: Path, studies: int) -> None:
    """Rows of studies of one image, over ten years; there are no files."""
    index = open_index(f"sqlite:///{file}")
    index.add([
        arrival(
            f"1.2.3.{number}", sop=f"1.2.3.{number}.1.1", received=1000.0, PatientID=f"P{number}",
            PatientName=f"Name{number}^Given", known=True,
            StudyDate=f"{2016 + number % 10}{1 + number // 10 % 12:02}{1 + number // 120 % 28:02}",
        )
        for number in range(BASE)
    ])  # fmt: skip
    index.close()
    with contextlib.closing(sqlite3.connect(file)) as database:
        for number in range(1, studies // BASE):
            for table, changed in COPIED.items():
                names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
                values = [changed.get(name, name).format(by=number * BASE, n=number) for name in names]
                database.execute(
                    f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {table}"
                    f" WHERE id <= {BASE}"
                )
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def compare_equal(folder: Path, studies: int) -> None:
    """Two archives with the same rows: what a comparison takes when there is nothing to do."""
    pair = Pair(folder)
    pair.start()  # makes the volumes
    for daemon in pair.daemons:
        daemon.stop()
    fill(pair.daemons[0].folder / "index.db", studies)
    with contextlib.closing(sqlite3.connect(pair.daemons[0].folder / "index.db")) as source, contextlib.closing(
        sqlite3.connect(pair.daemons[1].folder / "index.db")
    ) as target:
        source.backup(target)
    shutil.copy(pair.daemons[0].files / ".volume", pair.daemons[1].files)  # which its index knows by name
    try:
        pair.start()
        here = pair.daemons[0]
        part = ("--since", "2025-01-01")
        for options in (("--all", "--compare", "counts"), part, part):
            before, begun = [daemon.cpu_seconds() for daemon in pair.daemons], time.monotonic()
            said = command(here, "sync", "run", "--wait", *options)[0]
            spent = [after - each for after, each in zip([d.cpu_seconds() for d in pair.daemons], before, strict=True)]
            usage = [daemon.usage().resident / 2**20 for daemon in pair.daemons]
            print(
                f"{' '.join(options)}: {said['compared']} compared, {said['equal']} equal in"
                f" {said['finished'] - said['started']:.1f} s ({time.monotonic() - begun:.1f} s with the command);"
                f" CPU {spent[0]:.1f} s here, {spent[1]:.1f} s there; memory {usage[0]:.0f} and {usage[1]:.0f} MB"
            )
    finally:
        pair.close()


def with_orthanc(folder: Path, images: int) -> None:
    """Orthanc is kept equal with one archive: by pushing, by pulling, and named where neither may be."""
    with five.orthanc(folder / "orthanc") as (port, http):
        sync = SYNC | {"peer": "SECOND"}
        peers = {"SECOND": {"host": "127.0.0.1", "port": port, "allow": EVERYTHING}}
        here = Daemon(folder / "here", {"ae": {"title": "HERE", "aliases": ["ARCHIVE"]}, "peers": peers} | SOON)
        rest(http, "PUT", "/modalities/here", {"AET": "HERE", "Host": "127.0.0.1", "Port": here.port})
        ours, theirs = prepare(folder / "in", images, 4)
        with here:
            five.send(here.port, "SENDER", ours)
            subprocess.run(["storescu", "-R", "-aec", "SECOND", "127.0.0.1", str(port), "+sd", str(theirs)], check=True,
                           timeout=PATIENCE)  # fmt: skip
            here.configure({"sync": [sync]})
            here.stop()
            here.start()
            for number in range(1, ENOUGH + 1):
                said = command(here, "sync", "run", "--wait", good=(0, 1))[0]
                shown = ("compared", "equal", "mended", "waiting", "cannot", "miscounted")
                print(f"comparison {number}:", {name: said[name] for name in shown}, said["images"])
                if said["compared"] == said["equal"]:
                    break
                time.sleep(2)
            counted = rest(http, "GET", "/statistics")["CountInstances"]
            print(f"here {len(here.rows())}, at Orthanc {counted}, wanted {len(list(folder.glob('in/*/*')))}")
            victim = rest(http, "GET", "/studies")[0]
            rest(http, "DELETE", f"/studies/{victim}")
            for options in ((), ("--push-gone",), ()):
                said = command(here, "sync", "run", "--wait", *options, good=(0, 1))[0]
                print("a study was deleted there", options, [each["words"] for each in said["studies"]], said["equal"])
            study = here.rows()[0].study
            command(here, "delete", study, "--yes")
            for options in ((), ("--pull-deleted",), ()):
                said = command(here, "sync", "run", "--wait", *options, good=(0, 1))[0]
                print("a study was deleted here", options, [each["words"] for each in said["studies"]], said["equal"])


def rest(http: int, method: str, path: str, body: Any = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"http://127.0.0.1:{http}{path}", data, method=method)
    with urllib.request.urlopen(request, timeout=60) as page:
        return json.loads(page.read() or "null")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("count", type=int, help="images, or with --equal studies")
    options.add_argument("--kills", type=int, default=20, help="of either in turn (20)")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--equal", action="store_true", help="compare two archives with the same studies")
    options.add_argument("--orthanc", action="store_true", help="keep Orthanc equal")
    chosen = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="syncing-"))
    try:
        if chosen.equal:
            compare_equal(folder, chosen.count)
        elif chosen.orthanc:
            with_orthanc(folder, chosen.count)
        else:
            return kill_both(folder, chosen.count, chosen.kills, chosen.seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def kill_both(folder: Path, images: int, kills: int, seed: int) -> int:
    pair = Pair(folder)
    try:
        folders = prepare(folder / "in", images, max(2, images // 100))
        print(run(pair, folders, kills, seed))
        problems = check(pair, folders)
        print(f"{len(pair.uids()[0])} and {len(pair.uids()[1])} images;", problems or "both are equal")
        back = "select count(*) from task t join instance i on t.payload like '%' || i.sop_instance_uid || '\"%'" \
            " where t.kind = 'deliver' and i.source = t.lane"
        print("sent back to where they came from:", [daemon.select(back)[0][0] for daemon in pair.daemons])
        return 1 if problems else 0
    finally:
        pair.close()


if __name__ == "__main__":
    sys.exit(main())
