"""The sections ``studies`` and ``commitment``: when a study is ready, and how storage commitment is answered.

Rules that hold here: as in sections.py; a schedule is a list of pauses, ``24h*7`` being the same one seven times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby

from .kinds import OFF_WORDS, Scalar, Unfit
from .schema import option
from .units import read_duration, show_duration
from .values import duration, number, one_of

MOST_TRIES = 1000  # of one report: hourly for six weeks
LONGEST = 30 * 86400.0
_REPEATED = re.compile(r"(.+?)\s*\*\s*(\d{1,3})", re.ASCII)


def schedule(text: str) -> tuple[float, ...]:
    """Pauses in seconds: ``1m,5m,24h*7`` are nine."""
    pauses: list[float] = []
    for part in text.split(","):
        match = _REPEATED.fullmatch(part.strip())
        pause = read_duration(match[1] if match else part)
        if not 1.0 <= pause <= LONGEST:
            raise Unfit("a pause out of range", "pauses from 1s to 30d would do")
        pauses += [pause] * (int(match[2]) if match else 1)
    if not 0 < len(pauses) <= MOST_TRIES:
        raise Unfit(f"{len(pauses)} tries", f"from 1 to {MOST_TRIES} would do")
    return tuple(pauses)


def show_schedule(pauses: tuple[float, ...]) -> str:
    """As it is written."""
    runs = [(pause, len(list(run))) for pause, run in groupby(pauses)]
    return ",".join(show_duration(pause) + (f"*{count}" if count > 1 else "") for pause, count in runs)


def _or_off(text: str) -> float | None:
    return None if text.strip().lower() in OFF_WORDS else duration(0.0, 86400.0).convert(text)


SCHEDULE = Scalar("pauses such as 1m,5m,24h*7", schedule, show_schedule)
OFF_OR_TIME = Scalar(
    "off or a time from 0s to 1d, such as 5s", _or_off, lambda value: "off" if value is None else show_duration(value)
)


AFTER_REPORT = {"reported": "somebody says when it is complete", "complete": "nothing more is to be done"}
MATCHING = {"auto": "where hl7 is on", "on": "always", "off": "never"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    retry: tuple[float, ...] = option(
        SCHEDULE, "1m,5m,30m,2h,6h,24h*7", "pauses between the tries to deliver a report; after the last it has failed"
    )
    retain: float = option(duration(3600.0, 10 * 365 * 86400.0), "30d", "how long what was reported is remembered")
    max_pending: int = option(
        number(1, 1_000_000), "10000", "requests of one peer that are not reported yet; further ones are refused"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Studies:
    ready_after: float = option(
        duration(1.0, 7 * 86400.0), "60s", "a study is ready when nothing has come for it for this long"
    )
    on_association_close: float | None = option(
        OFF_OR_TIME,
        "off",
        "or this long after an association that stored to it was released, if nothing has come since",
    )
    after_report: str = option(one_of(AFTER_REPORT), "reported", "the state of a study when its final report is here")
    match_orders: str = option(
        one_of(MATCHING), "auto", "a study that is ready and fits no order is unmatched; auto = where hl7 is on"
    )
