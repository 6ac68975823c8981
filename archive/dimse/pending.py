"""Pending responses of a C-MOVE or C-GET: on progress, and by the clock when there is none.

Requesters take silence for death (30 s is a common DIMSE timeout), so one goes out every ``INTERVAL``
even while a single sub-operation stalls; one per object would cost more than the objects, so progress
is said at most every ``PROGRESS`` seconds.
"""

from __future__ import annotations

from collections.abc import Callable

from archive.dimse import statuses
from archive.dimse.association import Association, Message
from archive.dimse.tally import Tally
from archive.dimse.wire import encode_response

INTERVAL = 5.0
PROGRESS = 0.5


class Pending:
    """Says how a retrieval goes to whoever asked for it."""

    def __init__(
        self, association: Association, message: Message, tally: Tally, clock: Callable[[], float], interval: float
    ) -> None:
        self._association = association
        self._message = message
        self._tally = tally
        self._clock = clock
        self._interval = interval
        self._said_at = clock()
        self._said = tally.remaining

    def due(self) -> float:
        """Seconds until the next response goes out if nothing happens before."""
        wait = PROGRESS if self._tally.remaining != self._said else self._interval
        return max(0.0, self._said_at + min(wait, self._interval) - self._clock())

    def say_if_due(self) -> None:
        if self.due() > 0 or not self._tally.remaining:
            return
        command = encode_response(self._message.command, statuses.PENDING, extra=self._tally.counts())
        self._association.send_message(self._message.context, command)
        self._said_at, self._said = self._clock(), self._tally.remaining
