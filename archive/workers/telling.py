"""Telling somebody what happened, in order: peers of performed steps and of availability, receivers of messages.

Rules that hold here: everybody is told in the order of what happened, so that a failure holds up what comes after it
for the same receiver and nothing else; what was refused is not said again, and stays visible as failed, with the
receiver's own words, which no log repeats.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from archive.errors import ArchiveError, Unreachable
from archive.index import Index, Task

log = logging.getLogger(__name__)

Tell = Callable[[str, Sequence[Task]], Iterator[ArchiveError | None]]
"""Tell a receiver what tasks say, in order: None or what went wrong with each. Raises Unreachable and others."""


class Telling:
    """The job of the tasks of one kind, for lanes that are ordered and named after who is told."""

    def __init__(
        self, index: Index, tell: Tell, clock: Callable[[], float], *, pauses: Sequence[float], done: str = ""
    ) -> None:
        """``pauses`` are seconds between tries to reach a receiver, after which it has failed; ``done`` is success."""
        self._index, self._tell, self._clock = index, tell, clock
        self._pauses, self._done = pauses, done

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        left = list(tasks)
        try:
            for error in self._tell(lane, tasks):
                self._settle(left.pop(0), owner, error)
        except ArchiveError as error:
            self._put_back(left, owner, error)

    def _settle(self, task: Task, owner: str, error: ArchiveError | None) -> None:
        if error is None:
            self._index.finish(task.id, owner, self._clock(), reason=self._done)
        elif isinstance(error, Unreachable):
            raise error
        else:
            log.warning("%s was not told to %s: %s", task.kind, task.lane, error)
            self._index.fail(task.id, owner, self._clock(), error.reason)

    def _put_back(self, tasks: Sequence[Task], owner: str, error: ArchiveError) -> None:
        """All wait as long as the first, so that their order stays."""
        due = self._clock() + self._pauses[min(tasks[0].attempts, len(self._pauses)) - 1] if tasks else 0.0
        for task in tasks:
            if error.temporary and task.attempts <= len(self._pauses):
                self._index.retry(task.id, owner, due, error.reason)
            else:
                self._index.fail(task.id, owner, self._clock(), error.reason)
