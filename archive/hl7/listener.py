"""MLLP over TCP: listening sockets, and a thread for each connection.

Rules that hold here: the accepting thread only accepts; each connection has deadlines for its TLS handshake, for a
message that has begun and for silence, and an address has a limit of connections; messages of one connection are
answered in their order; nothing that one connection does ends another or the listener.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from time import monotonic

from archive.errors import NotUnderstood
from archive.hl7.framing import Framer, framed
from archive.hl7.inbound import NotAdmitted
from archive.services.caller import plain_address

log = logging.getLogger(__name__)

CHUNK = 1 << 16
PAUSE = 0.1  # seconds without accepting when descriptors ran out

Receive = Callable[[bytes, str], bytes]  # message and sender's address to acknowledgement


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for a handshake, for the rest of a message that has begun, for a peer that does not read, for silence."""

    tls: float = 5.0
    message: float = 30.0
    send: float = 30.0
    idle: float = 300.0


class Listener:
    """Serves one listening socket."""

    def __init__(
        self,
        sock: socket.socket,
        receive: Receive,
        admits: Callable[[str], bool],
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        per_ip: int = 20,
        patience: Patience = Patience(),
    ) -> None:
        self._sock = sock
        self._receive = receive
        self._admits = admits
        self._tls = tls
        self._per_ip = per_ip
        self._patience = patience
        self._changed = threading.Condition()
        self._open: dict[int, socket.socket] = {}
        self._counts: Counter[str] = Counter()
        self._numbers = count(1)
        self._stopped = False
        self._stop_reader, self._stop_writer = socket.socketpair()
        self._thread = threading.Thread(target=self._accept_all, name="hl7 accept", daemon=True)

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def start(self) -> None:
        self._sock.setblocking(False)
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Accept no more; a message under way is still answered, silent connections end at once."""
        if self._stopped:
            return
        self._stopped = True
        self._stop_writer.send(b"x")
        self._thread.join(seconds)
        with self._changed:
            for sock in self._open.values():
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RD)  # that of TLS would send the last answer in clear
            self._changed.wait_for(lambda: not self._open, seconds)
        for sock in (self._sock, self._stop_reader, self._stop_writer):
            sock.close()

    def _accept_all(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._stop_reader, select.POLLIN)
        while all(descriptor != self._stop_reader.fileno() for descriptor, _ in poll.poll()):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except OSError as error:
                log.error("cannot accept HL7 connections for now: %s", error)
                select.select([self._stop_reader], [], [], PAUSE)
                continue
            self._begin(sock, plain_address(peer[0]))

    def _begin(self, sock: socket.socket, address: str) -> None:
        if not self._admits(address):
            log.warning("HL7 connection from %s closed: not an address that may send", address)
            sock.close()
            return
        number = next(self._numbers)
        with self._changed:
            if self._counts[address] >= self._per_ip:
                log.warning("HL7 connection from %s closed: it has %d already", address, self._per_ip)
                sock.close()
                return
            self._counts[address] += 1
            self._open[number] = sock
        try:
            threading.Thread(target=self._serve, args=(number, address), name=f"hl7 {address}", daemon=True).start()
        except RuntimeError as error:  # no more threads
            log.error("HL7 connection from %s closed: %s", address, error)
            self._forget(number, address)

    def _serve(self, number: int, address: str) -> None:
        try:
            self._converse(self._secured(number), address)
        except (NotUnderstood, NotAdmitted) as error:
            log.warning("HL7 connection from %s closed: %s", address, error)
        except TimeoutError:
            log.info("HL7 connection from %s closed: nothing came in time", address)
        except OSError as error:
            log.info("HL7 connection from %s ended: %s", address, error)
        except Exception:
            log.exception("HL7 connection from %s failed by a fault of the archive", address)
        finally:
            self._forget(number, address)

    def _secured(self, number: int) -> socket.socket:
        """The connection, after its TLS handshake if there is one."""
        sock = self._open[number]
        sock.settimeout(self._patience.tls)
        if self._tls is None:
            return sock
        secured = self._tls().wrap_socket(sock, server_side=True)
        with self._changed:
            self._open[number] = secured
        return secured

    def _converse(self, sock: socket.socket, address: str) -> None:
        framer = Framer()
        begun: float | None = None
        while True:
            sock.settimeout(self._left(begun))
            data = sock.recv(CHUNK)
            if not data:
                return
            for message in framer.feed(data):
                answer = framed(self._receive(message, address))
                sock.settimeout(self._patience.send)
                sock.sendall(answer)
                begun = None
            framer.feed(b"")  # ends the connection where something came behind the last message that is none
            begun = (begun or monotonic()) if framer.begun else None

    def _left(self, begun: float | None) -> float:
        """Seconds for the next bytes: a message that drips in has its time in all, not per byte."""
        if begun is None:
            return self._patience.idle
        left = begun + self._patience.message - monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _forget(self, number: int, address: str) -> None:
        with self._changed:
            self._open.pop(number).close()
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]
            self._changed.notify_all()
