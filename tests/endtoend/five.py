"""Five destinations, four senders, a restart and a kill in between: every image arrives once, or its end has a reason.

``python -m tests.endtoend.five 2000`` runs it at full size and prints its figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom

from archive.index import Index, State, Task, open_index
from tests.dimse import archives
from tests.endtoend.dcmtk import storescp
from tests.faults.daemon import EVERYTHING, Daemon, free_port, wait_until
from tests.faults.destination import Dead, Destination, serve, silent

SENDERS = ("SENDER", "CT1", "CT2", "CT3")
GOOD = ("STORESCP", "SECOND")
BAD = ("DEAD", "FULL", "HANGS")
ROUTE = {"name": "all", "retry": {"max": 2, "delay": "0.5s", "cap": "1s"}, "give_up": "2s"}
QUICK = {"dimse": "2s"}
PATIENCE = 300.0


class Five:
    """A daemon and its destinations."""

    def __init__(self, folder: Path, count: int, second: int, receiver: int) -> None:
        """`second` and `receiver` are the ports of the two good ones."""
        self.folder, self.count = folder, count
        self.dead = Dead()
        self.full = Destination(serve(lambda number: 0xA700))
        self.kept: dict[str, bytes] = {}
        self.hangs = Destination(serve(stop_after=1, how=silent, keep=self.kept))
        bad = (self.dead.port, self.full.port, self.hangs.port)
        ports = dict(zip((*GOOD, *BAD), (receiver, second, *bad), strict=True))
        peers: dict[str, Any] = {name: {"host": "127.0.0.1", "port": port} for name, port in ports.items()}
        peers |= {name: {"host": "127.0.0.0/8", "allow": EVERYTHING} for name in SENDERS}
        self.daemon = Daemon(folder, {"peers": peers, "routes": [ROUTE | {"to": [*ports]}], "timeouts": QUICK})

    def index(self) -> Index:
        return open_index(f"sqlite:///{self.folder}/index.db")

    def close(self) -> None:
        self.daemon.kill()
        self.full.close()
        self.hangs.close()
        self.dead.close()


def prepare(folder: Path, count: int) -> list[Path]:
    """A folder of images for each sender, a study each."""
    share = count // len(SENDERS)
    folders = []
    for study, sender in enumerate(SENDERS, 1):
        archives.write(folder / sender, *(archives.instance(n, study=study, size=16) for n in range(1, share + 1)))
        folders.append(folder / sender)
    return folders


def send(port: int, sender: str, folder: Path) -> None:
    """All of a folder, again and again until all of it was taken: a modality does not give up either."""
    command = ["storescu", "-R", "-aet", sender, "-aec", "ARCHIVE", "127.0.0.1", str(port), "+sd", str(folder)]
    end = time.monotonic() + PATIENCE
    while subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode:
        assert time.monotonic() < end
        time.sleep(0.2)


@contextlib.contextmanager
def sending(port: int, folders: list[Path]) -> Iterator[list[threading.Thread]]:
    threads = [
        threading.Thread(target=send, args=(port, sender, folder))
        for sender, folder in zip(SENDERS, folders, strict=True)
    ]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.join()


def received(folder: Path) -> Counter[str]:
    """How many files of each instance lie in a folder of storescp."""
    return Counter(
        str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
        for path in folder.iterdir()
        if path.is_file()
    )


def ends(index: Index, lane: str) -> dict[str, Task]:
    return {task.payload["sop"]: task for task in index.tasks(kind="deliver", lane=lane, limit=100_000)}


def run(five: Five, folders: list[Path], *, disturb: bool) -> float:
    """Send everything, with a restart and a kill in between; seconds until the good ones had all."""
    five.daemon.start()
    index, begun = five.index(), time.monotonic()
    with sending(five.daemon.port, folders) as threads:
        if disturb:
            wait_until(lambda: index.statistics().instances >= five.count // 4, PATIENCE, "no quarter was stored")
            five.daemon.stop()
            five.daemon.start()
            wait_until(lambda: done(index, GOOD[0]) >= five.count // 2, PATIENCE, lambda: five.daemon.log()[-3000:])
            five.daemon.kill()
            five.daemon.start()
        for thread in threads:
            thread.join()
    wait_until(lambda: all(done(index, lane) == five.count for lane in GOOD), PATIENCE, lambda: states(index))
    taken = time.monotonic() - begun
    index.close()
    return taken


def done(index: Index, lane: str) -> int:
    return index.task_counts().get(("deliver", lane, State.DONE), 0)


def states(index: Index) -> str:
    return json.dumps({f"{lane} {state.value}": n for (_, lane, state), n in index.task_counts().items()}, indent=1)


# -- by hand, at full size --------------------------------------------------------------------------------------


@contextlib.contextmanager
def orthanc(folder: Path, **more: Any) -> Iterator[tuple[int, int]]:
    """Orthanc, as it is shipped but for ``more``: its DICOM and its HTTP port."""
    folder.mkdir()
    port, http = free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder / "db"), "DicomPort": port, "HttpPort": http, "AuthenticationEnabled": False,
        "DicomAet": "SECOND", "DicomAlwaysAllowStore": True, "RemoteAccessAllowed": False, **more,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    process = subprocess.Popen(
        ["Orthanc", str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: _statistics(http) is not None, 30, "Orthanc does not start")
        yield port, http
    finally:
        process.terminate()
        process.wait(60)


def _statistics(http: int) -> dict[str, Any] | None:
    address = f"http://127.0.0.1:{http}/statistics"
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=60) as page:
        found: dict[str, Any] = json.load(page)
        return found
    return None


def _alone(folder: Path, folders: list[Path], count: int) -> float:
    """The same with the good destinations and nobody else."""
    folder.mkdir()
    with storescp(folder / "received") as port, orthanc(folder / "orthanc") as (second, _):
        ports = zip(GOOD, (port, second), strict=True)
        peers: dict[str, Any] = {name: {"host": "127.0.0.1", "port": at} for name, at in ports}
        peers |= {name: {"host": "127.0.0.0/8", "allow": EVERYTHING} for name in SENDERS}
        routes = [ROUTE | {"to": list(GOOD)}]
        with Daemon(folder / "archive", {"peers": peers, "routes": routes, "timeouts": QUICK}) as daemon:
            index, begun = open_index(f"sqlite:///{daemon.folder}/index.db"), time.monotonic()
            with sending(daemon.port, folders):
                pass
            wait_until(lambda: all(done(index, lane) == count for lane in GOOD), PATIENCE)
            return time.monotonic() - begun


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("count", type=int)
    options.add_argument("--calm", action="store_true", help="without restart and kill")
    chosen = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="five-"))
    try:
        folders = prepare(folder / "in", chosen.count)
        print(f"the good destinations alone: {_alone(folder / 'alone', folders, chosen.count):.1f} s")
        with storescp(folder / "received") as receiver, orthanc(folder / "orthanc") as (second, http):
            five = Five(folder / "archive", chosen.count, second, receiver)
            try:
                taken = run(five, folders, disturb=not chosen.calm)
                print(f"five destinations: {taken:.1f} s until the good ones had all")
                index = five.index()
                wait_until(lambda: not any(index.queue.open(["deliver"]).get((lane, state)) for lane in BAD
                                           for state in (State.WAITING, State.LEASED)), PATIENCE, lambda: states(index))
                print(states(index))
                for lane in (*GOOD, *BAD):
                    print(lane, Counter(task.reason[:90] for task in ends(index, lane).values()).most_common(4))
                at_storescp, statistics = received(folder / "received"), _statistics(http) or {}
                print(f"at storescp {len(at_storescp)} images, at Orthanc {statistics.get('CountInstances')}")
                said = {uid for uid, task in ends(index, "STORESCP").items() if task.state is State.DONE}
                print(f"called sent and not there: {len(said - set(at_storescp))}")
            finally:
                five.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
