"""Modality performed procedure step: N-CREATE and N-SET of peers (PS3.4 annex F).

Rules that hold here: success is durable; a step without SOP Instance UID gets one of ours, which the answer names.
"""

from __future__ import annotations

from archive.dicom.plain import plain
from archive.dicom.uids import new_uid
from archive.dimse import statuses
from archive.dimse.association import Message
from archive.dimse.find import identifier_of
from archive.dimse.session import Done, Session
from archive.dimse.statuses import Answer, Service
from archive.dimse.wire import Value
from archive.errors import InvalidQuery
from archive.services.performed import PerformedWork


class CreateStep:
    """N-CREATE."""

    name = "N-CREATE"
    service = Service.MPPS

    def __init__(self, work: PerformedWork) -> None:
        self._work = work

    def __call__(self, session: Session, message: Message) -> Done:
        given = message.command.sop_instance
        uid = given or new_uid()
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
