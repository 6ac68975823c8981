"""Telling peers by N-CREATE and N-SET: of performed procedure steps (PS3.4 annex F), of available instances (annex R).

Rules that hold here: what is told goes out in its order, nothing follows a failure; only a success of the receiver, or
that it has been told before, ends it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset

from archive.dicom.uids import IMPLICIT_LITTLE
from archive.dimse import statuses
from archive.dimse.association import Association, Message
from archive.dimse.destinations import Destinations
from archive.dimse.negotiation import Context
from archive.dimse.question import data_set
from archive.dimse.reasons import Ended
from archive.dimse.wire import HAS_DATA, Field, encode_command
from archive.errors import ArchiveError, NotDelivered, Unreachable, saying

UTF_8 = "ISO_IR 192"

Told = Sequence[Mapping[str, Any]]
"""What is told, in order: ``operation`` (create or set), ``uid``, and what was ``said`` by keyword."""


class Teller:
    """Calls peers to tell them of objects of one SOP class."""

    def __init__(self, destinations: Destinations, sop_class: str) -> None:
        self._destinations = destinations
        self._sop_class = sop_class

    def __call__(self, peer: str, told: Told) -> Iterator[ArchiveError | None]:
        """What became of each, in order; nothing follows a failure. Raises Unreachable or UnknownDestination."""
        association = self._destinations.named(peer).connect([(self._sop_class, (IMPLICIT_LITTLE,))])
        try:
            with association:
                context = _context(association, self._sop_class)
                for each in told:
                    yield _send(association, context, each)
        except Ended as ended:
            raise Unreachable("association lost", ended.words) from ended


def _context(association: Association, sop_class: str) -> Context:
    for context in association.contexts.values():
        if context.abstract_syntax == sop_class and context.scu:
            return context
    raise NotDelivered("peer does not take what it is told of", f"{association.called}, {sop_class}")


def _send(association: Association, context: Context, told: Mapping[str, Any]) -> ArchiveError | None:
    message_id, kind = association.next_message_id(), "Affected" if told["operation"] == "create" else "Requested"
    field = Field.N_CREATE_RQ if told["operation"] == "create" else Field.N_SET_RQ
    command = encode_command(
        {
            f"{kind}SOPClassUID": context.abstract_syntax,
            "CommandField": int(field),
            "MessageID": message_id,
            "CommandDataSetType": HAS_DATA,
            f"{kind}SOPInstanceUID": told["uid"],
        }
    )
    association.send_message(context, command, _encoded(told["said"]))
    answer = association.read_message()
    if answer is None:
        return Unreachable("association lost", "released before the answer")
    return _judged(answer, told["operation"])


def _encoded(said: Mapping[str, Any]) -> bytes:
    found = data_set({key: value for key, value in said.items() if key != "SpecificCharacterSet"}, ())
    found.SpecificCharacterSet = UTF_8
    file = BytesIO()
    target = DicomIO(file)
    target.is_little_endian = target.is_implicit_VR = True
    write_dataset(target, found)
    return file.getvalue()


def _judged(answer: Message, operation: str) -> ArchiveError | None:
    """What is there already was told before: the answer was lost."""
    status = answer.command.status
    if status == statuses.SUCCESS or statuses.is_warning(status):
        return None
    if operation == "create" and status == statuses.DUPLICATE_INSTANCE:
        return None
    return NotDelivered("peer refused what it was told", saying(statuses.meaning(status), answer.command.comment))
