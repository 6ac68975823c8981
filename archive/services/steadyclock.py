"""Whether the clock can be believed: a wrong one must not let years of images go at once.

Rules that hold here: the latest time that was seen is kept in the index; a clock that is far ahead of it, or behind it,
deletes nothing until a person has said that it is right; an archive that was switched off for long asks for that too.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from archive.index import Index
from archive.index.retention import RetentionRows

NAME = "retention_clock"  # under which the index keeps what was seen
AHEAD = 7 * 86400.0  # seconds that an archive may be switched off, or its clock be put forward, without a question
BEHIND = 86400.0  # seconds a clock may be put back: time zones, and a drift that somebody corrects
NOTED = 3600.0  # seconds between two notes


class SteadyClock:
    """The clock of what deletes by time."""

    def __init__(self, index: Index, clock: Callable[[], float]) -> None:
        self._index = index
        self._clock = clock

    def doubt(self, *, note: bool = True) -> str:
        """Why the clock is not believed; empty when it is, and then its time is noted."""
        now, seen = self._clock(), self._seen()
        if seen is not None and now > seen + AHEAD:
            return f"the clock is {(now - seen) / 86400:.0f} days ahead of when the archive was last at work"
        if seen is not None and now < seen - BEHIND:
            return f"the clock is {(seen - now) / 86400:.0f} days behind of when the archive was last at work"
        if note and (seen is None or abs(now - seen) > NOTED or self._index.get(NAME) is None):
            self._note(now)
        return ""

    def believe(self) -> None:
        """A person says that the clock is right."""
        self._note(self._clock())
        RetentionRows(self._index.database).wake()

    def _seen(self) -> float | None:
        """When the archive was at work last; on an index that does not know, when the last image came."""
        text = self._index.get(NAME)
        return float(json.loads(text)["seen"]) if text else RetentionRows(self._index.database).newest()

    def _note(self, now: float) -> None:
        self._index.put(NAME, json.dumps({"seen": now}))
