"""Reading no faster than told, so that others have the disk too.

Rules that hold here: what was read is paid for afterwards by waiting, in small pieces; the clock and the waiting are
passed in.
"""

from __future__ import annotations

from collections.abc import Callable


class Throttle:
    """Called with the bytes that were read; waits until that many were due."""

    def __init__(self, rate: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        """``rate`` in bytes a second; 0 for no limit."""
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._due = clock()

    def __call__(self, size: int) -> None:
        if not self._rate:
            return
        now = self._clock()
        # Time in which nothing was read is not saved up: a burst afterwards would be what nobody wants.
        self._due = max(self._due, now - size / self._rate) + size / self._rate
        if self._due > now:
            self._sleep(self._due - now)
