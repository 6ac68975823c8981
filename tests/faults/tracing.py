"""strace on the daemon's acceptor: what it does in which order, and errors put into its system calls."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.daemon import Daemon, wait_until

WRITES = "write,writev,pwrite64,pwritev,pwritev2,fdatasync,fsync,rename,renameat,renameat2,sendmsg,sendto,sendfile"
_CALL = re.compile(r"^\d+ +(?P<name>\w+)\((?P<arguments>.*)\)? += (?P<result>-?\d+)")


@contextlib.contextmanager
def strace(archive: Daemon, file: Path, *options: str) -> Iterator[Path]:
    """Attached to the one acceptor process and all its threads, until the block ends."""
    (pid,) = archive.acceptors()
    with subprocess.Popen(
        ["strace", "-f", "-y", "-o", str(file), *options, "-p", str(pid)], stderr=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stderr is not None
        try:
            wait_until(lambda: _is_traced(pid), 10, "strace does not attach")
            yield file
        finally:
            tracer.terminate()
            try:
                tracer.wait(0.5)
            except subprocess.TimeoutExpired:  # it waits for a process that was killed while it attached
                tracer.kill()


def _is_traced(pid: int) -> bool:
    """Whether every thread of the process has a tracer."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    if any("TracerPid:\t0\n" in text for text in texts):
        return False
    time.sleep(0.05)
    return True


def injected(calls: str, error: str, when: str = "1+") -> tuple[str, ...]:
    """Options of strace: these calls fail with this error."""
    return ("-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={when}")


def calls(file: Path) -> list[tuple[str, str]]:
    """(name, arguments) of the calls that succeeded, in order."""
    found = [_CALL.match(line) for line in file.read_text(errors="replace").splitlines()]
    return [(match["name"], match["arguments"]) for match in found if match and int(match["result"]) >= 0]


def first(made: list[tuple[str, str]], names: str, what: str, after: int = -1) -> int:
    """Where the first call of one of these names that mentions `what` stands, behind `after`."""
    for at in range(after + 1, len(made)):
        name, arguments = made[at]
        if name in names.split("|") and re.search(what, arguments):
            return at
    raise AssertionError(f"no {names} of {what} after call {after}: {[name for name, _ in made]}")
