"""C-STORE: an object comes in (PS3.4 annex B).

Rules that hold here: the data set streams into the service while it arrives and is never held here;
an object that is refused early is still read to its end, because the association goes on; whether the
object is what its command says is the service's business.
"""

from __future__ import annotations

import logging

from archive.dimse import statuses
from archive.dimse.access import PERMISSIONS
from archive.dimse.association import Message, Sink
from archive.dimse.negotiation import Context
from archive.dimse.session import Done, Session
from archive.dimse.statuses import Answer, Service
from archive.dimse.wire import Command, Field
from archive.errors import ArchiveError, ClassMismatch, NotAllowed, NotUnderstood
from archive.index import Outcome
from archive.services.store import Origin, Reception, Store

LOG = logging.getLogger(__name__)

WORDS = {Outcome.STORED: "stored", Outcome.EQUAL: "already here"}


class Refusal:
    """Reads an object that will not be kept, and remembers why."""

    def __init__(self, error: ArchiveError) -> None:
        self.error = error

    def write(self, fragment: memoryview) -> None:
        """Forget it."""

    def discard(self) -> None:
        """Nothing was kept."""


class StoreObject:
    """Takes objects in through the one service that does."""

    name = "C-STORE"
    service = Service.STORE

    def __init__(self, store: Store) -> None:
        self._store = store

    def sink(self, session: Session, command: Command, context: Context) -> Sink | None:
        """Where the data set of a C-STORE request goes; None for other commands, which are collected."""
        if command.field != Field.C_STORE_RQ:
            return None
        try:
            check(session, command, context)
            association = session.association
            origin = Origin(
                session.grant.aet,
                association.called,
                association.address,
                session.default_charset,
                session.default_issuer,
                association.connection.local_address,
            )
            return self._store.receive(origin, command.sop_class, command.sop_instance, context.transfer_syntax)
        except ArchiveError as error:
            return Refusal(error)
        except Exception:
            LOG.exception("C-STORE failed by a fault of the archive")
            return Refusal(ArchiveError("internal error, see the archive's log"))

    def __call__(self, session: Session, message: Message) -> Done:
        sink = message.sink
        if isinstance(sink, Refusal):
            raise sink.error
        if not isinstance(sink, Reception):
            raise NotUnderstood("data set is missing")
        outcome = sink.finish()
        session.touch(sink.study_uid)
        return Done(Answer(statuses.SUCCESS), f"{message.command.sop_instance} {WORDS[outcome]}")


def check(session: Session, command: Command, context: Context) -> None:
    """What can be refused before the first byte of the data set is kept."""
    if PERMISSIONS.get(context.abstract_syntax, "store") != "store" or not context.scp:
        raise ClassMismatch("presentation context is not for storage")
    if command.sop_class != context.abstract_syntax:
        raise ClassMismatch("SOP Class UID differs from presentation context")
    if not session.grant.permits("store"):
        raise NotAllowed("not allowed to store here")
