"""A light DICOM client on a raw socket, so that the client's own cost stays out of the figures.

Rules that hold here: one call after another, no threads; commands are written and read by position, not by
a toolkit; what a server sends is counted and thrown away. PS3.8 section 9.3 (PDUs), PS3.7 annex E (commands).
"""

from __future__ import annotations

import mmap
import socket
import ssl
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

VERIFICATION = "1.2.840.10008.1.1"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
IMPLEMENTATION = b"1.2.826.0.1.3680043.8.498.1"
OUR_MAX_PDU = 131072
UNLIMITED_PDU = 1 << 20  # what is sent at a time to a peer that names no maximum
NO_DATA, WITH_DATA = 0x0101, 0x0001  # Command Data Set Type
C_STORE_RQ, C_STORE_RSP, C_GET_RQ, C_FIND_RQ, C_ECHO_RQ = 0x0001, 0x8001, 0x0010, 0x0020, 0x0030
A_ASSOCIATE_AC, P_DATA, A_RELEASE_RQ = 2, 4, 5
IS_COMMAND, IS_LAST = 1, 2


class Failed(Exception):
    """The server did something else than what was asked for."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a system listens, and how to talk to it."""

    port: int
    ae: str
    tls: ssl.SSLContext | None = None
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Offer:
    """A presentation context to propose; `both_roles` lets the server send on it (C-GET)."""

    abstract: str
    syntaxes: tuple[str, ...] = (IMPLICIT,)
    both_roles: bool = False


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def associate_request(called: str, offers: Sequence[Offer]) -> bytes:
    body = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode(), b"BENCH".ljust(16))
    body += item(0x10, APPLICATION_CONTEXT)
    for number, offer in enumerate(offers):
        syntaxes = b"".join(item(0x40, syntax.encode()) for syntax in offer.syntaxes)
        body += item(0x20, bytes((2 * number + 1, 0, 0, 0)) + item(0x30, offer.abstract.encode()) + syntaxes)
    user = item(0x51, struct.pack(">I", OUR_MAX_PDU)) + item(0x52, IMPLEMENTATION)
    for abstract in sorted({offer.abstract for offer in offers if offer.both_roles}):
        user += item(0x54, struct.pack(">H", len(abstract)) + abstract.encode() + b"\1\1")
    body += item(0x50, user)
    return struct.pack(">BxI", 1, len(body)) + body


def command(*elements: tuple[int, str | int]) -> bytes:
    """A command set: UIDs from str, 16-bit numbers from int, in implicit VR little endian."""
    body = b""
    for number, value in elements:
        raw = struct.pack("<H", value) if isinstance(value, int) else value.encode() + b"\0" * (len(value) % 2)
        body += struct.pack("<HHI", 0, number, len(raw)) + raw
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def value_in(command_set: bytes, element: int) -> bytes:
    """The value of a command element, found by walking: its bytes could stand anywhere else by chance."""
    at = 0
    while at + 8 <= len(command_set):
        number, length = struct.unpack_from("<HI", command_set, at + 2)
        if number == element:
            return command_set[at + 8 : at + 8 + length]
        at += 8 + length
    raise Failed(f"no element 0000,{element:04X} in a command")


def number_in(command_set: bytes, element: int) -> int:
    return int.from_bytes(value_in(command_set, element), "little")


def text_in(command_set: bytes, element: int) -> str:
    return value_in(command_set, element).rstrip(b"\0").decode()


def identifier(*elements: tuple[int, int, str]) -> bytes:
    """A query in implicit VR little endian; elements in ascending order."""
    parts = []
    for group, number, value in elements:
        raw = value.encode()
        raw += (b"\0" if number == 0x000D else b" ") * (len(raw) % 2)
        parts.append(struct.pack("<HHI", group, number, len(raw)) + raw)
    return b"".join(parts)


def dial(target: Target) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", target.port), target.timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return target.tls.wrap_socket(sock) if target.tls else sock


class Association:
    """One association as its requestor."""

    def __init__(self, target: Target, offers: Sequence[Offer]) -> None:
        self._sock = dial(target)
        try:
            self._in = self._sock.makefile("rb", buffering=1 << 18)
            self._sock.sendall(associate_request(target.ae, offers))
            self.accepted, self._max_pdu = self._read_answer()
        except BaseException:
            self._sock.close()
            raise
        self._message_id = 0

    def __enter__(self) -> Association:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is None:
            self.release()
        self.close()

    def close(self) -> None:
        self._in.close()
        self._sock.close()

    def release(self) -> None:
        self._sock.sendall(b"\5\0\0\0\0\4\0\0\0\0")
        kind, _body = self._read_pdu()
        if kind != 6:
            raise Failed(f"release answered with PDU type {kind}")

    def echo(self) -> None:
        self._send(self._context(0), self._request(C_ECHO_RQ, VERIFICATION, NO_DATA))
        self._expect_success()

    def store(self, context: int, sop_class: str, instance: str, data: bytes | memoryview) -> None:
        request = self._request(C_STORE_RQ, sop_class, WITH_DATA, (0x700, 0), (0x1000, instance))
        self._send(self._context(context), request, data)
        self._expect_success()

    def find(self, query: bytes) -> int:
        """How many answers came."""
        self._send(self._context(0), self._request(C_FIND_RQ, STUDY_FIND, WITH_DATA, (0x700, 0)), query)
        answers = 0
        while True:
            _context, response = self._read_command()
            status = number_in(response, 0x900)
            if status not in (0xFF00, 0xFF01):
                break
            self._skip_data()
            answers += 1
        if status != 0:
            raise Failed(f"C-FIND ended with status {status:04X}")
        return answers

    def get(self, query: bytes) -> tuple[int, int]:
        """Fetch, throw away: how many objects and bytes came. The first offer is the C-GET context."""
        self._send(self._context(0), self._request(C_GET_RQ, STUDY_GET, WITH_DATA, (0x700, 0)), query)
        objects = received = 0
        while True:
            context, message = self._read_command()
            if number_in(message, 0x100) != C_STORE_RQ:
                status = number_in(message, 0x900)
                if status == 0xFF00:
                    continue
                if status != 0:
                    raise Failed(f"C-GET ended with status {status:04X}")
                return objects, received
            received += self._skip_data()
            objects += 1
            self._send(context, _stored(message))

    def _context(self, number: int) -> int:
        context = 2 * number + 1
        if context not in self.accepted:
            raise Failed(f"presentation context {context} was not accepted")
        return context

    def _request(self, field: int, sop_class: str, data: int, *more: tuple[int, str | int]) -> bytes:
        """A request command under the next message id."""
        self._message_id = self._message_id % 0xFFFF + 1
        always: list[tuple[int, str | int]] = [(2, sop_class), (0x100, field), (0x110, self._message_id), (0x800, data)]
        return command(*sorted([*always, *more], key=lambda element: element[0]))

    def _send(self, context: int, command_set: bytes, data: bytes | memoryview = b"") -> None:
        head = struct.pack(">BxIIBB", P_DATA, len(command_set) + 6, len(command_set) + 2, context, IS_COMMAND | IS_LAST)
        out: list[bytes | memoryview] = [head, command_set]
        step, total = self._max_pdu - 6, len(data)
        view = memoryview(data)
        for at in range(0, total, step):
            part = view[at : at + step]
            flags = IS_LAST if at + step >= total else 0
            out += [struct.pack(">BxIIBB", P_DATA, len(part) + 6, len(part) + 2, context, flags), part]
            if len(out) >= 64:
                self._write(out)
                out = []
        if out:
            self._write(out)

    def _write(self, parts: list[bytes | memoryview]) -> None:
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.sendall(b"".join(parts))
            return
        sent = self._sock.sendmsg(parts)
        while sent < sum(map(len, parts)):
            while sent >= len(parts[0]):
                sent -= len(parts.pop(0))
            parts[0] = memoryview(parts[0])[sent:]
            sent = self._sock.sendmsg(parts)

    def _read_pdu(self) -> tuple[int, bytes]:
        head = self._in.read(6)
        if len(head) < 6:
            raise Failed("the server closed the connection")
        length = int.from_bytes(head[2:], "big")
        return head[0], self._in.read(length)

    def _read_answer(self) -> tuple[set[int], int]:
        """Accepted context ids and the largest PDU the server takes."""
        kind, body = self._read_pdu()
        if kind != A_ASSOCIATE_AC:
            raise Failed(f"association answered with PDU type {kind}: {body.hex()}")
        accepted, largest, at = set(), 0, 68
        while at < len(body):
            name, length = struct.unpack_from(">BxH", body, at)
            value = body[at + 4 : at + 4 + length]
            if name == 0x21 and value[2] == 0:
                accepted.add(value[0])
            if name == 0x50 and value[:1] == b"\x51":
                largest = int.from_bytes(value[4:8], "big")
            at += 4 + length
        return accepted, min(largest or UNLIMITED_PDU, UNLIMITED_PDU)

    def _read_fragments(self) -> list[tuple[int, int, bytes]]:
        """The (context, flags, bytes) of one P-DATA PDU."""
        kind, body = self._read_pdu()
        if kind != P_DATA:
            raise Failed(f"PDU type {kind} instead of P-DATA")
        fragments, at = [], 0
        while at < len(body):
            length, context, flags = struct.unpack_from(">IBB", body, at)
            fragments.append((context, flags, body[at + 6 : at + 4 + length]))
            at += 4 + length
        return fragments

    _waiting: tuple[tuple[int, int, bytes], ...] = ()

    def _read_fragment(self) -> tuple[int, int, bytes]:
        if not self._waiting:
            self._waiting = tuple(self._read_fragments())
        first, *rest = self._waiting
        self._waiting = tuple(rest)
        return first

    def _read_command(self) -> tuple[int, bytes]:
        whole = b""
        while True:
            context, flags, part = self._read_fragment()
            if not flags & IS_COMMAND:
                raise Failed("a data set where a command was due")
            whole += part
            if flags & IS_LAST:
                return context, whole

    def _skip_data(self) -> int:
        length = 0
        while True:
            _context, flags, part = self._read_fragment()
            length += len(part)
            if flags & IS_LAST:
                return length

    def _expect_success(self) -> None:
        _context, response = self._read_command()
        status = number_in(response, 0x900)
        if status != 0:
            raise Failed(f"status {status:04X}")


def _stored(request: bytes) -> bytes:
    """The success that answers a C-STORE request."""
    sop_class, instance, message_id = text_in(request, 2), text_in(request, 0x1000), number_in(request, 0x110)
    answer = ((0x100, C_STORE_RSP), (0x120, message_id), (0x800, NO_DATA), (0x900, 0))
    return command((2, sop_class), *answer, (0x1000, instance))


class StoredFile:
    """A Part-10 file as a client sends it: its UIDs, and a view of its data set without reading it whole."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        meta = self._map[132 : 144 + int.from_bytes(self._map[140:144], "little")]
        self.sop_class, self.instance = _meta_uid(meta, 2), _meta_uid(meta, 3)
        self.data = memoryview(self._map)[132 + len(meta) :]

    def close(self) -> None:
        self.data.release()
        self._map.close()


def _meta_uid(meta: bytes, element: int) -> str:
    at = meta.index(struct.pack("<HH", 2, element) + b"UI")
    length = int.from_bytes(meta[at + 6 : at + 8], "little")
    return meta[at + 8 : at + 8 + length].rstrip(b"\0").decode()
