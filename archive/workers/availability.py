"""Tells peers what of a study can be retrieved, in the order in which studies were ready.

Rules that hold here: as for performed steps; a study that is gone when its turn comes is told to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from archive.errors import ArchiveError
from archive.index import Index, Task
from archive.workers.performed import PAUSES
from archive.workers.telling import Telling

KIND = "availability"

Notify = Callable[[str, Sequence[dict[str, Any]]], Iterator[ArchiveError | None]]
"""Tell a peer of notices, as ``telling.Tell`` does."""


class Notifying:
    """The job."""

    def __init__(
        self, index: Index, notice: Callable[[str], dict[str, Any] | None], tell: Notify, clock: Callable[[], float]
    ) -> None:
        """``notice`` describes a study, None when it is gone."""
        self._index, self._notice, self._tell, self._clock = index, notice, tell, clock

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        told = {task.id: self._notice(str(task.payload["study"])) for task in tasks}
        for task in tasks:
            if told[task.id] is None:
                self._index.finish(task.id, owner, self._clock(), reason="study is gone")
        left = [task for task in tasks if told[task.id] is not None]
        said = [{"operation": "create", "uid": task.payload["uid"], "said": told[task.id]} for task in left]
        if left:
            telling = Telling(self._index, lambda peer, _: self._tell(peer, said), self._clock, pauses=PAUSES)
            telling(lane, left, owner)
