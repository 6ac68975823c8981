"""SIGKILL for some processes together at the N-th system call with which any of them changes anything.

Rules that hold here: calls are counted over all threads of all processes in the order in which they begin, and none
begins after the last one; calls that change nothing outside of their process are not counted, as to be killed before
them is to be killed before the next one that does; whoever is not struck goes on as if nothing had been.

As a process of its own, since the kernel lets one thread alone do this:

    python -m tests.faults.strike N PID …      says "ready", and in the end how many calls it has seen
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
NEVER = 1 << 40

# include/uapi/linux/ptrace.h
_SYSCALL, _SEIZE, _INTERRUPT, _LISTEN, _SYSCALL_INFO = 24, 0x4206, 0x4207, 0x4208, 0x420E
_OPTIONS = 0x01 | 0x08  # TRACESYSGOOD, TRACECLONE
_STOPPED = 128  # PTRACE_EVENT_STOP
_ALL = 0x40000000  # __WALL: threads too

# Calls that change files or tell others something, by their numbers (arch/*/include, asm-generic/unistd.h).
CHANGING = {
    "x86_64": {
        "write": 1, "pwrite64": 18, "writev": 20, "sendfile": 40, "sendto": 44, "sendmsg": 46, "fsync": 74,
        "fdatasync": 75, "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "link": 86, "unlink": 87,
        "mkdirat": 258, "unlinkat": 263, "renameat": 264, "linkat": 265, "fallocate": 285, "pwritev": 296,
        "syncfs": 306, "renameat2": 316, "copy_file_range": 326, "pwritev2": 328,
    },
    "aarch64": {
        "mkdirat": 34, "unlinkat": 35, "linkat": 37, "renameat": 38, "ftruncate": 46, "fallocate": 47, "write": 64,
        "writev": 66, "pwrite64": 68, "pwritev": 70, "sendfile": 71, "fsync": 82, "fdatasync": 83, "sendto": 206,
        "sendmsg": 211, "syncfs": 267, "renameat2": 276, "copy_file_range": 285, "pwritev2": 287,
    },
}  # fmt: skip
OPENING = {"x86_64": {2: 1, 257: 2}, "aarch64": {56: 2}}  # open, openat: which argument has the flags


class Strike:
    """The other end: a context manager; without ``which`` nothing is killed and calls are counted."""

    def __init__(self, pids: Sequence[int], which: int = NEVER) -> None:
        command = [sys.executable, "-I", "-S", str(Path(__file__)), str(which), *map(str, pids)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seen = 0
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the tracer does not attach"

    def end(self) -> int:
        """Let go of all processes; return how many calls were seen."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        text, _ = self._process.communicate(timeout=120)
        self.seen = int(text or 0)
        return self.seen

    def __enter__(self) -> Strike:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


# -- the tracer ---------------------------------------------------------------------------------------------


class Tracer:
    """Holds the threads of some processes at each of their calls."""

    def __init__(self, pids: Sequence[int], which: int) -> None:
        self.seen = 0
        self._pids, self._which = pids, which
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._libc.ptrace.restype = ctypes.c_long
        machine = platform.machine()
        self._changing, self._opening = frozenset(CHANGING[machine].values()), OPENING[machine]
        self._buffer = ctypes.create_string_buffer(88)

    def attach(self) -> None:
        """To all threads; those that they begin meanwhile come along."""
        known: set[int] = set()
        while new := {thread for pid in self._pids for thread in _threads(pid)} - known:
            for thread in new:
                if self._ptrace(_SEIZE, thread, 0, _OPTIONS):
                    self._ptrace(_INTERRUPT, thread)
            known |= new

    def run(self) -> None:
        """Until there is nobody left to trace."""
        while True:
            try:
                thread, status = os.waitpid(-1, _ALL)
            except ChildProcessError:
                return
            if os.WIFSTOPPED(status):
                self._stopped(thread, os.WSTOPSIG(status), status >> 16)

    def _stopped(self, thread: int, number: int, event: int) -> None:
        deliver = 0
        if number == signal.SIGTRAP | 0x80:
            if self._counts(thread):
                self.seen += 1
                if self.seen == self._which:
                    for pid in self._pids:
                        os.kill(pid, signal.SIGKILL)
        elif event == _STOPPED and number != signal.SIGTRAP:
            self._ptrace(_LISTEN, thread)
            return
        elif not event:
            deliver = number
        self._ptrace(_SYSCALL, thread, 0, deliver)

    def _counts(self, thread: int) -> bool:
        """Whether a call begins here that changes something."""
        if not self._ptrace(_SYSCALL_INFO, thread, len(self._buffer), ctypes.addressof(self._buffer)):
            return False
        begins, number, *arguments = struct.unpack_from("<B23x7Q", self._buffer)
        if begins != 1:
            return False
        flags = self._opening.get(number)
        return number in self._changing or (flags is not None and bool(arguments[flags] & os.O_CREAT))

    def _ptrace(self, request: int, thread: int, address: int = 0, data: int = 0) -> bool:
        return bool(self._libc.ptrace(request, thread, address, data) >= 0)


def _threads(pid: int) -> Iterator[int]:
    try:
        yield from map(int, os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        return


def main(arguments: Sequence[str]) -> int:
    tracer = Tracer([int(text) for text in arguments[1:]], int(arguments[0]))

    def end(*_: object) -> NoReturn:
        print(tracer.seen, flush=True)
        os._exit(0)  # who is traced by nobody goes on

    signal.signal(signal.SIGTERM, end)
    tracer.attach()
    print("ready", flush=True)
    tracer.run()
    end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
