"""Receivers for the objects we send: ones that take what they get, and ones that misbehave as told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from archive.dimse.association import Association, Message
from archive.dimse.listener import Listener, bind
from archive.dimse.negotiation import Accepted, AssociateRequest, Offer, Rejected, Table
from archive.dimse.wire import encode_response

from .archives import QUICK

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"

Answering = Callable[[Message], int | None]


@dataclass
class Receiver:
    """Keeps every data set it is sent, answers ``answering(message)``, or not at all when that is None."""

    answering: Answering
    table: Table
    port: int = 0
    requests: list[AssociateRequest] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def admit(self, address: str) -> bool:
        return True

    def negotiate(self, request: AssociateRequest, address: str, names: Sequence[str] | None) -> Accepted | Rejected:
        self.requests.append(request)
        return Accepted(self.table)

    def handle(self, association: Association) -> None:
        while (message := association.read_message()) is not None:
            self.messages.append(message)
            self.arrived.release()
            status = self.answering(message)
            if status is not None:
                association.send_message(message.context, encode_response(message.command, status))

    def uids(self) -> list[str]:
        return [message.command.sop_instance for message in self.messages]


@contextmanager
def receiving(
    answering: Answering = lambda _: 0x0000,
    classes: Collection[str] = (CT, MR),
    syntaxes: Collection[str] = (EXPLICIT, IMPLICIT),
) -> Iterator[Receiver]:
    offer = Offer(frozenset(syntaxes))
    receiver = Receiver(answering, Table(dict.fromkeys(classes, offer)))
    listener = Listener(bind("127.0.0.1", 0), timeouts=QUICK)
    receiver.port = listener.port
    listener.start(receiver.handle, receiver)
    try:
        yield receiver
    finally:
        listener.stop(0.5)
