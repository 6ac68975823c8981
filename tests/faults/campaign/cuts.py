"""D04, D05: the power goes while three peers store, or are promised to keep what they stored.

Rules that hold here: the disk is copied while everything that writes to it is stopped, and an archive is
started on the copy; what was acknowledged before the stop is owed.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.faults.campaign.commitments import NO_SUCH_INSTANCE, RETRY
from tests.faults.campaign.commitments import peer as entry
from tests.faults.campaign.kills import ONE_PROCESS, WITHOUT_JOURNAL
from tests.faults.campaign.run import POSTGRESQL, SQLITE, Changes, Run, fault, percentile
from tests.faults.cluster import Cluster
from tests.faults.committing import ASKING, Report, Reports, ask
from tests.faults.daemon import Daemon, merged, wait_until
from tests.faults.objects import Instance, instance, new_uid
from tests.faults.power import Disk, mounted
from tests.faults.raw import CT, Connection, Ended

SIZES = [500, 20_000, 150_000, 1_200_000]
FULL = 350 << 20
SENDERS = 3


class Peer(threading.Thread):
    """Stores until it is told to stop."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[Instance] = []
        self.enough = False
        self._port, self._random = port, random.Random(seed)
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, Ended), Connection(self._port, patience=30) as sending:
            sending.associate()
            while not self.enough:
                one = instance(size=self._random.choice(SIZES))
                if sending.store(CT, one.uid, one.data) == 0:
                    self.acknowledged.append(one)
            sending.release()


class Asker(Peer):
    """Stores an object, and asks at once for commitment of it and of one that nobody has."""

    def __init__(self, port: int, seed: int) -> None:
        self.answered: list[tuple[str, Report]] = []
        super().__init__(port, seed)

    def run(self) -> None:
        with contextlib.suppress(OSError, Ended), Connection(self._port, patience=30) as sending:
            sending.associate(ASKING)
            while not self.enough:
                one, unknown, transaction = instance(size=self._random.choice(SIZES)), new_uid(), new_uid()
                if sending.store(CT, one.uid, one.data) != 0:
                    continue
                self.acknowledged.append(one)
                if ask(sending, transaction, [(CT, one.uid), (CT, unknown)]) == 0:
                    truth = Report(frozenset([one.uid]), ((unknown, NO_SUCH_INSTANCE),))
                    self.answered.append((transaction, truth))
            sending.release()


class Plant:
    """An archive, and its database server, on a disk of their own."""

    changes: Changes = {}
    kind: type[Peer] = Peer

    def __init__(self, run: Run) -> None:
        self.disk: Disk = run.enter(Disk())
        self.cluster: Cluster | None = None
        url = "sqlite:///index.db"
        if run.database == POSTGRESQL:
            self.cluster = run.enter(Cluster(self.disk.folder / "pg")).make()
            self.disk.sync()  # an empty cluster is not what is tried
            self.cluster.start()
            url = self.cluster.database("archive")
        self._url = url
        journal = run.rng.random() < 0.7
        self._changes = merged(ONE_PROCESS if journal else WITHOUT_JOURNAL, self.changes, {"index": {"url": url}})
        self.archive = run.daemon(self._changes, folder=self.disk.folder / "archive").start()
        self.owed: list[Instance] = []

    def cut(self, run: Run) -> Path:
        """Store, and copy the disk in the middle; what is owed grows by what was acknowledged before."""
        peers = [self.kind(self.archive.port, run.rng.randrange(1 << 30)) for _ in range(SENDERS)]
        wait_until(lambda: any(peer.acknowledged for peer in peers), 30, "nothing is acknowledged")
        time.sleep(run.rng.uniform(0.0, 0.1))
        with self.disk.stopped([*self.archive.pids(), *(self.cluster.pids() if self.cluster else [])]):
            before = [one for peer in peers for one in list(peer.acknowledged)]
            self.note(peers)
            copy = self.disk.copy()
        for peer in peers:
            peer.enough = True
        for peer in peers:
            peer.join(60)
        self.owed += before
        self._later = [one for peer in peers for one in peer.acknowledged if one not in before]
        return copy

    def note(self, peers: Sequence[Peer]) -> None:
        """What else the peers were told before the power went."""

    def more(self, run: Run, after: Daemon) -> Iterator[str]:
        """What else does not hold of the archive that was started on the copy."""
        yield from ()

    def judge(self, run: Run, copy: Path) -> list[str]:
        """Start an archive on the copy and look at all of it."""
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(mounted(copy, self.disk.base / "after"))
            changes = dict(self._changes)
            if self.cluster:
                again = stack.enter_context(Cluster(folder / "pg")).start(60)
                changes["index"] = {"url": again.url("archive")}
            after = Daemon(folder / "archive", changes, forks=run.forks, seams=run.seams)
            after.log_file = self.disk.base / "after.log"
            after.log_file.unlink(missing_ok=True)
            stack.callback(after.kill)
            began = time.monotonic()
            after.start()
            self.recovered = time.monotonic() - began
            found = [*self.more(run, after), *run.check(after, self.owed, asked=1)]
            after.kill()
            if run.database == SQLITE:
                found += _integrity(folder / "archive" / "index.db")
        copy.unlink()
        self.owed += self._later  # synced before the next cut at the latest
        return found


def _integrity(file: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(file)) as database:
        said = [row[0] for row in database.execute("pragma integrity_check")]
    return [] if said == ["ok"] else [f"integrity_check: {said[:3]}"]


@fault(
    "D04", "power cut while three peers store", goal="G3", tries=1000, seconds=3000, few=15,
    databases=(SQLITE, POSTGRESQL), twins=("no sync", "commit not synced", "asynchronous commit@postgresql"),
    proves="a disk that kept only what was synced is what is looked at",
)  # fmt: skip
def power_cuts(run: Run) -> None:
    _cut(run, Plant)


def _cut(run: Run, make: Callable[[Run], Plant]) -> None:
    recoveries: list[float] = []
    owed = 0
    while run.goes_on():
        with contextlib.ExitStack() as stack:
            inner = Run(run.fault, run.place(), run.forks, run.database, run.seams, run.rng.randrange(1 << 30))
            stack.enter_context(inner)
            plant = make(inner)
            while run.goes_on() and plant.disk.used() < FULL:
                found = plant.judge(inner, plant.cut(inner))
                run.count(found)
                recoveries.append(plant.recovered)
            owed += len(plant.owed)
    run.figure("acknowledged", str(owed))
    run.figure("restart p50/p99", f"{percentile(recoveries, 0.5):.2f}/{percentile(recoveries, 0.99):.2f} s")


class Promising(Plant):
    """Three peers that ask for commitment of what they store; their reports come to one place."""

    kind = Asker

    def __init__(self, run: Run) -> None:
        self._reports = Reports()
        there = run.enter(contextlib.closing(self._reports.listen()))
        self.changes = {"peers": {"SENDER": entry(there.port, "commit_new_association")}, "commitment": RETRY}
        self._answered: dict[str, Report] = {}
        super().__init__(run)

    def note(self, peers: Sequence[Peer]) -> None:
        self._answered = dict(pair for each in peers if isinstance(each, Asker) for pair in list(each.answered))

    def judge(self, run: Run, copy: Path) -> list[str]:
        """The one whose power went is dead, else its leases would be believed."""
        self.archive.kill()
        try:
            return super().judge(run, copy)
        finally:
            self.archive.start()

    def more(self, run: Run, after: Daemon) -> Iterator[str]:
        """Every request that was answered is reported, before the cut or after it, and the report is true."""
        end = time.monotonic() + (5.0 if run.seams else 60.0)
        while (left := self._left(after)) and time.monotonic() < end:
            time.sleep(0.05)
        yield from (f"request {transaction} was answered and is not reported" for transaction in sorted(left))
        for transaction, truth in self._answered.items():
            yield from (f"reported {each}, not {truth}" for each in self._reports.of(transaction) if each != truth)

    def _left(self, after: Daemon) -> set[str]:
        """What the archive on the copy has not reported yet, or knows nothing of."""
        known = after.select("select transaction_uid from commitment where state = 'reported'")
        return set(self._answered) - {str(uid) for (uid,) in known}


@fault(
    "D05", "power cut while storage commitment is answered", tries=200, seconds=600, few=1,
    databases=(SQLITE, POSTGRESQL), twins=("no sync",),
    proves="a promise of what is gone, and a request that is forgotten, are seen",
)  # fmt: skip
def power_cuts_of_promises(run: Run) -> None:
    _cut(run, Promising)
