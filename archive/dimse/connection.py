"""One TCP or TLS connection: bytes in and out under deadlines, for the one thread that owns it.

Rules that hold here: every wait has an absolute deadline, so that a peer which drips bytes falls too;
nothing polls, the kernel wakes us (SO_RCVTIMEO and SO_SNDTIMEO on plain TCP, which spare a poll before
every call; `settimeout` under TLS); one buffer per connection is filled again and again, and what it
holds is handed on as views of it; another thread may only `interrupt` or `cut`.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import socket
import ssl
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from archive.dimse.reasons import Aborted, TimedOut

Bytes = bytes | bytearray | memoryview

BUFFER = 256 * 1024  # measured: larger ones leave the processor's cache, smaller ones cost more calls
PIECE = 64 * 1024  # bytes that earn a new deadline: a long PDU over a slow line must only not stall
IOV_MAX = 1024  # buffers in one sendmsg (sysconf(_SC_IOV_MAX) on Linux)
TLS_CHUNK = 256 * 1024  # what is handed to the TLS layer at once
DRAINED = 4 * 1024 * 1024  # bytes thrown away, at most, while waiting for a peer to close
KEEPALIVE = 60  # seconds of silence before the kernel asks whether the peer is still there
SLACK = 0.25  # seconds a kernel timeout may be off before it is set anew
_TIMEVAL = struct.Struct("@ll")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for each wait; the names are those of the configuration."""

    tls: float = 5.0  # handshake
    acse: float = 5.0  # association and release, and ARTIM (PS3.8 9.1.5)
    pdu: float = 60.0  # one PDU, or each 64 kB of a longer one
    dimse: float = 300.0  # the next PDU of a message, or the answer to a request of ours
    idle: float = 300.0  # the next request
    send: float = 60.0  # the peer takes what we send, 64 kB at least
    connect: float = 5.0


TIMEOUTS = Timeouts()


def _own_address(sock: socket.socket) -> str:
    """Ours on a connection; empty for what has none."""
    try:
        name = sock.getsockname()
        return str(name[0]) if isinstance(name, tuple) else ""
    except OSError:
        return ""


class Connection:
    """A connected socket with one receive buffer; `buffer[start:end]` is what came and nobody took yet."""

    def __init__(self, sock: socket.socket, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self.tls = isinstance(sock, ssl.SSLSocket)
        self.buffer = memoryview(mmap.mmap(-1, BUFFER))  # lazily committed: an idle connection costs a page
        self.start = 0
        self.end = 0
        self.received = 0
        self.sent = 0
        self.hurry = False  # in the middle of a message: acknowledge what came at once
        self._sock = sock
        self._hung_up = False
        self._lock = threading.Lock()  # between closing and being interrupted
        self._deadline = 0.0
        self._timeout = 0.0
        self.local_address = _own_address(sock)
        self._prepare()

    def _prepare(self) -> None:
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE)
        self._sock.settimeout(self.timeouts.send if self.tls else None)
        if not self.tls:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self.timeouts.send))

    # -- receiving ----------------------------------------------------------------------------

    def expect(self, seconds: float) -> None:
        """What is waited for from now on must come within `seconds`."""
        self._deadline = monotonic() + seconds

    def fill(self) -> None:
        """Wait for more bytes. Raises TimedOut at the deadline and Aborted when the peer is gone."""
        if self.start == self.end:
            self.start = self.end = 0
        elif self.end == BUFFER or self.start > BUFFER // 2:
            self._compact()
        while not self._receive():
            pass

    def need(self, size: int) -> None:
        """Wait until `size` bytes lie in the buffer, one behind the other."""
        while self.end - self.start < size:
            self.fill()

    def read(self, size: int) -> bytes:
        """The next `size` bytes; memory is taken as they come, not by what a length field says."""
        parts: list[bytes] = []
        while size:
            if self.start == self.end:
                self.fill()
            count = min(size, self.end - self.start)
            parts.append(bytes(self.buffer[self.start : self.start + count]))
            self.start += count
            size -= count
        return b"".join(parts)

    def look(self) -> bool:
        """Take in what has come already, without waiting. False when the peer is gone."""
        if self.end == BUFFER:
            if self.start == 0:
                return True
            self._compact()
        try:
            count = self._receive_now()
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        self.end += count
        self.received += count
        return count > 0

    def _receive_now(self) -> int:
        if not self.tls:
            return self._sock.recv_into(self.buffer[self.end :], 0, socket.MSG_DONTWAIT)
        self._timeout = 0.0
        self._sock.settimeout(0.0)
        return self._sock.recv_into(self.buffer[self.end :])

    def _compact(self) -> None:
        left = self.end - self.start
        self.buffer[:left] = self.buffer[self.start : self.end]
        self.start, self.end = 0, left

    def _receive(self) -> bool:
        """One receive under the deadline; False when it has to be tried again."""
        remaining = self._deadline - monotonic()
        if remaining <= 0:
            raise TimedOut("timed out waiting for the peer")
        # A timeout that is too short only wakes us to wait again; one that is too long would be late.
        if not remaining / 8 < self._timeout < remaining + SLACK:
            self._set_timeout(remaining)
        try:
            if self.hurry and not self.tls:
                # The kernel clears this by itself; without it a peer with Nagle's algorithm waits 40 ms.
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            count = self._sock.recv_into(self.buffer[self.end :])
        except (BlockingIOError, TimeoutError):
            return False
        except OSError as error:
            raise Aborted(f"the connection broke: {_said(error)}") from error
        if not count:
            raise Aborted("the peer closed the connection")
        self.end += count
        self.received += count
        return True

    def _set_timeout(self, seconds: float) -> None:
        self._timeout = seconds
        try:
            if self.tls:
                self._sock.settimeout(seconds)
            else:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))
        except OSError as error:
            raise Aborted(f"the connection broke: {_said(error)}") from error

    # -- sending ------------------------------------------------------------------------------

    def send(self, parts: Sequence[Bytes]) -> None:
        """Everything, in order. Raises TimedOut when the peer takes less than a piece in its time."""
        total = sum(map(len, parts))
        self.sent += total
        try:
            if self.tls:
                self._send_tls(parts)
                return
            sent = self._sock.sendmsg(parts) if len(parts) <= IOV_MAX else 0
            if sent < total:
                self._send_rest(memoryview(b"".join(parts))[sent:], sent)
        except (BlockingIOError, TimeoutError) as error:
            raise TimedOut("timed out sending: the peer does not read") from error
        except OSError as error:
            raise Aborted(f"the connection broke: {_said(error)}") from error

    def send_file(self, before: Sequence[Bytes], fd: int, offset: int, size: int) -> None:
        """`before`, and then `size` bytes of a file that never enter this process; plain TCP only.

        Raises OSError when the file is shorter, besides what `send` raises.
        """
        length = sum(map(len, before))
        self.sent += length + size
        try:
            sent = self._sock.sendmsg(before, (), socket.MSG_MORE)
            if sent < length:
                self._send_rest(memoryview(b"".join(before))[sent:], sent)
            left = self._splice(fd, offset, size)
        except (BlockingIOError, TimeoutError) as error:
            raise TimedOut("timed out sending: the peer does not read") from error
        except OSError as error:
            raise Aborted(f"the connection broke: {_said(error)}") from error
        if left:
            raise OSError(errno.EIO, "the file is shorter than its entry says")

    def _splice(self, fd: int, offset: int, size: int) -> int:
        """Returns what the file did not have."""
        deadline, piece = monotonic() + self.timeouts.send, 0
        while size:
            sent = os.sendfile(self._sock.fileno(), fd, offset, size)
            if not sent:
                break
            offset += sent
            size -= sent
            piece += sent
            if piece >= PIECE:
                deadline, piece = monotonic() + self.timeouts.send, 0
            elif size and monotonic() > deadline:
                raise TimedOut("timed out sending: the peer reads too slowly")
        return size

    def _send_rest(self, rest: memoryview, sent: int) -> None:
        """What one call did not take. On a blocking socket that means that its time was up."""
        while rest:
            if 0 < sent < PIECE:
                raise TimedOut("timed out sending: the peer reads too slowly")
            sent = self._sock.send(rest)
            rest = rest[sent:]

    def _send_tls(self, parts: Sequence[Bytes]) -> None:
        timeout = self.timeouts.send
        if not timeout / 2 < self._timeout <= timeout:
            self._set_timeout(timeout)
        data = memoryview(b"".join(parts) if len(parts) > 1 else parts[0])
        for start in range(0, len(data), TLS_CHUNK):
            self._sock.sendall(data[start : start + TLS_CHUNK])  # its timeout is for the whole chunk

    def send_now(self, data: bytes) -> None:
        """Last words: sent if there is room for them, never waited for."""
        with contextlib.suppress(OSError, ValueError):
            if self.tls:
                self._timeout = 0.0
                self._sock.settimeout(0.0)
                self._sock.send(data)
            else:
                self._sock.send(data, socket.MSG_DONTWAIT)

    def fileno(self) -> int:
        return self._sock.fileno()

    # -- the end ------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """Nothing more will be sent; the peer sees the end after our last words."""
        if not self._hung_up:
            self._hung_up = True
            self._shutdown(socket.SHUT_WR)

    def linger(self, seconds: float) -> None:
        """Wait for the peer to close, throwing away what still comes, so that it gets our last words.

        Closing with unread bytes in the buffer would reset the connection under them.
        """
        with contextlib.suppress(Aborted, TimedOut):
            self.expect(seconds)
            self.hurry = False
            limit = self.received + DRAINED
            while self.received < limit:
                self.start = self.end = 0
                self._receive()

    def close(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._sock.close()

    def interrupt(self) -> None:
        """From another thread: wake the owner; it will find the stream at its end, but can still send."""
        self._shutdown(socket.SHUT_RD)

    def cut(self) -> None:
        """From another thread: end everything at once."""
        self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        # The base class's: SSLSocket's own would drop the TLS state under the owner's hands.
        with self._lock, contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, how)


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return _TIMEVAL.pack(whole, max(1, int((seconds - whole) * 1_000_000)))


def _said(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS: {error.reason}"  # its errno is no error of the system
    return os.strerror(error.errno) if error.errno else type(error).__name__
