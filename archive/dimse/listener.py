"""Listening sockets and the life of an accepted connection, up to the association and after it.

Rules that hold here: the accepting thread accepts and does nothing else; each connection has a thread
of its own, which does the TLS handshake and waits for the A-ASSOCIATE-RQ under deadlines; whatever
happens in it, its counts are given back and its socket is closed; `stop` never takes longer than told.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
from time import monotonic

from archive.dimse.association import Association
from archive.dimse.connection import TIMEOUTS, Timeouts
from archive.dimse.incoming import Handler, Incoming, Policy, Serving
from archive.dimse.limits import Limits
from archive.dimse.relay import Place
from archive.dimse.threads import Threads
from archive.dimse.tls import ServerTLS
from archive.services.caller import plain_address

__all__ = ["Handler", "Listener", "Policy", "bind"]

log = logging.getLogger(__name__)

BACKLOG = 128
PAUSE = 0.1  # seconds without accepting when descriptors or memory ran out
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def bind(host: str, port: int, backlog: int = BACKLOG) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


class Listener:
    """Accepts on one listening socket, which other processes may share."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        tls: ServerTLS | None = None,
        limits: Limits | None = None,
        timeouts: Timeouts = TIMEOUTS,
        place: Place | None = None,
    ) -> None:
        """With a `place`, connections are spread over the processes that share the socket."""
        self._sock = sock
        self._place = place
        self._tls = tls
        self._limits = limits or Limits()
        self._timeouts = timeouts
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._accepting: threading.Thread | None = None
        self._threads = Threads()
        self._lock = threading.Lock()
        self._live: dict[int, Incoming] = {}
        self._none_left = threading.Condition(self._lock)
        self._serving: Serving | None = None
        self._stopping = False
        self._complained = 0.0

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def associations(self) -> list[Association]:
        """Those that are open now."""
        with self._lock:
            return [live.association for live in self._live.values() if live.association is not None]

    def change(self, timeouts: Timeouts) -> None:
        """The deadlines of connections from now on."""
        self._timeouts = timeouts
        if self._serving is not None:
            self._serving.timeouts = timeouts

    # -- accepting ----------------------------------------------------------------------------

    def start(self, handler: Handler, policy: Policy) -> None:
        """Serve in threads of our own: `handler(association)` runs in the association's."""
        self._serving = Serving(handler, policy, self._limits, self._timeouts, self._tls, self._gone, self._place)
        self._sock.setblocking(False)  # another process may be quicker after we were woken
        self._accepting = threading.Thread(target=self._accept_all, name=f"accept:{self.port}", daemon=True)
        self._accepting.start()

    def _accept_all(self) -> None:
        with select.epoll() as poll:
            # Exclusive: of the processes that share the socket, the kernel wakes one per connection.
            poll.register(self._sock, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            poll.register(self._wake_reader, select.EPOLLIN)
            if self._place is not None:
                poll.register(self._place, select.EPOLLIN)
            arrivals = self._place.fileno() if self._place is not None else -1
            while not self._stopping:
                for descriptor, _ in poll.poll():
                    if not self._stopping and self._serving is not None:
                        self._accept(self._serving, handed=descriptor == arrivals)

    def _accept(self, serving: Serving, *, handed: bool) -> None:
        try:
            sock, peer = self._handed() if handed else self._accepted()
        except (BlockingIOError, ConnectionError, InterruptedError):
            return
        except OSError as error:
            self._pause(error)
            return
        if sock is not None:
            self._begin(serving, sock, peer)

    def _accepted(self) -> tuple[socket.socket | None, tuple[str, int]]:
        """The next connection; None when another process has it now."""
        sock, peer = self._sock.accept()
        if self._place is not None and self._place.hand_over(sock):
            return None, peer
        return sock, peer

    def _handed(self) -> tuple[socket.socket | None, tuple[str, int]]:
        """A connection that another process accepted."""
        assert self._place is not None
        sock = self._place.take()
        if sock is None:
            return None, ("", 0)
        try:
            return sock, sock.getpeername()
        except OSError as error:
            sock.close()
            raise ConnectionAbortedError from error

    def _begin(self, serving: Serving, sock: socket.socket, peer: tuple[str, int]) -> None:
        address = plain_address(peer[0])
        if not (serving.policy.admit(address) and self._limits.admit(address)):
            self._complain("connection from %s closed: too many from there have not said who they are", address)
            sock.close()
            return
        live = Incoming(serving, sock, address, peer[1])
        with self._lock:
            self._live[live.number] = live
        try:
            self._threads.run(live.run, live.name)
        except RuntimeError as error:  # no more threads
            live.forget()
            self._pause(error)

    def _pause(self, error: Exception) -> None:
        """Out of descriptors, memory or threads: connections wait in the backlog meanwhile."""
        if isinstance(error, OSError) and error.errno not in _EXHAUSTED:
            if not self._stopping:
                log.error("cannot accept: %s", error)
        else:
            self._complain("cannot accept for now: %s", error)
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        poll.poll(PAUSE * 1000)

    def _complain(self, message: str, *arguments: object) -> None:
        """At most once a second: whoever floods us must not flood the log."""
        now = monotonic()
        if now - self._complained >= 1.0:
            self._complained = now
            log.warning(message, *arguments)

    # -- stopping -----------------------------------------------------------------------------

    def stop(self, seconds: float = 10.0) -> None:
        """Accept no more; idle associations end at once, operations may finish until the deadline."""
        if self._stopping:
            return
        deadline = monotonic() + seconds
        self._stopping = True
        if self._serving is not None:
            self._serving.stopping = True
        os.write(self._wake_writer, b"x")
        if self._accepting is not None:
            self._accepting.join(max(0.0, deadline - monotonic()))
        for descriptor in (self._wake_reader, self._wake_writer):
            os.close(descriptor)
        self._sock.close()
        if self._place is not None:
            self._place.leave()
        self._threads.close()
        with self._lock:
            live = list(self._live.values())
        for each in live:
            each.stop()
        if not self.wait_until_empty(deadline - seconds * 0.1):
            self._cut()
            self.wait_until_empty(deadline)

    def _cut(self) -> None:
        with self._lock:
            live = list(self._live.values())
        for each in live:
            log.warning("%s cut off: it did not end in time", each.name)
            each.cut()

    def wait_until_empty(self, deadline: float) -> bool:
        """Wait, until the monotonic clock shows `deadline`, for the last connection to end."""
        with self._none_left:
            return self._none_left.wait_for(lambda: not self._live, max(0.0, deadline - monotonic()))

    def _gone(self, live: Incoming) -> None:
        with self._none_left:
            self._live.pop(live.number, None)
            if not self._live:
                self._none_left.notify_all()
