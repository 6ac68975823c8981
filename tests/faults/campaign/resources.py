"""B13-B21, D28: what costs memory and time: bombs beside a working peer, huge objects, many at once, little memory.

Rules that hold here: memory is what all processes of the daemon hold (PSS), watched while it happens.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator

from tests.faults import badobjects, raw
from tests.faults.badobjects import Case
from tests.faults.campaign.crowds import echo_seconds, judge
from tests.faults.campaign.fuzzing import Sender
from tests.faults.campaign.run import PATIENT, Run, fault
from tests.faults.daemon import Daemon, merged
from tests.faults.objects import element, new_uid
from tests.faults.raw import CT, Connection, Ended, Request, p_data, pdv
from tests.faults.rest import warm_up

MB = 1 << 20
BOMB_GROWTH, HUGE_GROWTH, CROWD_GROWTH = 64 * MB, 64 * MB, 256 * MB
PIECE = bytes(128 * 1024)


class Watch:
    """The most that the daemon held while it was watched."""

    def __init__(self, archive: Daemon) -> None:
        self._archive = archive
        self._enough = False
        self.before = self.most = archive.usage().resident

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        while not self._enough:
            self.most = max(self.most, self._archive.usage().resident)
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self._enough = True
        self._thread.join(60)

    @property
    def grown(self) -> int:
        return self.most - self.before


@fault(
    "B14", "bombs, nesting and counts while a known peer works", goal="G9", tries=200, seconds=90, few=8,
    twins=("no limits of the header",), proves="time, memory and answers beyond the limits are seen",
)  # fmt: skip
def bombs(run: Run) -> None:
    archive = run.daemon({"processes": 1, "timeouts": PATIENT}).start()
    warm_up(archive)
    every = [*badobjects.depths(), *badobjects.bombs()]
    sender, taken, slowest = Sender(archive), [], 0.0
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            taken.append(echo_seconds(archive))
            time.sleep(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        with Watch(archive) as watch:
            while run.goes_on():
                case = every[run.tried % len(every)]
                began = time.monotonic()
                status = sender.store(case)
                slowest = max(slowest, time.monotonic() - began)
                run.count([] if status in case.allowed else [f"{case}: answered with {status & 0xFFFF:04x}"])
    finally:
        done.set()
        asking.join(60)
    run.figure("memory", f"+{watch.grown / MB:.0f} MB")
    run.figure("slowest", f"{slowest:.2f} s")
    if watch.grown > BOMB_GROWTH:
        run.count([f"memory grew by {watch.grown / MB:.0f} MB"], tries=0)
    judge(run, taken, 0.2)
    run.count(run.check(archive), tries=0)


def huge(uid: str, size: int) -> Iterator[bytes]:
    """The P-DATA of an object of so many bytes, made while it is sent."""
    head = badobjects.made(uid) + element(badobjects.PIXELS, "OW", b"")[:8] + (size).to_bytes(4, "little")
    yield p_data(pdv(raw.STORE_CT, 0, head))
    piece = p_data(pdv(raw.STORE_CT, 0, PIECE))
    for _ in range(size // len(PIECE)):
        yield piece
    yield p_data(pdv(raw.STORE_CT, 2, b""))


def store_huge(archive: Daemon, size: int) -> int:
    uid = new_uid()
    with Connection(archive.port, patience=120) as sending:
        sending.associate(Request())
        sending.write(raw.STORE_CT, raw.store_rq(CT, uid))
        for pdu in huge(uid, size):
            sending.send(pdu)
        return sending.message().status


@fault(
    "B21", "an instance of 2 GB", goal="G9", tries=2, seconds=200, few=1, twins=("held in memory",),
    proves="an object that is held in memory is seen",
)  # fmt: skip
def two_gigabytes(run: Run) -> None:
    size = (2000 if run.tries > 1 and not run.seams else 300) * MB
    changes = {"processes": 1, "limits": {"max_instance_size": "3GB"}, "timeouts": {"dimse": "120s", "pdu": "60s"}}
    archive = run.daemon(changes).start()
    warm_up(archive)
    while run.goes_on():
        with Watch(archive) as watch:
            status = store_huge(archive, size // len(PIECE) * len(PIECE))
        run.count([] if status == 0 else [f"answered with {status:04x}"])
        run.figure("memory", f"+{watch.grown / MB:.0f} MB")
        if watch.grown > HUGE_GROWTH:
            run.count([f"memory grew by {watch.grown / MB:.0f} MB"], tries=0)
    for path in archive.objects():
        path.unlink()


@fault("B21b", "16 instances of 200 MB at once", goal="G9", tries=1, seconds=200, few=0)
def sixteen_at_once(run: Run) -> None:
    archive = run.daemon({"limits": {"max_instance_size": "3GB"}, "timeouts": {"dimse": "120s", "pdu": "60s"}}).start()
    warm_up(archive)
    statuses: list[int] = []
    with Watch(archive) as watch:
        threads = [
            threading.Thread(target=lambda: statuses.append(store_huge(archive, 200 * MB))) for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(run.seconds)
    run.count([] if statuses == [0] * 16 else [f"answered with {statuses}"])
    run.figure("memory", f"+{watch.grown / MB:.0f} MB")
    if watch.grown > CROWD_GROWTH:
        run.count([f"memory grew by {watch.grown / MB:.0f} MB"], tries=0)
    for path in archive.objects():
        path.unlink()


@fault("B21c", "an instance one byte above the limit", tries=5, seconds=60, few=1, twins=("any size",),
       proves="an object above the limit that is kept is seen")  # fmt: skip
def too_large(run: Run) -> None:
    archive = run.daemon({"limits": {"max_instance_size": 2_000_000}}).start()
    sender = Sender(archive)
    while run.goes_on():
        for size, allowed in ((2_000_001, {0xA700}), (2_000_000, {0})):
            uid = new_uid()
            room = size - len(badobjects.made(uid)) - 12
            data = badobjects.made(uid, badobjects.raw(badobjects.PIXELS, "OW", bytes(room), room))
            status = sender.store(Case("B21", "size", data, frozenset(allowed), uid))
            run.count([] if status in allowed else [f"{size} bytes: answered with {status:04x}"])
    run.count(run.check(archive), tries=0)


@fault(
    "D28", "a process with little memory and an instance that is larger", tries=5, seconds=120, few=1,
    twins=("held in memory",), proves="a process that dies for want of memory is seen",
)  # fmt: skip
def little_memory(run: Run) -> None:
    changes = {"processes": 1, "limits": {"max_instance_size": "3GB"}, "timeouts": {"dimse": "120s", "pdu": "60s"}}
    archive = run.daemon(merged(changes, {"storage": {"journal": "4MB"}})).start()
    base = warm_up(archive)
    (pid,) = archive.acceptors()
    virtual = _virtual(pid)
    limit = virtual + 250 * MB
    subprocess.run(["prlimit", f"--pid={pid}", f"--as={limit}:{limit}"], check=True, timeout=300)
    while run.goes_on():
        found = []
        try:
            status = store_huge(archive, 400 * MB)
            found += [] if status in (0, 0xA700) else [f"answered with {status:04x}"]
        except (OSError, Ended) as error:
            found.append(f"the association ended: {error}")
        found += [] if archive.acceptors() == [pid] else ["the process died"]
        with contextlib.suppress(OSError, Ended):
            found += [] if archive.echo() == 0 else ["no C-ECHO afterwards"]
        run.count(found)
    run.count(run.check(archive, base=base), tries=0)


def _virtual(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[0]) * 4096
