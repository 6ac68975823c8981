"""C-GET: stored objects go back over the association that asked for them (PS3.4 C.4.3).

Rules that hold here: an object goes out only on a context where the requester took the SCP role of its
SOP class, and fails alone when there is none; between two objects the requester may cancel, and hears
how far things are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from archive.dimse.association import Message
from archive.dimse.pending import INTERVAL, Pending
from archive.dimse.retrieval import NOTHING, finished, read_selection
from archive.dimse.sender import Sender
from archive.dimse.session import Done, Session
from archive.dimse.statuses import Service
from archive.dimse.tally import Tally
from archive.services.outgoing import Outgoing
from archive.services.retrieve import Retrieve, Selection
from archive.services.sendable import Codec

T = TypeVar("T")


class GetMatches:
    """Sends what was asked for to whoever asked."""

    name = "C-GET"
    service = Service.GET

    def __init__(
        self,
        retrieve: Retrieve,
        codec: Codec | None = None,
        *,
        outgoing: Outgoing | None = None,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._retrieve = retrieve
        self._codec = codec
        self._outgoing = outgoing
        self._interval = interval
        self._clock = clock

    def __call__(self, session: Session, message: Message) -> Done:
        selection = read_selection(self._retrieve, session, message)
        if not selection.total:
            return NOTHING
        tally = Tally(selection.total)
        cancelled = self._send(session, message, selection, tally)
        return finished(session, message, tally, cancelled=cancelled)

    def _send(self, session: Session, message: Message, selection: Selection, tally: Tally) -> bool:
        """Every object in turn; True when C-CANCEL came before the last one."""
        association = session.association
        pending = Pending(association, message, tally, self._clock, self._interval)
        # A volume may take its time, and the requester must not take it for our death.
        opened = partial(self._retrieve.open, meanwhile=pending.say_if_due)
        sender = Sender(association, opened, self._codec, defer=session.defer, outgoing=self._outgoing)
        try:
            for instance, following in with_following(selection.instances):
                tally.add(sender.send(instance, following))
                if association.cancelled(message.command.message_id):
                    return True
                pending.say_if_due()
        finally:
            sender.close()
        tally.total = tally.total - tally.remaining  # some may have gone since they were counted
        return False


def with_following(items: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Each item with the one after it."""
    iterator = iter(items)
    current = next(iterator, None)
    while current is not None:
        following = next(iterator, None)
        yield current, following
        current = following
