"""Spreading connections over the acceptor processes: whoever accepts one hands it to who has the fewest.

The kernel wakes one process for each connection, but not the one with the least to do: of four associations that
begin at once, three or four end up in one process as often as not, and wait for one interpreter.

Rules that hold here: made before the processes fork; every number has one process that writes it; a connection that
cannot be handed over is served where it was accepted; a process that died is given nothing until its successor
serves, which also takes what its predecessor was given and left.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import threading

WORD = 8
_DESCRIPTOR = struct.Struct("@i")
_AT_ONCE = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC


class Relay:
    """What the processes share: how many connections each has, and a way to hand it one for each listener."""

    def __init__(self, processes: int, listeners: int) -> None:
        self.processes = processes
        self._pids = _numbers(processes)  # of those that serve
        self._held = _numbers(processes)  # connections a process works on
        self._taken = _numbers(processes)  # handed over and arrived
        self._given = _numbers(processes * processes)  # handed over, by giver and taker
        self._lock = threading.Lock()  # of one process: each has a copy of its own
        self._ways = [[_way() for _ in range(listeners)] for _ in range(processes)]

    def join(self, process: int, listener: int) -> Place:
        """The place of a listener that serves from now on."""
        if self._pids[process] != os.getpid():
            self._held[process] = 0
            self._pids[process] = os.getpid()
        return Place(self, process, listener)

    def leave(self, process: int) -> None:
        """The process serves no more."""
        self._pids[process] = 0

    def load(self, process: int) -> int:
        """Connections that a process has or is about to have."""
        given = sum(self._given[process :: self.processes])
        return self._held[process] + max(0, given - self._taken[process])

    def serves(self, process: int) -> bool:
        pid = self._pids[process]
        try:
            if pid:
                os.kill(pid, 0)
            return pid > 0
        except (ProcessLookupError, PermissionError):  # or somebody else's by now
            return False

    def idlest(self, process: int) -> int | None:
        """Who should have a connection instead of `process`; None when it should keep it."""
        own = self.load(process)
        others = [(self.load(other), other) for other in range(self.processes) if other != process]
        return next((other for load, other in sorted(others) if load < own and self.serves(other)), None)


class Place:
    """One listener of one process."""

    def __init__(self, relay: Relay, process: int, listener: int) -> None:
        self._relay, self._process, self._listener = relay, process, listener
        self._arrivals = relay._ways[process][listener][0]

    def fileno(self) -> int:
        """Readable when somebody handed a connection over."""
        return self._arrivals.fileno()

    def hand_over(self, sock: socket.socket) -> bool:
        """Give the connection to a process that has fewer; False when it stays here."""
        relay = self._relay
        with relay._lock:  # the next one sees what this one gave
            other = relay.idlest(self._process)
            if other is None:
                return False
            try:
                relay._ways[other][self._listener][1].sendmsg([b"c"], [_right(sock)], socket.MSG_DONTWAIT)
            except OSError:  # as many wait there as can
                return False
            relay._given[self._process * relay.processes + other] += 1
        sock.close()
        return True

    def take(self) -> socket.socket | None:
        """A connection that was handed over; None when there is none."""
        try:
            _, rights, _, _ = self._arrivals.recvmsg(1, socket.CMSG_LEN(_DESCRIPTOR.size), _AT_ONCE)
        except BlockingIOError:
            return None
        with self._relay._lock:
            self._relay._taken[self._process] += 1
        # The system keeps a descriptor back when we have too many: its connection is over.
        return socket.socket(fileno=_DESCRIPTOR.unpack_from(rights[0][2])[0]) if rights else None

    def count(self, more: int) -> None:
        """So many connections more, or less, are worked on."""
        with self._relay._lock:
            self._relay._held[self._process] += more

    def leave(self) -> None:
        """Hand nothing to us any more; what was handed over is closed."""
        self._relay.leave(self._process)
        while (sock := self.take()) is not None:
            sock.close()


def _right(sock: socket.socket) -> tuple[int, int, bytes]:
    """The right to a connection, as ancillary data (`socket.send_fds` takes no flags, so it would wait)."""
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(sock.fileno())


def _numbers(count: int) -> memoryview:
    return memoryview(mmap.mmap(-1, count * WORD)).cast("q")


def _way() -> tuple[socket.socket, socket.socket]:
    """Arriving and sending end."""
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return reader, writer
