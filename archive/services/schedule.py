"""When something may be done: spans of the local day on days of the week, and pauses between tries.

Rules that hold here: no clock is read, the time is passed in; a span that ends before it begins ends on the next day;
without any span it is always time.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

DAY = 1440  # minutes
JITTER = 0.1  # of a pause, to both sides, so that what failed together is not tried together for ever

Span = tuple[Collection[int], int, int]  # days on which it begins (0 is Monday), first and last minute


class Schedule:
    """Spans in which something may be done."""

    def __init__(self, spans: Sequence[Span] = ()) -> None:
        self._spans = tuple((frozenset(days), start, end if end > start else end + DAY) for days, start, end in spans)

    def opens(self, now: float) -> float | None:
        """None when it is time now, else the moment when it will be."""
        if not self._spans:
            return None
        moment = datetime.fromtimestamp(now)
        if any(begin <= moment < end for begin, end in self._around(moment)):
            return None
        return min(begin.timestamp() for begin, _ in self._around(moment) if begin > moment)

    def _around(self, moment: datetime) -> list[tuple[datetime, datetime]]:
        """All spans that begin between yesterday and in a week."""
        midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        found = []
        for offset in range(-1, 8):
            day = midnight + timedelta(days=offset)
            for days, start, end in self._spans:
                if day.weekday() in days:
                    found.append((day + timedelta(minutes=start), day + timedelta(minutes=end)))
        return found


def pause(delays: Sequence[float], tries: int, factor: float = 1.0) -> float | None:
    """Seconds to wait after so many tries have failed, times ``factor``; None when it was the last."""
    if not 0 < tries <= len(delays):
        return None
    return delays[tries - 1] * factor


def chance() -> float:
    """What a pause is multiplied with."""
    return random.uniform(1 - JITTER, 1 + JITTER)
