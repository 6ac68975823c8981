"""Whether a value passes a test of a query, for values that are in memory and not in a database.

Rules that hold here: the answer is the one that the index gives for a stored value (PS3.4 C.2.2.2); a missing value
passes no test but NoValue; of several values one is enough; a pattern never becomes a regular expression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from archive.dicom.attributes import Attribute
from archive.dicom.keys import canonical_number
from archive.dicom.names import folded_names, name_groups, name_tokens
from archive.dicom.query import AnyOf, Between, Condition, Moment, NameHas, NameIs, NoValue, OneOf, Test, Wild, Within
from archive.dicom.temporal import canonical_date, canonical_time, comparable_moment

_COMPARABLE = {"DA": canonical_date, "TM": canonical_time, "DT": comparable_moment}

Values = Mapping[str, Any]  # text, or a list of such mappings, by keyword


def fits_all(conditions: Sequence[Condition], values: Values) -> bool:
    return all(fits(each.attribute, each.test, values) for each in conditions)


def fits(attribute: Attribute, test: Test, values: Values) -> bool:
    """Whether the attribute of these values passes the test."""
    value = values.get(attribute.keyword)
    if isinstance(test, Within):
        return isinstance(value, list) and any(fits_all(test.conditions, item) for item in value)
    text = value if isinstance(value, str) else ""
    if isinstance(test, NoValue):
        return not text
    if isinstance(test, Moment):
        return _within_moment(text, str(values.get(test.time.keyword) or ""), test)
    if isinstance(test, NameIs | NameHas):
        return bool(text) and _name_fits(text, test)
    return any(_value_fits(attribute, part, test) for part in text.split("\\") if part)


def _value_fits(attribute: Attribute, value: str, test: Test) -> bool:
    match test:
        case OneOf(values):
            if attribute.vr in ("IS", "DS", "US"):
                return canonical_number(attribute.vr, value) in values
            return value in values
        case Wild(pattern):
            return matches(pattern, value)
        case AnyOf(tests):
            return any(_value_fits(attribute, value, each) for each in tests)
        case Between(low, high):
            comparable = _COMPARABLE[attribute.vr](value)
            return comparable is not None and _between(comparable, low, high)
    raise TypeError(test)


def matches(pattern: str, value: str) -> bool:
    """``*`` and ``?`` are wildcards, everything else stands for itself."""
    return fnmatchcase(value, pattern.replace("[", "[[]"))


def _between(value: str, low: str | None, high: str | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _within_moment(date: str, time: str, test: Moment) -> bool:
    day, clock = canonical_date(date), canonical_time(time)
    if day is None:
        return False
    low = test.low is None or day > test.low[0] or (day == test.low[0] and (clock is None or clock >= test.low[1]))
    high = test.high is None or day < test.high[0] or (day == test.high[0] and (clock is None or clock <= test.high[1]))
    return low and high


def _name_fits(text: str, test: NameIs | NameHas) -> bool:
    if isinstance(test, NameHas):
        words = name_tokens(folded_names(text))
        return all(any(word.startswith(token) for word in words) for token in test.tokens)
    return any(_groups_fit(name_groups(name), test.groups) for name in text.split("\\"))


def _groups_fit(stored: tuple[str, str, str], wanted: tuple[str, ...]) -> bool:
    """One pattern fits any group; of several each fits its own."""
    if len(wanted) == 1:
        return any(group and _group_fits(group, wanted[0]) for group in stored)
    pairs = zip(stored, wanted, strict=False)
    return all(pattern in ("", "*") or _group_fits(group, pattern) for group, pattern in pairs)


def _group_fits(group: str, pattern: str) -> bool:
    """``doe^*`` also means doe alone: components at the end may be missing."""
    return matches(pattern, group) or (pattern.endswith("^*") and group == pattern[:-2])
