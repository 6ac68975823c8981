"""C-FIND: a question, and an answer for each match (PS3.4 C.4.1).

Rules that hold here: the first answer goes out at once, the next ones in batches, each as soon as its
batch is full; a C-CANCEL is looked for between batches; nothing is held but one page of rows and one
batch, and a reader that stops reading ends the association at the send deadline, which frees the cursor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from archive.dicom.encode import prepare
from archive.dicom.identifier import Identifier, decode_identifier
from archive.dicom.matching import Query, Root, read_query
from archive.dicom.worklist import WorklistQuery
from archive.dimse import statuses
from archive.dimse.access import QUERY_RETRIEVE
from archive.dimse.association import Association, Message
from archive.dimse.contexts import FIND_SUPPORTED, supported_of
from archive.dimse.session import Done, Session
from archive.dimse.statuses import Answer, Service
from archive.dimse.wire import encode_response
from archive.errors import InvalidQuery
from archive.services.find import Find

BATCH = 32  # answers: some 10 kB, below what one write to the socket takes

# PS3.4 annex C.6: the model a SOP class belongs to, by the arc before its last component.
ROOT_OF: dict[str, Root] = {
    f"{QUERY_RETRIEVE}.1": Root.PATIENT,
    f"{QUERY_RETRIEVE}.2": Root.STUDY,
    f"{QUERY_RETRIEVE}.3": Root.PATIENT_STUDY,
}

# PS3.4 tables C.5-1 and C.5-2: bytes of the extended negotiation item; those of a retrieval (C.5-3) begin alike.
RELATIONAL, DATE_TIME, FUZZY, TIMEZONE, _MULTI_FRAME, EMPTY_VALUES = range(6)


@dataclass(frozen=True, slots=True)
class Negotiated:
    """The options of a query or retrieval that the association agreed on, or the peer's entry gives."""

    relational: bool = False
    date_time: bool = False
    fuzzy: bool = False
    timezone: bool = False
    empty_values: bool = False


def root_of(abstract_syntax: str) -> Root:
    return ROOT_OF[abstract_syntax.rpartition(".")[0]]


def negotiated(session: Session, abstract_syntax: str) -> Negotiated:
    """Extended negotiation as accepted, and what the peer's entry gives without it."""
    asked = session.association.extended.get(abstract_syntax, b"")
    agreed = supported_of(FIND_SUPPORTED)(asked)

    def flag(number: int) -> bool:
        return number < len(agreed) and agreed[number] == 1

    peer = session.grant.peer
    return Negotiated(
        relational=flag(RELATIONAL) or (peer is not None and peer.relational),
        date_time=flag(DATE_TIME) or (peer is not None and peer.combined_date_time),
        fuzzy=flag(FUZZY) or (peer is not None and peer.fuzzy),
        timezone=flag(TIMEZONE),
        empty_values=flag(EMPTY_VALUES),
    )


def identifier_of(session: Session, message: Message) -> Identifier:
    """The identifier of a query or retrieval; raises InvalidQuery or NotUnderstood."""
    if not message.data:
        raise InvalidQuery("identifier is missing")
    return decode_identifier(message.data, message.context.transfer_syntax, session.default_charset)


class FindMatches:
    """Answers queries on patients, studies, series and instances."""

    name = "C-FIND"
    service = Service.FIND

    def __init__(self, find: Find, title: str, timezone: Callable[[], str] = lambda: time.strftime("%z")) -> None:
        """``title`` is what answers name to retrieve from, ``timezone`` gives our offset from UTC (+0100)."""
        self._find = find
        self._title = title
        self._timezone = timezone

    def __call__(self, session: Session, message: Message) -> Done:
        identifier = identifier_of(session, message)
        query = self._query(session, message, identifier)
        rows = self._find.search(query, session.caller)
        with closing(rows):
            encode = prepare(query.returns, message.context.transfer_syntax, identifier.charset)
            count, cancelled = answer(session.association, message, query, map(encode, rows))
        words = f"{query.level.name} level, {count} matches"
        return Done(Answer(statuses.CANCELLED if cancelled else statuses.SUCCESS), words)

    def _query(self, session: Session, message: Message, identifier: Identifier) -> Query:
        options = negotiated(session, message.context.abstract_syntax)
        return read_query(
            identifier,
            root_of(message.context.abstract_syntax),
            relational=options.relational,
            fuzzy=options.fuzzy,
            combine=options.date_time,
            empty_values=options.empty_values,
            timezone=self._timezone() if options.timezone else "",
            retrieve_aet=self._title,
            extra=self._find.extra,
        )


def answer(
    association: Association, message: Message, query: Query | WorklistQuery, identifiers: Iterator[bytes]
) -> tuple[int, bool]:
    """Send a pending response for each identifier; how many went out, and whether C-CANCEL stopped them."""
    pending = statuses.PENDING_UNSUPPORTED_KEYS if query.unsupported else statuses.PENDING
    command = encode_response(message.command, pending, has_data=True)
    count = 0
    for count, identifier in enumerate(identifiers, 1):
        association.queue_message(message.context, command, identifier)
        if count == 1 or count % BATCH == 0:
            association.flush()
            if association.cancelled(message.command.message_id):
                return count, True
    association.flush()
    return count, False
