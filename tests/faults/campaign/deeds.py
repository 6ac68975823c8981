"""SIGKILL in the midst of whatever an archive does for somebody: at random moments, and at every call that counts.

Rules that hold here: all processes that have a part in a deed are killed together; after each kill the archive is
started again, the deed is judged by what its peer was told and has seen, and the oracle looks at everything.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from tests.faults import raw
from tests.faults.campaign.run import Changes, Run
from tests.faults.daemon import Daemon, has_ended, merged, wait_until
from tests.faults.objects import Instance
from tests.faults.raw import CT
from tests.faults.strike import NEVER, Strike

MORE = 10  # calls that a deed may make beyond those that were counted: threads take turns
MOST = 60  # deeds, after which a new archive is begun
PATIENCE = 60.0
QUIET = {"idle": "60s", "dimse": "60s", "pdu": "60s", "acse": "60s", "send": "60s", "connect": "20s"}


class Deed(ABC):
    """Something that one archive does again and again."""

    seen: set[str]  # paths whose bytes the oracle has compared

    def __init__(self, run: Run, changes: Changes) -> None:
        self.run = run
        settings: Changes = {"processes": 1, "storage": {"journal": "4MB"}, "timeouts": QUIET}
        self.archive: Daemon = run.daemon(merged(settings, changes))
        self.owed: list[Instance] = []
        self.seen, self.said, self.done = set(), 0, 0

    # -- what each is about ---------------------------------------------------------------------

    @abstractmethod
    def prepare(self) -> list[int]:
        """Nothing is under way when it returns; the processes that are killed, the archive's at the end of the list."""

    @abstractmethod
    def begin(self) -> None:
        """Set it going, and return at once."""

    @abstractmethod
    def is_done(self) -> bool: ...

    @abstractmethod
    def end(self) -> None:
        """The archive is dead, or the deed done: the other side hears of it."""

    def before(self) -> Iterator[str]:
        """What does not hold of what a kill has left, before anything is started again."""
        yield from ()

    @abstractmethod
    def after(self) -> Iterator[str]:
        """What does not hold once the archive is back."""

    # -- how it is done -------------------------------------------------------------------------

    def try_once(self, strike: Callable[[list[int]], tuple[bool, int]]) -> tuple[bool, int, list[str]]:
        """Whether it was struck, how many calls were seen, and what does not hold afterwards."""
        pids = self.prepare()
        was_struck, calls = strike(pids)
        self.end()
        found: list[str] = []
        if was_struck and self.archive.pid in pids:
            self.archive.kill()
            found += self.before()
            self.archive.start()
        found += self.after()
        found += self.run.check(self.archive, self.owed, since=self.said, seen=self.seen, asked=1)
        self.said, self.owed = len(self.archive.log()), []
        self.done += 1
        return was_struck, calls, found

    def at_call(self, which: int) -> Callable[[list[int]], tuple[bool, int]]:
        """Killed at a call, if it has so many."""

        def strike(pids: list[int]) -> tuple[bool, int]:
            with Strike(pids, which) as killer:
                self.begin()
                wait_until(lambda: self._is_dead(pids) or self.is_done(), PATIENCE, "it comes to no end", pause=0.005)
            if killer.seen >= which:
                kill(pids)
            return killer.seen >= which, killer.seen

        return strike

    def at_moment(self, longest: float) -> Callable[[list[int]], tuple[bool, int]]:
        def strike(pids: list[int]) -> tuple[bool, int]:
            self.begin()
            time.sleep(self.run.rng.uniform(0.0, longest))
            kill(pids)
            return True, 0

        return strike

    def _is_dead(self, pids: list[int]) -> bool:
        """The last of them serves, if the archive is among them; else what is left of it finishes the deed or not."""
        return self.archive.pid in pids and has_ended(pids[-1])

    def comes(self, done: Callable[[], bool]) -> bool:
        """Whether it is so soon; a twin's patience is short, as a violation is what it waits for."""
        end = time.monotonic() + (3.0 if self.run.seams else PATIENCE)
        while not done():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def store(self, images: list[Instance]) -> None:
        with raw.association(self.archive.port, patience=PATIENCE) as sending:
            assert {sending.store(CT, one.uid, one.data) for one in images} <= {0}
        self.owed += images


def kill(pids: list[int]) -> None:
    """All of them, and what they held is free when it returns."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(map(has_ended, pids)), PATIENCE, "what was killed has not ended", pause=0.005)


Make = Callable[[Run], Deed]


def random_moments(run: Run, make: Make) -> None:
    """Up to a while after it is usually done."""
    deed: Deed | None = None
    while run.goes_on():
        if deed is None or deed.done > MOST:
            deed, longest = _begun(run, make, deed)
        _, _, found = deed.try_once(deed.at_moment(longest))
        run.count(found)


def every_call(run: Run, make: Make) -> None:
    """Each call once, in any order: what there is time for is a sample of all of them."""
    deed: Deed | None = None
    points: list[int] = []
    most = struck = 0
    while run.goes_on():
        if deed is None or deed.done > MOST:
            deed, _ = _begun(run, make, deed)
        if not most:
            most = _count(run, deed)
            points = list(range(1, most + MORE + 1))
            run.rng.shuffle(points)
        if not points:
            break
        reached, _, found = deed.try_once(deed.at_call(points.pop()))
        run.count(found, tries=int(reached))
        struck += reached
    run.figure("calls", f"{struck} of {most}")


def _begun(run: Run, make: Make, before: Deed | None) -> tuple[Deed, float]:
    """A new archive, and how long the deed takes when nothing happens; what is wrong then is a violation too."""
    if before is not None:
        before.archive.kill()
    deed = make(run)
    deed.archive.start()
    began = 0.0

    def undisturbed(pids: list[int]) -> tuple[bool, int]:
        nonlocal began
        began = time.monotonic()
        deed.begin()
        wait_until(deed.is_done, PATIENCE, "it comes to no end", pause=0.005)
        began = time.monotonic() - began
        return False, 0

    _, _, found = deed.try_once(undisturbed)
    run.count(found, tries=0)
    return deed, began * 1.2


def _count(run: Run, deed: Deed) -> int:
    _, calls, found = deed.try_once(deed.at_call(NEVER))
    run.count(found, tries=0)
    return calls
