"""Tests of a query to SQL conditions with values beside them.

Rules that hold here: a key's text is always a parameter, never part of a statement and never a regular expression;
what begins with literal characters also becomes a range, so that an index on the column serves it in both
databases; a column that is NULL passes no test but NoValue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from archive.dicom.attributes import Attribute
from archive.dicom.keys import is_wild
from archive.dicom.query import (
    AnyOf,
    Between,
    Condition,
    Moment,
    NameHas,
    NameIs,
    NoValue,
    OneOf,
    Test,
    Wild,
    Within,
)
from archive.index.columns import LIFTED, PATIENT_NAME, PATIENT_NAME_COLUMNS, folded_column
from archive.index.database import Dialect

Sql = tuple[str, list[Any]]

TRUE: Sql = ("1 = 1", [])
FALSE: Sql = ("1 = 0", [])

TELLING = 3  # letters of a name's beginning that some thousands share, of a million


def all_of(parts: Sequence[Sql]) -> Sql:
    if not parts:
        return TRUE
    return " AND ".join(sql for sql, _ in parts), [value for _, values in parts for value in values]


def any_of(parts: Sequence[Sql]) -> Sql:
    if not parts:
        return FALSE
    return f"({' OR '.join(f'({sql})' for sql, _ in parts)})", [value for _, values in parts for value in values]


def following(prefix: str) -> str | None:
    """The first text behind all that begin with a prefix, in the order of code points; None if there is none."""
    for length in range(len(prefix), 0, -1):
        code = ord(prefix[length - 1]) + 1
        code = 0xE000 if 0xD800 <= code < 0xE000 else code
        if code <= 0x10FFFF:
            return prefix[: length - 1] + chr(code)
    return None


def starts_with(column: str, prefix: str) -> Sql:
    end = following(prefix)
    if end is None:
        return f"{column} >= ?", [prefix]
    return f"{column} >= ? AND {column} < ?", [prefix, end]


def fits(dialect: Dialect, column: str, pattern: str) -> Sql:
    """A pattern with wildcards; without any it is the value itself."""
    if not is_wild(pattern):
        return f"{column} = ?", [pattern]
    literal = min(pattern.find(sign) for sign in "*?" if sign in pattern)
    if pattern == pattern[:literal] + "*" and literal:
        return starts_with(column, pattern[:literal])
    test: Sql = (dialect.like.format(column=column), [dialect.pattern(pattern)])
    return all_of([starts_with(column, pattern[:literal]), test]) if literal else test


def condition(dialect: Dialect, alias: str, wanted: Condition) -> Sql:
    """The condition on a row of the attribute's table, which ``alias`` stands for."""
    return _test(dialect, f"{alias}.", wanted.attribute, wanted.test)


def _test(dialect: Dialect, prefix: str, attribute: Attribute, test: Test) -> Sql:
    column = prefix + attribute.column
    match test:
        case NameIs():
            return _name(dialect, prefix, attribute, test)
        case NameHas():
            return _words(dialect, prefix, attribute, test)
        case Within():
            return _within(dialect, prefix + (folded_column(attribute) or attribute.column), test)
        case Moment():
            return _moment(column, prefix + test.time.column, test)
        case OneOf() | Wild() | AnyOf() if attribute.keyword in LIFTED:
            return _requested(dialect, prefix, attribute, test)
        case _:
            return value_test(dialect, column, test, multiple=attribute.multiple)


def value_test(dialect: Dialect, column: str, test: Test, *, multiple: bool = False) -> Sql:
    """A test on text in a column or another expression."""
    match test:
        case OneOf(values) if multiple:
            return any_of([_has_value(dialect, column, value) for value in values])
        case OneOf((value,)):
            return f"{column} = ?", [value]
        case OneOf(values):
            return dialect.among.format(column=column), [dialect.listed(values)]
        case Wild(pattern) if multiple:
            return any_value(dialect, column, fits(dialect, "value", pattern))
        case Wild(pattern):
            return fits(dialect, column, pattern)
        case AnyOf(tests):
            return any_of([value_test(dialect, column, each, multiple=multiple) for each in tests])
        case Between(low, high):
            return _between(column, low, high)
        case NoValue():
            return f"({column} IS NULL OR {column} = '')", []
        case _:
            raise TypeError(test)


def _between(column: str, low: str | None, high: str | None) -> Sql:
    if low == high and low is not None:
        return f"{column} = ?", [low]
    ends = ((f"{column} >= ?", low), (f"{column} <= ?", high))
    return all_of([(sql, [value]) for sql, value in ends if value is not None])


def _moment(date: str, time: str, test: Moment) -> Sql:
    """A date and a time as one; what has no time counts by its day."""
    parts: list[Sql] = []
    for end, beyond, within in ((test.low, ">", ">="), (test.high, "<", "<=")):
        if end:
            parts.append((f"{date} {within} ?", [end[0]]))
            parts.append((f"({date} {beyond} ? OR {time} IS NULL OR {time} {within} ?)", list(end)))
    return all_of(parts)


def _requested(dialect: Dialect, prefix: str, attribute: Attribute, test: Test) -> Sql:
    """Request IDs stand one by one in a table of their own."""
    sql, values = value_test(dialect, "value", test)
    return (
        f"{prefix}id IN (SELECT series FROM series_request WHERE keyword = ? AND {sql})",
        [attribute.keyword, *values],
    )


def _has_value(dialect: Dialect, column: str, value: str) -> Sql:
    return f"{dialect.find}('\\' || {column} || '\\', ?) > 0", [f"\\{value}\\"]


def any_value(dialect: Dialect, column: str, test: Sql) -> Sql:
    """A test that one value of a multi-valued column passes."""
    return f"EXISTS (SELECT 1 FROM {dialect.each_value.format(column=column)} WHERE {test[0]})", test[1]


def _name(dialect: Dialect, prefix: str, attribute: Attribute, test: NameIs) -> Sql:
    if attribute.tag == PATIENT_NAME:
        return _patient_name(dialect, [prefix + name for name in PATIENT_NAME_COLUMNS], test)
    column = prefix + (folded_column(attribute) or attribute.column)
    patterns = [group for group in test.groups if group not in ("", "*")]
    return all_of([_any_group(dialect, column, attribute, pattern) for pattern in patterns])


def _any_group(dialect: Dialect, column: str, attribute: Attribute, pattern: str) -> Sql:
    """A folded name column holds all groups as values, the alphabetic one first: only that can be Latin."""
    tests = variants(pattern)
    if attribute.multiple or not pattern.isascii():
        return any_of([any_value(dialect, column, fits(dialect, "value", each)) for each in tests])
    alone = [fits(dialect, column, each) for each in tests]
    followed = [fits(dialect, column, each + "\\*") for each in tests if not each.endswith("*")]
    return any_of(alone + followed)


def variants(pattern: str) -> tuple[str, ...]:
    """``doe^*`` also means doe alone: components at the end may be missing."""
    return (pattern, pattern[:-2]) if pattern.endswith("^*") else (pattern,)


def _patient_name(dialect: Dialect, columns: Sequence[str], test: NameIs) -> Sql:
    if len(test.groups) == 1:
        pattern = test.groups[0]
        searched = columns[:1] if pattern.isascii() else columns
        return any_of([fits(dialect, column, each) for column in searched for each in variants(pattern)])
    wanted = [(column, group) for column, group in zip(columns, test.groups, strict=False) if group not in ("", "*")]
    return all_of([any_of([fits(dialect, column, each) for each in variants(group)]) for column, group in wanted])


def _words(dialect: Dialect, prefix: str, attribute: Attribute, test: NameHas) -> Sql:
    if attribute.tag == PATIENT_NAME:
        return _patient_words(dialect, prefix, sorted(test.tokens, key=len, reverse=True))
    column = prefix + (folded_column(attribute) or attribute.column)
    words = f"'\\' || replace(replace({column}, '^', '\\'), ' ', '\\')"
    return all_of([(f"{dialect.find}({words}, ?) > 0", ["\\" + token]) for token in test.tokens])


def _patient_words(dialect: Dialect, prefix: str, tokens: Sequence[str]) -> Sql:
    """Tokens of some length fit few patients, who are looked for all at once; short ones are tried on those."""
    telling = [token for token in tokens if len(token) >= TELLING] or list(tokens[:1])
    ranges = [starts_with("word", token) for token in telling]
    select = " INTERSECT ".join(f"SELECT patient FROM patient_word WHERE {sql}" for sql, _ in ranges)
    found = dialect.found.format(column=f"{prefix}id", select=select), [each for _, values in ranges for each in values]
    others = [starts_with("word", token) for token in tokens if token not in telling]
    tried = f"SELECT 1 FROM patient_word WHERE patient = {prefix}id AND"
    return all_of([found, *((f"COALESCE(({tried} {sql} LIMIT 1), 0) = 1", values) for sql, values in others)])


def _within(dialect: Dialect, column: str, test: Within) -> Sql:
    """All conditions on one item; names in items are folded beforehand."""
    parts = [_in_item(dialect, each) for each in test.conditions]
    sql, values = all_of(parts)
    return f"EXISTS (SELECT 1 FROM {dialect.each_item.format(column=column)} WHERE {sql})", values


def _in_item(dialect: Dialect, wanted: Condition) -> Sql:
    text = dialect.item_text.format(keyword=wanted.attribute.keyword)
    match wanted.test:
        case NameIs(groups):
            patterns = [group for group in groups if group not in ("", "*")]
            tests = [any_of([fits(dialect, "value", each) for each in variants(pattern)]) for pattern in patterns]
            return all_of([any_value(dialect, text, test) for test in tests])
        case NameHas(tokens):
            words = f"'\\' || replace(replace({text}, '^', '\\'), ' ', '\\')"
            return all_of([(f"{dialect.find}({words}, ?) > 0", ["\\" + token]) for token in tokens])
        case Moment() as moment:
            return _moment(text, dialect.item_text.format(keyword=moment.time.keyword), moment)
        case test:
            return value_test(dialect, text, test)
