"""What C-MOVE and C-GET share: the selection a request names, and the final response (PS3.4 C.4.2, C.4.3)."""

from __future__ import annotations

from archive.dicom.matching import read_retrieval
from archive.dimse import statuses
from archive.dimse.association import Message
from archive.dimse.find import identifier_of, negotiated, root_of
from archive.dimse.session import Done, Session
from archive.dimse.statuses import Answer
from archive.dimse.tally import Tally, failed_list
from archive.services.retrieve import Retrieve, Selection

# A requester that is told "success" of a study that is not here would look for the images elsewhere.
NOTHING = Done(Answer(statuses.UNABLE, "no stored object matches"), "nothing matches")


def read_selection(retrieve: Retrieve, session: Session, message: Message) -> Selection:
    """The stored objects that the identifier names and the caller may see; raises InvalidQuery."""
    identifier = identifier_of(session, message)
    abstract_syntax = message.context.abstract_syntax
    options = negotiated(session, abstract_syntax)
    query = read_retrieval(identifier, root_of(abstract_syntax), relational=options.relational)
    return retrieve.select(query, session.caller)


def finished(session: Session, message: Message, tally: Tally, *, cancelled: bool, words: str = "") -> Done:
    """The final response: status, counts, and the failed objects by UID."""
    answer = tally.answer(cancelled=cancelled, warnings_fail=not session.has_quirk("no_warning_status"))
    counts = tally.counts(final=answer.status != statuses.CANCELLED)
    listed = failed_list(tally.failed_uids, message.context.transfer_syntax) if tally.failed_uids else None
    said = f"{tally.completed} sent, {tally.failed} failed, {tally.warned} warnings {words}".rstrip()
    if tally.last_reason:
        said += f" (last reason: {tally.last_reason})"
    return Done(answer, said, counts, listed)
