"""A DICOM upper layer made of bytes, able to do everything wrong.

Rules that hold here: nothing of the archive is used, so that a mistake there is not repeated here; what
is sent is what was asked for, mischief included; every wait has an end. Figures are those of PS3.8 9.3
(PDUs, big endian) and PS3.7 6.3 and annex E (commands, Implicit VR Little Endian).
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
APPLICATION = "1.2.840.10008.3.1.1.1"

RQ, AC, RJ, DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
COMMAND, LAST = 1, 2  # bits of the message control header (PS3.8 annex E.2)

# Contexts of a peer that may do everything; id -> (abstract syntax, transfer syntaxes).
ECHO, STORE_CT, STORE_MR, FIND, MOVE, GET, COMMIT = 1, 3, 5, 7, 9, 11, 13
CONTEXTS: dict[int, tuple[str, tuple[str, ...]]] = {
    ECHO: (VERIFICATION, (IMPLICIT,)),
    STORE_CT: (CT, (EXPLICIT,)),
    STORE_MR: (MR, (EXPLICIT,)),
    FIND: (STUDY_FIND, (EXPLICIT,)),
    MOVE: (STUDY_MOVE, (EXPLICIT,)),
    GET: (STUDY_GET, (EXPLICIT,)),
}
ONLY_ECHO = {ECHO: CONTEXTS[ECHO]}

C_STORE, C_GET, C_FIND, C_MOVE, C_ECHO, C_CANCEL = 0x01, 0x10, 0x20, 0x21, 0x30, 0x0FFF
N_EVENT_REPORT, N_ACTION = 0x0100, 0x0130
RESPONSE = 0x8000
# Elements of group 0000 (PS3.7 annex E).
AFFECTED_CLASS, REQUESTED_CLASS, FIELD, MESSAGE_ID, RESPONDED_TO = 0x0002, 0x0003, 0x0100, 0x0110, 0x0120
DESTINATION = 0x0600
PRIORITY, DATA_SET_TYPE, STATUS, COMMENT, AFFECTED_INSTANCE = 0x0700, 0x0800, 0x0900, 0x0902, 0x1000
REMAINING, COMPLETED, FAILED, WARNED = 0x1020, 0x1021, 0x1022, 0x1023
REQUESTED_INSTANCE, EVENT_TYPE, ACTION_TYPE = 0x1001, 0x1002, 0x1008
NONE, SOME = 0x0101, 0x0001  # Command Data Set Type: without, with a data set

SUCCESS, CANCELLED, PENDING = 0x0000, 0xFE00, 0xFF00


# -- PDUs -------------------------------------------------------------------------------------------


def pdu(kind: int, body: bytes = b"", length: int | None = None) -> bytes:
    """A PDU; `length` is the lie told about `body`."""
    return struct.pack(">BxI", kind, len(body) if length is None else length) + body


def item(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BxH", kind, len(body) if length is None else length) + body


def title(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return raw.ljust(16)[:16]


def context_rq(number: int, abstract: str, transfers: Sequence[str]) -> bytes:
    names = item(0x30, abstract.encode()) + b"".join(item(0x40, uid.encode()) for uid in transfers)
    return item(0x20, bytes([number, 0, 0, 0]) + names)


def role(abstract: str, scu: bool, scp: bool) -> bytes:
    return item(0x54, struct.pack(">H", len(abstract)) + abstract.encode() + bytes([scu, scp]))


def window(invoked: int, performed: int) -> bytes:
    return item(0x53, struct.pack(">HH", invoked, performed))


@dataclass(frozen=True)
class Request:
    """An A-ASSOCIATE-RQ; `items` replaces the presentation contexts, `user` is added to the user information."""

    calling: str | bytes = "SENDER"
    called: str | bytes = "ARCHIVE"
    contexts: Mapping[int, tuple[str, Sequence[str]]] = dataclasses.field(default_factory=lambda: CONTEXTS)
    items: bytes | None = None
    application: str = APPLICATION
    version: int = 1
    max_pdu: int = 16384
    user: bytes = b""

    def body(self) -> bytes:
        contexts = self.items
        if contexts is None:
            contexts = b"".join(context_rq(number, *what) for number, what in self.contexts.items())
        user = item(0x51, struct.pack(">I", self.max_pdu)) + item(0x52, b"1.2.826.0.1.3680043.9.9999") + self.user
        fixed = struct.pack(">HH16s16s32x", self.version, 0, title(self.called), title(self.calling))
        return fixed + item(0x10, self.application.encode()) + contexts + item(0x50, user)

    def pdu(self) -> bytes:
        return pdu(RQ, self.body())


def pdv(context: int, control: int, data: bytes, length: int | None = None) -> bytes:
    return struct.pack(">IBB", len(data) + 2 if length is None else length, context, control) + data


def p_data(*pdvs: bytes) -> bytes:
    return pdu(DATA, b"".join(pdvs))


def abort(source: int = 0, reason: int = 0) -> bytes:
    return pdu(ABORT, bytes([0, 0, source, reason]))


def release_rq() -> bytes:
    return pdu(RELEASE_RQ, bytes(4))


def release_rp() -> bytes:
    return pdu(RELEASE_RP, bytes(4))


def accept(request_body: bytes, max_pdu: int = 16384, refuse: bool = False) -> bytes:
    """The A-ASSOCIATE-AC that takes (or refuses) all contexts with their first transfer syntax."""
    contexts = b""
    for number, parts in _contexts(request_body):
        transfer = next((body for kind, body in parts if kind == 0x40), IMPLICIT.encode())
        contexts += item(0x21, bytes([number, 0, 3 if refuse else 0, 0]) + item(0x40, transfer))
    user = item(0x51, struct.pack(">I", max_pdu)) + item(0x52, b"1.2.826.0.1.3680043.9.9999")
    return pdu(AC, request_body[:68] + item(0x10, APPLICATION.encode()) + contexts + item(0x50, user))


def items(body: bytes) -> Iterator[tuple[int, bytes]]:
    while len(body) >= 4:
        kind, length = struct.unpack(">BxH", body[:4])
        yield kind, body[4 : 4 + length]
        body = body[4 + length :]


def _contexts(body: bytes) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
    for kind, value in items(body[68:]):
        if kind in (0x20, 0x21):
            yield value[0], list(items(value[4:]))


def results(body: bytes) -> dict[int, int]:
    """Context id -> result (PS3.8 table 9-18), from the body of an A-ASSOCIATE-AC."""
    return {value[0]: value[2] for kind, value in items(body[68:]) if kind == 0x21}


def user_items(body: bytes) -> dict[int, bytes]:
    """The sub-items of the user information, from the body of an A-ASSOCIATE-RQ or -AC."""
    return {kind: value for found, user in items(body[68:]) if found == 0x50 for kind, value in items(user)}


# -- commands ---------------------------------------------------------------------------------------


def command(elements: Mapping[int, int | str | bytes]) -> bytes:
    """A command set; numbers are US, text is padded, bytes go as they are."""
    body = b"".join(element(number, value) for number, value in sorted(elements.items()))
    return element(0, struct.pack("<I", len(body))) + body


def element(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        value = struct.pack("<H", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, number, len(value)) + value


def parse_command(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 8:
        _, number, length = struct.unpack("<HHI", data[:8])
        found[number] = data[8 : 8 + length]
        data = data[8 + length :]
    return found


def echo_rq(message_id: int = 1) -> bytes:
    return command({AFFECTED_CLASS: VERIFICATION, FIELD: C_ECHO, MESSAGE_ID: message_id, DATA_SET_TYPE: NONE})


def store_rq(sop_class: str, uid: str, message_id: int = 1) -> bytes:
    return command(
        {
            AFFECTED_CLASS: sop_class,
            FIELD: C_STORE,
            MESSAGE_ID: message_id,
            PRIORITY: 0,
            DATA_SET_TYPE: SOME,
            AFFECTED_INSTANCE: uid,
        }
    )


def query_rq(field: int, sop_class: str, message_id: int = 1, destination: str = "") -> bytes:
    """C-FIND, C-GET or C-MOVE."""
    elements: dict[int, int | str | bytes] = {
        AFFECTED_CLASS: sop_class,
        FIELD: field,
        MESSAGE_ID: message_id,
        PRIORITY: 0,
        DATA_SET_TYPE: SOME,
    }
    return command(
        elements | ({DESTINATION: destination.ljust(len(destination) + len(destination) % 2)} if destination else {})
    )


def cancel_rq(message_id: int) -> bytes:
    return command({FIELD: C_CANCEL, RESPONDED_TO: message_id, DATA_SET_TYPE: NONE})


def store_rsp(request: Mapping[int, bytes], status: int = SUCCESS) -> bytes:
    return command(
        {
            AFFECTED_CLASS: request[AFFECTED_CLASS],
            FIELD: C_STORE | RESPONSE,
            RESPONDED_TO: request[MESSAGE_ID],
            DATA_SET_TYPE: NONE,
            STATUS: status,
            AFFECTED_INSTANCE: request[AFFECTED_INSTANCE],
        }
    )


# -- a connection -----------------------------------------------------------------------------------


class Pdu(NamedTuple):
    kind: int
    body: bytes


class Message(NamedTuple):
    context: int
    command: dict[int, bytes]
    data: bytes

    def number(self, element: int) -> int:
        return int.from_bytes(self.command.get(element, b""), "little")

    def text(self, element: int) -> str:
        return self.command.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace")

    @property
    def status(self) -> int:
        assert STATUS in self.command, f"a response without status: {self.command}"
        return self.number(STATUS)


class Ended(Exception):
    """The other side ended the association: `how` is one of the tuples that `Connection.ending` gives."""

    def __init__(self, how: tuple[object, ...]) -> None:
        super().__init__(str(how))
        self.how = how


class Connection:
    """One TCP connection; a context manager. `patience` bounds every wait."""

    def __init__(
        self,
        port: int,
        *,
        source: str = "127.0.0.1",
        patience: float = 60.0,
        tls: ssl.SSLContext | None = None,
        receive_buffer: int = 0,
    ) -> None:
        sock = socket.socket()
        sock.settimeout(patience)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            sock.bind((source, 0))
            sock.connect(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock: socket.socket = tls.wrap_socket(sock, server_hostname="localhost") if tls else sock
        except BaseException:
            sock.close()
            raise
        self.max_pdu = 16384
        self.accepted: dict[int, int] = {}
        self._patience = patience

    @classmethod
    def of(cls, sock: socket.socket, patience: float = 60.0) -> Connection:
        """The other end of a connection that was accepted."""
        self = cls.__new__(cls)
        sock.settimeout(patience)
        self.sock, self.max_pdu, self.accepted, self._patience = sock, 16384, {}, patience
        return self

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # -- bytes and PDUs -----------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def try_send(self, data: bytes) -> bool:
        """Send to somebody who may have closed already."""
        try:
            self.sock.sendall(data)
        except (OSError, ssl.SSLError):
            return False
        return True

    def read(self) -> Pdu | None:
        """The next PDU; None when the connection is closed. Raises TimeoutError."""
        head = self._exactly(6)
        if head is None:
            return None
        kind, length = struct.unpack(">BxI", head)
        assert length <= 1 << 28, f"PDU type {kind} says it has {length} bytes"
        body = self._exactly(length)
        return None if body is None else Pdu(kind, body)

    def _exactly(self, count: int) -> bytes | None:
        pieces = bytearray()
        end = time.monotonic() + self._patience
        while len(pieces) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(pieces)} of {count} bytes in {self._patience} s")
            try:
                piece = self.sock.recv(min(count - len(pieces), 1 << 20))
            except (ConnectionError, ssl.SSLEOFError):
                return None
            if not piece:
                return None
            pieces += piece
        return bytes(pieces)

    def ending(self, within: float | None = None) -> tuple[object, ...]:
        """How the other side ends this: ("aborted", source, reason), ("rejected", result, source, reason),
        ("released",) or ("closed",). What else it still says is read and forgotten. Raises TimeoutError.
        """
        old, self._patience = self._patience, within or self._patience
        end = time.monotonic() + self._patience
        self.sock.settimeout(self._patience)
        try:
            while time.monotonic() < end:
                found = self.read()
                if (how := _end(found)) is not None:
                    return how
            raise TimeoutError(f"still open after {within} s")
        finally:
            self._patience = old
            if self.sock.fileno() >= 0:
                self.sock.settimeout(old)

    def is_closed(self, within: float) -> bool:
        """Whether the other side also closes the connection."""
        end = time.monotonic() + within
        while (left := end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                if not self.sock.recv(1 << 16):
                    return True
            except TimeoutError:
                return False
            except OSError:
                return True
        return False

    # -- associations -------------------------------------------------------------------------

    def request(self, request: Request | None = None) -> Pdu | None:
        """Send a request and return whatever comes back."""
        self.send((request or Request()).pdu())
        return self.read()

    def associate(self, request: Request | None = None) -> Connection:
        answer = self.request(request)
        if answer is None or answer.kind != AC:
            raise Ended(_end(answer) or ("PDU", answer.kind if answer else 0))
        self.max_pdu = int.from_bytes(user_items(answer.body).get(0x51, b""), "big") or 1 << 18
        self.accepted = results(answer.body)
        return self

    def release(self) -> None:
        """Release and expect it to be confirmed and closed by us."""
        self.send(release_rq())
        how = self.ending()
        assert how == ("released",), how
        self.close()

    # -- messages -----------------------------------------------------------------------------

    def write(self, context: int, command_set: bytes, data: bytes | None = None) -> None:
        self.send(p_data(pdv(context, COMMAND | LAST, command_set)))
        if data is not None:
            self.write_data(context, data)

    def write_data(self, context: int, data: bytes) -> None:
        for piece in fragments(data, min(self.max_pdu, 1 << 17) - 6):
            self.send(p_data(pdv(context, *piece)))

    def message(self) -> Message:
        """The next DIMSE message. Raises Ended when an end comes instead."""
        command_set, data, context, done = bytearray(), bytearray(), 0, False
        while not done:
            found = self.read()
            if found is None or found.kind != DATA:
                raise Ended(_end(found) or ("PDU", found.kind if found else 0))
            for number, control, piece in pdvs(found.body):
                context = number
                if control & COMMAND:
                    command_set += piece
                    kind = parse_command(bytes(command_set)).get(DATA_SET_TYPE, b"")
                    done = bool(control & LAST) and int.from_bytes(kind, "little") == NONE
                else:
                    data += piece
                    done = bool(control & LAST)
        return Message(context, parse_command(bytes(command_set)), bytes(data))

    def echo(self, message_id: int = 1) -> int:
        self.write(ECHO, echo_rq(message_id))
        return self.message().status

    def store(self, sop_class: str, uid: str, data: bytes, *, context: int = STORE_CT, message_id: int = 1) -> int:
        self.write(context, store_rq(sop_class, uid, message_id), data)
        return self.message().status

    def find(self, identifier: bytes, message_id: int = 1) -> tuple[int, list[bytes]]:
        """The final status and the identifiers found."""
        self.write(FIND, query_rq(C_FIND, STUDY_FIND, message_id), identifier)
        found = []
        while (answer := self.message()).status in (PENDING, PENDING + 1):
            found.append(answer.data)
        return answer.status, found

    def get(self, identifier: bytes, message_id: int = 1) -> tuple[Message, dict[str, bytes]]:
        """The final response and the data sets that came, by SOP Instance UID."""
        self.write(GET, query_rq(C_GET, STUDY_GET, message_id), identifier)
        got = {}
        while True:
            message = self.message()
            if message.number(FIELD) == C_STORE:
                got[message.text(AFFECTED_INSTANCE)] = message.data
                self.write(message.context, store_rsp(message.command))
            elif message.status not in (PENDING, PENDING + 1):
                return message, got

    def move(self, identifier: bytes, destination: str, message_id: int = 1) -> Message:
        self.write(MOVE, query_rq(C_MOVE, STUDY_MOVE, message_id, destination), identifier)
        while (answer := self.message()).status == PENDING:
            pass
        return answer


def fragments(data: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """(control header, piece) of a data set cut for P-DATA."""
    for start in range(0, max(len(data), 1), size):
        yield LAST if start + size >= len(data) else 0, data[start : start + size]


def pdvs(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    while body:
        length, context, control = struct.unpack(">IBB", body[:6])
        yield context, control, body[6 : 4 + length]
        body = body[4 + length :]


def _end(found: Pdu | None) -> tuple[object, ...] | None:
    if found is None:
        return ("closed",)
    if found.kind == ABORT:
        return ("aborted", found.body[2], found.body[3])
    if found.kind == RJ:
        return ("rejected", found.body[1], found.body[2], found.body[3])
    if found.kind == RELEASE_RP:
        return ("released",)
    return None


@contextlib.contextmanager
def association(port: int, request: Request | None = None, **options: object) -> Iterator[Connection]:
    """An association that is released in the end when all went well."""
    with Connection(port, **options) as connection:  # type: ignore[arg-type]
        connection.associate(request)
        yield connection
        if connection.sock.fileno() >= 0:
            connection.release()
