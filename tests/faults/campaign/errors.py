"""D06-D11: ENOSPC, EIO, EROFS and EDQUOT at every write, sync, rename, open and mkdir of a store.

Rules that hold here: one call fails at a time (the first, the second, …), or all from there on; the peer must
hear A700 or 0000, and 0000 only for what is whole; when the fault is over the next store succeeds within five
seconds, without a restart, and nothing is left in the spool.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator

from tests.faults import raw
from tests.faults.campaign.kills import ONE_PROCESS, WITHOUT_JOURNAL
from tests.faults.campaign.run import POSTGRESQL, SQLITE, Run, fault, percentile
from tests.faults.daemon import Daemon
from tests.faults.objects import Instance, instance
from tests.faults.raw import CT, Connection, Ended
from tests.faults.tracing import strace

OUT_OF_RESOURCES = 0xA700
BACK = 5.0  # seconds
SMALL, LARGE = 3_000, 1_400_000
ERRORS = ("ENOSPC", "EIO", "EROFS", "EDQUOT")
CALLS = ("writev", "pwrite64", "fdatasync", "fsync", "rename", "openat", "mkdir", "ftruncate", "unlink", "syncfs")
OFTEN = 40  # stores, after which a new archive is begun, so that folders are made again

Case = tuple[bool, int, str, str, str]  # with a journal, size, call, error, "" or "+"


def cases(run: Run) -> Iterator[Case]:
    every = list(itertools.product((True, False), (SMALL, LARGE), CALLS, ERRORS, ("", "+")))
    if run.tries < 100:
        every = [case for case in every if case[2] in ("writev", "pwrite64", "fdatasync", "fsync", "rename")]
    run.rng.shuffle(every)
    yield from every


@fault(
    "D06-11", "ENOSPC, EIO, EROFS, EDQUOT at every write, sync, rename, open, mkdir of a store", goal="G4",
    tries=3000, seconds=900, few=8, databases=(SQLITE, POSTGRESQL),
    proves="an error that is not told, and what it leaves, are seen",
    twins=("errors of sync ignored", "errors of write ignored", "no cleaning up"),
)  # fmt: skip
def every_error(run: Run) -> None:
    backs: list[float] = []
    sites: dict[bool, Site] = {}
    for case in cases(run):
        for which in range(1, 200):
            if not run.goes_on():
                break
            journal = case[0]
            if journal not in sites or sites[journal].stores > OFTEN:
                if journal in sites:
                    run.count(sites[journal].end(run), tries=0)
                sites[journal] = Site(run, journal)
            if not sites[journal].attempt(run, case, which, backs):
                break
    for site in sites.values():
        run.count(site.end(run), tries=0)
    run.figure("back after", f"p99 {percentile(backs, 0.99):.2f} s, longest {max(backs, default=0):.2f} s")


class Site:
    """An archive that some calls of fail."""

    def __init__(self, run: Run, journal: bool) -> None:
        self.archive: Daemon = run.daemon(ONE_PROCESS if journal else WITHOUT_JOURNAL).start()
        self.kept: list[Instance] = []
        self.seen: set[str] = set()
        self.said = 0
        self.stores = 0

    def attempt(self, run: Run, case: Case, which: int, backs: list[float]) -> bool:
        """Whether there was such a call to fail."""
        _, size, call, error, on = case
        one, after = instance(size=size), instance(size=size)
        what = f"{error} at {call} {which}{on} of {size} bytes, journal {case[0]}"
        trace = self.archive.folder / "trace"
        inject = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={which}{on}")
        with Connection(self.archive.port, patience=30) as sending:
            sending.associate()
            with strace(self.archive, trace, *inject):
                status = _status(sending, one)
            happened, sync_failed = _injected(trace.read_text(errors="replace"))
        self.stores += 2
        if status == 0:
            self.kept.append(one)
        if not happened:
            return False
        found = [] if status in (0, OUT_OF_RESOURCES, -1) else [f"answered with {status:04x}"]
        if sync_failed and status == 0:
            found.append("acknowledged although its sync failed")
        began = time.monotonic()
        while (again := self._store(after)) != 0 and time.monotonic() - began < BACK:
            time.sleep(0.05)
        backs.append(time.monotonic() - began)
        if again == 0:
            self.kept.append(after)
        else:
            found.append(f"five seconds after the fault a store is answered with {again:04x}")
        found += run.check(self.archive, self.kept, alive=False, since=self.said, seen=self.seen)
        self.said = len(self.archive.log())
        run.count(f"{what}: {violation}" for violation in found)
        return True

    def _store(self, one: Instance) -> int:
        try:
            with raw.association(self.archive.port, patience=30) as sending:
                return sending.store(CT, one.uid, one.data)
        except (OSError, Ended):
            return -1

    def end(self, run: Run) -> list[str]:
        """After kill -9 and a new start everything is as it was said to be."""
        self.archive.kill()
        self.archive.start()
        found = run.check(self.archive, self.kept, since=self.said, asked=3)
        self.archive.kill()
        return found


def _injected(trace: str) -> tuple[bool, bool]:
    """Whether any call failed, and whether it was the sync of the object itself: of its part file or the journal."""
    lines = [line for line in trace.splitlines() if "INJECTED" in line]
    return bool(lines), any("sync(" in line and re.search(r"\.part>|\.journal>", line) for line in lines)


def _status(sending: Connection, one: Instance) -> int:
    """-1 when the association ended instead of an answer."""
    try:
        return sending.store(CT, one.uid, one.data)
    except (OSError, Ended):
        return -1
