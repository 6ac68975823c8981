"""An established association: DIMSE messages over P-DATA, and the ways it can end (PS3.8 9.2, PS3.7 6.3).

Rules that hold here: one thread owns an association and drives it inline, in either role; bytes of a
data set are handed on as they come, nothing waits for a whole PDU; messages keep their order, whatever
the asynchronous window; an ending is told to the peer with the source and reason of PS3.8 table 9-10,
logged once, and leaves as one of the exceptions of `reasons`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import NamedTuple, Protocol

from archive.dimse import wire
from archive.dimse.associate import AssociateRequest, Context, UserIdentity
from archive.dimse.connection import IOV_MAX, PIECE, Bytes, Connection
from archive.dimse.outgoing import Outgoing
from archive.dimse.reasons import (
    NOT_SPECIFIED,
    UNEXPECTED_PARAMETER,
    UNEXPECTED_PDU,
    UNRECOGNIZED_PDU,
    USER,
    Aborted,
    Ended,
    ProtocolError,
    Stopped,
    abort_words,
)
from archive.dimse.wire import COMMAND_BIT, LAST_BIT, PDU_HEADER, PDV_HEADER, PDV_OVERHEAD, Command, Field

log = logging.getLogger(__name__)

OWN_PDU = 256 * 1024  # what we send in one PDU when the peer sets no limit
EXCESS = 4096  # a peer may count the headers differently than PS3.8 D.1; this much over our maximum is let pass
LARGEST_COLLECTED = 16 * 1024 * 1024  # a data set without a sink: identifiers and N-services, never objects
QUEUED = 64 * 1024  # bytes of small messages that are worth a call
REMEMBERED = 64  # cancelled message ids: more than anybody has outstanding
CANNOT_UNDERSTAND = 0xC000  # PS3.7 annex C, the same for every service


class Sink(Protocol):
    """Takes a data set as it comes. A fragment is a view of a buffer that is used again after `write`."""

    def write(self, fragment: memoryview) -> object: ...

    def discard(self) -> object:
        """The rest will never come."""
        ...


class Message(NamedTuple):
    """A message: its data set if it has one and was collected, or the sink that took it."""

    command: Command
    context: Context
    data: bytes | None = None
    sink: Sink | None = None


SinkFor = Callable[[Command, Context], Sink | None]


class Association:
    """Who is at the other end, what was agreed, and the messages; made by `listener` and `requestor`."""

    def __init__(
        self,
        connection: Connection,
        request: AssociateRequest,
        contexts: dict[int, Context],
        *,
        requestor: bool,
        peer_max_pdu: int,
        max_pdu: int,
        peer: tuple[str, int],
        window: tuple[int, int] = (1, 1),
        tls_names: tuple[str, ...] | None = None,
        grant: object = None,
        refused: Mapping[int, int] | None = None,
        largest_collected: int = LARGEST_COLLECTED,
        number: int = 0,
    ) -> None:
        self.calling, self.called = request.calling, request.called
        self.address, self.port = peer
        self.request = request
        self.requestor = requestor
        self.contexts = contexts
        self.refused = dict(refused or {})  # context id -> result of PS3.8 table 9-18
        self.peer_max_pdu = peer_max_pdu
        self.window = window
        self.tls_names = tls_names
        self.grant = grant
        self.extended: Mapping[str, bytes] = request.extended
        self.identity_response: bytes | None = None
        self.implementation_class = request.implementation_class
        self.implementation_version = request.implementation_version
        self.name = f"{self.called if requestor else self.calling}@{self.address}#{number}"
        self.closed = False
        self.ending = ""
        self.messages = 0
        self.started = monotonic()
        self.connection = connection
        self._timeouts = connection.timeouts
        self._max_pdu = max_pdu
        self._largest_collected = largest_collected
        self._fragment = wire.fragment_size(peer_max_pdu, OWN_PDU)
        self._pdu_left = 0  # bytes of the current P-DATA PDU that were not looked at
        self._piece = 0
        self._ahead: deque[Message] = deque()
        self._cancelled: deque[int] = deque(maxlen=REMEMBERED)
        self._queue: list[Bytes] = []
        self._queued = 0
        self._outgoing: Outgoing | None = None
        self._last_id = 0
        self._waiting = False
        self._stopping = False

    def __enter__(self) -> Association:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.closed:
            return
        if kind is None:
            self.release()
        else:
            self.abort()

    @property
    def user_identity(self) -> UserIdentity | None:
        return self.request.identity

    @property
    def tls_name(self) -> str | None:
        """The first name in the peer's certificate."""
        return self.tls_names[0] if self.tls_names else None

    def next_message_id(self) -> int:
        """A message id that is not outstanding: they go round (PS3.7 E.1, 16 bits)."""
        self._last_id = self._last_id % 0xFFFF + 1
        return self._last_id

    def context_for(
        self, abstract_syntax: str, transfer_syntax: str | None = None, *, scp: bool = False
    ) -> Context | None:
        """An accepted context in which we may be the SCU (or, with `scp`, the SCP)."""
        for context in self.contexts.values():
            fits = context.abstract_syntax == abstract_syntax and (context.scp if scp else context.scu)
            if fits and transfer_syntax in (None, context.transfer_syntax):
                return context
        return None

    # -- receiving ----------------------------------------------------------------------------

    def read_message(self, sink: SinkFor | None = None, timeout: float | None = None) -> Message | None:
        """The next message; None when the peer released the association (answered already).

        With `sink(command, context)` returning a Sink, the data set goes there as it comes; otherwise it
        is collected, within bounds. A C-CANCEL-RQ is never returned, it is noted for `cancelled`. The
        timeout is for the beginning of the message: the idle timeout for an acceptor, the DIMSE timeout
        for a requestor unless told otherwise. Raises `Ended`.
        """
        try:
            if self._queue:
                self.flush()
            if self._ahead:
                return _delivered(self._ahead.popleft(), sink)
            self._waiting = True
            self._check_stopping()
            self.connection.expect(timeout or (self._timeouts.dimse if self.requestor else self._timeouts.idle))
            while not self.closed:
                message = self._read(sink)
                if message is not None:
                    return message
            return None
        except Ended as ending:
            raise self._fail(ending) from ending.__cause__
        finally:
            self._waiting = False
            self.connection.hurry = False

    def cancelled(self, message_id: int) -> bool:
        """Has the peer cancelled this operation? Never waits. Raises Aborted when the peer is gone.

        Messages that have come instead are kept in their order, no more than the window allows.
        """
        try:
            self._look()
        except Ended as ending:
            raise self._fail(ending) from ending.__cause__
        return message_id in self._cancelled

    def _look(self) -> None:
        connection = self.connection
        here = connection.look()
        while len(self._ahead) < max(1, self.window[0]) and self._holds_message():
            message = self._read(None)
            if message is not None:
                self._ahead.append(message)
        if not self._pdu_left and connection.end - connection.start >= 10:
            kind, _ = PDU_HEADER.unpack_from(connection.buffer, connection.start)
            if kind == wire.ABORT:
                self._header()
        if not here:
            raise Aborted("the peer closed the connection during an operation")

    def _holds_message(self) -> bool:
        connection = self.connection
        return wire.holds_message(connection.buffer, connection.start, connection.end, self._pdu_left)

    def _read(self, sink: SinkFor | None) -> Message | None:
        """One message; None for a C-CANCEL-RQ, an unusable message that was answered, or the release."""
        found = self._read_command()
        if found is None:
            return None
        command, context = found
        if command.field == Field.C_CANCEL_RQ:
            self._cancelled.append(command.message_id)
            return None
        if not command.is_response and command.message_id in self._cancelled:
            self._cancelled.remove(command.message_id)  # the id is used again
        self.messages += 1
        if not command.has_data:
            return Message(command, context)
        return self._read_data(command, context, sink)

    def _read_command(self) -> tuple[Command, Context] | None:
        parts = b""
        first = 0
        while True:
            fragment = self._next_fragment(started=bool(parts))
            if fragment is None:
                return None
            size, context_id, control = fragment
            if not control & COMMAND_BIT:
                raise ProtocolError("a data set before its command", UNEXPECTED_PARAMETER)
            if context_id not in self.contexts or (parts and context_id != first):
                raise ProtocolError(f"presentation context {context_id} was not accepted")
            if len(parts) + size > wire.LARGEST_COMMAND:
                raise ProtocolError("a command set of more than 64 kB")
            first = context_id
            parts += self.connection.read(size)
            if control & LAST_BIT:
                return wire.decode_command(parts), self.contexts[context_id]

    def _read_data(self, command: Command, context: Context, sink: SinkFor | None) -> Message | None:
        target = sink(command, context) if sink is not None else None
        if target is None:
            collected = _Collected(self._largest_collected)
            complete, astray = self._stream(context.id, collected.write)
            message = Message(command, context, collected.join())
        else:
            complete = False
            try:
                complete, astray = self._stream(context.id, target.write)
            finally:
                if not complete:
                    target.discard()
            message = Message(command, context, None, target)
        if complete and astray:
            self._refuse_astray(message)
        return message if complete and not astray else None

    def _stream(self, context_id: int, write: Callable[[memoryview], object]) -> tuple[bool, bool]:
        """The fragments of a data set. Returns whether it is complete, and whether it came on another context."""
        astray = False
        while True:
            fragment = self._next_fragment(started=True)
            if fragment is None:
                return False, astray
            size, number, control = fragment
            if control & COMMAND_BIT:
                raise ProtocolError("a command inside a data set", UNEXPECTED_PARAMETER)
            if number != context_id:
                if number not in self.contexts:
                    raise ProtocolError(f"presentation context {number} was not accepted")
                astray = True
            if size:
                self._hand_on(size, write)
            if control & LAST_BIT:
                return True, astray

    def _hand_on(self, size: int, write: Callable[[memoryview], object]) -> None:
        """`size` bytes of the current fragment, in views as large as they have come."""
        connection = self.connection
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

    def _refuse_astray(self, message: Message) -> None:
        if message.sink is not None:
            message.sink.discard()
        if not message.command.is_response:
            comment = {"ErrorComment": "Data set came on another presentation context"}
            self.send_message(
                message.context, wire.encode_response(message.command, CANNOT_UNDERSTAND, extra=comment)
            )

    # -- PDUs ---------------------------------------------------------------------------------

    def _next_fragment(self, *, started: bool) -> tuple[int, int, int] | None:
        """Size, context and control of the next fragment (PS3.8 9.3.5.1); None after a release."""
        connection = self.connection
        if not self._pdu_left:
            if started and connection.start == connection.end:
                connection.expect(self._timeouts.dimse)
            if not self._header():
                return None
        if self._pdu_left < PDV_OVERHEAD:
            raise ProtocolError("a P-DATA PDU that ends before its fragment")
        if connection.end - connection.start < PDV_OVERHEAD:
            connection.need(PDV_OVERHEAD)
        length, context_id, control = PDV_HEADER.unpack_from(connection.buffer, connection.start)
        if length < 2 or length > self._pdu_left - 4:
            raise ProtocolError(f"a fragment of {length} bytes in the {self._pdu_left} that its PDU has left")
        connection.start += PDV_OVERHEAD
        self._pdu_left -= length + 4
        return length - 2, context_id, control

    def _header(self) -> bool:
        """The next PDU header. True for P-DATA; False when the association was released."""
        connection = self.connection
        if connection.start == connection.end:
            connection.fill()
        self._waiting = False
        connection.hurry = True
        connection.expect(self._timeouts.pdu)
        if connection.end - connection.start < PDU_HEADER.size:
            connection.need(PDU_HEADER.size)
        kind, length = PDU_HEADER.unpack_from(connection.buffer, connection.start)
        connection.start += PDU_HEADER.size
        if kind != wire.P_DATA:
            return self._other(kind, length)
        if self._max_pdu and length > self._max_pdu + EXCESS:
            raise ProtocolError(f"a PDU of {length} bytes; the maximum agreed is {self._max_pdu}")
        if not length:
            raise ProtocolError("an empty P-DATA PDU")
        self._pdu_left = length
        self._piece = 0
        return True

    def _other(self, kind: int, length: int) -> bool:
        """PDUs other than P-DATA in state 6 (PS3.8 table 9-10)."""
        if kind == wire.RELEASE_RQ:
            self._body(length)
            self.connection.send([wire.RELEASE_REPLY])
            self._finish("released")
            return False
        if kind == wire.ABORT:
            raise _abort_received(self._body(length))
        if wire.ASSOCIATE_RQ <= kind <= wire.ABORT:
            raise ProtocolError(f"PDU type {kind:02x} within an association", UNEXPECTED_PDU)
        raise ProtocolError(f"PDU type {kind:02x}", UNRECOGNIZED_PDU)

    def _body(self, length: int) -> bytes:
        if length != 4:
            raise ProtocolError(f"a PDU of {length} bytes where four are due")
        return self.connection.read(length)

    # -- sending ------------------------------------------------------------------------------

    def send_message(self, context: Context, command: bytes, data: bytes | None = None) -> None:
        """One message, in one call when nothing hinders."""
        self._enqueue(context.id, command, data)
        self.flush()

    def queue_message(self, context: Context, command: bytes, data: bytes | None = None) -> None:
        """A small message that may wait for others; sent by `flush`, by the next read, or when enough wait."""
        self._enqueue(context.id, command, data)
        if self._queued >= QUEUED or len(self._queue) > IOV_MAX - 8:
            self.flush()

    def flush(self) -> None:
        """Send what was queued."""
        if self._queue:
            parts, self._queue, self._queued = self._queue, [], 0
            self._send(parts)

    def send_file(self, context: Context, command: bytes, fd: int, offset: int, size: int) -> None:
        """A message whose data set is `size` bytes of a file, straight from there; raises Ended or OSError.

        A file that ends too soon leaves a half message behind; the association is aborted then.
        """
        self._enqueue(context.id, command, None)
        self.flush()
        if self._outgoing is None:
            self._outgoing = Outgoing(self._fragment)
        try:
            self._outgoing.send(self.connection, context.id, fd, offset, size)
        except Ended as ending:
            raise self._fail(ending) from ending.__cause__
        except OSError:
            self.abort(words="aborted by us: a file could not be read")
            raise

    def send_stream(self, context: Context, command: bytes, chunks: Iterable[Bytes]) -> None:
        """A message whose data set comes in chunks of any size; at most one chunk is held back."""
        self._enqueue(context.id, command, None)
        held: Bytes = b""
        for chunk in chunks:
            if len(held):
                self._enqueue_data(context.id, held, last=False)
                self.flush()
            held = chunk
        self._enqueue_data(context.id, held, last=True)
        self.flush()

    def _enqueue(self, context_id: int, command: bytes, data: bytes | None) -> None:
        size = self._fragment
        for start in range(0, len(command), size):
            part = command[start : start + size] if len(command) > size else command
            last = start + size >= len(command)
            self._queue += (wire.data_header(context_id, len(part), command=True, last=last), part)
        self._queued += len(command)
        self.messages += 1
        if data is not None:
            self._enqueue_data(context_id, data, last=True)

    def _enqueue_data(self, context_id: int, data: Bytes, *, last: bool) -> None:
        size = self._fragment
        view = data if len(data) <= size else memoryview(data)
        for start in range(0, len(data) or 1, size):
            part = view[start : start + size] if len(data) > size else view
            ends = last and start + size >= len(data)
            self._queue += (wire.data_header(context_id, len(part), command=False, last=ends), part)
        self._queued += len(data)

    def _send(self, parts: list[Bytes]) -> None:
        if self.closed:
            raise Aborted(f"the association is over: {self.ending}")
        try:
            for start in range(0, len(parts), IOV_MAX):
                self.connection.send(parts[start : start + IOV_MAX] if len(parts) > IOV_MAX else parts)
        except Ended as ending:
            raise self._fail(ending) from ending.__cause__

    # -- the end ------------------------------------------------------------------------------

    def release(self) -> None:
        """Release in good order; a peer that does not answer is aborted. Never raises `Ended`."""
        if self.closed:
            return
        try:
            self.flush()
            self.connection.send([wire.RELEASE_REQUEST])
            self.connection.expect(self._timeouts.acse)
            self._await_release()
            self._finish("released")
        except Ended as ending:
            self._fail(ending)

    def _await_release(self) -> None:
        """States 7 to 12 of PS3.8 table 9-10: data that still comes is dropped, a collision is answered."""
        connection = self.connection
        collided = False
        connection.start += min(self._pdu_left, connection.end - connection.start)
        while True:
            connection.need(PDU_HEADER.size)
            kind, length = PDU_HEADER.unpack_from(connection.buffer, connection.start)
            connection.start += PDU_HEADER.size
            if kind == wire.RELEASE_RP:
                self._body(length)
                break
            if kind == wire.RELEASE_RQ and not collided:
                self._body(length)
                collided = True
                if self.requestor:
                    connection.send([wire.RELEASE_REPLY])  # AR-9: the requestor of the association goes first
            elif kind == wire.ABORT:
                raise _abort_received(self._body(length))
            elif kind == wire.P_DATA and not collided:
                self._drop(length)
            else:
                reason = UNEXPECTED_PDU if wire.ASSOCIATE_RQ <= kind <= wire.ABORT else UNRECOGNIZED_PDU
                raise ProtocolError(f"PDU type {kind:02x} during the release", reason)
        if collided and not self.requestor:
            connection.send([wire.RELEASE_REPLY])  # AR-4, after the requestor's reply

    def _drop(self, size: int) -> None:
        connection = self.connection
        while size:
            if connection.start == connection.end:
                connection.fill()
            count = min(size, connection.end - connection.start)
            connection.start += count
            size -= count

    def abort(self, source: int = USER, reason: int = NOT_SPECIFIED, words: str = "aborted by us") -> None:
        """End at once. Never raises."""
        if not self.closed:
            self.connection.send_now(wire.abort_pdu(source, reason))
            self._finish(words)

    def _fail(self, ending: Ended) -> Ended:
        """Tell the peer unless it told us, close, and return what to raise."""
        if isinstance(ending, Aborted) and self._stopping:
            ending = Stopped("the archive is stopping")
        if self.closed:
            return ending
        if not isinstance(ending, Aborted):
            self.connection.send_now(wire.abort_pdu(ending.source, ending.reason))
        said = abort_words(ending.source, ending.reason)
        self._finish(f"{ending.words}; we aborted ({said})" if isinstance(ending, ProtocolError) else ending.words)
        return ending

    def _finish(self, words: str) -> None:
        self.closed = True
        self.ending = words
        self._queue.clear()
        self._ahead.clear()
        self.connection.hang_up()
        if self.requestor:
            self.connection.close()
        self._log()

    def _log(self) -> None:
        log.info(
            "%s %s -> %s %s %s:%d: %s; %d messages, %d bytes in, %d out, %.1f s",
            "association",
            self.calling,
            self.called,
            "at" if self.requestor else "from",
            self.address,
            self.port,
            self.ending,
            self.messages,
            self.connection.received,
            self.connection.sent,
            monotonic() - self.started,
        )

    # -- stopping, from another thread ----------------------------------------------------------

    def stop(self) -> None:
        """End at the next pause between messages; at once if there is one now."""
        self._stopping = True
        if self._waiting:
            self.connection.interrupt()

    def _check_stopping(self) -> None:
        if self._stopping:
            raise Stopped("the archive is stopping")


class _Collected:
    """A data set in memory, bounded."""

    def __init__(self, largest: int) -> None:
        self._parts = bytearray()
        self._largest = largest

    def write(self, fragment: memoryview) -> None:
        if len(self._parts) + len(fragment) > self._largest:
            raise ProtocolError(f"a data set of more than {self._largest} bytes", NOT_SPECIFIED)
        self._parts += fragment

    def join(self) -> bytes:
        return bytes(self._parts)


def _delivered(message: Message, sink: SinkFor | None) -> Message:
    """A message that was read ahead, its data set given to the sink after all."""
    if sink is None or message.data is None:
        return message
    target = sink(message.command, message.context)
    if target is None:
        return message
    target.write(memoryview(message.data))
    return message._replace(data=None, sink=target)


def _abort_received(body: bytes) -> Aborted:
    source, reason = body[2], body[3]
    return Aborted(abort_words(source, reason) + " by the peer", source, reason)
