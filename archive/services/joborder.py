"""What a person wants of a peer: which studies, which of their series and how; and whether an answer is one to that.

Rules that hold here: a key that nobody could answer is said at once; a peer may ignore a key, so its answers are looked
at by the rules that the archive itself answers by; a value that it leaves out says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from archive.dicom.attributes import BY_KEYWORD, Attribute, Level, resolve
from archive.dicom.fit import fits
from archive.dicom.keys import read_key
from archive.dicom.query import Test
from archive.errors import InvalidQuery
from archive.services.slices import DATE

COMPARISONS = {
    "uids": "every instance of every study that the peer lists is looked for here",
    "counts": "a study with as many series and instances here as there is taken to be the same",
}
_DATES = re.compile(r"(\d{8})?(-)?(\d{8})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Order:
    """What a person wants: which studies, which of their series, and how."""

    keys: Mapping[str, str] = field(default_factory=dict)
    series_keys: Mapping[str, str] = field(default_factory=dict)
    since: str = ""
    until: str = ""
    days: int = 0
    oldest_first: bool = False
    dated_only: bool = False
    compare: str = "uids"
    per_minute: int = 0
    window: Sequence[Any] = ()


def read_keys(keys: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], str, str]:
    """Keys of studies, keys of series, and the span of dates among them; raises InvalidQuery."""
    above: dict[str, str] = {}
    below: dict[str, str] = {}
    since = until = ""
    for keyword, value in keys.items():
        levels = [row.level for row in BY_KEYWORD.get(keyword, ())]
        if not levels or min(levels) is Level.IMAGE:
            raise InvalidQuery("studies and series cannot be asked for by this", keyword)
        if keyword == DATE and value:
            since, until = read_dates(value)
            continue
        level = Level.SERIES if Level.SERIES in levels else Level.STUDY
        read_key(_attribute(keyword, level), value)
        (below if level is Level.SERIES else above)[keyword] = value
    return above, below, since, until


def read_dates(text: str) -> tuple[str, str]:
    """A date or a range as DICOM writes it, as ISO dates; raises InvalidQuery."""
    match = _DATES.fullmatch(text.replace(" ", ""))
    if not match or not (match[1] or match[3]):
        raise InvalidQuery("a study date is 20200131 or 20200101-20201231", text)
    try:
        first, last = (date.fromisoformat(part).isoformat() if part else "" for part in (match[1], match[3]))
    except ValueError:
        raise InvalidQuery("no such date", text) from None
    return (first, last) if match[2] else (first, first)


def sieve(keys: Mapping[str, str], level: Level) -> Callable[[Mapping[str, str]], bool]:
    """Tells whether values that a peer gives can be an answer to these keys; letter cases are its own business."""
    tests = [(attribute, test) for attribute, test in (_test(*each, level) for each in keys.items()) if test]

    def can_be(values: Mapping[str, str]) -> bool:
        given = {keyword: value.lower() for keyword, value in values.items() if value.strip()}
        return all(fits(attribute, test, given) for attribute, test in tests if attribute.keyword in given)

    return can_be


def _test(keyword: str, value: str, level: Level) -> tuple[Attribute, Test | None]:
    attribute = _attribute(keyword, level)
    try:
        return attribute, read_key(attribute, value.lower())
    except InvalidQuery:  # of a job that was made before keys were looked at
        return attribute, None


def _attribute(keyword: str, level: Level) -> Attribute:
    found = resolve(BY_KEYWORD[keyword][0].tag, level)
    assert found is not None, keyword
    return found
