"""An established association: DIMSE messages over P-DATA, and the ways it can end (PS3.8 9.2, PS3.7 6.3).

Rules that hold here: one thread owns an association and drives it inline, in either role; bytes of a
data set are handed on as they come, nothing waits for a whole PDU; messages keep their order, whatever
the asynchronous window; an ending is told to the peer with the source and reason of PS3.8 table 9-10,
logged once, and leaves as one of the exceptions of `reasons`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import monotonic

from archive.dimse import wire
from archive.dimse.associate import AssociateRequest, Context, UserIdentity
from archive.dimse.connection import Bytes, Connection
from archive.dimse.fragments import Fragments, abort_received, unexpected
from archive.dimse.messages import Message, MessageReader, Sink, SinkFor, delivered
from archive.dimse.outgoing import Outgoing
from archive.dimse.reasons import (
    NOT_SPECIFIED,
    USER,
    Aborted,
    Ended,
    ProtocolError,
    Stopped,
    abort_words,
)
from archive.dimse.wire import Field

__all__ = ["Association", "Message", "Sink", "SinkFor"]

log = logging.getLogger(__name__)

LARGEST_COLLECTED = 16 * 1024 * 1024  # a data set without a sink: identifiers and N-services, never objects
REMEMBERED = 64  # cancelled message ids: more than anybody has outstanding
CANNOT_UNDERSTAND = 0xC000  # PS3.7 annex C, the same for every service


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
        self._outgoing = Outgoing(connection, peer_max_pdu)
        self._fragments = Fragments(connection, max_pdu)
        self._reader = MessageReader(self._fragments, contexts, largest_collected)
        self._ahead: deque[Message] = deque()
        self._cancelled: deque[int] = deque(maxlen=REMEMBERED)
        self._last_id = 0
        self._stopping = False
        self.when_released: Callable[[], None] = lambda: None  # called before the peer's release is answered

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
            if self._outgoing.pending:
                self._outgoing.flush()
            if self._ahead:
                return delivered(self._ahead.popleft(), sink)
            self._fragments.waiting = True
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
            self._fragments.waiting = False
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

    def has_begun(self) -> bool:
        """Has something come that `read_message` would begin with? Never waits. Raises Aborted if the peer is gone."""
        try:
            self._look()
        except Ended as ending:
            raise self._fail(ending) from ending.__cause__
        return bool(self._ahead) or self.connection.end > self.connection.start

    def _look(self) -> None:
        here = self.connection.look()
        while len(self._ahead) < max(1, self.window[0]) and self._fragments.holds_message():
            message = self._read(None)
            if message is not None:
                self._ahead.append(message)
        self._fragments.check_abort()
        if not here:
            raise Aborted("the peer closed the connection during an operation")

    def _read(self, sink: SinkFor | None) -> Message | None:
        """One message; None for a C-CANCEL-RQ, an unusable message that was answered, or the release."""
        message = self._reader.read(sink)
        if message is None:
            self._finish("released", wire.RELEASE_REPLY)
            return None
        command = message.command
        if command.field == Field.C_CANCEL_RQ:
            self._cancelled.append(command.message_id)
            return None
        if not command.is_response and command.message_id in self._cancelled:
            self._cancelled.remove(command.message_id)  # the id is used again
        self.messages += 1
        if not message.astray:
            return message
        if not command.is_response:
            comment = {"ErrorComment": "Data set came on another presentation context"}
            self.send_message(message.context, wire.encode_response(command, CANNOT_UNDERSTAND, extra=comment))
        return None

    # -- sending ------------------------------------------------------------------------------

    def send_message(self, context: Context, command: bytes, data: bytes | None = None) -> None:
        """One message, in one call when nothing hinders."""
        with self._sending():
            self._outgoing.queue(context.id, command, data)
            self._outgoing.flush()

    def queue_message(self, context: Context, command: bytes, data: bytes | None = None) -> None:
        """A small message that may wait for others; sent by `flush`, by the next read, or when enough wait."""
        with self._sending():
            self._outgoing.queue(context.id, command, data)

    def flush(self) -> None:
        """Send what was queued."""
        if self._outgoing.pending:
            with self._sending(messages=0):
                self._outgoing.flush()

    def send_file(self, context: Context, command: bytes, fd: int, offset: int, size: int) -> None:
        """A message whose data set is `size` bytes of a file, straight from there.

        Raises OSError when they cannot be read; the association is aborted then, for half a message is out.
        """
        with self._sending():
            self._outgoing.send_file(context.id, command, fd, offset, size)

    def send_stream(self, context: Context, command: bytes, chunks: Iterable[Bytes]) -> None:
        """A message whose data set comes in chunks; the association is aborted when their source raises."""
        with self._sending():
            self._outgoing.send_stream(context.id, command, chunks)

    @contextmanager
    def _sending(self, messages: int = 1) -> Iterator[None]:
        if self.closed:
            raise Aborted(f"the association is over: {self.ending}")
        self.messages += messages
        try:
            yield
        except Ended as ending:
            raise self._fail(ending) from ending.__cause__
        except BaseException:
            self.abort(words="aborted by us: a data set could not be read to its end")
            raise

    # -- the end ------------------------------------------------------------------------------

    def release(self) -> None:
        """Release in good order; a peer that does not answer is aborted. Never raises `Ended`."""
        if self.closed:
            return
        try:
            self._outgoing.flush()
            self.connection.send([wire.RELEASE_REQUEST])
            self.connection.expect(self._timeouts.acse)
            self._await_release()
            self._finish("released")
        except Ended as ending:
            self._fail(ending)

    def _await_release(self) -> None:
        """States 7 to 12 of PS3.8 table 9-10: data that still comes is dropped, a collision is answered."""
        connection, fragments = self.connection, self._fragments
        collided = False
        fragments.drop_rest()
        while True:
            connection.need(wire.PDU_HEADER.size)
            kind, length = wire.PDU_HEADER.unpack_from(connection.buffer, connection.start)
            connection.start += wire.PDU_HEADER.size
            if kind == wire.RELEASE_RP:
                fragments.body(length)
                break
            if kind == wire.RELEASE_RQ and not collided:
                fragments.body(length)
                collided = True
                if self.requestor:
                    connection.send([wire.RELEASE_REPLY])  # AR-9: the requestor of the association goes first
            elif kind == wire.P_DATA and not collided:
                fragments.drop(length)
            elif kind == wire.ABORT:
                raise abort_received(fragments.body(length))
            else:
                raise unexpected(kind, "during the release")
        if collided and not self.requestor:
            connection.send([wire.RELEASE_REPLY])  # AR-4, after the requestor's reply

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

    def _finish(self, words: str, reply: bytes = b"") -> None:
        """Whoever gets our `reply` may call again at once, and should find us done: it comes last."""
        self.closed = True
        self.ending = words
        self._outgoing.drop()
        self._ahead.clear()
        self._log(len(reply))
        try:
            if reply:
                self.when_released()
                with suppress(Ended):  # released it is, whether the peer waits to hear so or not
                    self.connection.send([reply])
        finally:
            self.connection.hang_up()
            if self.requestor:
                self.connection.close()

    def _log(self, to_come: int) -> None:
        log.info(
            "association %s -> %s %s %s:%d: %s; %d messages, %d bytes in, %d out, %.1f s",
            self.calling,
            self.called,
            "at" if self.requestor else "from",
            self.address,
            self.port,
            self.ending,
            self.messages,
            self.connection.received,
            self.connection.sent + to_come,
            monotonic() - self.started,
        )

    # -- stopping, from another thread ----------------------------------------------------------

    def stop(self) -> None:
        """End at the next pause between messages; at once if there is one now."""
        self._stopping = True
        if self._fragments.waiting:
            self.connection.interrupt()

    def _check_stopping(self) -> None:
        if self._stopping:
            raise Stopped("the archive is stopping")
