"""Messages out: over MLLP to one receiver, each acknowledged before the next.

Rules that hold here: only AA or CA is delivery; AE, AR, CE and CR are refusals, told by their codes and behind them in
the receiver's words; a receiver that does not answer in time, or answers something else, is tried again later on a new
connection.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

from archive.errors import ArchiveError, NotDelivered, NotUnderstood, Unreachable, saying
from archive.hl7.acknowledge import WORDS
from archive.hl7.framing import Framer, framed
from archive.hl7.message import Message

CHUNK = 1 << 16
LONGEST = 200  # characters of a receiver's words
# HL7 v2.5.1 table 0008.
_TAKEN = frozenset({"AA", "CA"})
_REFUSED = {"AE": "application error", "AR": "application reject", "CE": "commit error", "CR": "commit reject"}


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
    except OSError as error:
        raise Unreachable("HL7 receiver did not acknowledge", str(error)) from error
    except NotUnderstood as error:
        raise Unreachable("HL7 receiver did not acknowledge", error.comment) from error
    code, about = answer.text("MSA-1"), answer.text("MSA-2")
    if about != control_id or code not in {*_TAKEN, *_REFUSED}:
        what = "with no code of an answer" if about == control_id else "to another message"
        raise Unreachable("HL7 receiver answered something else", saying(what, f"{code} {about}"[:LONGEST]))
    return None if code in _TAKEN else _refusal(code, answer)


def _refusal(code: str, answer: Message) -> NotDelivered:
    """By the codes, which are the standard's; the words may name the patient."""
    number = answer.text("ERR-3.1")
    condition = WORDS.get(int(number)) if re.fullmatch(r"[0-9]{1,3}", number) else None
    said = f"{code} ({_REFUSED[code]})" + (f", {number} ({condition})" if condition else "")
    words = answer.text("ERR-8") or answer.text("MSA-3")
    return NotDelivered("HL7 receiver refused the message", saying(said, words[:LONGEST]))


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
