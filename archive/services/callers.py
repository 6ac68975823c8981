"""Who knocked in vain: refusals are counted, and written to the index.

Rules that hold here: a usual refusal is written at once; a flood costs at most `BURST` writes a second,
and what it holds back is added to the next one.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable

from archive.errors import ArchiveError

log = logging.getLogger(__name__)

Note = Callable[[str, str, str, str, float, int], None]  # AE title, address, called AE title, reason, when, times
Caller = tuple[str, str]

BURST = 20  # writes a second; a technician trying a new device needs one every few seconds
MOST = 1000  # callers held back at a time: a flood with made-up titles must not grow without bound


class Callers:
    """Remembers refusals through `note`; thread-safe."""

    def __init__(self, note: Note, clock: Callable[[], float]) -> None:
        self._note = note
        self._clock = clock
        self._lock = threading.Lock()
        self._second = 0
        self._writes = 0
        self._held: Counter[Caller] = Counter()

    def note(self, aet: str, address: str, called: str, reason: str) -> None:
        """Called for every refusal; never raises, since a refusal must not fail."""
        now = self._clock()
        times = self._due((aet, address), int(now))
        if not times:
            return
        try:
            self._note(aet, address, called, reason, now, times)
        except ArchiveError as error:
            log.warning("a refused caller could not be noted: %s", error)

    def _due(self, caller: Caller, second: int) -> int:
        """How many refusals of this caller are to be written now; 0 holds this one back."""
        with self._lock:
            if second != self._second:
                self._second, self._writes = second, 0
            if self._writes >= BURST:
                if len(self._held) < MOST:
                    self._held[caller] += 1
                return 0
            self._writes += 1
            return self._held.pop(caller, 0) + 1
