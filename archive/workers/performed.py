"""What follows from performed steps: peers are told in order, and studies are ready that are whole.

Rules that hold here: a peer is told in the order of what happened, so that a failure holds up what comes after it for
the same peer and nothing else; what was refused is not tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from archive.errors import ArchiveError, Unreachable
from archive.index import Index, Task

log = logging.getLogger(__name__)

FORWARD = "mpps"
PAUSES = (5.0, 30.0, 120.0, 600.0, 1800.0, *[3600.0] * 48)  # between tries to reach a peer; then it has failed
LOOKS = (2.0, 5.0, 15.0, 60.0)  # between looks for images that a completed step has named

Tell = Callable[[str, Sequence[Mapping[str, Any]]], Iterator[ArchiveError | None]]
"""Tell a peer what happened, in order: None or what went wrong with each. Raises Unreachable and others."""


class Forwarding:
    """The job of telling peers."""

    def __init__(self, index: Index, tell: Tell, clock: Callable[[], float]) -> None:
        self._index, self._tell, self._clock = index, tell, clock

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        left = list(tasks)
        try:
            for error in self._tell(lane, [task.payload for task in tasks]):
                self._settle(left.pop(0), owner, error)
        except ArchiveError as error:
            self._put_back(left, owner, error)

    def _settle(self, task: Task, owner: str, error: ArchiveError | None) -> None:
        if error is None:
            self._index.finish(task.id, owner, self._clock())
        elif isinstance(error, Unreachable):
            raise error
        else:
            log.warning("%s was not told to %s: %s", task.kind, task.lane, error)
            self._index.fail(task.id, owner, self._clock(), str(error))

    def _put_back(self, tasks: Sequence[Task], owner: str, error: ArchiveError) -> None:
        """All wait as long as the first, so that their order stays."""
        number = min(tasks[0].attempts, len(PAUSES)) - 1 if tasks else 0
        due = self._clock() + PAUSES[number]
        for task in tasks:
            if error.temporary and task.attempts <= len(PAUSES):
                self._index.retry(task.id, owner, due, str(error))
            else:
                self._index.fail(task.id, owner, self._clock(), str(error))


class Completing:
    """The job of looking whether a completed step's images are here."""

    def __init__(self, index: Index, make_ready: Callable[[str], object], clock: Callable[[], float]) -> None:
        """``make_ready`` says that nothing more is expected for a study."""
        self._index, self._make_ready, self._clock = index, make_ready, clock

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        for task in tasks:
            if all(self._index.known(uid) is not None for uid in task.payload["instances"]):
                self._make_ready(str(task.payload["study"]))
                self._index.finish(task.id, owner, self._clock(), keep=False)
            elif task.attempts <= len(LOOKS):
                pause = LOOKS[task.attempts - 1]
                self._index.retry(task.id, owner, self._clock() + pause, "images are still missing")
            else:
                self._index.finish(task.id, owner, self._clock(), reason="images are missing: time decides")
