"""The one sender: stored objects out over an association, for C-MOVE, C-GET and ``archive send``.

Rules that hold here: stored bytes go out as they are on a context of their own transfer syntax, and
are converted only when the receiver took no such context; the next file is opened, and the kernel told
to read it, while the receiver still thinks about this one; what goes wrong with one object (a damaged
file, pixels nobody can convert, a refusal) fails that object alone; what goes wrong with the
association is raised, and the association is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from archive.dicom.coerce import Change
from archive.dicom.convert import convert, converted
from archive.dimse import statuses
from archive.dimse.association import Association, Message
from archive.dimse.negotiation import Context
from archive.dimse.planning import UNCOMPRESSED, Routes
from archive.dimse.reasons import Aborted
from archive.dimse.tally import Result, Sent
from archive.dimse.wire import HAS_DATA, Command, Field, Value, encode_command
from archive.errors import ArchiveError, NotTranscodable, saying
from archive.services.hooks import sent_uid
from archive.services.outgoing import Outgoing, Receiver, mapped
from archive.services.retrieve import OpenFile
from archive.services.sendable import Codec, Sendable

MEDIUM = 0x0000  # Priority (0000,0700), PS3.7 E.1


I = TypeVar("I", bound=Sendable)  # noqa: E741 - the item


@dataclass(frozen=True, slots=True)
class Originator:
    """Who asked for the C-MOVE behind these stores (0000,1030) and (0000,1031)."""

    aet: str
    message_id: int


class Sender(Generic[I]):
    """Sends objects over one association, one after the other; belongs to the association's thread."""

    def __init__(
        self,
        association: Association,
        open_file: Callable[[I], OpenFile],
        codec: Codec | None = None,
        *,
        originator: Originator | None = None,
        defer: Callable[[Message], None] | None = None,
        outgoing: Outgoing | None = None,
    ) -> None:
        """``defer`` takes requests of the peer that come while its answer is waited for; without it none may come.

        ``outgoing`` says what is changed in an object on its way out.
        """
        self._association = association
        self._routes = Routes(association.contexts.values())
        self._open_file = open_file
        self._codec = codec
        self._originator = originator
        self._defer = defer
        self._outgoing = outgoing
        self._receiver = receiver_of(association) if outgoing is not None else None
        self._changes: Sequence[Change] = ()
        self._ahead: tuple[I, OpenFile] | None = None

    def send(self, item: I, following: I | None = None) -> Sent:
        """Send one object and wait for its response; ``following`` is read ahead meanwhile."""
        try:
            with self._opened(item) as file:
                message_id = self._transmit(item, file)
        except ArchiveError as error:
            return Sent(item.sop_instance_uid, Result.FAILED, reason=str(error), temporary=error.temporary)
        except OSError as error:
            # Half a data set is out already, and there is no way to take it back but to end the association.
            self._association.abort(words=f"stored file cannot be read: {error.strerror}")
            raise Aborted(self._association.ending) from error
        self._read_ahead(following)
        return sent(item, self._response(message_id))

    def close(self) -> None:
        """Drop what was opened ahead; the association is not touched."""
        if self._ahead is not None:
            self._ahead[1].close()
            self._ahead = None

    def _opened(self, item: I) -> OpenFile:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] is item:
            return ahead[1]
        if ahead is not None:
            ahead[1].close()
        return self._open_file(item)

    def _read_ahead(self, following: I | None) -> None:
        if following is None:
            return
        try:
            file = self._open_file(following)
        except ArchiveError:
            return  # said when its turn comes
        file.read_ahead()
        self._ahead = (following, file)

    def _transmit(self, item: I, file: OpenFile) -> int:
        if self._outgoing is not None and self._receiver is not None:
            self._changes = self._outgoing.changes(item, self._receiver, file)
        stored = file.transfer_syntax or item.transfer_syntax
        if self._routes.stored(item.sop_class_uid, stored) is not None:
            return self._send_file(item, stored, file.fd, file.offset, file.size)
        accepted = self._routes.syntaxes(item.sop_class_uid)
        if not accepted:
            raise NotTranscodable("receiver takes no such SOP class", item.sop_class_uid)
        return self._transmit_converted(item, file, stored, accepted)

    def _transmit_converted(self, item: I, file: OpenFile, stored: str, accepted: Sequence[str]) -> int:
        target = next((syntax for syntax in accepted if syntax in UNCOMPRESSED), None)
        if stored in UNCOMPRESSED and target is not None:
            with mapped(file) as data:
                for _ in self._converted(data, stored, target):
                    pass  # a fault must show before the first byte is sent: what has begun cannot be taken back
                return self._stream(item, target, self._converted(data, stored, target))
        if self._codec is None or file.path is None:
            raise NotTranscodable("receiver does not take the stored transfer syntax", stored)
        with self._codec.transcode(file.link, accepted) as coded, coded.path.open("rb") as source:
            return self._send_file(item, coded.transfer_syntax, source.fileno(), coded.offset, coded.size)

    def _converted(self, data: memoryview, syntax: str, target: str) -> Iterator[bytes]:
        if self._outgoing is None or not self._changes:
            return convert(data, syntax, target)
        return converted(self._outgoing.changed(data, syntax, self._changes), syntax, target)

    def _send_file(self, item: I, syntax: str, fd: int, offset: int, size: int) -> int:
        if self._outgoing is not None and self._changes:
            with mapped(OpenFile(fd, offset, size)) as data:
                return self._stream(item, syntax, self._outgoing.changed(data, syntax, self._changes))
        context, message_id = self._route(item, syntax), self._association.next_message_id()
        self._association.send_file(context, self._command(item, message_id), fd, offset, size)
        return message_id

    def _stream(self, item: I, syntax: str, chunks: Iterable[bytes]) -> int:
        context, message_id = self._route(item, syntax), self._association.next_message_id()
        self._association.send_stream(context, self._command(item, message_id), chunks)
        return message_id

    def _route(self, item: I, syntax: str) -> Context:
        context = self._routes.stored(item.sop_class_uid, syntax)
        if context is None:
            raise NotTranscodable("receiver does not take the converted transfer syntax", syntax)
        return context

    def _command(self, item: I, message_id: int) -> bytes:
        fields: dict[str, Value] = {
            "AffectedSOPClassUID": item.sop_class_uid,
            "CommandField": Field.C_STORE_RQ,
            "MessageID": message_id,
            "Priority": MEDIUM,
            "CommandDataSetType": HAS_DATA,
            "AffectedSOPInstanceUID": sent_uid(item, item.sop_instance_uid),
        }
        if self._originator is not None:
            fields["MoveOriginatorApplicationEntityTitle"] = self._originator.aet
            fields["MoveOriginatorMessageID"] = self._originator.message_id
        return encode_command(fields)

    def _response(self, message_id: int) -> Command:
        """The response to our request."""
        while (message := self._association.read_message()) is not None:
            command = message.command
            if command.field == Field.C_STORE_RSP and command.message_id == message_id:
                return command
            if command.is_response or self._defer is None:
                self._association.abort(words="another message came where the response to C-STORE was due")
                raise Aborted(self._association.ending)
            self._defer(message)
        raise Aborted("the peer released before its response to C-STORE")


def sent(item: Sendable, response: Command) -> Sent:
    """What the receiver's answer means for one object; an object it has already has arrived."""
    status, words = response.status, response.comment
    if status in (statuses.SUCCESS, statuses.DUPLICATE_INSTANCE):
        return Sent(item.sop_instance_uid, Result.SENT, status)
    result = Result.WARNING if statuses.is_warning(status) else Result.FAILED
    reason = saying(f"receiver answered {statuses.meaning(status)}", words)
    return Sent(item.sop_instance_uid, result, status, reason, temporary=statuses.may_pass(status))


def receiver_of(association: Association) -> Receiver:
    """Who is at the other end, as the sources of changes know it."""
    titles = association.calling, association.called
    local, remote = titles if association.requestor else reversed(titles)
    return Receiver(remote, local, association.address, association.connection.local_address)
