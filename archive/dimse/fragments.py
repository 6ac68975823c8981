"""P-DATA taken apart: the fragments of messages as they come, whatever the PDUs around them (PS3.8 9.3.5).

Rules that hold here: a PDU is never gathered, its fragments are handed on in views as large as they have
come; every length is compared with what its PDU has left; PDUs other than P-DATA are judged by state 6
of PS3.8 table 9-10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from archive.dimse import wire
from archive.dimse.connection import PIECE, Connection
from archive.dimse.reasons import UNEXPECTED_PDU, UNRECOGNIZED_PDU, Aborted, ProtocolError, abort_words
from archive.dimse.wire import PDU_HEADER, PDV_HEADER, PDV_OVERHEAD

EXCESS = 4096  # some count the headers differently than PS3.8 D.1; this much over our maximum is let pass


class Fragment(NamedTuple):
    """The header of a presentation data value item; its `size` bytes are next in the connection."""

    size: int
    context_id: int
    control: int


class Fragments:
    """The receiving side of an association; `max_pdu` is what we announced, 0 = no limit."""

    def __init__(self, connection: Connection, max_pdu: int) -> None:
        self.waiting = False  # between messages: nothing is lost when we are stopped now
        self._connection = connection
        self._timeouts = connection.timeouts
        self._max_pdu = max_pdu
        self._left = 0  # bytes of the current P-DATA PDU that were not looked at
        self._piece = 0

    def next(self, *, started: bool) -> Fragment | None:
        """The next fragment; None when the peer asks for the release. `started`: within a message."""
        connection = self._connection
        if not self._left:
            if started and connection.start == connection.end:
                connection.expect(self._timeouts.dimse)
            kind, length = self.header()
            if kind != wire.P_DATA:
                self._other(kind, length)
                return None
            self._begin(length)
        if self._left < PDV_OVERHEAD:
            raise ProtocolError("a P-DATA PDU that ends before its fragment")
        if connection.end - connection.start < PDV_OVERHEAD:
            connection.need(PDV_OVERHEAD)
        length, context_id, control = PDV_HEADER.unpack_from(connection.buffer, connection.start)
        if length < 2 or length > self._left - 4:
            raise ProtocolError(f"a fragment of {length} bytes in the {self._left} that its PDU has left")
        connection.start += PDV_OVERHEAD
        self._left -= length + 4
        return Fragment(length - 2, context_id, control)

    def header(self) -> tuple[int, int]:
        """Type and length of the next PDU."""
        connection = self._connection
        if connection.start == connection.end:
            connection.fill()
        self.waiting = False
        connection.hurry = True
        connection.expect(self._timeouts.pdu)
        if connection.end - connection.start < PDU_HEADER.size:
            connection.need(PDU_HEADER.size)
        kind, length = PDU_HEADER.unpack_from(connection.buffer, connection.start)
        connection.start += PDU_HEADER.size
        return kind, length

    def _begin(self, length: int) -> None:
        if self._max_pdu and length > self._max_pdu + EXCESS:
            raise ProtocolError(f"a PDU of {length} bytes; the maximum agreed is {self._max_pdu}")
        if not length:
            raise ProtocolError("an empty P-DATA PDU")
        self._left = length
        self._piece = 0

    def _other(self, kind: int, length: int) -> None:
        if kind == wire.RELEASE_RQ:
            self.body(length)
        elif kind == wire.ABORT:
            raise abort_received(self.body(length))
        else:
            raise unexpected(kind, "within an association")

    def body(self, length: int) -> bytes:
        """What follows the header of a release, an abort or a rejection."""
        if length != 4:
            raise ProtocolError(f"a PDU of {length} bytes where four are due")
        return self._connection.read(length)

    def hand_on(self, size: int, write: Callable[[memoryview], object]) -> None:
        """`size` bytes of the current fragment, in views as large as they have come."""
        connection = self._connection
        buffer = connection.buffer
        while size:
            start = connection.start
            if start == connection.end:
                connection.fill()
                start = connection.start
            count = min(size, connection.end - start)
            write(buffer[start : start + count])
            connection.start = start + count
            size -= count
            self._piece += count
            if self._piece >= PIECE:
                self._piece = 0
                connection.expect(self._timeouts.pdu)

    def read(self, size: int) -> bytes:
        """`size` bytes of the current fragment, gathered."""
        return self._connection.read(size)

    def drop(self, size: int) -> None:
        """Throw `size` bytes away, under the deadline that stands."""
        connection = self._connection
        while size:
            if connection.start == connection.end:
                connection.fill()
            count = min(size, connection.end - connection.start)
            connection.start += count
            size -= count

    def drop_rest(self) -> None:
        """Throw away what the current PDU has left."""
        size, self._left = self._left, 0
        self.drop(size)

    def holds_message(self) -> bool:
        """Has a whole message come already?"""
        connection = self._connection
        return wire.holds_message(connection.buffer, connection.start, connection.end, self._left)

    def check_abort(self) -> None:
        """Raise Aborted when an A-ABORT is what has come next."""
        connection = self._connection
        if not self._left and connection.end - connection.start >= len(wire.RELEASE_REQUEST):
            kind, length = PDU_HEADER.unpack_from(connection.buffer, connection.start)
            if kind == wire.ABORT:
                connection.start += PDU_HEADER.size
                raise abort_received(self.body(length))


def abort_received(body: bytes) -> Aborted:
    source, reason = body[2], body[3]
    return Aborted(abort_words(source, reason) + " by the peer", source, reason)


def unexpected(kind: int, when: str) -> ProtocolError:
    """The A-ABORT for a PDU that has no place in the current state (PS3.8 table 9-10, AA-8)."""
    reason = UNEXPECTED_PDU if wire.ASSOCIATE_RQ <= kind <= wire.ABORT else UNRECOGNIZED_PDU
    return ProtocolError(f"PDU type {kind:02x} {when}", reason)
