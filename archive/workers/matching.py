"""Looks which order a study is of: when the study is ready, and when an order comes for one that is unmatched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from archive.errors import ArchiveError
from archive.index import Index, Task

KIND = "match"
PAUSE = 30.0  # seconds until a look that failed is tried again


class Looking:
    """The job."""

    def __init__(
        self,
        index: Index,
        look: Callable[[str], object],
        waiting: Callable[[Mapping[str, str]], Iterable[str]],
        clock: Callable[[], float],
    ) -> None:
        """``look`` matches a study, ``waiting`` gives the unmatched studies that an order may be about."""
        self._index, self._look, self._waiting, self._clock = index, look, waiting, clock

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        for task in tasks:
            try:
                for study in self._studies(task):
                    self._look(study)
            except ArchiveError as error:
                if error.temporary:
                    self._index.retry(task.id, owner, self._clock() + PAUSE, str(error))
                    continue
            self._index.finish(task.id, owner, self._clock(), keep=False)

    def _studies(self, task: Task) -> Iterable[str]:
        order = task.payload.get("order")
        return self._waiting(order) if order else [str(task.payload["study"])]
