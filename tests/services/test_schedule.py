"""Windows of the day and pauses between tries."""

from __future__ import annotations

from datetime import datetime

import pytest

from archive.services.schedule import JITTER, Schedule, Span, chance, pause

NIGHT = (range(7), 22 * 60, 6 * 60)
WEEKEND = ((5, 6), 0, 24 * 60)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("spans", "now", "opens"),
    [
        ((), "2026-01-05T12:00", None),
        ((NIGHT,), "2026-01-05T22:00", None),
        ((NIGHT,), "2026-01-06T05:59", None),
        ((NIGHT,), "2026-01-06T06:00", "2026-01-06T22:00"),
        ((NIGHT,), "2026-01-06T21:59", "2026-01-06T22:00"),
        ((WEEKEND,), "2026-01-05T12:00", "2026-01-10T00:00"),  # a Monday
        ((WEEKEND,), "2026-01-11T23:59", None),
        ((WEEKEND, NIGHT), "2026-01-05T12:00", "2026-01-05T22:00"),
        ((((4,), 22 * 60, 6 * 60),), "2026-01-10T05:00", None),  # Friday's night ends on Saturday
        ((((4,), 22 * 60, 6 * 60),), "2026-01-11T05:00", "2026-01-16T22:00"),
    ],
)
def test_a_window_is_open_or_says_when_it_opens(spans: tuple[Span, ...], now: str, opens: str) -> None:
    assert Schedule(spans).opens(at(now)) == (at(opens) if opens else None)


def test_pauses_come_one_after_the_other_and_end() -> None:
    assert [pause((10.0, 20.0), tries, 1.1) for tries in (1, 2, 3)] == [11.0, 22.0, None]
    assert pause((), 1) is None


def test_what_failed_together_is_not_tried_together_for_ever() -> None:
    found = {chance() for _ in range(10)}
    assert len(found) > 1 and all(1 - JITTER <= each <= 1 + JITTER for each in found)
