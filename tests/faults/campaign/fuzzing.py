"""N37, N38, B01-B22, B50: PDUs and data sets that are wrong on purpose or by chance.

Rules that hold here: the same seed gives the same bytes, every strategy is applied to every seed object at least
once; what breaks something is kept as a finding, which every test run replays (test_findings.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.faults import badobjects, fuzz, objects
from tests.faults.badobjects import DEFLATED, Case
from tests.faults.campaign.run import PATIENT, Run, fault, percentile
from tests.faults.daemon import ROOT, Daemon
from tests.faults.objects import Instance
from tests.faults.raw import CT, EXPLICIT, IMPLICIT, Connection, Ended, Request
from tests.faults.rest import rested, warm_up

SLOW = 1.0  # seconds a healthy peer may wait at most meanwhile
IN_PROCESS_SLOW = 0.5
GROWTH = 10 << 20  # bytes
ALLOWED = frozenset({0x0000, 0xA700, 0xA900, 0xC000})
ROUND = 250  # tries between two looks of the oracle
CONTEXT_OF = {EXPLICIT: 3, IMPLICIT: 13, DEFLATED: 15}
CONTEXTS = {1: ("1.2.840.10008.1.1", (IMPLICIT,))} | {
    number: (CT, (syntax,)) for syntax, number in CONTEXT_OF.items()
}  # fmt: skip


@fault(
    "N37a", "spoiled PDUs in process", goal="G5", tries=1_000_000, seconds=600, few=30_000,
    twins=("a fault in the wire",), proves="an exception that is not a protocol error is seen",
)  # fmt: skip
def pdus_in_process(run: Run) -> None:
    grown = 0
    slowest = 0.0
    while run.goes_on():
        count = min(run.tries - run.tried, 250_000)
        command = [sys.executable, "-m", "tests.faults.inprocess", str(count), str(run.rng.randrange(1 << 30))]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        seconds = max(1.0, run.seconds - run.taken)
        done = subprocess.run(
            [*command, str(seconds), ",".join(run.seams)], check=True, capture_output=True, env=environment,
            cwd=ROOT, timeout=seconds + 120,
        )  # fmt: skip
        said = json.loads(done.stdout)
        for what, error, data in said["faults"]:
            run.find(what, bytes.fromhex(data), error)
        slowest, grown = max(slowest, said["slowest"]), max(grown, said["grown"])
        found = [f"one PDU took {slowest:.2f} s"] if slowest > IN_PROCESS_SLOW else []
        run.count(found + ([f"memory grew by {grown >> 20} MB"] if grown > GROWTH else []), tries=said["tried"])
    run.figure("slowest", f"{slowest * 1000:.0f} ms")
    run.figure("memory", f"+{grown / 2**20:.1f} MB")


@fault(
    "N37b", "connections with spoiled PDUs", goal="G5", tries=100_000, seconds=1200, few=300,
    twins=("a fault in the wire", "memory leaks"), proves="a traceback in the log, and memory that grows, are seen",
)  # fmt: skip
def connections(run: Run) -> None:
    archive = run.daemon().start()
    base = warm_up(archive)
    probes: list[float] = []
    said = len(archive.log())
    request = Request()
    for what, inside, data in fuzz.cases(run.tries, run.rng.randrange(1 << 30)):
        if not run.goes_on():
            break
        with contextlib.suppress(OSError, Ended), Connection(archive.port, patience=0.3) as connection:
            if inside:
                connection.associate(request)
            connection.try_send(data)
            if run.tried % 10 == 0:  # the others leave without waiting, as a network does
                with contextlib.suppress(TimeoutError, AssertionError):
                    connection.ending(0.2)
        run.count()
        if run.tried % 25 == 0:
            probes.append(_probe(run, archive, what, data))
        if run.tried % 2000 == 0 or (run.seams and run.tried % 200 == 0):
            log = archive.log()
            run.count((f"{what}: {found}" for found in run.check(archive, since=said)), tries=0)
            said = len(log)
            if run.seams:  # what it is to show may be memory, and need not wait for the end
                _memory(run, archive, base.resident)
    run.count(run.check(archive, since=said, base=base), tries=0)
    _memory(run, archive, base.resident)
    waits = "/".join(f"{percentile(probes, part) * 1000:.0f}" for part in (0.5, 0.99, 1))
    run.figure("probes p50/p99/longest", f"{waits} ms")


def _probe(run: Run, archive: Daemon, what: str, data: bytes) -> float:
    began = time.monotonic()
    try:
        healthy = archive.echo() == 0
    except (OSError, Ended):
        healthy = False
    taken = time.monotonic() - began
    if not healthy or taken > SLOW:
        run.find(what, data, f"a healthy C-ECHO {'took' if healthy else 'failed after'} {taken:.1f} s")
    return taken


def _memory(run: Run, archive: Daemon, before: int, remembered: int = 0) -> None:
    grown = rested(archive).resident - before
    rows = f", {remembered / 2**20:.1f} MB of it for rows" if remembered else ""
    run.figure("memory", f"{grown / 2**20:+.1f} MB{rows}")
    if grown > GROWTH + remembered:
        run.count([f"memory grew by {grown >> 20} MB"], tries=0)


# -- objects that are wrong in one way -----------------------------------------------------------------------------


class Sender:
    """One association after the other, so that one that was aborted costs only its own object."""

    def __init__(self, archive: Daemon) -> None:
        self._archive = archive
        self._open: Connection | None = None

    def store(self, case: Case) -> int:
        """The status; -1 when the association ended instead."""
        if self._open is None:
            self._open = Connection(self._archive.port, patience=60).associate(Request(contexts=CONTEXTS))
        try:
            return self._open.store(case.sop_class, case.uid, case.data, context=CONTEXT_OF[case.syntax])
        except (OSError, Ended):
            self.close()
            return -1

    def close(self) -> None:
        if self._open:
            self._open.close()
            self._open = None


def _kept(case: Case) -> Instance:
    return Instance(CT, case.uid, f"{case.uid}.1", f"{case.uid}.2", "", case.data)


@fault(
    "B01-20", "objects that are wrong in one way each", tries=1500, seconds=240, few=150,
    databases=("sqlite", "postgresql"),
    twins=("anything is understood", "command not compared", "no limits of the header", "names from the wire"),
    proves="an object that should have been refused is seen, and a file with a name from the wire",
)  # fmt: skip
def wrong_objects(run: Run) -> None:
    archive = run.daemon({"processes": 1, "timeouts": PATIENT}).start()
    base = warm_up(archive)
    sender, kept, said, slowest = Sender(archive), [], len(archive.log()), 0.0
    names = {path.name for path in archive.folder.rglob("*")}
    while run.goes_on():
        for case in _cases(run):
            began = time.monotonic()
            status = sender.store(case)
            slowest = max(slowest, time.monotonic() - began)
            found = [] if status in case.allowed else [f"{case}: answered with {status:04x}"]
            if status == 0:
                kept.append(_kept(case))
            run.count(found)
            if not run.goes_on():
                break
        kept = list({one.uid: one for one in kept}.values())
        run.count(run.check(archive, kept, alive=False, since=said), tries=0)
        run.count(_strange_names(archive, names), tries=0)
        said = len(archive.log())
    run.count(run.check(archive, base=base, since=said), tries=0)
    run.figure("slowest", f"{slowest:.2f} s")


def _cases(run: Run) -> Iterator[Case]:
    cases = list(badobjects.every_case())
    if run.tries < 300:  # a few: no bombs of seconds, only some of the cuts
        cases = [case for case in cases if case.number not in ("B14", "B20")]
        run.rng.shuffle(cases)
    return iter(cases)


def _strange_names(archive: Daemon, known: set[str]) -> list[str]:
    """Files whose names are not of the archive's making."""
    odd = [path for path in archive.objects() if not path.name.removesuffix(".dcm").isdigit()]
    everywhere = {path.name for path in archive.folder.rglob("*") if "evil" in path.name} - known
    return [f"a file named {ascii(str(path))}" for path in [*odd, *sorted(everywhere)]][:5]


@fault(
    "B50", "data sets spoiled by chance", goal="G6", tries=50_000, seconds=900, few=400,
    twins=("a fault in the gate", "anything is understood"),
    proves="an answer for a fault of the archive's own, and an object that is not one, are seen",
)  # fmt: skip
def spoiled_objects(run: Run) -> None:
    archive = run.daemon({"processes": 1, "timeouts": PATIENT}).start()
    base = warm_up(archive)
    sender, said, seen = Sender(archive), len(archive.log()), set[str]()
    statuses: dict[int, int] = {}
    kept: list[Instance] = []
    strategies = (*fuzz.STRATEGIES, badobjects.numbers)
    rounds = [(name, strategy) for name in badobjects.seeds("1.2") for strategy in strategies]
    while run.goes_on():
        name, strategy = rounds[run.tried] if run.tried < len(rounds) else run.rng.choice(rounds)
        uid = f"{objects.ROOT}.50.{run.rng.getrandbits(60)}"
        syntax, data = badobjects.seeds(uid)[name]
        case = Case("B50", f"{name}, {strategy.__name__}", strategy(run.rng, data), ALLOWED, uid, syntax=syntax)
        status = sender.store(case)
        statuses[status] = statuses.get(status, 0) + 1
        run.count()
        if wrong := _wrong(case, status):
            run.find(json.dumps({"uid": uid, "syntax": syntax, "how": case.what}), case.data, wrong)
        if status == 0:
            kept.append(_kept(case))
        if run.tried % ROUND == 0:
            run.count(run.check(archive, kept, alive=False, since=said, seen=seen), tries=0)
            said = len(archive.log())
            kept.clear()
    # Rows are remembered, in bounds: 64 MB of SQLite's pages and 30 MB of series above them, 10 kB for each object.
    remembered = min(94 << 20, 10_000 * statuses.get(0, 0))
    allowed = dataclasses.replace(base, resident=base.resident + remembered)
    run.count(run.check(archive, kept, base=allowed, since=said, seen=seen, asked=0), tries=0)
    _memory(run, archive, base.resident, remembered)
    counts = [f"{count:,} x {status & 0xFFFF:04X}" for status, count in sorted(statuses.items())]
    run.figure("answers", ", ".join(counts))


def _wrong(case: Case, status: int) -> str:
    """What is wrong with this answer, or nothing."""
    if status not in ALLOWED:
        return f"answered with {status & 0xFFFF:04x}"
    return "" if status or _plausible(case.data, case.syntax) else "stored, but is no data set"


def _plausible(data: bytes, syntax: str) -> bool:
    """Whether the very first element can be one, and the lengths of Explicit VR end where the data ends."""
    if syntax != EXPLICIT:
        return True
    at = 0
    while at + 8 <= len(data):
        vr = data[at + 4 : at + 6].decode("latin-1")
        if vr in objects.LONG_LENGTH or vr in ("OF", "UC", "UR", "OD", "OL", "OV", "SV", "UV", "??"):
            length, head = int.from_bytes(data[at + 8 : at + 12], "little"), 12
        else:
            length, head = int.from_bytes(data[at + 6 : at + 8], "little"), 8
        if length == 0xFFFFFFFF:
            return True  # what is inside is not walked here
        at += head + length
    return at == len(data)

