"""C-FIND on the modality worklist: an answer for each scheduled step that matches (PS3.4 K.4.1).

Rules that hold here: as for queries: the first answer goes out at once, C-CANCEL is looked for between batches, and a
reader that stops reading ends the association and frees the cursor.
"""

from __future__ import annotations

from contextlib import closing

from archive.dicom.encode import prepare
from archive.dicom.worklist import read_worklist_query
from archive.dimse import statuses
from archive.dimse.association import Message
from archive.dimse.find import answer, identifier_of
from archive.dimse.session import Done, Session
from archive.dimse.statuses import Answer, Service
from archive.services.worklist import View, Worklist


class FindSteps:
    """Answers questions about scheduled procedure steps."""

    name = "worklist"
    service = Service.FIND

    def __init__(self, worklist: Worklist, days: tuple[int, int]) -> None:
        """``days`` back and ahead are seen by a peer whose entry does not say how many."""
        self._worklist = worklist
        self._days = days

    def __call__(self, session: Session, message: Message) -> Done:
        identifier = identifier_of(session, message)
        query = read_worklist_query(identifier, fuzzy=session.grant.peer is not None and session.grant.peer.fuzzy)
        rows = self._worklist.search(query, self._view(session))
        with closing(rows):
            encode = prepare(query.returns, message.context.transfer_syntax, identifier.charset)
            count, cancelled = answer(session.association, message, query, map(encode, rows))
        return Done(Answer(statuses.CANCELLED if cancelled else statuses.SUCCESS), f"{count} steps")

    def _view(self, session: Session) -> View:
        back, ahead = self._days
        peer = session.grant.peer
        if peer is None:
            return View(days_back=back, days_ahead=ahead, limit=session.caller.max_results)
        own = peer.worklist
        return View(
            own.stations, own.modalities, own.locations,
            back if own.days_back is None else own.days_back,
            ahead if own.days_ahead is None else own.days_ahead,
            session.caller.max_results,
        )  # fmt: skip
