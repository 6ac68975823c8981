"""The worker behind `index.extra_keys`: fills in and forgets what a changed configuration asks for.

Rules that hold here: one daemon at a time does it, by the lease of its task, which a daemon that is started again
takes up where the killed one left it; it works half of the time at most, so that associations have the disk and the
database for the other half.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from archive.index import Index
from archive.index.extra_fill import KIND
from archive.services.extra_keys import ExtraFill

log = logging.getLogger(__name__)

LEASE = 120.0  # seconds; a page takes one at the very most
DROPPED = 500  # rows whose values are forgotten in one transaction


class FillExtraKeys:
    """Works on the task of the extra keys, a page a step."""

    name = "extra keys"
    kinds = frozenset({KIND})

    def __init__(
        self, index: Index, fill: ExtraFill, owner: str, *, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        """``owner`` is the same for every process that does this work for one daemon, one after the other."""
        self._index, self._fill, self._clock, self._monotonic = index, fill, clock, monotonic
        self._owner = owner
        self._task: int | None = None

    def step(self) -> float | None:
        if not self._hold():
            due = self._index.next_due(KIND)
            return None if due is None else max(1.0, due - self._clock())
        began = self._monotonic()
        if self._index.drop_extra(DROPPED) or self._fill.page():
            return self._monotonic() - began
        self._end()
        return 0.0

    def _hold(self) -> bool:
        """Have the task, still or from now on."""
        ids = [self._task] if self._task is not None else [task.id for task in self._index.tasks(kind=KIND)]
        kept = self._index.heartbeat(ids, self._owner, self._clock(), seconds=LEASE) if ids else []
        if not kept:
            kept = [task.id for task in self._index.lease(KIND, self._owner, self._clock(), seconds=LEASE)]
        self._task = kept[0] if kept else None
        return self._task is not None

    def _end(self) -> None:
        assert self._task is not None
        self._index.end_extra()
        self._index.finish(self._task, self._owner, self._clock())
        self._task = None
        log.info("extra keys are filled in")

    def close(self) -> None:
        """Nothing is kept: the lease runs out, and the next process goes on where this one was."""
