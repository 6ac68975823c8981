"""A client that sends whatever bytes it is told, and a listener for it whose timeouts are short."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from archive.dimse import contexts, wire
from archive.dimse.associate import AssociateRequest, Proposed, UserInformation
from archive.dimse.association import Association
from archive.dimse.connection import Timeouts
from archive.dimse.items import write_request
from archive.dimse.limits import Limits
from archive.dimse.listener import Listener, bind
from archive.dimse.negotiation import Accepted, Rejected
from archive.dimse.tls import ServerTLS
from archive.dimse.wire import HAS_DATA, Field

VERIFICATION, CT, MR = contexts.VERIFICATION, "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
QUICK = Timeouts(tls=0.5, acse=0.5, pdu=0.5, dimse=0.5, idle=0.5, send=0.5, connect=2.0)
PATIENT = Timeouts(tls=10, acse=10, pdu=10, dimse=10, idle=10, send=10, connect=5)


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""
        self.discarded = False

    def write(self, fragment: memoryview) -> None:
        self.data += fragment

    def discard(self) -> None:
        self.discarded = True


@dataclass
class Served:
    """A listener, and what its handler saw."""

    listener: Listener
    limits: Limits
    commands: list[wire.Command] = field(default_factory=list)
    sinks: list[Kept] = field(default_factory=list)
    over: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    associations: list[Association] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.listener.port

    def sink(self, command: wire.Command, _context: object) -> Kept | None:
        if command.field != Field.C_STORE_RQ:
            return None
        self.sinks.append(Kept())
        return self.sinks[-1]

    def answer_all(self, association: Association) -> None:
        """Success for every request."""
        self.associations.append(association)
        try:
            while (message := association.read_message(self.sink)) is not None:
                self.commands.append(message.command)
                if not message.command.is_response:
                    association.send_message(message.context, wire.encode_response(message.command, 0))
        finally:
            self.over.release()


class Everyone:
    """A policy that lets everybody in, or whatever `decide` says."""

    def __init__(self, decide: Callable[[AssociateRequest], Accepted | Rejected] | None = None) -> None:
        table = contexts.table()
        self.decide = decide or (lambda request: Accepted(table, known=True))
        self.names: tuple[str, ...] | None = None

    def admit(self, address: str) -> bool:
        return True

    def negotiate(
        self, request: AssociateRequest, address: str, tls_names: tuple[str, ...] | None
    ) -> Accepted | Rejected:
        self.names = tls_names
        return self.decide(request)


@contextmanager
def serving(
    handler: Callable[[Served, Association], None] | None = None,
    *,
    policy: Everyone | None = None,
    timeouts: Timeouts = PATIENT,
    tls: ServerTLS | None = None,
    limits: Limits | None = None,
) -> Iterator[Served]:
    limits = limits or Limits()
    served = Served(Listener(bind("127.0.0.1", 0), tls=tls, timeouts=timeouts, limits=limits), limits)
    serve = served.answer_all if handler is None else lambda association: handler(served, association)
    served.listener.start(serve, policy or Everyone())
    try:
        yield served
    finally:
        served.listener.stop(5.0)


class Raw:
    """A TCP client without manners."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 10, source_address=(source, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def pdu(self) -> tuple[int, bytes] | None:
        """The next PDU; None when the other side closed."""
        header = self.exactly(6)
        if len(header) < 6:
            return None
        kind, length = wire.PDU_HEADER.unpack(header)
        return kind, self.exactly(length)

    def exactly(self, size: int) -> bytes:
        data = b""
        try:
            while len(data) < size:
                more = self.sock.recv(size - len(data))
                if not more:
                    break
                data += more
        except ConnectionResetError:
            pass
        return data

    def abort(self) -> tuple[int, int] | None:
        """Source and reason of the A-ABORT that is expected; None when the connection just closed."""
        found = self.pdu()
        if found is None:
            return None
        assert found[0] == wire.ABORT, found
        return found[1][2], found[1][3]

    def closed(self) -> bool:
        """Is the other side's end of the connection reached?"""
        return self.pdu() is None

    def associate(self, request: bytes | None = None) -> bytes:
        self.send(request or association_request())
        found = self.pdu()
        assert found is not None and found[0] == wire.ASSOCIATE_AC, found
        return found[1]

    def command(self) -> wire.Command:
        """The next message's command; it is in one fragment and has no data set."""
        found = self.pdu()
        assert found is not None and found[0] == wire.P_DATA, found
        return wire.decode_command(found[1][6:])

    def release(self) -> None:
        self.send(wire.RELEASE_REQUEST)
        assert self.pdu() == (wire.RELEASE_RP, b"\0\0\0\0")


def association_request(
    names: Sequence[str] = (VERIFICATION, CT, MR, FIND),
    syntaxes: Sequence[str] = (EXPLICIT, IMPLICIT),
    *,
    calling: str = "RAW",
    called: str = "ARCHIVE",
    user: UserInformation | None = None,
) -> bytes:
    """An A-ASSOCIATE-RQ; the contexts have the ids 1, 3, 5 and so on."""
    proposed = tuple(Proposed(2 * i + 1, name, tuple(syntaxes)) for i, name in enumerate(names))
    return write_request(AssociateRequest(calling, called, proposed, user or UserInformation(16384)))


def data_pdu(*fragments: tuple[int, int, bytes]) -> bytes:
    """A P-DATA PDU of fragments: context, control, bytes."""
    body = b"".join(struct.pack(">IBB", len(data) + 2, context, control) + data for context, control, data in fragments)
    return wire.PDU_HEADER.pack(wire.P_DATA, len(body)) + body


def echo(message_id: int = 1) -> bytes:
    return wire.encode_command(
        {"AffectedSOPClassUID": VERIFICATION, "CommandField": Field.C_ECHO_RQ, "MessageID": message_id}
    )


def store(message_id: int = 1, instance: str = "1.2.3") -> bytes:
    return wire.encode_command(
        {
            "AffectedSOPClassUID": CT,
            "CommandField": Field.C_STORE_RQ,
            "MessageID": message_id,
            "Priority": 0,
            "CommandDataSetType": HAS_DATA,
            "AffectedSOPInstanceUID": instance,
        }
    )


def find(message_id: int = 1) -> bytes:
    return wire.encode_command(
        {
            "AffectedSOPClassUID": FIND,
            "CommandField": Field.C_FIND_RQ,
            "MessageID": message_id,
            "Priority": 0,
            "CommandDataSetType": HAS_DATA,
        }
    )


def cancel(message_id: int = 1) -> bytes:
    return wire.encode_command({"CommandField": Field.C_CANCEL_RQ, "MessageIDBeingRespondedTo": message_id})
