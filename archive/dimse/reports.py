"""N-EVENT-REPORT of storage commitment, as we send it: on a new association or on the one that asked (PS3.4 J.3.3).

Rules that hold here: on an association of ours we propose the SCP role (PS3.7 D.3.3.4), in the very AE titles that the
peer used, mirrored; a peer that does not answer the role selection, as old ones do not, gets its report nevertheless,
one that refuses the role does not; only the answer success, or a warning, is delivery.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from archive.dicom.references import Outcome, encode_outcome
from archive.dicom.uids import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from archive.dimse import statuses
from archive.dimse.association import Association, Message
from archive.dimse.contexts import COMMITMENT, COMMITMENT_INSTANCE
from archive.dimse.destinations import Destination, Destinations
from archive.dimse.negotiation import Context
from archive.dimse.planning import Proposal
from archive.dimse.reasons import Ended
from archive.dimse.wire import HAS_DATA, Field, encode_command
from archive.errors import ArchiveError, NotDelivered, Refused, Unreachable, saying
from archive.index.commitments import Transaction

AS_SCP = {COMMITMENT: (False, True)}
COMPLETE, FAILURES_EXIST = 1, 2  # PS3.4 J.3.3.1.1, event types

Reports = Sequence[tuple[Transaction, Outcome]]
Defer = Callable[[Message], None]


class Reporter:
    """Calls peers to bring them their reports."""

    def __init__(self, destinations: Destinations, not_called: Collection[str] = ()) -> None:
        """`not_called` are the peers that take reports on the association they asked on and no other."""
        self._destinations = destinations
        self._not_called = frozenset(not_called)

    def __call__(self, peer: str, reports: Reports) -> Iterator[ArchiveError | None]:
        """What became of each report, in order. Raises Unreachable, or Refused when trying again is no use."""
        if peer in self._not_called:
            raise Refused("peer takes reports only on the association it asked on", peer)
        destination = self._destinations.named(peer)
        for (calling, called), group in groupby(reports, key=lambda each: (each[0].calling, each[0].called)):
            mirrored = replace(destination, aet=calling or destination.aet, calling=called or destination.calling)
            yield from self._deliver(mirrored, list(group))

    def _deliver(self, destination: Destination, reports: Reports) -> Iterator[ArchiveError | None]:
        association = destination.connect(proposals(destination), roles=AS_SCP)
        try:
            with association:
                context = context_for(association)
                for _, outcome in reports:
                    yield send(association, context, outcome)
        except Ended as ended:
            raise Unreachable("association lost", ended.words) from ended


def proposals(destination: Destination) -> list[Proposal]:
    """Explicit and Implicit Little Endian in contexts of their own, so that either can be had; or only the latter."""
    syntaxes = [IMPLICIT_LITTLE]
    if not destination.has_quirk("commit_implicit_only"):
        syntaxes.insert(0, EXPLICIT_LITTLE)
    return [(COMMITMENT, (syntax,)) for syntax in syntaxes]


def context_for(association: Association) -> Context:
    """Where a report can go: in the SCP role if the peer said so, else as if it had, unless it said no."""
    contexts = [each for each in association.contexts.values() if each.abstract_syntax == COMMITMENT]
    for context in sorted(contexts, key=lambda each: not each.scp):
        if context.scp or context.scu:
            return context
    words = "peer refuses the SCP role" if contexts else "peer does not accept storage commitment"
    raise NotDelivered(words, association.called)


def send(
    association: Association, context: Context, outcome: Outcome, *, defer: Defer | None = None, patience: float = 0.0
) -> ArchiveError | None:
    """One report and its answer; requests that come meanwhile go to `defer`. Raises Ended."""
    message_id = association.next_message_id()
    command = encode_command(
        {
            "AffectedSOPClassUID": COMMITMENT,
            "CommandField": int(Field.N_EVENT_REPORT_RQ),
            "MessageID": message_id,
            "CommandDataSetType": HAS_DATA,
            "AffectedSOPInstanceUID": COMMITMENT_INSTANCE,
            "EventTypeID": FAILURES_EXIST if outcome.failed else COMPLETE,
        }
    )
    association.send_message(context, command, encode_outcome(outcome, context.transfer_syntax))
    while True:
        message = association.read_message(timeout=patience or None)
        if message is None:
            return Unreachable("association lost", "released before the report was answered")
        if not message.command.is_response:
            if defer is None:
                return NotDelivered("peer sent a request where an answer was due", repr(message.command))
            defer(message)
        elif message.command.message_id == message_id:
            return _judged(message)


def _judged(message: Message) -> ArchiveError | None:
    command = message.command
    if command.status == statuses.SUCCESS or statuses.is_warning(command.status):
        return None
    return NotDelivered("peer refused the report", saying(statuses.meaning(command.status), command.comment))
