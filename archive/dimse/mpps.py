"""Modality performed procedure step: N-CREATE and N-SET of peers, and the same as we pass them on (PS3.4 annex F).

Rules that hold here: success is durable; a step without SOP Instance UID gets one of ours, which the answer names; what
we pass on says what the modality said, in the same order, and only a success of the receiver ends it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset

from archive.dicom.plain import plain
from archive.dicom.uids import IMPLICIT_LITTLE
from archive.dimse import statuses
from archive.dimse.association import Association, Message
from archive.dimse.contexts import MPPS
from archive.dimse.destinations import Destinations
from archive.dimse.find import identifier_of
from archive.dimse.negotiation import Context
from archive.dimse.question import data_set
from archive.dimse.reasons import Ended
from archive.dimse.session import Done, Session
from archive.dimse.statuses import Answer, Service
from archive.dimse.wire import HAS_DATA, Field, Value, encode_command
from archive.errors import ArchiveError, InvalidQuery, NotDelivered, Unreachable
from archive.services.performed import PerformedWork

UTF_8 = "ISO_IR 192"


class CreateStep:
    """N-CREATE."""

    name = "N-CREATE"
    service = Service.MPPS

    def __init__(self, work: PerformedWork) -> None:
        self._work = work

    def __call__(self, session: Session, message: Message) -> Done:
        given = message.command.sop_instance
        uid = given or f"2.25.{uuid.uuid4().int}"
        self._work.begin(uid, plain(identifier_of(session, message)), session.caller.aet)
        extra: dict[str, Value] = {} if given else {"AffectedSOPInstanceUID": uid}
        return Done(Answer(statuses.SUCCESS), f"performed step {uid} begins", extra=extra)


class SetStep:
    """N-SET."""

    name = "N-SET"
    service = Service.MPPS

    def __init__(self, work: PerformedWork) -> None:
        self._work = work

    def __call__(self, session: Session, message: Message) -> Done:
        uid = message.command.sop_instance
        if not uid:
            raise InvalidQuery("SOP Instance UID is missing")
        state = self._work.change(uid, plain(identifier_of(session, message)), session.caller.aet)
        return Done(Answer(statuses.SUCCESS), f"performed step {uid} is {state.value}")


Told = Sequence[Mapping[str, Any]]
"""What is passed on, in order: ``operation`` (create or set), ``uid``, and what was ``said`` by keyword."""


class StepForwarder:
    """Calls peers to tell them of performed steps."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations

    def __call__(self, peer: str, told: Told) -> Iterator[ArchiveError | None]:
        """What became of each, in order; nothing follows a failure. Raises Unreachable or UnknownDestination."""
        association = self._destinations.named(peer).connect([(MPPS, (IMPLICIT_LITTLE,))])
        try:
            with association:
                context = _context(association)
                for each in told:
                    yield _send(association, context, each)
        except Ended as ended:
            raise Unreachable("association lost", ended.words) from ended


def _context(association: Association) -> Context:
    for context in association.contexts.values():
        if context.abstract_syntax == MPPS and context.scu:
            return context
    raise NotDelivered("peer does not accept performed procedure steps", association.called)


def _send(association: Association, context: Context, told: Mapping[str, Any]) -> ArchiveError | None:
    message_id, kind = association.next_message_id(), "Affected" if told["operation"] == "create" else "Requested"
    field = Field.N_CREATE_RQ if told["operation"] == "create" else Field.N_SET_RQ
    command = encode_command(
        {
            f"{kind}SOPClassUID": MPPS,
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
    """A step that is there already was told before: its answer was lost."""
    status = answer.command.status
    if status == statuses.SUCCESS or statuses.is_warning(status):
        return None
    if operation == "create" and status == statuses.DUPLICATE_INSTANCE:
        return None
    comment = f": {answer.command.comment}" if answer.command.comment else ""
    return NotDelivered("peer refused the performed step", statuses.meaning(status) + comment)
