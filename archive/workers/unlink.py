"""The worker that unlinks the files of deleted objects, a batch at a time."""

from __future__ import annotations

from archive.index.deletion import WORK
from archive.services.deletion import Unlinking


class UnlinkDeleted:
    """Woken by deletions; looks once at the start for what a former process left."""

    name = "unlink"
    kinds = frozenset({WORK})

    def __init__(self, unlinking: Unlinking) -> None:
        self._unlinking = unlinking

    def step(self) -> float | None:
        return self._unlinking.some()

    def close(self) -> None:
        """It keeps nothing."""
