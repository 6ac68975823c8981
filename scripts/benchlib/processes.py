"""Starting and stopping what is measured, and reading what it costs from /proc.

Rules that hold here: every process started is a session of its own and is stopped by its id, with its
descendants; nothing else is ever touched. proc(5) names the fields.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 20.0
SAMPLE_SECONDS = 0.02


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def variant_environment(no_delay: bool) -> dict[str, str]:
    """DCMTK reads TCP_NODELAY; without it Nagle's algorithm stays on, as Debian ships it."""
    environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    if no_delay:
        environment["TCP_NODELAY"] = "1"
    return environment


class Process:
    """A child in a session of its own, its output in a file."""

    def __init__(self, arguments: Sequence[str | Path], log: Path, env: Mapping[str, str]) -> None:
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=dict(env), start_new_session=True,
            )  # fmt: skip
        self.pid, self.log = self._child.pid, log

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"

    def stop(self) -> None:
        """Ask, wait, then insist; the whole group, as some leave children behind."""
        if self.running:
            self._child.terminate()
            try:
                self._child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all gone, as they should be
        self._child.wait()


def tree(pid: int) -> list[int]:
    """A process and its living descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue  # it ended while we looked
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a tree, with that of children that have ended and were waited for."""
    ticks = 0
    for process in tree(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / TICK


def memory(pid: int) -> int:
    """Resident bytes of a tree, summed; pages that processes share count once for each."""
    total = 0
    for process in tree(pid):
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS:"))
    return total


class PeakMemory:
    """While entered, samples a tree; `over_base` is the peak above what stood at the start."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._base = self._peak = memory(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    @property
    def over_base(self) -> int:
        return self._peak - self._base

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, memory(self._pid))


def wait_until(ready: object, process: Process, seconds: float = 40.0) -> None:
    """Call `ready` until it says yes; an error when the process ends first or the time is up."""
    assert callable(ready)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not process.running:
            raise RuntimeError(f"ended at its start: {process.last_words()}")
        if ready():
            return
        time.sleep(0.05)
    raise RuntimeError(f"not ready after {seconds:.0f} s: {process.last_words()}")
