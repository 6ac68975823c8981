"""L01-L03: ten modalities at once, hours of mixed work with faults in it, and queries while everybody stores.

Rules that hold here: nothing is refused; what was acknowledged is looked for afterwards, after kill -9; what is
measured is said as a figure, and is a violation where other work of this machine cannot explain it.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time

from tests.faults import raw
from tests.faults.campaign.kills import Hammer
from tests.faults.campaign.run import POSTGRESQL, SQLITE, Run, fault, percentile
from tests.faults.checker import PROMPT, prompt
from tests.faults.daemon import Daemon
from tests.faults.objects import Instance, instance, keys_of, keys_of_instance
from tests.faults.raw import CT, Connection, Ended
from tests.faults.rest import rested, warm_up

BOTH = (SQLITE, POSTGRESQL)
MODALITIES, IMAGE = 10, 512_000  # bytes of a CT image
ASKERS = 50
FIND_IN = 0.5  # seconds, the p95 of C-FIND
WARM = 1000  # associations, after which memory is measured
GROWTH = 2500  # bytes for each association: its object has a row, which the index keeps in memory
NOISE = 4 << 20
LONG = {"timeouts": dict.fromkeys(("idle", "dimse", "pdu", "send"), "60s")}


class Modality(threading.Thread):
    """Sends a share of so many images, each when the last one was answered."""

    def __init__(self, port: int, count: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[tuple[str, bytes]] = []
        self.last: Instance | None = None
        self.refused = 0
        self.taken: list[float] = []
        self._port, self._count, self._random = port, count, random.Random(seed)
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, Ended), raw.association(self._port, patience=120) as sending:
            for _ in range(self._count):
                one = instance(size=IMAGE)
                began = time.monotonic()
                status = sending.store(CT, one.uid, one.data)
                self.taken.append(time.monotonic() - began)
                self.refused += status != 0
                if status == 0:
                    self.acknowledged.append((one.uid, one.sha256))
                    self.last = one


@fault(
    "L01", "ten modalities store CT images of 512 kB", goal="G10", tries=10_000, seconds=600, few=0, databases=BOTH,
    twins=("answer before commit",), proves="an acknowledged image that is not there after the end is seen",
)  # fmt: skip
def modalities(run: Run) -> None:
    archive = run.daemon({"processes": 2} | LONG).start()
    began = time.monotonic()
    working = [Modality(archive.port, run.tries // MODALITIES, run.rng.randrange(1 << 30)) for _ in range(MODALITIES)]
    for each in working:
        each.join(run.seconds)
    seconds = time.monotonic() - began
    archive.kill()
    archive.start()
    rows = {row.uid: row.sha256 for row in archive.rows()}
    acknowledged = [pair for each in working for pair in each.acknowledged]
    lost = [uid for uid, digest in acknowledged if rows.get(uid) != digest]
    refused = sum(each.refused for each in working)
    found = [f"acknowledged {uid} is not there" for uid in lost] + [f"{refused} images were refused"] * bool(refused)
    run.count(found + run.check(archive, [each.last for each in working if each.last]), tries=len(acknowledged))
    taken = [seconds for each in working for seconds in each.taken]
    run.figure("stored", f"{len(acknowledged) / seconds:.0f}/s")
    run.figure("p50/p99", f"{percentile(taken, 0.5) * 1000:.0f}/{percentile(taken, 0.99) * 1000:.0f} ms")


@fault(
    "L02", "mixed work, probes every second and one fault in a hundred", tries=1 << 30, seconds=1800, few=0,
    twins=("memory leaks",), proves="memory that grows from association to association is seen",
)  # fmt: skip
def mixed_work(run: Run) -> None:
    """A try is one association: it stores and asks, one in a hundred breaks off in the middle."""
    archive = run.daemon({"processes": 2} | LONG).start()
    base = warm_up(archive)
    for _ in range(WARM):
        _work(run, archive)
    settled, began = rested(archive).resident, run.taken
    while run.goes_on():
        run.count(_work(run, archive))
        if run.tried % 50 == 0 and not archive.answers():
            run.count(["a probe is not answered"], tries=0)
        if run.seams and run.tried >= WARM:
            break
    grown = rested(archive).resident - settled
    run.figure("memory", f"{grown / 2**20:+.1f} MB, {run.tried / (run.taken - began):.0f} associations/s")
    if grown > NOISE + run.tried * GROWTH:
        run.count([f"memory grew by {grown / 2**20:.1f} MB in {run.tried} associations"], tries=0)
    run.count(run.check(archive, base=base), tries=0)


def _work(run: Run, archive: Daemon) -> list[str]:
    one = instance(size=run.rng.choice((500, 5_000, 50_000)))
    with contextlib.suppress(OSError, Ended), Connection(archive.port, patience=60) as working:
        working.associate()
        if run.rng.random() < 0.01:
            working.write(raw.STORE_CT, raw.store_rq(CT, one.uid))
            working.send(raw.pdu(raw.DATA, one.data[:400]))
            working.reset()
            return []
        statuses = [working.store(CT, one.uid, one.data), working.find(keys_of_instance(one))[0]]
        working.release()
        return [f"answered with {status:04x}" for status in statuses if status]
    return ["an association was lost"]


class Asker(threading.Thread):
    """Asks for one study after the other, and remembers how long each answer took."""

    def __init__(self, archive: Daemon, study: str) -> None:
        super().__init__(daemon=True)
        self.taken: list[float] = []
        self.odd: list[str] = []
        self.enough = False
        self._archive, self._study = archive, study
        self.start()

    def run(self) -> None:
        while not self.enough:
            began = time.monotonic()
            try:
                with raw.association(self._archive.port, patience=60) as asking:
                    status, found = asking.find(keys_of("STUDY", study=self._study))
            except (OSError, Ended) as error:
                self.odd.append(f"a query had no answer: {error}")
                return
            if status or len(found) != 1:
                self.odd.append(f"{status:04x} and {len(found)} studies")
            self.taken.append(time.monotonic() - began)
            time.sleep(0.5)  # 50 people do not ask without a breath


@fault(
    "L03", "50 clients query while everybody stores", tries=2000, seconds=120, few=0, databases=BOTH,
    twins=("queries take turns",), proves="queries that wait for one another are seen",
)  # fmt: skip
def queries_in_a_storm(run: Run) -> None:
    archive = run.daemon({"processes": 2} | LONG).start()
    known = instance()
    with raw.association(archive.port, patience=60) as sending:
        assert sending.store(CT, known.uid, known.data) == 0
    hammers = [Hammer(archive.port, run.rng.randrange(1 << 30)) for _ in range(4)]
    askers = [Asker(archive, known.study) for _ in range(ASKERS)]
    while run.goes_on():
        time.sleep(1)
        run.tried = sum(len(each.taken) for each in askers)
        if run.seams and run.taken > 10:
            break
    for each in askers:
        each.enough = True
    for each in askers:
        each.join(90)
    archive.kill()
    for hammer in hammers:
        hammer.join(60)
    taken = [seconds for each in askers for seconds in each.taken] or [99.0]
    p95 = percentile(taken, 0.95)
    run.figure("C-FIND p50/p95", f"{percentile(taken, 0.5) * 1000:.0f}/{p95 * 1000:.0f} ms")
    run.figure("stored meanwhile", str(sum(len(hammer.acknowledged) for hammer in hammers)))
    found = [odd for each in askers for odd in each.odd]
    found += [f"a store was answered with {status:04x}" for hammer in hammers for status in hammer.refused]
    if p95 > FIND_IN * prompt() / PROMPT:
        found.append(f"C-FIND takes {p95 * 1000:.0f} ms")
    run.count(found, tries=0)
