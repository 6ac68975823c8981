"""What a fault is, and one run of it: tries, violations, figures, and the daemons it starts.

Rules that hold here: a run ends after its tries or its seconds, whatever comes first; the same seed makes the
same choices; what a fault raises is a violation like any other; whatever was started ends with the run.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.faults.campaign.findings import Finding, keep
from tests.faults.checker import violations
from tests.faults.cluster import Cluster
from tests.faults.daemon import Daemon, merged
from tests.faults.forks import ForkServer
from tests.faults.objects import Instance

SQLITE, POSTGRESQL = "sqlite", "postgresql"
PATIENT = dict.fromkeys(("tls", "acse", "pdu", "dimse", "idle", "send"), "60s")
PATIENCE_WITH_DISK = {"timeouts": {"idle": "30s", "dimse": "30s", "pdu": "30s"}}

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """A numbered fault: how it is tried, how often, and what must break it."""

    number: str
    title: str
    work: Callable[[Run], None]
    goal: str = ""  # G1-G20
    tries: int = 100  # of the long campaign
    seconds: float = 60  # of the long campaign
    few: int = 3  # tries in every test run; 0: only in the campaign
    databases: tuple[str, ...] = (SQLITE,)
    twins: tuple[str, ...] = ()  # seams that the check must notice, with "@" and the database if it is not the first
    alone: bool = False  # on a database server of its own, as it stops it
    proves: str = ""  # what the twins show

    def every_twin(self) -> Iterator[tuple[str, str]]:
        """Seam and database."""
        for twin in self.twins:
            name, _, database = twin.partition("@")
            yield name, database or self.databases[0]


FAULTS: list[Fault] = []


def fault(number: str, title: str, **options: Any) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register a function as a fault."""

    def register(work: Callable[[Run], None]) -> Callable[[Run], None]:
        FAULTS.append(Fault(number, title, work, **options))
        return work

    return register


@dataclass
class Run:
    """One run of one fault on one database. A context manager."""

    fault: Fault
    folder: Path
    forks: ForkServer
    database: str = SQLITE
    seams: tuple[str, ...] = ()
    seed: int = 1
    tries: int = 1
    seconds: float = 60.0
    say: Callable[[str], None] = lambda words: None
    keep_findings: bool = False
    shared: Cluster | None = None  # a database server that others use as well

    tried: int = 0
    violations: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.seed}:{self.fault.number}")
        self.begun, self.ended = time.monotonic(), 0.0
        self._stack = contextlib.ExitStack()
        self._made = 0
        self._cluster: Cluster | None = None
        self._said = 0.0

    # -- counting -----------------------------------------------------------------------------

    @property
    def taken(self) -> float:
        return (self.ended or time.monotonic()) - self.begun

    def goes_on(self) -> bool:
        """Whether there is another try; a twin ends with its first violation."""
        if self.seams and self.violations:
            return False
        self._progress()
        return self.tried < self.tries and self.taken < self.seconds

    def count(self, found: Iterable[str] = (), tries: int = 1) -> None:
        """Note a try (or many) and what did not hold."""
        self.violations += [f"try {self.tried}: {violation}" for violation in found]
        self.tried += tries

    def figure(self, name: str, text: str) -> None:
        self.figures[name] = text

    def find(self, what: str, data: bytes, violation: str) -> None:
        """Input that broke something: kept as a file that every test run replays."""
        self.violations.append(f"{what}: {violation}")
        if self.keep_findings and not self.seams:
            keep(Finding(self.fault.number, what, violation, data))

    def _progress(self) -> None:
        if time.monotonic() - self._said > 5:
            self._said = time.monotonic()
            self.say(f"{self.tried}/{self.tries} tries, {len(self.violations)} violations, {self.taken:.0f} s")

    def go(self) -> Run:
        """The whole run; returns itself when everything has ended."""
        with self:
            try:
                self.fault.work(self)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what this run found
                words = traceback.format_exc(limit=-4) if not isinstance(error, AssertionError) else str(error)
                self.violations.append(f"try {self.tried}: {type(error).__name__}: {words[-2000:]}")
        return self

    # -- what is started ------------------------------------------------------------------------

    def place(self) -> Path:
        """A new folder."""
        self._made += 1
        folder = self.folder / f"{self._made:04}"
        folder.mkdir(parents=True)
        return folder

    def daemon(self, changes: Changes | None = None, **options: Any) -> Daemon:
        """A daemon with an empty archive on this run's database, not yet started."""
        folder = options.pop("folder", None) or self.place()
        index = {} if "url" in (changes or {}).get("index", {}) else {"index": {"url": self.new_url()}}
        options.setdefault("seams", self.seams)
        made = Daemon(folder, merged(index, changes or {}), forks=self.forks, **options)
        self._stack.callback(made.kill)
        return made

    def new_url(self) -> str:
        """Of an empty index."""
        if self.database == SQLITE:
            return "sqlite:///index.db"
        return self.cluster.database(f"archive_{secrets.token_hex(6)}")

    @property
    def cluster(self) -> Cluster:
        if self.shared is not None:
            return self.shared
        if self._cluster is None:
            self._cluster = self._stack.enter_context(Cluster())
            self._cluster.make().start()
        return self._cluster

    def enter(self, what: Any) -> Any:
        """A context that ends with the run."""
        return self._stack.enter_context(what)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self.ended = time.monotonic()

    # -- the oracle -----------------------------------------------------------------------------

    def check(self, daemon: Daemon, acknowledged: Sequence[Instance] = (), **options: Any) -> list[str]:
        if self.seams:
            options.setdefault("patience", 1.0)  # a violation is what is wanted
        return violations(daemon, acknowledged, **options)


def percentile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values) or [0.0]
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
