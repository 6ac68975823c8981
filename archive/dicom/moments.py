"""Combined date-time matching: a date range and a time range that mean one span (PS3.4 C.2.2.2.5.1).

Rules that hold here: only pairs of the table combine, and only when both parts are ranges or values; a requester
in another timezone has other days, so that a date alone is a span of its own; birthdays are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from archive.dicom.attributes import BY_KEYWORD, Attribute
from archive.dicom.query import Between, Condition, Moment
from archive.dicom.temporal import shifted

PAIRS = {
    "StudyDate": "StudyTime",
    "SeriesDate": "SeriesTime",
    "PatientBirthDate": "PatientBirthTime",
    "AcquisitionDate": "AcquisitionTime",
    "ContentDate": "ContentTime",
    "PerformedProcedureStepStartDate": "PerformedProcedureStepStartTime",
    "ScheduledProcedureStepStartDate": "ScheduledProcedureStepStartTime",
}

_EVERYWHERE = frozenset({"PatientBirthDate"})
_MIDNIGHT, _END_OF_DAY = "000000.000000", "235959.999999"


def combined(conditions: Sequence[Condition], shift: int) -> list[Condition]:
    """The conditions with each pair of date and time made one; ``shift`` in minutes is added to their spans.

    With a shift, a date alone becomes one too: from midnight to midnight by the requester's clock.
    """
    by_keyword = {each.attribute.keyword: each for each in conditions if not each.attribute.extra}
    moments: dict[str, Condition] = {}
    used: set[str] = set()
    for date_keyword, time_keyword in PAIRS.items():
        date, time = by_keyword.get(date_keyword), by_keyword.get(time_keyword)
        if date is None or not isinstance(date.test, Between):
            continue
        if time and isinstance(time.test, Between):
            moment = _moment(time.attribute, date.test, time.test, _of(date_keyword, shift))
            moments[date_keyword] = Condition(date.attribute, moment)
            used.add(time_keyword)
        elif time is None and _of(date_keyword, shift):
            moment = _moment(_partner(date.attribute), date.test, Between(None, None), shift)
            moments[date_keyword] = Condition(date.attribute, moment)
    kept = [each for each in conditions if each.attribute.extra or each.attribute.keyword not in used]
    return [each if each.attribute.extra else moments.get(each.attribute.keyword, each) for each in kept]


def _of(date_keyword: str, shift: int) -> int:
    return 0 if date_keyword in _EVERYWHERE else shift


def _partner(date: Attribute) -> Attribute:
    """The time that belongs to a date."""
    return next(row for row in BY_KEYWORD[PAIRS[date.keyword]] if row.level is date.level)


def _moment(attribute: Attribute, dates: Between, times: Between, shift: int) -> Moment:
    low = (dates.low, times.low or "") if dates.low else None
    high = (dates.high, times.high or _END_OF_DAY) if dates.high else None
    return Moment(attribute, _shifted(low, _MIDNIGHT, shift), _shifted(high, _END_OF_DAY, shift))


def _shifted(end: tuple[str, str] | None, pattern: str, shift: int) -> tuple[str, str] | None:
    if end is None or not shift:
        return end
    day, time = end
    try:
        moment = shifted(day + time + pattern[len(time) :], shift)
    except (ValueError, OverflowError):  # the first and the last day of the calendar have no neighbours
        return end
    return moment[:8], moment[8:]
