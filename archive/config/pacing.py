"""When, how often and how fast: spans of the day, pauses before further tries, rates.

Rules that hold here: times of the day are local; pauses are seconds, one for each further try; nothing here knows what
is sent, fetched or told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from .kinds import Either, Scalar, Unfit
from .schema import Section, option
from .units import read_duration, read_size, show_size
from .values import duration, number

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST_TRIES = 1000  # of one image: with a minute between them that is most of a day

_RETRY = re.compile(r"\s*(\d+)\s*x\s*([^,\s]+)\s*", re.ASCII)
_WINDOW = re.compile(r"(?:([a-z,\- ]+?)\s+)?(\d\d):(\d\d)-(\d\d):(\d\d)", re.ASCII)


class Hours(NamedTuple):
    """A span of the day in minutes on days (0 is Monday) on which it begins; it may end on the day after."""

    days: tuple[int, ...]
    start: int
    end: int


def _delays(text: str) -> tuple[float, ...]:
    found: list[float] = []
    for part in text.split(","):
        match = _RETRY.fullmatch(part)
        if not match:
            raise Unfit("not a list such as 2x1m,3x10m")
        found += [read_duration(match[2])] * min(int(match[1]), MOST_TRIES + 1)
    if not 0 < len(found) <= MOST_TRIES:
        raise Unfit(f"{len(found)} tries")
    return tuple(found)


def _show_delays(delays: tuple[float, ...]) -> str:
    return ",".join(f"1x{delay:g}s" for delay in delays)


def _hours(text: str) -> Hours:
    match = _WINDOW.fullmatch(text.strip().lower())
    if not match:
        raise Unfit("not a span such as 22:00-06:00 or 'sat,sun 00:00-24:00'")
    start, end = (int(match[i]) * 60 + int(match[i + 1]) for i in (2, 4))
    if start >= 1440 or end > 1440 or int(match[3]) > 59 or int(match[5]) > 59 or start == end:
        raise Unfit("not a span of the day")
    return Hours(_days(match[1] or "mon-sun"), start, end)


def _days(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise Unfit(f"{part} is no day", f"days are {', '.join(DAYS)}, and spans such as mon-fri")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found |= {day % 7 for day in range(begin, (end if end >= begin else end + 7) + 1)}
    return tuple(sorted(found))


def _show_hours(hours: Hours) -> str:
    clock = f"{hours.start // 60:02}:{hours.start % 60:02}-{hours.end // 60:02}:{hours.end % 60:02}"
    return clock if len(hours.days) == 7 else f"{','.join(DAYS[day] for day in hours.days)} {clock}"


def _rate(text: str) -> int:
    found = read_size(text.strip().removesuffix("/s"))
    if found and found < 1024:
        raise Unfit("too slow")
    return found


WINDOW = Scalar("a span of the day such as 22:00-06:00, with days such as mon-fri before it", _hours, _show_hours)
HOURS = Scalar(
    "always, or a span of the day such as 22:00-06:00",
    lambda text: None if text.strip().lower() == "always" else WINDOW.convert(text),
    lambda value: "always" if value is None else WINDOW.show(value),
)
RATE = Scalar(
    "a rate such as 20MB/s; 0 = no limit", _rate, lambda value: f"{show_size(value)}/s" if value else "0"
)
DELAYS = Scalar("tries and pauses such as 2x1m,3x10m", _delays, _show_delays)
GIVE_UP = duration(1, 365 * 86400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often an image is tried again, and after which pause."""

    max: int = option(number(0, MOST_TRIES), "10", "tries after the first")
    delay: float = option(duration(0.1, 86400), "30s", "the first pause")
    factor: int = option(number(1, 10), "2", "each pause is so many times the one before")
    cap: float = option(duration(0.1, 7 * 86400), "10m", "the longest pause")

    @property
    def delays(self) -> tuple[float, ...]:
        """The pauses one after the other."""
        return tuple(min(self.cap, self.delay * self.factor ** min(tries, 60)) for tries in range(self.max))


RETRY = Either(DELAYS, Section(Retry), lambda value: isinstance(value, tuple))


def pauses(retry: Retry | tuple[float, ...]) -> tuple[float, ...]:
    """Before each further try, however they were said."""
    return retry.delays if isinstance(retry, Retry) else retry
