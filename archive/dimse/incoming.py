"""One accepted connection in its own thread: up to the association, through it, and after it.

Rules that hold here: the TLS handshake and the A-ASSOCIATE-RQ have deadlines and take no slot; who was
let in holds one until the association is over, not until the peer has closed; whatever happens, the
counts are given back and the socket is closed.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from archive.dimse import wire
from archive.dimse.associate import AssociateRequest
from archive.dimse.association import Association
from archive.dimse.connection import Connection, Timeouts
from archive.dimse.fragments import unexpected
from archive.dimse.items import read_request
from archive.dimse.limits import Limits
from archive.dimse.negotiation import Accepted, Rejected, answer, refusal
from archive.dimse.reasons import (
    NO_REASON,
    Aborted,
    Ended,
    ProtocolError,
    TimedOut,
)
from archive.dimse.relay import Place
from archive.dimse.tls import ServerTLS, peer_names

log = logging.getLogger(__name__)

LARGEST_REQUEST = 1024 * 1024  # 128 contexts with every transfer syntax there is are 150 kB
_numbers = itertools.count(1)

Handler = Callable[[Association], None]


class Policy(Protocol):
    """Who may call, and on which terms."""

    def admit(self, address: str) -> bool:
        """May this address connect at all? Asked before anything was read; must not block."""
        ...

    def negotiate(
        self, request: AssociateRequest, address: str, tls_names: tuple[str, ...] | None
    ) -> Accepted | Rejected:
        """`tls_names` are the names and fingerprint of the peer's certificate, None on a plain connection."""
        ...


@dataclass(slots=True)
class Serving:
    """What a listener gives to its connections."""

    handler: Handler
    policy: Policy
    limits: Limits
    timeouts: Timeouts
    tls: ServerTLS | None
    gone: Callable[[Incoming], None]
    place: Place | None = None  # among the processes
    stopping: bool = False


class Incoming:
    """One accepted connection, in its own thread."""

    def __init__(self, serving: Serving, sock: socket.socket, address: str, port: int) -> None:
        self._serving = serving
        self.number = next(_numbers)
        self.name = f"{address}#{self.number}"
        self.address, self.port = address, port
        self.association: Association | None = None
        self._sock = sock
        self._connection: Connection | None = None
        self._pending = True
        self._aet = ""
        self._counted = serving.place is not None
        if serving.place is not None:
            serving.place.count(1)

    def run(self) -> None:
        try:
            self._serve()
        except Ended as ending:
            # Who connects and closes is a probe: load balancers do so every second.
            said = self._connection is None or self._connection.received or isinstance(ending, TimedOut)
            log.log(logging.INFO if said else logging.DEBUG, "connection %s: %s", self.name, ending.words)
        except OSError as error:
            log.info("connection %s: %s", self.name, error)
        except Exception:
            log.exception("connection %s ended by a fault of ours", self.name)
        finally:
            self._end()

    def _serve(self) -> None:
        tls_names = self._handshake()
        connection = self._connection = Connection(self._sock, self._serving.timeouts)
        request = self._request(connection)
        if request is None:
            return
        decided = self._decide(request, tls_names)
        if isinstance(decided, Rejected):
            self._reject(connection, request, decided)
            return
        association = self._accept(connection, request, decided, tls_names)
        association.when_released = self._released
        self.association = association
        self.name = threading.current_thread().name = association.name
        if self._serving.stopping:
            association.stop()
        self._handle(association)

    def _handle(self, association: Association) -> None:
        try:
            self._serving.handler(association)
        except Ended:
            pass  # told to the peer and logged where it happened
        except Exception:
            log.exception("%s: a fault of ours", association.name)
            association.abort(words="aborted by us: an internal fault")
        else:
            association.abort(words="aborted by us: nothing more to serve")

    # -- before the association ------------------------------------------------------------------

    def _handshake(self) -> tuple[str, ...] | None:
        tls = self._serving.tls
        if tls is None:
            return None
        self._sock.settimeout(self._serving.timeouts.tls)
        try:
            secured = tls.context.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
            self._sock = secured
            secured.do_handshake()  # its timeout is for the whole handshake
            return peer_names(secured)
        except TimeoutError as error:
            raise TimedOut("no TLS handshake in time") from error
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise Aborted(f"TLS handshake failed: {getattr(error, 'reason', None) or error}") from error

    def _request(self, connection: Connection) -> AssociateRequest | None:
        """State 2 of PS3.8 table 9-10: an A-ASSOCIATE-RQ before ARTIM expires; None when the peer aborts."""
        connection.expect(connection.timeouts.acse)
        try:
            connection.need(wire.PDU_HEADER.size)
            kind, length = wire.PDU_HEADER.unpack_from(connection.buffer, connection.start)
            connection.start += wire.PDU_HEADER.size
            if kind == wire.ABORT:
                return None
            _check_request(kind, length)
            return read_request(connection.read(length))
        except ProtocolError as error:
            connection.send_now(wire.abort_pdu(error.source, error.reason))
            raise
        except TimedOut as error:
            raise TimedOut("no A-ASSOCIATE-RQ in time") from error

    def _decide(self, request: AssociateRequest, tls_names: tuple[str, ...] | None) -> Accepted | Rejected:
        refused = refusal(request)
        if refused is not None:
            return refused
        try:
            decided = self._serving.policy.negotiate(request, self.address, tls_names)
        except Exception:
            log.exception("connection %s: a fault of ours in the access check", self.name)
            return Rejected.of(NO_REASON, "internal fault")
        if isinstance(decided, Rejected):
            return decided
        return self._enter(request, decided) or decided

    def _enter(self, request: AssociateRequest, accepted: Accepted) -> Rejected | None:
        """From here on the connection counts as an association."""
        aet = accepted.aet or request.calling
        refused = self._serving.limits.enter(aet, self.address, known=accepted.known)
        if refused is None:
            self._aet = aet
            self._leave_pending()
        return refused

    def _reject(self, connection: Connection, request: AssociateRequest, rejected: Rejected) -> None:
        titles = ascii(request.calling), ascii(request.called)  # they may be anything here
        log.info("association %s -> %s from %s:%d %s", *titles, self.address, self.port, ascii(str(rejected)))
        connection.send([wire.reject_pdu(rejected.result, rejected.source, rejected.reason)])

    def _accept(
        self,
        connection: Connection,
        request: AssociateRequest,
        accepted: Accepted,
        tls_names: tuple[str, ...] | None,
    ) -> Association:
        limits = self._serving.limits
        agreed = answer(request, accepted, limits.max_pdu)
        connection.send([agreed.pdu])
        return Association(
            connection,
            request,
            agreed.contexts,
            requestor=False,
            peer_max_pdu=request.max_pdu,
            max_pdu=limits.max_pdu,
            peer=(self.address, self.port),
            window=agreed.window,
            tls_names=tls_names,
            grant=accepted.grant,
            largest_collected=limits.largest_collected,
            number=self.number,
        )

    # -- after it ----------------------------------------------------------------------------------

    def _end(self) -> None:
        """Give the slot back first; then let the peer read our last words, if it may stay that long."""
        try:
            self._give_back()
            if self._connection is not None:
                self._connection.hang_up()
                self._linger(self._connection)
        finally:
            self.forget()

    def _released(self) -> None:
        """The peer may call again as soon as it hears that it is released: take no more of it than one that waits."""
        self._uncount()
        if self._may_stay():
            self._leave_slot()

    def _linger(self, connection: Connection) -> None:
        if not self._serving.stopping and self._may_stay():
            connection.linger(connection.timeouts.acse)

    def _may_stay(self) -> bool:
        """As one of those that wait, which have a limit of their own."""
        self._pending = self._pending or self._serving.limits.admit(self.address)
        return self._pending

    def _give_back(self) -> None:
        self._uncount()
        self._leave_slot()

    def _uncount(self) -> None:
        """Little is left to be done for this connection, even if it stays for a moment."""
        if self._counted and self._serving.place is not None:
            self._counted = False
            self._serving.place.count(-1)

    def _leave_slot(self) -> None:
        if self._aet:
            aet, self._aet = self._aet, ""
            self._serving.limits.exit(aet, self.address)

    def forget(self) -> None:
        self._give_back()
        self._leave_pending()
        if self._connection is not None:
            self._connection.close()
        self._sock.close()
        self._serving.gone(self)

    def _leave_pending(self) -> None:
        if self._pending:
            self._pending = False
            self._serving.limits.leave(self.address)

    # -- from the stopping thread --------------------------------------------------------------------

    def stop(self) -> None:
        if self.association is None or self._connection is None:
            self.cut()
        elif self.association.closed:
            self._connection.interrupt()  # it may still be told that it is released
        else:
            self.association.stop()

    def cut(self) -> None:
        if self._connection is not None:
            self._connection.cut()
        else:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


def _check_request(kind: int, length: int) -> None:
    if kind != wire.ASSOCIATE_RQ:
        raise unexpected(kind, "where an A-ASSOCIATE-RQ is due")
    if length > LARGEST_REQUEST:
        raise ProtocolError(f"an A-ASSOCIATE-RQ of {length} bytes")
