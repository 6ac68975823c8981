"""The real daemon as a process of its own: a configuration made for a test, free loopback ports, a folder.

Rules that hold here: nothing of the archive is imported; what a daemon does to the machine is read from
/proc, over all its processes; whatever a test did, the processes end with it.
"""

from __future__ import annotations

import contextlib
import copy
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.faults.forks import Forked, ForkServer, shared
from tests.faults.raw import ONLY_ECHO, Connection, Ended, Request, association
from tests.faults.site import Site

ROOT = Path(__file__).resolve().parents[2]
PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")
LEAST_PATIENCE = 60.0  # seconds: waiting costs nothing where it comes
SLACK = 40.0  # seconds that a slow and busy machine may add to a deadline that is waited for
EVERYTHING = ["echo", "store", "find", "get", "move"]

# Short, so that every deadline can be waited for; the order is that of the defaults.
TIMEOUTS = {"tls": 1.5, "acse": 1.5, "pdu": 2, "dimse": 3, "idle": 4, "send": 2, "connect": 1}
STANDARD: dict[str, Any] = {
    "processes": 2,
    "timeouts": {name: f"{seconds}s" for name, seconds in TIMEOUTS.items()},
    "limits": {"max_associations": 300, "reserved_for_peers": 20, "per_ae": 220, "per_ip": 250},
    "unknown_peers": {"allow": ["echo"]},
    "peers": {
        "SENDER": {"host": "127.0.0.0/8", "allow": EVERYTHING},
        "OTHER": {"host": "127.0.0.0/8", "allow": EVERYTHING},
        "ELSEWHERE": {"host": "127.0.0.99", "allow": EVERYTHING},
    },
    "storage": {"path": "files", "reserve": 0, "journal": "4MB"},
    "index": {"url": "sqlite:///index.db"},
}


@dataclass(frozen=True)
class Usage:
    """What the daemon's processes hold."""

    processes: int
    threads: int
    descriptors: int
    resident: int  # bytes, memory shared between the processes counted once (PSS)


class Daemon(Site):
    """`archive serve` in `folder`. Relative paths of the configuration lie there."""

    def __init__(
        self,
        folder: Path,
        changes: Mapping[str, Any] | None = None,
        *,
        tls: bool = False,
        wrapper: list[str] | None = None,
        seams: Sequence[str] = (),
        forks: ForkServer | None = None,
        as_command: bool = False,
    ) -> None:
        """`seams`: protections to start without; `forks`: by another fork server than the shared one; `as_command`: as
        a person starts it, which takes a second longer, as one with a `wrapper` does.
        """
        super().__init__(folder, {})
        self.port, self.tls_port = free_port(), free_port() if tls else 0
        self.config_file = folder / "archive.yaml"
        self._wrapper = wrapper or []
        self._seams, self._forks = list(seams), forks
        self._as_command = as_command or bool(wrapper)
        self._process: subprocess.Popen[bytes] | Forked | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.settings = merged(STANDARD, {"listeners": self._listeners()}, changes or {})
        self.configure()

    def _listeners(self) -> list[dict[str, Any]]:
        listeners: list[dict[str, Any]] = [{"host": "127.0.0.1", "port": self.port}]
        if self.tls_port:
            make_certificate(self.folder)
            tls = {"cert": "server.pem", "key": "server.key", "client_cert": "ignore"}
            listeners.append({"host": "127.0.0.1", "port": self.tls_port, "tls": tls})
        return listeners

    def configure(self, changes: Mapping[str, Any] | None = None) -> None:
        """Write the configuration, changed; a running daemon reads it on SIGHUP."""
        self.settings = merged(self.settings, changes or {})
        self.config_file.write_text(yaml.safe_dump(self.settings))

    # -- life ---------------------------------------------------------------------------------

    def start(self, patience: float = 60.0) -> Daemon:
        """Return when all its processes serve: it has said so, and answers a C-ECHO."""
        told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        told.bind("")  # the kernel gives an abstract name
        told.setblocking(False)
        with told:
            self._run("@" + told.getsockname()[1:].decode())
            wait_until(lambda: self._is_ready(told), patience, lambda: f"not ready:\n{self.log()[-3000:]}")
        assert self.echo() == 0
        return self

    def _run(self, notify_socket: str) -> None:
        serve = ["serve", "--config", str(self.config_file)]
        own = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "NOTIFY_SOCKET": notify_socket}
        if not self._as_command:
            self._process = (self._forks or shared()).start(
                serve, folder=self.folder, log=self.log_file, environment=os.environ | own, seams=self._seams
            )
            return
        launcher = ["tests.faults.launch", "--seams", ",".join(self._seams)] if self._seams else ["archive"]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._wrapper, sys.executable, "-X", "faulthandler", "-m", *launcher, *serve],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | own,
                start_new_session=True,
            )

    def _is_ready(self, told: socket.socket) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the daemon ended with {self._process.returncode}:\n{self.log()[-3000:]}")
        with contextlib.suppress(BlockingIOError):
            return b"READY=1" in told.recv(1000)
        return False

    def answers(self, calling: str = "PROBE") -> bool:
        """Whether a C-ECHO succeeds now."""
        with contextlib.suppress(OSError, Ended):
            return self.echo(calling=calling) == 0
        return False

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self._process is not None
        if self._wrapper[:1] != ["strace"]:
            return self._process.pid
        return next(iter(_children(self._process.pid)), self._process.pid)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, patience: float) -> int:
        """Exit status. Raises TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(patience)

    @property
    def is_running(self) -> bool:  # type: ignore[override]
        return self._process is not None and self._process.poll() is None

    def stop(self, patience: float = 30.0) -> int:
        self.signal(signal.SIGTERM)
        return self.wait(patience)

    def kill(self) -> None:
        """Everything at once, as the kernel would."""
        if self._process is None:
            return
        pids = [self._process.pid, *self.pids()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(60)
        wait_until(lambda: all(has_ended(pid) for pid in pids), 30, "what was killed has not ended", pause=0.005)

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    # -- what is seen of it ---------------------------------------------------------------------

    def echo(self, source: str = "127.0.0.1", calling: str = "PROBE") -> int:
        """The status of one C-ECHO on an association of its own."""
        with association(self.port, Request(calling=calling, contexts=ONLY_ECHO), source=source) as probe:
            return probe.echo()

    def echo_seconds(self, source: str = "127.0.0.1", calling: str = "PROBE", tries: int = 5) -> float:
        """The median of a few C-ECHOs, association included: this machine has other things to do as well."""
        taken = []
        for _ in range(tries):
            before = time.monotonic()
            assert self.echo(source, calling) == 0
            taken.append(time.monotonic() - before)
        return sorted(taken)[tries // 2]

    def pids(self) -> list[int]:
        """The supervisor and all below it."""
        found, new = [], [self.pid]
        while new:
            found += new
            new = [child for pid in new for child in _children(pid)]
        return found

    def acceptors(self) -> list[int]:
        """The processes that serve; not the dead that are not buried yet."""
        return [pid for pid in _children(self.pid) if _name(pid).startswith("acceptor") and _count(pid, "fd")]

    def usage(self) -> Usage:
        pids = self.pids()
        return Usage(
            len(pids),
            sum(_count(pid, "task") for pid in pids),
            sum(_count(pid, "fd") for pid in pids),
            sum(_resident(pid) for pid in pids),
        )

    def cpu_seconds(self) -> float:
        return sum(_cpu(pid) for pid in self.pids()) / TICK


def merged(first: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings joined; a later value wins."""
    result = copy.deepcopy(dict(first))
    for other in others:
        for key, value in other.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def free_port() -> int:
    """A port below those that the kernel gives to clients, so that nobody takes it until it is used."""
    for port in random.SystemRandom().sample(range(15_000, 32_000), 100):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def wait_until(
    done: Callable[[], object],
    patience: float,
    complaint: str | Callable[[], str] = "it never came",
    pause: float = 0.03,
) -> None:
    """Wait for what comes on this machine within ``patience`` seconds; a slower and busier one gets far more."""
    end = time.monotonic() + max(LEAST_PATIENCE, 3 * patience)
    while not done():
        if time.monotonic() > end:
            raise AssertionError(complaint if isinstance(complaint, str) else complaint())
        time.sleep(pause)


def make_certificate(folder: Path) -> None:
    """A certificate of localhost, signed by itself."""
    if (folder / "server.pem").exists():
        return
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "400",
         "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.pem"],
        cwd=folder, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    (folder / "server.key").chmod(0o600)


@contextlib.contextmanager
def many(port: int, count: int, **options: Any) -> Iterator[list[Connection]]:
    """Connections that say nothing; those that cannot even be made are left out."""
    made: list[Connection] = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                made.append(Connection(port, **options))
        yield made
    finally:
        for connection in made:
            connection.close()


# -- /proc ------------------------------------------------------------------------------------------


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # gone meanwhile
        return ""


def _children(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        texts = [Path(f"/proc/{pid}/task/{thread}/children").read_text() for thread in threads]
    except OSError:
        return []
    return [int(child) for text in texts for child in text.split()]


def has_ended(pid: int) -> bool:
    """Gone, or dead and not buried yet, and all its threads with it: what it held is closed."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state in "ZX" and len(os.listdir(f"/proc/{pid}/task")) <= 1
    except OSError:
        return True


def _count(pid: int, what: str) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/{what}"))
    except OSError:
        return 0


def _resident(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _cpu(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])
