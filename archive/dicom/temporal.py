"""Dates, times and date-times as comparable text, and the ranges a key may name (PS3.4 C.2.2.2.5).

Rules that hold here: a bound is text that compares with stored values as bytes do, both ends inclusive;
a shorter value means its whole span (``1030`` is 10:30:00 to 10:30:59.999999); what is no date or time is None,
and whoever asked says so.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

Bounds = tuple[str | None, str | None]

_TIME = re.compile(r"([01]\d|2[0-3])(?:([0-5]\d)(?:([0-5]\d|60)(?:\.(\d{1,6}))?)?)?", re.ASCII)
_OFFSET = re.compile(r"[+-](?:0\d|1[0-4])[0-5]\d", re.ASCII)
_MOMENT = re.compile(r"(\d{4}(?:\d\d){0,2}|\d{8}\d{2}(?:\d\d){0,2}(?:\.\d{1,6})?)([+-]\d{4})?", re.ASCII)
_FIRST = "00010101000000.000000"
_LAST = "99991231235959.999999"


def canonical_date(text: str) -> str | None:
    """YYYYMMDD of a valid date, also of the old form YYYY.MM.DD (PS3.5 table 6.2-1), or None."""
    digits = text.strip().replace(".", "") if text.count(".") == 2 else text.strip()
    if len(digits) != 8 or not (digits.isascii() and digits.isdigit()):
        return None
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
    return digits


def canonical_time(text: str) -> str | None:
    """HH[MM[SS[.F]]] of a valid time, also of the old form HH:MM:SS, or None."""
    digits = text.strip().replace(":", "")
    return digits if _TIME.fullmatch(digits) else None


def offset_minutes(text: str) -> int | None:
    """Minutes east of UTC of ``+HHMM`` or ``-HHMM``, or None."""
    if not _OFFSET.fullmatch(text.strip()):
        return None
    sign, digits = text.strip()[0], text.strip()[1:]
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return -minutes if sign == "-" else minutes


def earliest_time(text: str) -> str:
    """A lower bound that also takes in shorter values of the same instant: 103000 -> 103."""
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole.rstrip("0")


def latest_time(text: str) -> str:
    """The end of the span a time names: 1030 -> 103059.999999."""
    return text + "235959.999999"[len(text) :]


def _full(text: str, pattern: str) -> str:
    """A shorter date-time filled up to microseconds from ``pattern``."""
    if "." in text:
        return text + pattern[-6:][len(text.split(".")[1]) :]
    return text + pattern[len(text) :]


def _last_moment(digits: str) -> str:
    if len(digits) == 6:
        year, month = int(digits[:4]), int(digits[4:])
        following = date(year + month // 12, month % 12 + 1, 1) if (year, month) != (9999, 12) else None
        digits += f"{(following - timedelta(days=1)).day:02}" if following else "31"
    return _full(digits, _LAST)


def comparable_moment(text: str, *, end: bool = False, shift: int = 0) -> str | None:
    """The first (or last) instant a DT value names, as YYYYMMDDHHMMSS.FFFFFF in UTC if it has an offset.

    ``shift`` is the offset in minutes east that is taken for a value which names none.
    """
    found = _MOMENT.fullmatch(text.strip())
    if not found:
        return None
    digits, zone = found.groups()
    try:
        full = _last_moment(digits) if end else _full(digits, _FIRST)
        minutes = offset_minutes(zone) if zone else shift
        return None if minutes is None else shifted(full, -minutes)
    except (ValueError, OverflowError):
        return None


def shifted(moment: str, minutes: int) -> str:
    """A full date-time some minutes later; raises ValueError or OverflowError when there is no such instant."""
    whole = datetime.strptime(moment[:21], "%Y%m%d%H%M%S.%f")
    return (whole + timedelta(minutes=minutes)).strftime("%Y%m%d%H%M%S.%f").rjust(21, "0")


def date_bounds(text: str) -> Bounds | None:
    """The bounds of a DA key: a date, ``a-b``, ``a-`` or ``-b``."""
    low, dash, high = text.partition("-")
    first = canonical_date(low) if low.strip() else None
    last = canonical_date(high) if high.strip() else None
    if not dash:
        return (first, first) if first else None
    return _checked((first, last), low, high)


def time_bounds(text: str) -> Bounds | None:
    """The bounds of a TM key: a time, ``a-b``, ``a-`` or ``-b``."""
    low, dash, high = text.partition("-")
    first = canonical_time(low) if low.strip() else None
    last = canonical_time(high if dash else low) if (high if dash else low).strip() else None
    bounds = (earliest_time(first) if first else None, latest_time(last) if last else None)
    return _checked(bounds, low, high if dash else low)


def moment_bounds(text: str, shift: int = 0) -> Bounds | None:
    """The bounds of a DT key; a dash also begins an offset west of UTC, so every dash is tried."""
    whole = (comparable_moment(text, shift=shift), comparable_moment(text, end=True, shift=shift))
    if whole[0] and whole[1]:
        return whole
    for place in (found.start() for found in re.finditer("-", text)):
        low, high = text[:place], text[place + 1 :]
        first = comparable_moment(low, shift=shift) if low.strip() else None
        last = comparable_moment(high, end=True, shift=shift) if high.strip() else None
        if bounds := _checked((first, last), low, high):
            return bounds
    return None


def _checked(bounds: Bounds, low: str, high: str) -> Bounds | None:
    """Bounds are good when each end that was given was understood, and one was given."""
    given = (bool(low.strip()), bool(high.strip()))
    return bounds if any(given) and given == (bounds[0] is not None, bounds[1] is not None) else None
