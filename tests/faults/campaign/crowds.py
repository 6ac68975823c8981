"""N01-N14, N24-N26: crowds of hostile, idle and passing peers, and the end of the daemon among them.

Rules that hold here: a known peer is asked all the while, each time with an association of its own; what the
daemon holds afterwards is what it held before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import signal
import subprocess
import threading
import time

from tests.faults import raw
from tests.faults.campaign.run import PATIENT, Run, fault, percentile
from tests.faults.checker import PROMPT, prompt
from tests.faults.daemon import Daemon, Usage, many, merged
from tests.faults.hostile import Crowd
from tests.faults.objects import Instance, instance
from tests.faults.raw import CT, ONLY_ECHO, STORE_CT, Connection, Ended, Request, p_data, pdv
from tests.faults.rest import rested, warm_up

GROWTH = 10 << 20
# Deadlines as they are by default where they matter: a slot is held as long as in real life.
REAL = {"timeouts": {"tls": "5s", "acse": "5s", "pdu": "60s", "dimse": "60s", "idle": "300s", "send": "60s"}}
ROOM = {"limits": {"max_associations": 2500, "reserved_for_peers": 50, "per_ae": 2000, "per_ip": 2000}}


def allow_descriptors(count: int = 8192) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def echo_seconds(archive: Daemon) -> float:
    """One C-ECHO of a known peer; the whole of a deadline when it is refused."""
    began = time.monotonic()
    try:
        assert archive.echo(calling="SENDER") == 0
    except (OSError, Ended, AssertionError):
        return 99.0
    return time.monotonic() - began


def judge(run: Run, taken: list[float], limit: float, what: str = "C-ECHO") -> None:
    refused = sum(seconds == 99.0 for seconds in taken)
    served = [seconds for seconds in taken if seconds != 99.0]
    p50, p99, longest = (percentile(served, part) * 1000 for part in (0.5, 0.99, 1.0))
    run.figure(f"{what} p50/p99/longest", f"{p50:.0f}/{p99:.0f}/{longest:.0f} ms, {refused} refused")
    if refused:
        run.count([f"{refused} of {len(taken)} were refused"], tries=0)
    if p99 > limit * 1000 * prompt() / PROMPT:
        run.count([f"{what} p99 is {p99:.0f} ms"], tries=0)


@fault(
    "N01-14", "1,000 hostile sockets of 12 kinds while a known peer works", goal="G7", tries=3000,
    seconds=240, few=120,
    twins=("one after the other",), proves="a peer that is held up or refused is seen",
)  # fmt: skip
def hostile_crowd(run: Run) -> None:
    allow_descriptors()
    archive = run.daemon(merged(REAL, ROOM) if run.tries > 500 else {}, tls=True).start()
    base = warm_up(archive)
    said = len(archive.log())
    size = 1000 if run.tries > 500 else 240
    taken: list[float] = []
    with Crowd(archive.port, archive.tls_port, size, run.seed) as crowd:
        end = time.monotonic() + 20
        while crowd.size < size * 0.9 and time.monotonic() < end:
            time.sleep(0.1)
        run.figure("open", f"{crowd.size} sockets")
        while run.goes_on():
            taken.append(echo_seconds(archive))
            run.count()
            if taken[-1] > 5 and run.seams:
                break
            time.sleep(0.04)
        run.figure("opened in all", str(sum(crowd.opened.values())))
    judge(run, taken, 0.2)
    if not run.seams:
        grown = _freed(archive, base) - base.resident
        run.figure("memory afterwards", f"{grown / 2**20:+.0f} MB")
        # What the allocator keeps for a thousand threads is no leak; one would grow with every crowd.
        allowed = dataclasses.replace(base, resident=base.resident + (64 << 20))
        run.count(run.check(archive, base=allowed, since=said), tries=0)


def _freed(archive: Daemon, base: Usage) -> int:
    """Wait, as long as the longest deadline, until what the crowd held is free; what is still resident."""
    end = time.monotonic() + 75
    while archive.usage().threads > base.threads * 1.1 and time.monotonic() < end:
        time.sleep(0.5)
    return archive.usage().resident


@fault("N25", "200 idle associations and one that works", goal="G8", tries=500, seconds=40, few=0)
def idle_200(run: Run) -> None:
    _idle(run, 200, 0.05, 0.02)


@fault("N25b", "1,000 idle associations and one that works", goal="G8", tries=500, seconds=40, few=0)
def idle_1000(run: Run) -> None:
    _idle(run, 1000, 0.10, 0.05)


def _idle(run: Run, count: int, share: float, limit: float) -> None:
    """Cost of the idle ones alone, then the answers to one that works."""
    allow_descriptors()
    archive = run.daemon(merged(ROOM, {"timeouts": {"idle": "600s"}})).start()
    base = warm_up(archive)
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(Connection(archive.port)).associate(Request(contexts=ONLY_ECHO))
        used = archive.usage()
        before, began = archive.cpu_seconds(), time.monotonic()
        time.sleep(min(10.0, run.seconds / 3))
        core = (archive.cpu_seconds() - before) / (time.monotonic() - began)
        each = (used.resident - base.resident) / count / 1024
        run.figure("idle", f"{core * 100:.2f} % of a core, {each:.0f} kB each")
        if core > share:
            run.count([f"{count} idle associations take {core * 100:.0f} % of a core"], tries=0)
        taken = []
        while run.goes_on():
            taken.append(echo_seconds(archive))
            run.count()
            time.sleep(0.02)
        judge(run, taken, limit)
    run.count(run.check(archive, base=base), tries=0)


@fault(
    "N24", "associations in sequence, one in ten aborted", goal="G13", tries=100_000, seconds=900, few=300,
    twins=("descriptors leak", "memory leaks"), proves="descriptors and memory that are not given back are seen",
)  # fmt: skip
def sequence(run: Run) -> None:
    archive = run.daemon().start()
    _some(archive, 200, Run.goes_on)
    base = warm_up(archive)
    while run.goes_on():
        threads = [threading.Thread(target=_some, args=(archive, 50)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.count(tries=200)
        if run.seams and run.tried >= 3000:
            break
    rate = run.tried / run.taken
    grown = rested(archive).resident - base.resident
    run.figure("memory", f"{grown / 2**20:+.1f} MB")
    run.figure("rate", f"{rate:.0f}/s")
    run.count([f"memory grew by {grown >> 20} MB"] if grown > GROWTH else [], tries=0)
    run.count(run.check(archive, base=base), tries=0)


def _some(archive: Daemon, count: int, _: object = None) -> None:
    request = Request(contexts=ONLY_ECHO)
    for number in range(count):
        with Connection(archive.port, patience=30) as connection:
            connection.associate(request)
            if number % 10 == 9:
                connection.send(raw.abort())
                continue
            assert connection.echo() == 0
            connection.release()


# -- the end ----------------------------------------------------------------------------------------------------

AT_ONCE = 6  # daemons that end at the same time: they mostly wait
LIMIT = 10.0


@fault(
    "N26", "SIGTERM with idle, storing, stalled and silent peers", goal="G12", tries=1000, seconds=900, few=3,
    twins=("no end of patience at the end",), proves="an end that does not come, and one by force, are seen",
)  # fmt: skip
def terminations(run: Run) -> None:
    taken: list[float] = []
    while run.goes_on():
        count = min(AT_ONCE, run.tries)
        daemons = [run.daemon({"timeouts": PATIENT, "processes": 2}, tls=True) for _ in range(count)]
        ends = [Ending(archive, run.rng.random() < 0.5) for archive in daemons]
        for each in ends:
            each.start()
        for each in ends:
            each.join(90)
            taken.append(each.taken)
            run.count(each.found)
    waits = "/".join(f"{percentile(taken, part):.1f}" for part in (0.5, 0.99, 1))
    run.figure("to the end p50/p99/longest", f"{waits} s")


class Ending(threading.Thread):
    """One daemon from its start to its end."""

    def __init__(self, archive: Daemon, stalled: bool) -> None:
        super().__init__(daemon=True)
        self.found: list[str] = ["it did not end"]
        self.taken = 99.0
        self._archive, self._stalled = archive, stalled

    def run(self) -> None:
        archive = self._archive
        try:
            archive.start()
            with contextlib.ExitStack() as stack:
                acknowledged = self._crowd(stack)
                began = time.monotonic()
                archive.signal(signal.SIGTERM)
                status = archive.wait(LIMIT + 5)
                self.taken = time.monotonic() - began
            self.found = [] if status == 0 else [f"exit status {status}"]
            self.found += [f"it took {self.taken:.1f} s"] if self.taken > LIMIT else []
            from tests.faults.checker import violations

            self.found += violations(archive, acknowledged, alive=False)
        except subprocess.TimeoutExpired:
            self.found = [f"still there after {LIMIT + 5:.0f} s"]
        except (OSError, Ended, AssertionError) as error:
            self.found = [f"{type(error).__name__}: {error}"]
        finally:
            archive.kill()

    def _crowd(self, stack: contextlib.ExitStack) -> list[Instance]:
        """Idle, silent, stalled; what was stored before is owed."""
        archive, owed = self._archive, []
        for connection in stack.enter_context(many(archive.port, 5)):
            connection.associate(Request(contexts=ONLY_ECHO))
        stack.enter_context(many(archive.port, 2))
        stack.enter_context(many(archive.tls_port, 2))
        storing = stack.enter_context(Connection(archive.port)).associate()
        for size in (500, 60_000, 1_200_000):
            one = instance(size=size)
            assert storing.store(CT, one.uid, one.data) == 0
            owed.append(one)
        if self._stalled:
            one = instance(size=3_000_000)
            storing.write(STORE_CT, raw.store_rq(CT, one.uid))
            for cut in list(raw.fragments(one.data, 1 << 14))[:120]:
                storing.send(p_data(pdv(STORE_CT, *cut)))
        return owed


@fault("N05", "connections that are closed at once", tries=10_000, seconds=60, few=300)
def probes(run: Run) -> None:
    archive = run.daemon().start()
    base = warm_up(archive)
    taken: list[float] = []
    while run.goes_on():
        for _ in range(20):
            with contextlib.suppress(OSError):
                Connection(archive.port).close()
        run.count(tries=20)
        taken.append(echo_seconds(archive))
    judge(run, taken, 0.2)
    run.count(run.check(archive, base=base), tries=0)


