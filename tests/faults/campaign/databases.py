"""D13-D16: a database that is locked, stopped, held up, or gone at the very moment of COMMIT.

Rules that hold here: a peer hears 0000 or A700, and hears it in time; 0000 only when the row is there; the
archive comes back by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

from tests.faults import raw
from tests.faults.campaign.kills import ONE_PROCESS
from tests.faults.campaign.run import POSTGRESQL, Run, fault, percentile
from tests.faults.daemon import Daemon, merged, wait_until
from tests.faults.objects import Instance, instance
from tests.faults.pgproxy import AFTER, BEFORE, SILENT, Proxy
from tests.faults.raw import CT, Ended

OUT_OF_RESOURCES = 0xA700
IN_TIME = 12.0  # seconds: the time limit of a statement, and of waiting for one's turn before it
HASTY = {"index": {"statement_timeout": "1s"}}


class Stores(threading.Thread):
    """One store after the other, with what came of each and how long it took."""

    def __init__(self, archive: Daemon, size: int = 3_000) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[Instance] = []
        self.odd: list[str] = []
        self.taken: list[float] = []
        self.refused = 0
        self.enough = False
        self._archive, self._size = archive, size
        self.start()

    def run(self) -> None:
        while not self.enough:
            began = time.monotonic()
            with contextlib.suppress(OSError, Ended), raw.association(self._archive.port, patience=40) as sending:
                while not self.enough:
                    began = time.monotonic()
                    one = instance(size=self._size)
                    self._note(one, sending.store(CT, one.uid, one.data), time.monotonic() - began)
            if time.monotonic() - began > IN_TIME:
                self.odd.append(f"an association ended after {time.monotonic() - began:.0f} s without an answer")

    def _note(self, one: Instance, status: int, taken: float) -> None:
        self.taken.append(taken)
        if status == 0:
            self.acknowledged.append(one)
        elif status == OUT_OF_RESOURCES:
            self.refused += 1
            time.sleep(0.02)
        else:
            self.odd.append(f"answered with {status:04x}")
        if taken > IN_TIME:
            self.odd.append(f"{status:04x} after {taken:.1f} s")

    def end(self) -> list[str]:
        self.enough = True
        self.join(60)
        return self.odd + (["a store never ended"] if self.is_alive() else [])


class Case:
    """An archive that two peers store to while its database suffers."""

    def __init__(self, archive: Daemon) -> None:
        self.archive = archive
        self.seen: set[str] = set()
        self.said = 0
        self.refused = 0
        self.taken: list[float] = []

    @contextlib.contextmanager
    def storing(self, run: Run):  # type: ignore[no-untyped-def]
        """Peers store during the block; afterwards the next store succeeds, and the oracle looks."""
        peers = [Stores(self.archive), Stores(self.archive, 1_300_000)]
        wait_until(lambda: all(peer.acknowledged for peer in peers), 30, "nothing is acknowledged")
        yield peers
        found = [odd for peer in peers for odd in peer.end()]
        began = time.monotonic()
        wait_until(self._stores, 15, "no store succeeds after the fault")
        back = time.monotonic() - began
        if back > 6:
            found.append(f"the first store after the fault took {back:.1f} s")
        owed = [one for peer in peers for one in peer.acknowledged]
        self.refused += sum(peer.refused for peer in peers)
        self.taken += [taken for peer in peers for taken in peer.taken]
        found += run.check(self.archive, owed, since=self.said, seen=self.seen, asked=2)
        self.said = len(self.archive.log())
        run.count(found)

    def _stores(self) -> bool:
        one = instance()
        with contextlib.suppress(OSError, Ended), raw.association(self.archive.port, patience=20) as sending:
            return sending.store(CT, one.uid, one.data) == 0
        return False

    def figures(self, run: Run) -> None:
        run.figure("refused", str(self.refused))
        run.figure("longest store", f"{percentile(self.taken, 1.0):.1f} s")


@fault(
    "D13", "SQLite locked by somebody else for up to 9 s", goal="G4", tries=40, seconds=240, few=1,
    twins=("unknown outcome is success",), proves="an acknowledgement without a row is seen",
)  # fmt: skip
def locked(run: Run) -> None:
    case = Case(run.daemon(ONE_PROCESS).start())
    while run.goes_on():
        with case.storing(run):
            database = sqlite3.connect(case.archive.folder / "index.db", isolation_level=None, timeout=60)
            database.execute("begin exclusive")
            time.sleep(6.5 if run.seams else run.rng.uniform(0.3, 9.0 if run.tries > 1 else 2.0))
            database.execute("rollback")
            database.close()
    case.figures(run)


@fault(
    "D14", "PostgreSQL stopped, killed and restarted while peers store", goal="G4", tries=60, seconds=240, few=1,
    databases=(POSTGRESQL,), twins=("unknown outcome is success",), proves="an acknowledgement without a row is seen",
    alone=True,
)  # fmt: skip
def restarted(run: Run) -> None:
    case = Case(run.daemon(ONE_PROCESS).start())
    while run.goes_on():
        with case.storing(run):
            how = run.rng.choice([signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
            run.cluster.stop(how)
            time.sleep(run.rng.uniform(0.1, 2.0))
            run.cluster.start()
    case.figures(run)


@fault(
    "D15", "PostgreSQL's processes held up (SIGSTOP)", goal="G4", tries=40, seconds=240, few=1, databases=(POSTGRESQL,),
    twins=("no patience with the index",), proves="a store that waits for ever is seen",
    alone=True,
)  # fmt: skip
def held_up(run: Run) -> None:
    """The server or only those that serve: nobody waits longer than a statement may take, a C-ECHO not at all."""
    case = Case(run.daemon(merged(ONE_PROCESS, HASTY)).start())
    while run.goes_on():
        with case.storing(run):
            pids = run.cluster.backends() if run.rng.random() < 0.5 else run.cluster.pids()
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            end = time.monotonic() + (20 if run.seams else run.rng.uniform(2, 6))
            while time.monotonic() < end:
                began = time.monotonic()
                assert case.archive.echo() == 0
                if time.monotonic() - began > 0.5:
                    run.count([f"a C-ECHO took {time.monotonic() - began:.1f} s meanwhile"], tries=0)
                time.sleep(0.2)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
    case.figures(run)


@fault(
    "D16", "the connection to PostgreSQL cut at COMMIT, before and after it took effect, or silent", goal="G4",
    tries=40, seconds=240, few=1, databases=(POSTGRESQL,), twins=("unknown outcome is success",),
    proves="an acknowledgement without a row is seen",
)  # fmt: skip
def cut_at_commit(run: Run) -> None:
    url = run.new_url()
    name = url.rpartition("/archive_")[2].partition("?")[0]
    sockets = Path(run.cluster.url().partition("host=")[2])
    ways = (BEFORE,) if run.seams else (BEFORE, AFTER, SILENT)
    proxy = run.enter(Proxy(sockets, run.rng.randrange(1 << 30), share=0.9 if run.seams else 0.3, ways=ways))
    proxy.active = False
    settings = merged(ONE_PROCESS, HASTY, {"index": {"url": proxy.url(f"archive_{name}")}})
    case = Case(run.daemon(settings).start())
    while run.goes_on():
        with case.storing(run):
            proxy.active = True
            time.sleep(2.0)
            proxy.active = False
    case.figures(run)
    run.figure("commits cut", ", ".join(f"{count} {way}" for way, count in proxy.cuts.items()))
