"""D02, D03: SIGKILL at random moments, and at every system call of a store.

Rules that hold here: after each kill the archive is started again and the oracle looks at all of it, what was
compared once need not be read again; a new archive is begun before an old one makes the looks slow.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator

from tests.faults import raw
from tests.faults.campaign.run import PATIENCE_WITH_DISK, POSTGRESQL, SQLITE, Run, fault, percentile
from tests.faults.daemon import Daemon, has_ended, merged, wait_until
from tests.faults.objects import Instance, instance
from tests.faults.raw import CT, Connection, Ended
from tests.faults.tracing import strace

BOTH = (SQLITE, POSTGRESQL)
SIZES = [500, 20_000, 200_000, 700_000, 1_500_000]  # in the journal; above it, in a part file
MANY = 600  # objects, after which a new archive is begun
SENDERS = 3
ONE_PROCESS = merged({"processes": 1, "storage": {"journal": "4MB"}}, PATIENCE_WITH_DISK)
WITHOUT_JOURNAL = merged(ONE_PROCESS, {"storage": {"journal": "off"}})


class Hammer(threading.Thread):
    """Stores objects of all kinds until the daemon is gone, or it is enough."""

    def __init__(self, port: int, seed: int, sizes: list[int] | None = None) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[Instance] = []
        self.refused: list[int] = []
        self.enough = threading.Event()
        self._port, self._random, self._sizes = port, random.Random(seed), sizes or SIZES
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, Ended), Connection(self._port) as sending:
            sending.associate()
            while not self.enough.is_set():
                one = instance(size=self._random.choice(self._sizes))
                status = sending.store(CT, one.uid, one.data)
                if status == 0:
                    self.acknowledged.append(one)
                else:
                    self.refused.append(status)


class Killed:
    """An archive that is killed again and again, and what it owes."""

    def __init__(self, run: Run, journal: bool) -> None:
        self.journal = journal
        self.archive = run.daemon(ONE_PROCESS if journal else WITHOUT_JOURNAL)
        self.owed: list[Instance] = []
        self.seen: set[str] = set()
        self.said = 0
        self.objects = 0

    def start(self) -> float:
        began = time.monotonic()
        self.archive.start()
        return time.monotonic() - began

    def judge(self, run: Run) -> list[str]:
        """After a restart: everything is looked at, what is new is read."""
        found = run.check(self.archive, self.owed, since=self.said, seen=self.seen, asked=1)
        self.said = len(self.archive.log())
        self.objects = len(self.seen)
        return found

    def hammer(self, run: Run) -> None:
        """Store from some senders at once, and kill everything in the middle."""
        hammers = [Hammer(self.archive.port, run.rng.randrange(1 << 30)) for _ in range(SENDERS)]
        wait_until(lambda: any(hammer.acknowledged for hammer in hammers), 30, "nothing is acknowledged")
        time.sleep(run.rng.uniform(0.0, 0.08))
        self.archive.kill()
        for each in hammers:
            each.join(60)
            self.owed += each.acknowledged


@fault(
    "D02", "kill -9 at random moments while three peers store", goal="G1", tries=10_000, seconds=3600, few=30,
    databases=BOTH, twins=("answer before commit", "row before file", "no recovery", "no sweep"),
    proves="acknowledged objects, rows without file, files without row and leftovers are seen",
)  # fmt: skip
def random_kills(run: Run) -> None:
    starts: list[float] = []
    acknowledged = 0
    while run.goes_on():
        killed = Killed(run, journal=run.rng.random() < 0.7 and "row before file" not in run.seams)
        killed.start()
        while run.goes_on() and killed.objects < MANY:
            killed.hammer(run)
            starts.append(killed.start())
            run.count(killed.judge(run))
            acknowledged += len(killed.owed)
            killed.owed = []
        killed.archive.kill()
    run.figure("acknowledged", f"{acknowledged}")
    run.figure("restart p50/p99", f"{percentile(starts, 0.5):.2f}/{percentile(starts, 0.99):.2f} s")


@fault(
    "D02b", "kill -9 of the serving processes only, while others go on", tries=500, seconds=600, few=88,
    databases=BOTH, twins=("no recovery",), proves="a successor settles what its predecessor left",
)  # fmt: skip
def kills_of_processes(run: Run) -> None:
    kills = rounds = 0
    while run.goes_on():
        storage = {"journal": ("4MB", "off")[rounds % 2]}
        changes = merged({"processes": 2, "storage": storage}, PATIENCE_WITH_DISK)
        archive = run.daemon(changes, seams=("quick restart", *run.seams)).start()
        seen: set[str] = set()
        said, rounds = 0, rounds + 1
        while run.goes_on() and (run.tried < run.tries / 2 or rounds > 1) and len(seen) < MANY:
            hammers = [Hammer(archive.port, run.rng.randrange(1 << 30)) for _ in range(SENDERS)]
            wait_until(lambda: any(hammer.acknowledged for hammer in hammers), 30, "nothing is acknowledged")  # noqa: B023
            time.sleep(run.rng.uniform(0.0, 0.05))
            kills += _kill_processes(run, archive, hammers)
            back = lambda: len(archive.acceptors()) == 2 and archive.answers()  # noqa: B023, E731
            wait_until(back, 20, "the processes do not come back")
            owed = [one for hammer in hammers for one in hammer.acknowledged]
            run.count(run.check(archive, owed, since=said, seen=seen, asked=1))
            said = len(archive.log())
        archive.kill()
    run.figure("processes killed", f"{kills}")


def _kill_processes(run: Run, archive: Daemon, hammers: list[Hammer]) -> int:
    """One or both at once, then the others; how many it were. No store is in flight when the oracle looks.

    A call that nobody had accepted yet is served by a successor, so a sender may outlive all of them.
    """
    victims = archive.acceptors()
    first = run.rng.sample(victims, run.rng.randint(1, len(victims)))
    kills = _kill_all(first)
    time.sleep(0.02)
    kills += _kill_all([pid for pid in archive.acceptors() if pid in victims])
    for hammer in hammers:
        hammer.join(0.1)
    if any(hammer.is_alive() for hammer in hammers):
        kills += _kill_all(archive.acceptors())
    for hammer in hammers:
        hammer.enough.set()
    for hammer in hammers:
        hammer.join(60)
        assert not hammer.is_alive(), "a sender does not come to its end"
    return kills


def _kill_all(pids: list[int]) -> int:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


# -- every system call ----------------------------------------------------------------------------------------

CALLS = (
    "writev", "write", "pwrite64", "fdatasync", "fsync", "rename", "openat", "mkdir", "unlink", "lseek", "flock",
    "close", "sendmsg", "recvfrom", "sendto", "fcntl", "syncfs", "fstat", "newfstatat", "ftruncate",
)  # fmt: skip
SMALL, LARGE = 3_000, 1_400_000


@fault(
    "D03", "kill -9 at every system call of a store", goal="G2", tries=4000, seconds=1500, few=6, databases=BOTH,
    twins=("row before file",), proves="a row without its file is seen between the two",
)  # fmt: skip
def every_call(run: Run) -> None:
    """For each kind of call the first, second, … of a store, until the store has no more of them."""
    killed: Killed | None = None
    for journal, size, name in _kinds(run):
        which = 0
        while run.goes_on():
            which += 1
            if killed is None or killed.objects > MANY / 4 or killed.journal != journal:
                if killed:
                    killed.archive.kill()
                killed = Killed(run, journal)
                killed.start()
            reached = _kill_at(run, killed, size, name, which)
            run.count(killed.judge(run), tries=int(reached))
            if not reached:
                break
    run.figure("calls", f"{len(CALLS)} kinds, {run.tried} points")


def _kinds(run: Run) -> list[tuple[bool, int, str]]:
    kinds = [
        (journal, size, name)
        for journal in ((False,) if "row before file" in run.seams else (True, False))
        for size in (SMALL, LARGE)
        for name in CALLS
    ]
    if run.tries < 100:  # a few: of those that write
        kinds = [kind for kind in kinds if kind[2] in ("writev", "fdatasync", "fsync", "rename", "pwrite64", "sendto")]
        run.rng.shuffle(kinds)
    return kinds


def _kill_at(run: Run, killed: Killed, size: int, name: str, which: int) -> bool:
    """Whether the store made so many of these calls; if so the daemon was killed in the midst and is back."""
    one = instance(size=size)
    trace = killed.archive.folder / "trace"
    (pid,) = killed.archive.acceptors()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(OSError, Ended))
        sending = stack.enter_context(Connection(killed.archive.port, patience=20))
        sending.associate()
        kill = f"inject={name}:signal=KILL:when={which}"
        stack.enter_context(strace(killed.archive, trace, "-e", f"trace={name}", "-e", kill))
        if sending.store(CT, one.uid, one.data) == 0:
            killed.owed.append(one)
    if not has_ended(pid):
        return False
    killed.archive.kill()
    killed.start()
    return True


def stores(archive: Daemon, objects: list[Instance]) -> Iterator[int]:
    """The statuses of storing them, one association each."""
    for one in objects:
        with raw.association(archive.port, patience=40) as sending:
            yield sending.store(CT, one.uid, one.data)
