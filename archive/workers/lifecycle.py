"""Follows studies until they are ready.

Rules that hold here: one task a study, due when the study could be ready; it is leased, looked at and put back, so
that any process of any node may go on with it; many due at once are taken a page at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from archive.errors import IndexUnavailable
from archive.index import Index, Task
from archive.index.outbox import WATCH
from archive.services.lifecycle import Lifecycle
from archive.workers.leases import owner_name, take_back

log = logging.getLogger(__name__)

LEASE = 30.0  # seconds; a look takes milliseconds
PAGE = 50  # tasks of one lease


class FollowStudies:
    """A worker."""

    name = "studies"
    kinds = frozenset({WATCH})

    def __init__(self, index: Index, lifecycle: Lifecycle, clock: Callable[[], float]) -> None:
        self._index = index
        self._lifecycle = lifecycle
        self._clock = clock
        self._owner = owner_name()
        self._first = True

    def step(self) -> float | None:
        if self._first:
            take_back(self._index, self.kinds, self._clock())
            self._first = False
        due = self._index.lease(WATCH, self._owner, self._clock(), seconds=LEASE, limit=PAGE)
        for task in due:
            self._look(task)
        if len(due) == PAGE:
            return 0.0
        following = self._index.next_due(WATCH)
        return None if following is None else max(0.0, following - self._clock())

    def _look(self, task: Task) -> None:
        try:
            again = self._lifecycle.look(str(task.payload["study"]))
        except IndexUnavailable:
            raise
        except Exception as error:  # one study must not hold up the others
            log.exception("study %s cannot be followed", task.lane)
            self._index.retry(task.id, self._owner, self._clock() + LEASE, str(error))
            return
        if again is None or task.payload.get("once"):
            self._index.finish(task.id, self._owner, self._clock(), keep=False)
        else:
            self._index.retry(task.id, self._owner, again, "waits for what may still come")

    def close(self) -> None:
        """Nothing is kept."""
