"""We ask a peer to commit instances: N-ACTION, and its report on the same association while that lasts (PS3.4 J.3).

Rules that hold here: what is asked was written down before, so that a report finds it wherever and however soon it
comes; whoever waits is woken by the association or by the index, whichever hears first, and waits no longer than told.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

from archive.dicom.references import Reference, encode_request
from archive.dimse import statuses
from archive.dimse.access import Grant
from archive.dimse.association import Association, Message
from archive.dimse.commitment import REQUEST, take_report
from archive.dimse.contexts import COMMITMENT, COMMITMENT_INSTANCE
from archive.dimse.destinations import Destination
from archive.dimse.reasons import Ended
from archive.dimse.reports import proposals
from archive.dimse.server import perform, respond
from archive.dimse.session import Done, Session, caller_of
from archive.dimse.statuses import Service
from archive.dimse.wire import HAS_DATA, Field, encode_command
from archive.errors import Refused, Unreachable, saying
from archive.index import Wakes
from archive.services.commitment import Asking


class Request:
    """An association with a peer, on which it is asked, and may report."""

    def __init__(self, association: Association, peer: str, asking: Asking) -> None:
        self._association = association
        self._asking = asking
        self._take = ReportHere(asking, peer)
        grant = Grant(peer, None, frozenset())
        self._session = Session(association, grant, caller_of(grant, association.address, 0))
        context = association.context_for(COMMITMENT)
        if context is None:
            raise Refused("peer does not accept storage commitment", peer)
        self._context = context

    def ask(self, transaction: str, references: Sequence[Reference]) -> None:
        """Returns when the peer has taken the request; raises Refused. A report that comes before is taken."""
        association, context = self._association, self._context
        message_id = association.next_message_id()
        command = encode_command(
            {
                "RequestedSOPClassUID": COMMITMENT,
                "CommandField": int(Field.N_ACTION_RQ),
                "MessageID": message_id,
                "CommandDataSetType": HAS_DATA,
                "RequestedSOPInstanceUID": COMMITMENT_INSTANCE,
                "ActionTypeID": REQUEST,
            }
        )
        association.send_message(context, command, encode_request(transaction, references, context.transfer_syntax))
        while True:
            message = association.read_message()
            if message is None:
                raise Unreachable("peer released before its answer", association.called)
            if message.command.is_response and message.command.message_id == message_id:
                return _check(message)
            self._serve(message)

    def wait(self, wakes: Wakes, settled: Callable[[], bool], patience: float) -> bool:
        """Until `settled`, asked again whenever a report may have come: here, or by the index to any process."""
        until = monotonic() + patience
        poll = select.poll()
        poll.register(wakes.fileno(), select.POLLIN)
        poll.register(self._association.connection.fileno(), select.POLLIN)
        while not settled():
            left = until - monotonic()
            if left <= 0:
                return False
            if not self._association.closed and self._association.has_begun():
                self._read(left)
                continue
            if self._association.closed:
                return wait_elsewhere(wakes, settled, left)
            poll.poll(1000 * left)
            wakes.take()
        return True

    def _read(self, left: float) -> None:
        message = self._association.read_message(timeout=left)
        if message is not None and not message.command.is_response:
            self._serve(message)

    def _serve(self, message: Message) -> None:
        if message.command.field == Field.N_EVENT_REPORT_RQ:
            respond(self._association, message, perform(self._take, self._session, message))
        elif not message.command.is_response:
            answer = statuses.Answer(statuses.UNRECOGNIZED_OPERATION, "not supported")
            respond(self._association, message, Done(answer, answer.comment))


class ReportHere:
    """The report of a peer on the association on which it was asked."""

    name = "N-EVENT-REPORT"
    service = Service.COMMIT

    def __init__(self, asking: Asking, peer: str) -> None:
        self._asking = asking
        self._peer = peer

    def __call__(self, session: Session, message: Message) -> Done:
        return take_report(self._asking, self._peer, message)


@contextmanager
def requesting(destination: Destination, asking: Asking) -> Iterator[Request]:
    """An association to ask on; however it ends, what leaves here is an error of the archive."""
    association = destination.connect(proposals(destination))
    try:
        with association:
            yield Request(association, destination.aet, asking)
    except Ended as ended:
        raise Unreachable("association lost", ended.words) from ended


def wait_elsewhere(wakes: Wakes, settled: Callable[[], bool], patience: float) -> bool:
    """Until `settled` by a report that comes to another process."""
    until = monotonic() + patience
    poll = select.poll()
    poll.register(wakes.fileno(), select.POLLIN)
    while not settled():
        left = until - monotonic()
        if left <= 0:
            return False
        poll.poll(1000 * left)
        wakes.take()
    return True


def _check(message: Message) -> None:
    command = message.command
    if command.status != statuses.SUCCESS and not statuses.is_warning(command.status):
        raise Refused("N-ACTION refused", saying(statuses.meaning(command.status), command.comment))
