"""What becomes of a message: read, checked, carried out, acknowledged.

Rules that hold here: AA only after the message and all it changes are durable; a message is known by its sender and
control ID, the same again is acknowledged again without effect, other content under the same ID is refused; every
message is kept with what was answered; whatever a message does, there is an answer and the connection goes on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection

from archive.errors import ArchiveError, NotUnderstood
from archive.hl7 import acknowledge
from archive.hl7.acknowledge import Reply, acknowledgement
from archive.hl7.mapping import FieldMap
from archive.hl7.message import Message
from archive.hl7.requests import LONGEST_KEY, Request, Unfit, read_request
from archive.index.ordervalues import Applied, NewMessage
from archive.services.orders import Orders

log = logging.getLogger(__name__)

_ANSWERS = {
    Applied.DONE: Reply(),
    Applied.REPEATED: Reply(),
    Applied.DIFFERENT: Reply(acknowledge.DUPLICATE_KEY, "message control ID was used for another message", "MSH-10"),
    Applied.OTHER_ORDER: Reply(
        acknowledge.DUPLICATE_KEY, "Study Instance UID is that of an order with other numbers", "ZDS-1"
    ),
    Applied.UNKNOWN_ORDER: Reply(acknowledge.UNKNOWN_KEY, "order is not known", "ORC-2"),
}


class NotAdmitted(Exception):  # noqa: N818 - closes the connection
    """The sender is not one of those that may send."""


class Inbound:
    """Takes messages for one archive; thread-safe."""

    def __init__(
        self,
        orders: Orders,
        *,
        clock: Callable[[], float],
        fields: FieldMap,
        charset: str,
        application: str,
        senders: Collection[str] = (),
    ) -> None:
        """``senders`` are the sending applications (MSH-3, or MSH-3|MSH-4) that may send; empty is all."""
        self._orders = orders
        self._clock = clock
        self._fields = fields
        self._charset = charset
        self._application = application
        self._senders = frozenset(senders)

    def receive(self, data: bytes, address: str) -> bytes:
        """The acknowledgement of one message; raises NotAdmitted."""
        reply, kind = self._settled(data, address)
        level = logging.INFO if reply.condition == acknowledge.ACCEPTED else logging.WARNING
        log.log(level, "HL7 %s from %s: %s %s", kind or "message", address, reply.code, reply.words)
        return acknowledgement(data, reply, self._clock(), application=self._application)

    def _settled(self, data: bytes, address: str) -> tuple[Reply, str]:
        try:
            message = Message(data, default_charset=self._charset)
        except NotUnderstood as error:
            reply = Reply(acknowledge.SEQUENCE_ERROR, error.comment)
            return self._refused(data, address, None, reply), ""
        except Exception:
            log.exception("HL7 message from %s cannot be read by a fault of the archive", address)
            return Reply(acknowledge.INTERNAL, "internal error"), ""
        if self._senders and not {message.sender, message.sender.partition("|")[0]} & self._senders:
            raise NotAdmitted(f"sender {message.sender[:60]} may not send")
        try:
            return self._carried_out(message, address), message.kind
        except Unfit as unfit:
            return self._refused(data, address, message, unfit.reply), message.kind
        except ArchiveError as error:
            log.error("HL7 %s from %s failed: %s", message.kind, address, error)
            return Reply(acknowledge.INTERNAL, error.comment), message.kind
        except Exception:
            log.exception("HL7 %s failed by a fault of the archive", message.kind)
            return Reply(acknowledge.INTERNAL, "internal error"), message.kind

    def _carried_out(self, message: Message, address: str) -> Reply:
        if not message.control_id:
            raise Unfit(Reply(acknowledge.REQUIRED_MISSING, "message control ID is missing", "MSH-10"))
        if max(len(message.control_id), len(message.sender)) > LONGEST_KEY:
            raise Unfit(Reply(acknowledge.DATA_TYPE, "control ID or sender is too long", "MSH-10"))
        request = read_request(message, self._fields)
        kept = self._kept(message.data, address, message, Reply(), request)
        applied = self._orders.take(kept, request.orders, request.patients, request.tasks)
        if applied is Applied.DIFFERENT:
            log.error("%s sent other content under the control ID of an earlier message", kept.sender)
        reply = _ANSWERS[applied]
        if reply.condition != acknowledge.ACCEPTED:
            raise Unfit(reply)
        return reply

    def _refused(self, data: bytes, address: str, message: Message | None, reply: Reply) -> Reply:
        try:
            self._orders.refuse(self._kept(data, address, message, reply, Request()))
        except ArchiveError as error:
            log.error("refused HL7 message is not kept: %s", error)
        return reply

    def _kept(self, data: bytes, address: str, message: Message | None, reply: Reply, request: Request) -> NewMessage:
        values, sender, control_id = request.attributes, "", ""
        if message:  # in an index of the database a longer one has no room
            sender, control_id = message.sender[:LONGEST_KEY], message.control_id[:LONGEST_KEY]
        return NewMessage(
            sender=sender,
            address=address,
            control_id=control_id,
            digest=hashlib.sha256(data).hexdigest(),
            kind=message.kind if message else "",
            received=self._clock(),
            code=reply.code,
            reason=f"{reply.words} ({reply.where})" if reply.where else reply.words,
            content=data,
            patient_id=str(values.get("PatientID", "")),
            accession_number=str(values.get("AccessionNumber", "")),
        )
