"""C-ECHO: a caller asks whether anybody is there (PS3.4 annex A)."""

from __future__ import annotations

from archive.dimse import statuses
from archive.dimse.association import Message
from archive.dimse.session import Done, Session
from archive.dimse.statuses import Answer, Service


class Echo:
    """Says yes."""

    name = "C-ECHO"
    service = Service.ECHO

    def __call__(self, session: Session, message: Message) -> Done:
        return Done(Answer(statuses.SUCCESS), "verified")
