"""A notice by a command: the JSON is its standard input, the most important also in its environment.

Rules that hold here: no shell; a session of its own, so that whatever it started ends with it at the deadline; of what
it prints only the beginning is kept, for the log; it gets the signals' usual dispositions back, which this process has
changed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence

from archive.errors import NotDelivered

KEPT = 500  # bytes of what it prints
READ = 1 << 16


def run(
    argv: Sequence[str], body: bytes, environment: Mapping[str, str], *, timeout: float, clock: Callable[[], float]
) -> str:
    """How it ended, in words; raises NotDelivered unless that was with exit status 0. ``clock`` is monotonic."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        with tempfile.TemporaryFile() as given:
            given.write(body)
            given.seek(0)
            pid = _spawn(argv, {**os.environ, **environment}, given.fileno(), writer)
        os.close(writer)
        writer = -1
        status, printed = _watch(pid, reader, clock() + timeout, clock)
    except OSError as error:  # no room for the message, no descriptor left
        raise NotDelivered("command cannot be run", error.strerror or "") from error
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    said = printed.decode("utf-8", "replace").strip()
    if status is None:
        raise NotDelivered("command did not end in time", said)
    if status:
        raise NotDelivered(f"command ended with {_ending(status)}", said)
    return "ended with exit status 0" + (f": {said}" if said else "")


def _spawn(argv: Sequence[str], environment: Mapping[str, str], given: int, printed: int) -> int:
    actions = [
        (os.POSIX_SPAWN_DUP2, given, 0), (os.POSIX_SPAWN_DUP2, printed, 1), (os.POSIX_SPAWN_DUP2, printed, 2),
    ]  # fmt: skip
    os.set_blocking(printed, True)  # for the command; our end stays as it is
    try:
        return os.posix_spawnp(
            argv[0], list(argv), environment, file_actions=actions, setsid=True, setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )  # fmt: skip
    except OSError as error:
        raise NotDelivered("command cannot be run", f"{argv[0]}: {error.strerror}") from error


def _watch(pid: int, reader: int, deadline: float, clock: Callable[[], float]) -> tuple[int | None, bytes]:
    """Exit status, None when it had to be killed, and what it printed; whoever it left behind is not waited for."""
    printed, ended = b"", os.pidfd_open(pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(reader, select.POLLIN)
    try:
        while (left := deadline - clock()) > 0:
            ready = {descriptor for descriptor, _ in poll.poll(left * 1000)}
            piece = _read(reader) if reader in ready else b""
            printed = (printed + piece)[:KEPT]
            if ended in ready:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), printed
            if not piece:  # it has closed what it prints to
                poll.unregister(reader)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return None, printed
    finally:
        os.close(ended)


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, READ)
    except BlockingIOError:
        return b""


def _ending(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
