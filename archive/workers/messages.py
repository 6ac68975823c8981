"""Messages that are passed on: a lane for each receiver, in order.

Rules that hold here: a receiver that cannot be reached holds up its own lane alone, and what it was to get stays in
order; what it refuses is not sent again and stays visible as failed.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from archive.errors import ArchiveError
from archive.index import Index, Task

log = logging.getLogger(__name__)

KIND = "hl7"
PAUSES = (2.0, 10.0, 30.0, 60.0, 300.0, *[900.0] * 1000)  # between tries to reach a receiver: for ten days

Send = Callable[[str, Sequence[bytes]], Iterator[ArchiveError | None]]
"""Send messages to a receiver: None or the refusal of each. Raises Unreachable and others."""


def packed(message: bytes) -> dict[str, Any]:
    """A message as the payload of a task."""
    return {"message": base64.b64encode(message).decode("ascii")}


class PassingOn:
    """The job."""

    def __init__(self, index: Index, send: Send, clock: Callable[[], float]) -> None:
        self._index, self._send, self._clock = index, send, clock

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        left = list(tasks)
        try:
            for error in self._send(lane, [_message(task.payload) for task in tasks]):
                task = left.pop(0)
                if error is None:
                    self._index.finish(task.id, owner, self._clock(), reason="acknowledged")
                else:
                    log.warning("HL7 message to %s: %s", lane, error)
                    self._index.fail(task.id, owner, self._clock(), str(error))
        except ArchiveError as error:
            self._put_back(left, owner, error)

    def _put_back(self, tasks: Sequence[Task], owner: str, error: ArchiveError) -> None:
        """All wait as long as the first, so that their order stays."""
        due = self._clock() + PAUSES[min(tasks[0].attempts, len(PAUSES)) - 1] if tasks else 0.0
        for task in tasks:
            if error.temporary and task.attempts <= len(PAUSES):
                self._index.retry(task.id, owner, due, str(error))
            else:
                self._index.fail(task.id, owner, self._clock(), str(error))


def _message(payload: Mapping[str, Any]) -> bytes:
    return base64.b64decode(payload["message"])
