"""Delivering to a peer: a channel is the lanes of associations to it, a probe is C-ECHO.

Rules that hold here: a channel never blocks its owner; what a status or an ending means for another try is decided here
and nowhere else; a peer that takes an association but no C-ECHO is there all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from archive.dimse import scu, statuses
from archive.dimse.association import Association
from archive.dimse.destinations import Destination
from archive.dimse.lanes import Lanes
from archive.dimse.planning import LOSSLESS
from archive.dimse.proof import ByCommitment, ByQuery
from archive.dimse.sender import Sender
from archive.dimse.tally import Result, Sent
from archive.errors import Refused
from archive.index import StoredInstance, Task
from archive.services.destination import Delivered, Fate
from archive.services.hooks import Hooks, Parcel
from archive.services.outgoing import Outgoing, plain
from archive.services.retrieve import OpenFile
from archive.services.sendable import Codec

OpenInstance = Callable[[StoredInstance], OpenFile]


class PeerReach:
    """One peer; ``associations`` is how many are used at a time."""

    def __init__(
        self,
        destination: Destination,
        open_file: OpenInstance,
        codec: Codec | None,
        *,
        associations: int = 0,
        outgoing: Outgoing | None = None,
        proof: ByQuery | ByCommitment | None = None,
        hooks: Callable[[Task], Hooks | None] = lambda task: None,
    ) -> None:
        """``hooks`` is what the route of a task does to objects; ``outgoing`` does it."""
        self._destination = destination
        self._open_file = open_file
        self._codec = codec
        self._outgoing = outgoing or plain()
        self._hooks = hooks
        self._proof = proof or ByQuery(destination)
        self._associations = associations or destination.store_associations

    def open(self, wake: Callable[[], None]) -> PeerChannel:
        def opened(parcel: Parcel) -> OpenFile:
            return self._open_file(parcel.instance)

        def sender(association: Association) -> Sender[Parcel]:
            return Sender(association, opened, self._codec, outgoing=self._outgoing)

        destination = self._destination
        lanes = Lanes(
            destination.connect,
            sender,
            self._associations,
            single_context=destination.has_quirk("single_context"),
            extra=LOSSLESS if self._codec is not None else (),
            woken=wake,
        )
        return PeerChannel(lanes, self._hooks)

    def probe(self) -> None:
        try:
            scu.echo(self._destination)
        except Refused:
            return  # it has taken the association and answered: that is being there

    @property
    def proof(self) -> str:
        return self._proof.words

    def missing(self, items: Sequence[StoredInstance]) -> set[str]:
        return self._proof.missing(items)


class PeerChannel:
    """Associations to one peer, for a burst of images."""

    def __init__(self, lanes: Lanes[Parcel], hooks: Callable[[Task], Hooks | None] = lambda task: None) -> None:
        self._lanes = lanes
        self._hooks = hooks
        self._lanes.__enter__()

    @property
    def alive(self) -> bool:
        return self._lanes.alive

    @property
    def reason(self) -> str:
        return self._lanes.reason or "the associations ended"

    def put(self, items: Sequence[tuple[Task, StoredInstance]]) -> None:
        self._lanes.put([Parcel(instance, self._hooks(task)) for task, instance in items])

    def results(self) -> list[Delivered]:
        return [delivered(sent) for sent in self._lanes.results()]

    def give_up(self) -> None:
        self._lanes.give_up()

    def close(self, grace: float) -> None:
        self._lanes.leave(grace)


def delivered(sent: Sent) -> Delivered:
    """One object's end as the queue takes it."""
    if sent.result is not Result.FAILED:
        return Delivered(sent.sop_instance_uid, Fate.SENT, sent.reason or statuses.meaning(sent.status))
    fate = Fate.LOST if sent.lost else Fate.AGAIN if sent.temporary else Fate.REFUSED
    return Delivered(sent.sop_instance_uid, fate, sent.reason)
