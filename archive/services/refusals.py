"""What refused objects say about the archive: who was refused, and whether disk or index are what has failed.

Rules that hold here: a refusal costs one alarm and no row; whose fault it was is told by its kind; disk and index are
well again when an object has been stored.
"""

from __future__ import annotations

from archive.errors import (
    ArchiveError,
    Cancelled,
    Conflict,
    IndexUnavailable,
    NotAllowed,
    OutOfResources,
    StorageFailed,
    TooLarge,
)
from archive.services.alarms import BEGINS, DISK, ERROR, INDEX, OVER, STORE, WARNING, Alarm, Raise

ANSWERS, STORES = "the database answers again", "objects can be stored again"


class Refusals:
    """Of one process; thread-safe, as it only adds to a set and empties it."""

    def __init__(self, tell: Raise) -> None:
        self._tell = tell
        self._failing: set[str] = set()

    def refused(self, error: ArchiveError, caller: str) -> None:
        """An object was not taken."""
        if isinstance(error, NotAllowed | Cancelled):
            return
        level = ERROR if isinstance(error, OutOfResources) else WARNING
        what = "put aside or refused" if isinstance(error, Conflict) else "refused"
        about = caller or "an import"
        self._tell(Alarm(STORE, about, f"of {about} {what}", error.comment, noun="object", level=level))
        if isinstance(error, IndexUnavailable):
            self._begins(INDEX, "index", "the database does not answer", error)
        elif isinstance(error, OutOfResources) and not isinstance(error, TooLarge):
            kind = "the disk fails" if isinstance(error, StorageFailed) else "objects cannot be stored"
            self._begins(DISK, "storage", kind, error)

    def _begins(self, on: str, about: str, text: str, error: ArchiveError) -> None:
        self._failing.add(on)
        self._tell(Alarm(on, about, text, str(error), state=BEGINS))

    def stored(self) -> None:
        """An object was taken: disk and index work."""
        if self._failing:
            self.well()

    def well(self) -> None:
        """Say that they work; who has not said otherwise is not told."""
        self._failing.clear()
        self._tell(Alarm(INDEX, "index", ANSWERS, state=OVER))
        self._tell(Alarm(DISK, "storage", STORES, state=OVER))
