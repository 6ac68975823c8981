"""Serves an association: each message to its verb, each outcome to a status and a line in the log.

Rules that hold here: a verb runs only on a presentation context of its own service, whatever the
command says, and only when the caller may use it, checked again for every message; what a verb raises
becomes a status by the one table; a fault of ours is answered too, so that no request stays without a
response.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from archive.dimse import statuses
from archive.dimse.access import PERMISSIONS
from archive.dimse.association import Association, Message, Sink, SinkFor
from archive.dimse.negotiation import Context
from archive.dimse.reasons import Ended
from archive.dimse.session import Done, Session, Verb
from archive.dimse.statuses import Answer
from archive.dimse.store import StoreObject
from archive.dimse.wire import Command, Field, encode_response
from archive.errors import ArchiveError, NotAllowed

LOG = logging.getLogger(__name__)

N_SERVICES = frozenset(
    {
        Field.N_EVENT_REPORT_RQ,
        Field.N_GET_RQ,
        Field.N_SET_RQ,
        Field.N_ACTION_RQ,
        Field.N_CREATE_RQ,
        Field.N_DELETE_RQ,
    }
)


@dataclass(frozen=True, slots=True)
class Verbs:
    """What is served: command field -> permission of the context -> verb."""

    store: StoreObject
    others: Mapping[int, Mapping[str, Verb]]

    def find(self, command: Command, context: Context) -> Verb | Answer:
        """The verb for a command on a context, or how the command is refused."""
        if command.field == Field.C_STORE_RQ:
            return self.store
        if command.field not in self.others:
            known = command.field in N_SERVICES
            return Answer(statuses.CLASS_NOT_SUPPORTED if known else statuses.UNRECOGNIZED_OPERATION, "not supported")
        verb = self.others[command.field].get(PERMISSIONS.get(context.abstract_syntax, "store"))
        serving = context.scp or command.field == Field.N_EVENT_REPORT_RQ  # that one comes to the SCU
        if verb is None or not serving or command.sop_class != context.abstract_syntax:
            return Answer(statuses.CLASS_NOT_SUPPORTED, "not on this presentation context", (statuses.AFFECTED_CLASS,))
        return verb


class Server:
    """Handles the associations of a listener, each in its own thread."""

    def __init__(
        self,
        verbs: Verbs,
        *,
        max_results: int = 0,
        released: Callable[[Session], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``released`` is told of every association that the peer released in good order."""
        self._verbs = verbs
        self._released = released
        self._max_results = max_results
        self._clock = clock

    def handle(self, association: Association) -> None:
        """Serve until the peer releases; an association that ends otherwise leaves as ``Ended``."""
        session = Session.of(association, self._max_results)
        while (message := self._next(session)) is not None:
            if not message.command.is_response:
                self._serve(session, message)
        self._end(session)

    def _end(self, session: Session) -> None:
        try:
            self._released(session)
        except ArchiveError as error:
            LOG.warning("%s: what its association leaves behind is not noted: %s", session.caller.aet, error)

    def _next(self, session: Session) -> Message | None:
        def sink(command: Command, context: Context) -> Sink | None:
            return self._verbs.store.sink(session, command, context)

        if session.deferred:
            return _delivered(session.deferred.popleft(), sink)
        return session.association.read_message(sink)

    def _serve(self, session: Session, message: Message) -> None:
        """One operation from request to final response and log line."""
        began = self._clock()
        name, done = self._perform(session, message)
        if message.sink is not None:
            message.sink.discard()
        respond(session.association, message, done)
        LOG.log(
            _level(message.command, done.answer.status),
            "%s %s: %s, %s, %d ms",
            session.caller.aet,
            name,
            done.words,
            statuses.meaning(done.answer.status),
            1000 * (self._clock() - began),
        )
        if done.after is not None:
            follow_up(name, done.after)

    def _perform(self, session: Session, message: Message) -> tuple[str, Done]:
        verb = self._verbs.find(message.command, message.context)
        if isinstance(verb, Answer):
            return f"command 0x{message.command.field:04x}", Done(verb, verb.comment)
        permission = PERMISSIONS.get(message.context.abstract_syntax, "store")
        reported = message.command.field == Field.N_EVENT_REPORT_RQ  # to us, who asked for it
        if verb is not self._verbs.store and not reported and not session.grant.permits(permission):
            error = NotAllowed(f"not allowed to use {verb.name} here")
            return verb.name, Done(statuses.answer_for(error, verb.service), error.comment)
        return verb.name, perform(verb, session, message)


def perform(verb: Verb, session: Session, message: Message) -> Done:
    """Run a verb; what it raises becomes the answer. Only ``Ended`` passes."""
    try:
        return verb(session, message)
    except Ended:
        raise
    except ArchiveError as error:
        return Done(statuses.answer_for(error, verb.service), f"{message.command.sop_instance} {error}".strip())
    except Exception:
        LOG.exception("%s failed by a fault of the archive", verb.name)
        return Done(Answer(statuses.PROCESSING_FAILURE, "internal error, see the archive's log"), "internal error")


def follow_up(name: str, after: Callable[[], None]) -> None:
    """What a verb left to do until its response was out; only `Ended` passes."""
    try:
        after()
    except Ended:
        raise
    except ArchiveError as error:
        LOG.warning("what follows %s failed: %s", name, error)
    except Exception:
        LOG.exception("what follows %s failed by a fault of the archive", name)


def respond(association: Association, message: Message, done: Done) -> None:
    """The final response."""
    has_data = done.data is not None
    command = encode_response(message.command, done.answer.status, has_data=has_data, extra=done.response())
    association.send_message(message.context, command, done.data)


def _delivered(message: Message, sink: SinkFor) -> Message:
    """A request that was kept, its data set given to where it would have gone."""
    target = sink(message.command, message.context) if message.data is not None else None
    if target is None or message.data is None:
        return message
    target.write(memoryview(message.data))
    return message._replace(data=None, sink=target)


def _level(command: Command, status: int) -> int:
    """Failures stand out; objects that were stored are counted by the line that ends their association."""
    if _is_failure(status):
        return logging.WARNING
    return logging.DEBUG if command.field == Field.C_STORE_RQ else logging.INFO


def _is_failure(status: int) -> bool:
    return status != statuses.SUCCESS and status != statuses.CANCELLED and not statuses.is_warning(status)

