"""Listening sockets and the life of an accepted connection, up to the association and after it.

Rules that hold here: each connection has a thread of its own, which does the TLS handshake and waits for
the A-ASSOCIATE-RQ under deadlines, and another waits for the next connection meanwhile; whatever happens in
it, its counts are given back and its socket is closed; `stop` never takes longer than told.
"""

from __future__ import annotations

import logging
import socket
import threading
from time import monotonic

from archive.dimse.accepting import Accepting
from archive.dimse.association import Association
from archive.dimse.connection import TIMEOUTS, Timeouts
from archive.dimse.incoming import Handler, Incoming, Policy, Serving
from archive.dimse.limits import Limits
from archive.dimse.relay import Place
from archive.dimse.tls import ServerTLS
from archive.services.caller import plain_address

__all__ = ["Handler", "Listener", "Policy", "bind"]

log = logging.getLogger(__name__)

BACKLOG = 128


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
        self._accepting: Accepting | None = None
        self._lock = threading.Lock()
        self._live: dict[int, Incoming] = {}
        self._none_left = threading.Condition(self._lock)
        self._serving: Serving | None = None
        self._stopping = False

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

    # -- connections --------------------------------------------------------------------------

    def start(self, handler: Handler, policy: Policy) -> None:
        """Serve in threads of our own: `handler(association)` runs in the association's."""
        self._serving = Serving(handler, policy, self._limits, self._timeouts, self._tls, self._gone, self._place)
        self._accepting = Accepting(self._sock, self._begin, place=self._place)
        self._accepting.start()

    def _begin(self, sock: socket.socket, peer: tuple[str, int]) -> Incoming | None:
        """A connection that was accepted, and counts; None when there are too many."""
        assert self._serving is not None and self._accepting is not None
        address = plain_address(peer[0])
        if not (self._serving.policy.admit(address) and self._limits.admit(address)):
            words = "connection from %s closed: too many from there have not said who they are"
            self._accepting.complain(words, address)
            sock.close()
            return None
        live = Incoming(self._serving, sock, address, peer[1])
        with self._lock:
            self._live[live.number] = live
        return live

    # -- stopping -----------------------------------------------------------------------------

    def stop(self, seconds: float = 10.0) -> None:
        """Accept no more; idle associations end at once, operations may finish until the deadline."""
        if self._stopping:
            return
        deadline = monotonic() + seconds
        self._stopping = True
        if self._serving is not None:
            self._serving.stopping = True
        if self._accepting is not None:
            self._accepting.stop(max(0.0, deadline - monotonic()))
        self._sock.close()
        if self._place is not None:
            self._place.leave()
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
