"""C-MOVE: stored objects go to a third party that is one of our peers (PS3.4 C.4.2).

Rules that hold here: the destination is a configured peer, called at its configured address; every
selected object is accounted for in the final response; the requester hears from us at least every few
seconds, may cancel at any moment, and its going away stops the sub-operations.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from itertools import islice

from archive.dimse.association import Association, Message
from archive.dimse.destinations import Destination, Destinations
from archive.dimse.lanes import Lanes
from archive.dimse.pending import INTERVAL, Pending
from archive.dimse.planning import LOSSLESS
from archive.dimse.retrieval import NOTHING, finished, read_selection
from archive.dimse.sender import Originator, Sender
from archive.dimse.session import Done, Session
from archive.dimse.statuses import Service
from archive.dimse.tally import Sent, Tally
from archive.index import StoredInstance
from archive.services.outgoing import Outgoing
from archive.services.retrieve import Retrieve, Selection
from archive.services.sendable import Codec

AHEAD = 64  # objects handed to the lanes beyond those under way
TOGETHER = 16  # results taken at once, while they come fast
PAGE = 256  # objects taken from the selection at a time


class MoveMatches:
    """Sends what was asked for to where it was asked to go."""

    name = "C-MOVE"
    service = Service.MOVE

    def __init__(
        self,
        retrieve: Retrieve,
        destinations: Destinations,
        codec: Codec | None = None,
        *,
        outgoing: Outgoing | None = None,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._retrieve = retrieve
        self._destinations = destinations
        self._codec = codec
        self._outgoing = outgoing
        self._interval = interval
        self._clock = clock

    def __call__(self, session: Session, message: Message) -> Done:
        destination = self._destinations.named(message.command.move_destination)
        selection = read_selection(self._retrieve, session, message)
        if not selection.total:
            return NOTHING
        tally = Tally(selection.total)
        with self._lanes(session, message, destination, selection.total) as lanes:
            pending = Pending(session.association, message, tally, self._clock, self._interval)
            cancelled = Carrying(session.association, message, selection, lanes, tally, pending).run()
        return finished(session, message, tally, cancelled=cancelled, words=f"to {destination.aet}")

    def _lanes(
        self, session: Session, message: Message, destination: Destination, total: int
    ) -> Lanes[StoredInstance]:
        originator = Originator(session.association.calling, message.command.message_id)

        def sender(association: Association) -> Sender[StoredInstance]:
            return Sender(
                association, self._retrieve.open, self._codec, originator=originator, outgoing=self._outgoing
            )

        return Lanes(
            destination.connect,
            sender,
            max(1, min(destination.store_associations, total)),
            single_context=destination.has_quirk("single_context"),
            together=TOGETHER,
            extra=LOSSLESS if self._codec is not None else (),
        )


class Carrying:
    """The owner's loop: feeds the lanes, counts their results, speaks to and listens to the requester."""

    def __init__(
        self,
        association: Association,
        message: Message,
        selection: Selection,
        lanes: Lanes[StoredInstance],
        tally: Tally,
        pending: Pending,
    ) -> None:
        self._association = association
        self._message_id = message.command.message_id
        self._instances = selection.instances
        self._lanes = lanes
        self._tally = tally
        self._pending = pending
        self._handed = 0
        self._exhausted = False

    def run(self) -> bool:
        """Until every object is accounted for; True when C-CANCEL came before."""
        with select.epoll() as poll:
            # Edge-triggered: what a requester sends beyond its window stays unread and must not wake us again.
            requester = self._association.connection.fileno()
            poll.register(requester, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
            poll.register(self._lanes.fileno(), select.EPOLLIN)
            return self._carry(poll)

    def _carry(self, poll: select.epoll) -> bool:
        while not self._finished():
            if self._association.cancelled(self._message_id):
                self._lanes.stop()
                self._count(self._lanes.results())
                return True
            self._pending.say_if_due()
            poll.poll(self._pending.due() + 0.001)
            self._count(self._lanes.results())
        return False

    def _finished(self) -> bool:
        """Feed the lanes, or note what nobody is left to send."""
        if not self._lanes.alive:
            self._count(self._lanes.results())
            self._count(self._lanes.give_up())
            for page in iter(lambda: list(islice(self._instances, PAGE)), []):
                self._count(self._lanes.lost(page))
            return True
        while not self._exhausted and self._lanes.waiting < AHEAD:
            self._feed(list(islice(self._instances, PAGE)))
        return self._exhausted and not self._tally.remaining

    def _feed(self, page: list[StoredInstance]) -> None:
        self._handed += len(page)
        if page:
            self._lanes.put(page)
        else:
            self._exhausted = True
            self._tally.total = self._handed  # some may have gone or come since they were counted
            self._lanes.finish()

    def _count(self, results: list[Sent]) -> None:
        for sent in results:
            self._tally.add(sent)
