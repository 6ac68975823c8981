"""Dates as DICOM writes them, YYYYMMDD: spans and steps.

Rules that hold here: texts compare as dates do; an empty bound is none; what is no date is older than all that are.
"""

from __future__ import annotations

from datetime import date, timedelta

OLDEST = date(1900, 1, 1)  # where spans without a beginning are divided


def within(day: str, since: str, until: str) -> bool:
    """Whether a study belongs to a span: some peers give more than they are asked for."""
    return bool(day) and (not since or day >= since) and (not until or day <= until)


def read_date(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None


def is_date(text: str) -> bool:
    return len(text) == 8 and text.isdigit() and read_date(text) is not None


def write_date(day: date) -> str:
    return f"{day:%Y%m%d}"


def day_after(text: str, days: int) -> str:
    return write_date((read_date(text) or OLDEST) + timedelta(days=days))
