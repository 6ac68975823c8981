"""Storage commitment: N-ACTION of peers that ask, and N-EVENT-REPORT of peers that we have asked (PS3.4 annex J).

Rules that hold here: a request is durable before it is answered with success; one that could never be reported is
refused at once, with the reason; a report on the same association is sent after the response, by the thread that serves
it, under a lease of its task, so that what becomes of this process is nobody's loss.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from archive.dicom.references import decode_outcome, decode_request
from archive.dicom.uids import IMPLICIT_LITTLE
from archive.dimse import reports, statuses
from archive.dimse.association import Message
from archive.dimse.contexts import COMMITMENT_INSTANCE
from archive.dimse.reasons import Ended
from archive.dimse.session import Done, Session
from archive.dimse.statuses import Answer, Service
from archive.errors import ArchiveError, NotAllowed, Refused, Unreachable
from archive.index.commitment_tasks import Lease
from archive.index.commitments import ASKED, NewTransaction, Transaction
from archive.services.commitment import Asking, Commitment

if TYPE_CHECKING:
    from archive.config import Peer

LOG = logging.getLogger(__name__)

REQUEST = 1  # PS3.4 J.3.2.1.1, action type: request storage commitment
LEASE = 30.0  # seconds; what dies with its process is gone on with after so long
BEAT = 10.0


Heartbeat = Callable[[int, str, float], object]
"""Called with a task, its owner and for how many seconds the lease goes on."""


class Way(Enum):
    """On which association a peer takes its reports."""

    NEW = "commit_new_association"
    SAME = "commit_same_association"
    BOTH = "commit_both"


def way_of(peer: Peer) -> Way:
    return next((way for way in Way if way.value in peer.quirks), Way.NEW)


@dataclass(frozen=True, slots=True)
class Keeping:
    """How the task of a transaction is kept while its association is served: by whom, and by which clock."""

    owner: str
    heartbeat: Heartbeat
    clock: Callable[[], float]


class AskCommitment:
    """Takes requests for storage commitment."""

    name = "N-ACTION"
    service = Service.COMMIT

    def __init__(self, commitment: Commitment, keeping: Keeping) -> None:
        self._commitment = commitment
        self._keeping = keeping

    def __call__(self, session: Session, message: Message) -> Done:
        command = message.command
        if command.action_type != REQUEST:
            return Done(Answer(statuses.NO_SUCH_ACTION, "no such action type"), f"action type {command.action_type}")
        if command.sop_instance != COMMITMENT_INSTANCE:
            return Done(Answer(statuses.NO_SUCH_INSTANCE, "not the well-known SOP instance"), command.sop_instance)
        peer, way = reachable(session)
        here = way is not Way.NEW and fits(peer, message)
        transaction, items = decode_request(message.data, message.context.transfer_syntax)
        new = NewTransaction(
            ASKED, peer.aet, transaction, items, session.association.calling.strip(), session.association.called.strip()
        )
        taken, task = self._commitment.take(new, self._lease() if here else None)
        words = f"transaction {transaction}, {len(items)} instances"
        after = (lambda: self._report(session, message, taken, task)) if task else None
        return Done(Answer(statuses.SUCCESS), words, extra={"ActionTypeID": REQUEST}, after=after)

    def _lease(self) -> Lease:
        return Lease(self._keeping.owner, LEASE)

    # -- on the association that asked ----------------------------------------------------------

    def _report(self, session: Session, message: Message, taken: Transaction, task: int) -> None:
        """Check and report now; what fails is left to the background. Raises Ended."""
        owner, clock, transactions = self._keeping.owner, self._keeping.clock, self._commitment.transactions
        alive = Beating(self._keeping, task)
        try:
            task = self._commitment.check(taken, task, owner, alive, self._lease())
            if not task:
                return
            error = self._send(session, message, taken)
        except Ended as ended:
            self._leave(session, taken, task, Unreachable("association lost", ended.words))
            raise
        except ArchiveError as found:
            error = found
        if error is None:
            transactions.reported(taken.id, task, owner, clock())
            LOG.info("%s commitment %s is reported on its association", session.caller.aet, taken.transaction)
        else:
            self._leave(session, taken, task, error)

    def _send(self, session: Session, message: Message, taken: Transaction) -> ArchiveError | None:
        patience = min(session.association.connection.timeouts.dimse, LEASE - BEAT)
        return reports.send(
            session.association,
            message.context,
            self._commitment.outcome(taken),
            defer=session.defer,
            patience=patience,
        )

    def _leave(self, session: Session, taken: Transaction, task: int, error: ArchiveError) -> None:
        """The background goes on at once: it calls the peer, or knows that it must not."""
        LOG.warning("%s commitment %s is not reported here: %s", session.caller.aet, taken.transaction, error)
        now = self._keeping.clock()
        self._commitment.transactions.put_off(taken.id, task, self._keeping.owner, now, error.reason)


class Beating:
    """Keeps a lease while instances are read."""

    def __init__(self, keeping: Keeping, task: int) -> None:
        self._keeping = keeping
        self._next = keeping.clock() + BEAT
        self.task = task

    def __call__(self) -> None:
        now = self._keeping.clock()
        if now >= self._next:
            self._next = now + BEAT
            self._keeping.heartbeat(self.task, self._keeping.owner, LEASE)


def reachable(session: Session) -> tuple[Peer, Way]:
    """The peer, and how its report gets to it. Raises NotAllowed or Refused where it never could."""
    peer = session.grant.peer
    if peer is None:
        raise NotAllowed("caller is no configured peer: no way to report to it", session.grant.aet)
    way = way_of(peer)
    if way is Way.NEW and not (peer.port and peer.address):
        raise Refused("no port is configured to send the report to", peer.aet)
    return peer, way


def fits(peer: Peer, message: Message) -> bool:
    """Whether the peer can read a report on this context."""
    return "commit_implicit_only" not in peer.quirks or message.context.transfer_syntax == IMPLICIT_LITTLE


class TakeReport:
    """Takes the reports of peers that we have asked."""

    name = "N-EVENT-REPORT"
    service = Service.COMMIT

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def __call__(self, session: Session, message: Message) -> Done:
        peer = session.grant.peer
        if peer is None:
            raise NotAllowed("caller is no configured peer", session.grant.aet)
        return take_report(self._asking, peer.aet, message)


def take_report(asking: Asking, peer: str, message: Message) -> Done:
    """A report of a peer, wherever it comes; raises InvalidQuery or NotUnderstood."""
    command = message.command
    if command.event_type not in (reports.COMPLETE, reports.FAILURES_EXIST):
        return Done(Answer(statuses.NO_SUCH_EVENT, "no such event type"), f"event type {command.event_type}")
    outcome = decode_outcome(message.data, message.context.transfer_syntax)
    found = asking.answered(peer, outcome)
    words = f"transaction {found.transaction}, {found.items - found.failures} committed, {found.failures} not"
    return Done(Answer(statuses.SUCCESS), words, extra={"EventTypeID": command.event_type})
