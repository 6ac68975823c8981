"""What is measured: one function a kind of work, one table of all of it.

Rules that hold here: a workload returns how many items it did in how many seconds, and checks that they were
done; it is bounded in count and in time; one variant's workloads run in the order of the table, as retrieval
asks for what storing left behind.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchlib import data, idle, processes
from benchlib.client import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    STUDY_FIND,
    STUDY_GET,
    VERIFICATION,
    Association,
    Failed,
    Offer,
    StoredFile,
    Target,
    identifier,
)  # fmt: skip
from benchlib.systems import DESTINATION, Running

TOOL_SECONDS = 150.0
ECHO_SECONDS, ECHO_COUNT = 2.0, 4000
FIND_SECONDS = 2.0
SETTLE_SECONDS = 0.5  # work that a server leaves for after its answer belongs to its CPU time
STUDY_KEYS = (
    (0x0008, 0x0020), (0x0008, 0x0030), (0x0008, 0x0050), (0x0008, 0x0052), (0x0008, 0x1030), (0x0010, 0x0010),
    (0x0010, 0x0020), (0x0020, 0x000D), (0x0020, 0x0010),
)  # fmt: skip
# Six, of which Modalities in Study is one that an archive has to work out.
COMPUTED_KEYS = (
    (0x0008, 0x0020), (0x0008, 0x0050), (0x0008, 0x0052), (0x0008, 0x0061), (0x0010, 0x0010), (0x0010, 0x0020),
    (0x0020, 0x000D),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """Items a second, or another figure in the workload's own unit; `cpu` is the server's, in ms per item."""

    value: float
    cpu: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Sets:
    """The data of a run, built when first asked for; `scale` makes all of it smaller."""

    folder: Path
    scale: float
    made: dict[str, data.Instances]

    def get(self, name: str, kind: data.Kind, count: int, *, one_study: bool = True) -> data.Instances:
        if name not in self.made:
            count = max(4, int(count * self.scale))
            self.made[name] = data.build(self.folder / name, kind, count, one_study=one_study)
        return self.made[name]

    def large(self) -> Path:
        path = self.folder / "large.dcm"
        return path if path.exists() else data.build_large(path)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a workload may use: the data, and the environment of DCMTK's clients."""

    sets: Sets
    environment: dict[str, str]


Work = Callable[[Bench, Running], Measured]


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    title: str
    unit: str
    variant: str  # tuned | shipped | tls
    run: Work
    once: bool = False  # in the first round alone, as it is long
    more_is_better: bool = True
    long: bool = False  # left out of a quick run


def _rate(server: Running, work: Callable[[], int]) -> Measured:
    """Items a second of `work`, which says how many it did, and the server's CPU for each."""
    cpu = processes.cpu_seconds(server.pid)
    start = time.perf_counter()
    done = work()
    seconds = time.perf_counter() - start
    time.sleep(SETTLE_SECONDS)
    cpu = processes.cpu_seconds(server.pid) - cpu
    return Measured(done / seconds, 1000 * cpu / done)


def _tool(bench: Bench, *arguments: str | Path) -> str:
    done = subprocess.run(
        [str(argument) for argument in arguments], env=bench.environment, capture_output=True, text=True,
        errors="replace", timeout=TOOL_SECONDS, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise Failed(f"{arguments[0]}: {words[-1] if words else done.returncode}")
    return done.stdout + done.stderr


def _storescu(bench: Bench, server: Running, instances: data.Instances) -> int:
    tls = server.place.tls.dcmtk_options() if server.place.tls else []
    who = ["-aec", server.system.ae, "127.0.0.1", str(server.place.port)]
    _tool(bench, "storescu", "-R", "-xe", *tls, *who, "+sd", instances.folder)
    return len(instances.files)


def store(kind: data.Kind, count: int, associations: int, label: str = "") -> Work:
    """DCMTK's storescu, one process an association, each with a set of its own."""

    def run(bench: Bench, server: Running) -> Measured:
        names = [f"{kind.modality}{associations}{label}-{number}" for number in range(associations)]
        sets = [bench.sets.get(name, kind, count // associations) for name in names]
        with ThreadPoolExecutor(associations) as clients:
            return _rate(server, lambda: sum(clients.map(lambda one: _storescu(bench, server, one), sets)))

    return run


def store_singly(bench: Bench, server: Running) -> Measured:
    """An association for each image, by the light client."""
    instances = bench.sets.get("single", data.MR, 300)
    files = [StoredFile(path) for path in instances.files]

    def work() -> int:
        for file in files:
            with Association(server.target(), [Offer(file.sop_class, (EXPLICIT,))]) as association:
                association.store(0, file.sop_class, file.instance, file.data)
        return len(files)

    return _rate(server, work)


def echo(offers: Sequence[Offer]) -> Work:
    """Association, C-ECHO, release, over and over."""

    def run(_bench: Bench, server: Running) -> Measured:
        def work() -> int:
            deadline = time.monotonic() + ECHO_SECONDS
            for done in range(ECHO_COUNT):
                if time.monotonic() > deadline:
                    return done
                with Association(server.target(), offers) as association:
                    association.echo()
            return ECHO_COUNT

        return _rate(server, work)

    return run


def many_contexts() -> list[Offer]:
    """128 contexts with three transfer syntaxes: verification, and the storage classes a workstation might offer."""
    storage = [f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("1", "2", "4", "7", "6.1", "3.1", "20", "128")]
    syntaxes = (EXPLICIT, IMPLICIT, BIG_ENDIAN)
    return [Offer(VERIFICATION, syntaxes)] + [Offer(storage[number % len(storage)], syntaxes) for number in range(127)]


def _stored_study(bench: Bench, server: Running, count: int, label: str) -> data.Instances:
    """The study that a store workload of this variant has left; stored now where that was left out."""
    instances = bench.sets.get(f"CT1{label}-0", data.CT, count)
    query = identifier((0x0008, 0x0052, "STUDY"), (0x0020, 0x000D, instances.study_uid))
    with Association(server.target(), [Offer(STUDY_FIND)]) as association:
        if association.find(query) == 0:
            _storescu(bench, server, instances)
    return instances


def get(count: int, label: str = "") -> Work:
    """DCMTK's getscu, which throws the objects away."""

    def run(bench: Bench, server: Running) -> Measured:
        instances = _stored_study(bench, server, count, label)
        keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={instances.study_uid}"]
        who = ["-aec", server.system.ae, "127.0.0.1", str(server.place.port)]

        def work() -> int:
            said = _tool(bench, "getscu", "-v", "-S", "--ignore", *who, *keys)
            came = said.count("Received C-STORE Request")
            if came != len(instances.files):
                raise Failed(f"{came} of {len(instances.files)} objects came")
            return came

        return _rate(server, work)

    return run


def move(count: int, label: str = "") -> Work:
    """DCMTK's movescu, to the storescp that runs beside all systems of the variant."""

    def run(bench: Bench, server: Running) -> Measured:
        instances = _stored_study(bench, server, count, label)
        keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={instances.study_uid}"]
        who = ["-aec", server.system.ae, "-aem", DESTINATION, "127.0.0.1", str(server.place.port)]

        def work() -> int:
            said = _tool(bench, "movescu", "-d", "-S", *who, *keys)
            completed = said.rpartition("Completed Suboperations")[2].partition("\n")[0].strip(" :")
            if completed != str(len(instances.files)):
                raise Failed(f"{completed or 'none'} of {len(instances.files)} objects moved")
            return len(instances.files)

        return _rate(server, work)

    return run


def find(asked: tuple[tuple[int, int], ...]) -> Callable[[Bench, Running], Measured]:
    """Answers a second of a query for every study, with these keys."""

    def run(bench: Bench, server: Running) -> Measured:
        instances = bench.sets.get("studies", data.SMALL, 2000, one_study=False)
        _load(server.target(), instances)
        keys = sorted((group, element, "STUDY" if element == 0x0052 else "") for group, element in asked)
        # Only this set's studies, whatever else the server holds by now.
        keys[keys.index((0x0010, 0x0020, ""))] = (0x0010, 0x0020, "studies-*")
        query = identifier(*keys)

        def work() -> int:
            deadline, answers = time.monotonic() + FIND_SECONDS, 0
            with Association(server.target(TOOL_SECONDS), [Offer(STUDY_FIND)]) as association:
                while not answers or time.monotonic() < deadline:
                    found = association.find(query)
                    if found != len(instances.files):
                        raise Failed(f"{found} of {len(instances.files)} studies found")
                    answers += found
            return answers

        return _rate(server, work)

    return run


def _load(target: Target, instances: data.Instances) -> None:
    with Association(target, [Offer(instances.sop_class, (EXPLICIT,))]) as association:
        for path in instances.files:
            file = StoredFile(path)
            association.store(0, file.sop_class, file.instance, file.data)
            file.close()


def stay_idle(count: int) -> Work:
    """Percent of a core that so many silent associations cost, and C-ECHO beside them."""

    def run(_bench: Bench, server: Running) -> Measured:
        with idle.Crowd(server.target(), count) as crowd:
            if not crowd.size:
                raise Failed("no association was accepted")
            note = "" if crowd.size == count else f"only {crowd.size} were accepted in {idle.OPEN_SECONDS:.0f} s; "
            percent = idle.percent_of_core(server.pid)
            note += idle.echo_beside(server.target(idle.ECHO_TIMEOUT))
        idle.wait_for_quiet(server.pid)
        return Measured(percent, note=note)

    return run


def large(bench: Bench, server: Running) -> Measured:
    """MB of memory above base while one instance of 2.1 GB comes in and goes out."""
    file = StoredFile(bench.sets.large())
    offers = [Offer(STUDY_GET), Offer(file.sop_class, (EXPLICIT,), both_roles=True)]
    query = identifier((0x0008, 0x0052, "STUDY"), (0x0020, 0x000D, data.uid("large", "study", 0)))
    with processes.PeakMemory(server.pid) as peak:
        start = time.perf_counter()
        with Association(server.target(TOOL_SECONDS), offers) as association:
            association.store(1, file.sop_class, file.instance, file.data)
        stored = time.perf_counter() - start
        inward = peak.over_base
        with Association(server.target(TOOL_SECONDS), offers) as association:
            objects, received = association.get(query)
        fetched = time.perf_counter() - start - stored
    if objects != 1 or received < len(file.data) * 0.999:
        raise Failed(f"{objects} objects, {received} bytes came back")
    outward = peak.over_base
    file.close()
    return Measured(outward / 1e6, note=f"in {inward / 1e6:.0f} MB, {stored:.1f} s; out {fetched:.1f} s")


PER_SECOND, OF_A_CORE, MEGABYTES = "a second", "% of a core", "MB"
LESS: dict[str, bool] = {"more_is_better": False}
LONG: dict[str, bool] = {"once": True, "long": True, **LESS}
WORKLOADS = (
    Workload("store-ct", "store CT, 1 association", PER_SECOND, "tuned", store(data.CT, 400, 1)),
    Workload("store-mr", "store MR, 1 association", PER_SECOND, "tuned", store(data.MR, 800, 1)),
    Workload("store-ct-4", "store CT, 4 associations", PER_SECOND, "tuned", store(data.CT, 400, 4)),
    Workload("store-mr-4", "store MR, 4 associations", PER_SECOND, "tuned", store(data.MR, 1200, 4)),
    Workload("store-single", "one MR image per association", PER_SECOND, "tuned", store_singly),
    Workload("echo-1", "association + echo, 1 context", PER_SECOND, "tuned", echo([Offer(VERIFICATION)])),
    Workload("echo-128", "association + echo, 128 contexts × 3 syntaxes", PER_SECOND, "tuned", echo(many_contexts())),
    Workload("get", "C-GET of a CT study", PER_SECOND, "tuned", get(400)),
    Workload("move", "C-MOVE of a CT study", PER_SECOND, "tuned", move(400)),
    Workload("find", "C-FIND answers, 2,000 studies", PER_SECOND, "tuned", find(STUDY_KEYS)),
    Workload("find-computed", "the same, with Modalities in Study", PER_SECOND, "tuned", find(COMPUTED_KEYS)),
    Workload("large", "one 2.1 GB instance, memory over base", MEGABYTES, "tuned", large, **LONG),
    Workload("idle-200", "200 idle associations", OF_A_CORE, "tuned", stay_idle(200), **LESS),
    Workload("idle-1000", "1,000 idle associations", OF_A_CORE, "tuned", stay_idle(1000), **LONG),
    Workload("store-ct-shipped", "store CT, 1 association", PER_SECOND, "shipped", store(data.CT, 40, 1, "s")),
    Workload("store-mr-shipped", "store MR, 1 association", PER_SECOND, "shipped", store(data.MR, 60, 1, "s")),
    Workload("get-shipped", "C-GET of a CT study", PER_SECOND, "shipped", get(40, "s")),
    Workload("move-shipped", "C-MOVE of a CT study", PER_SECOND, "shipped", move(40, "s")),
    Workload("store-ct-tls", "store CT, 1 association", PER_SECOND, "tls", store(data.CT, 400, 1)),
    Workload("store-mr-tls", "store MR, 1 association", PER_SECOND, "tls", store(data.MR, 800, 1)),
)
