"""Messages out: over MLLP to one receiver, each acknowledged before the next.

Rules that hold here: only AA or CA is delivery; AE, AR, CE and CR are refusals in the receiver's words; a receiver that
does not answer in time, or answers something else, is tried again later on a new connection.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

from archive.errors import ArchiveError, NotDelivered, NotUnderstood, Unreachable
from archive.hl7.framing import Framer, framed
from archive.hl7.message import Message

CHUNK = 1 << 16
_TAKEN, _REFUSED = {"AA", "CA"}, {"AE", "AR", "CE", "CR"}


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where messages go, with the seconds for a connection and for an acknowledgement."""

    host: str
    port: int
    tls: Callable[[], ssl.SSLContext] | None = None
    connect: float = 5.0
    answer: float = 30.0


def send_all(receiver: Receiver, messages: Sequence[bytes]) -> Iterator[ArchiveError | None]:
    """Send messages in order over one connection: None or the refusal of each. Raises Unreachable."""
    with contextlib.closing(_connected(receiver)) as sock:
        framer = Framer()
        for message in messages:
            yield _send(sock, framer, message, receiver.answer)


def _connected(receiver: Receiver) -> socket.socket:
    where = f"{receiver.host}:{receiver.port}"
    try:
        sock = socket.create_connection((receiver.host, receiver.port), timeout=receiver.connect)
        if receiver.tls is None:
            return sock
        return receiver.tls().wrap_socket(sock, server_hostname=receiver.host)
    except OSError as error:
        raise Unreachable("HL7 receiver cannot be reached", f"{where}: {error}") from error


def _send(sock: socket.socket, framer: Framer, message: bytes, patience: float) -> ArchiveError | None:
    control_id = Message(message).control_id
    try:
        sock.settimeout(patience)
        sock.sendall(framed(message))
        answer = _answer(sock, framer, monotonic() + patience)
    except (OSError, NotUnderstood) as error:
        raise Unreachable("HL7 receiver did not acknowledge", str(error)) from error
    code, about = answer.text("MSA-1"), answer.text("MSA-2")
    if about != control_id or code not in _TAKEN | _REFUSED:
        raise Unreachable("HL7 receiver answered something else", f"{code} {about}"[:80])
    if code in _TAKEN:
        return None
    words = answer.text("ERR-8") or answer.text("MSA-3") or "no reason given"
    return NotDelivered("HL7 receiver refused the message", f"{code}: {words[:200]}")


def _answer(sock: socket.socket, framer: Framer, until: float) -> Message:
    while True:
        left = until - monotonic()
        if left <= 0:
            raise TimeoutError("no acknowledgement in time")
        sock.settimeout(left)
        data = sock.recv(CHUNK)
        if not data:
            raise ConnectionResetError("closed without an acknowledgement")
        if messages := framer.feed(data):
            return Message(messages[0])
