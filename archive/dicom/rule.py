"""Rules of the configuration: expressions over an object's attributes and what is known about its way here.

Rules that hold here: a rule is an expression as in ``visible_if`` (see ``archive.dicom.expression``) with the words of
WORDS besides the indexed attributes; it is parsed once and never evaluated as code; an empty rule holds for everything;
a multi-valued attribute fits when one of its values does.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from archive.dicom.attributes import BY_TAG, Attribute, Key, Level
from archive.dicom.expression import And, Compare, Expression, Not, Or, parse_expression
from archive.dicom.worklist import BY_KEYWORD as OF_ORDERS

# What rules can ask besides attributes, and what it means.
WORDS: Mapping[str, str] = {
    "CallingAETitle": "who handed the object in",
    "CalledAETitle": "the AE title it was handed in to",
    "CallingAddress": "the IP address it came from",
    "TransferSyntaxUID": "how it is encoded",
    "StudyState": "the state of its study, such as ready",
    "TimeOfDay": "the local time as HH:MM",
    "Weekday": "the local day of the week: mon, tue, wed, thu, fri, sat or sun",
}
_WORDS = {word: (Attribute(word, 0, "LO", Level.IMAGE, Key.OPTIONAL, ""),) for word in WORDS}

Facts = Callable[[str], str]  # the text of a keyword or word, "" when there is none

_NUMERIC = frozenset({"IS", "DS", "US", "SS", "UL", "SL", "FL", "FD", "UV", "SV"})


def parse_rule(text: str) -> Expression | None:
    """The rule a text says, None for the empty one; raises ConfigurationError naming the column."""
    return parse_expression(text, words=_WORDS) if text.strip() else None


def parse_order_rule(text: str) -> Expression | None:
    """A rule that asks of orders as well: it knows the attributes of the modality worklist besides."""
    words = {**_WORDS, **{keyword: (row,) for keyword, row in OF_ORDERS.items()}}
    return parse_expression(text, words=words) if text.strip() else None


def holds(rule: Expression | None, facts: Facts) -> bool:
    """Whether a rule holds for what ``facts`` tells."""
    if rule is None:
        return True
    if isinstance(rule, Not):
        return not holds(rule.part, facts)
    if isinstance(rule, And):
        return all(holds(part, facts) for part in rule.parts)
    if isinstance(rule, Or):
        return any(holds(part, facts) for part in rule.parts)
    return _fits(rule, facts(rule.attribute.keyword))


def asked(rule: Expression | None) -> set[str]:
    """The keywords and words that a rule asks for."""
    if isinstance(rule, Compare):
        return {rule.attribute.keyword}
    if isinstance(rule, Not):
        return asked(rule.part)
    return {keyword for part in rule.parts for keyword in asked(part)} if rule is not None else set()


def header_facts(values: Mapping[int, str], words: Mapping[str, str] = {}) -> Facts:
    """Facts from a header's values by tag, with the words that are known besides."""
    by_keyword = {attribute.keyword: values[tag] for tag in values for attribute in BY_TAG.get(tag, ())}
    by_keyword |= words
    return lambda keyword: by_keyword.get(keyword, "")


def _fits(compare: Compare, text: str) -> bool:
    return any(_compares(compare, value.strip()) for value in text.split("\\"))


def _compares(compare: Compare, value: str) -> bool:
    operator, wanted = compare.operator, compare.values
    if operator in ("=", "in"):
        return value in wanted
    if operator == "like":
        return bool(_pattern(wanted[0]).match(value))
    return _ordered(operator, value, wanted[0], numeric=compare.attribute.vr in _NUMERIC)


def _ordered(operator: str, value: str, limit: str, *, numeric: bool) -> bool:
    """Numbers by size, everything else by text, which is the order of dates and times; nothing is neither."""
    if not value:
        return False
    left: float | str = value
    right: float | str = limit
    if numeric:
        try:
            left, right = float(value), float(limit)
        except ValueError:
            return False
    less, equal = left < right, left == right  # type: ignore[operator]
    return {"<": less, "<=": less or equal, ">": not less and not equal, ">=": not less}[operator]


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    """``*`` and ``?`` only: brackets are literal."""
    return re.compile(fnmatch.translate(text.replace("[", "[[]")))
