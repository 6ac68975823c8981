"""Tests on attributes that a site indexes beyond the table, as conditions on the rows they belong to.

Rules that hold here: every test is looked up in the index of terms; several tests on a sequence must hold for the same
item of it; texts are parameters, as everywhere.
"""

from __future__ import annotations

from archive.dicom.attributes import Attribute
from archive.dicom.query import Condition, NameHas, NameIs, NoValue, Test, Within
from archive.index.conditions import Sql, all_of, any_of, fits, starts_with, value_test, variants
from archive.index.database import Dialect
from archive.index.extra import WORDS


def extra_value(alias: str, attribute: Attribute) -> Sql:
    """What the row that ``alias`` stands for says of an attribute."""
    where = f"level = {int(attribute.level)} AND owner = {alias}.id AND keyword = ?"
    return f"(SELECT value FROM extra_value WHERE {where})", [attribute.keyword]


def extra_condition(dialect: Dialect, alias: str, wanted: Condition) -> Sql:
    """The condition on a row of the attribute's table, which ``alias`` stands for."""
    attribute, test = wanted.attribute, wanted.test
    if isinstance(test, NoValue):
        where = f"level = {int(attribute.level)} AND owner = {alias}.id AND keyword = ?"
        return f"NOT EXISTS (SELECT 1 FROM extra_value WHERE {where})", [attribute.keyword]
    if isinstance(test, Within):
        return _in_one_item(dialect, alias, attribute, test)
    return _found(dialect, alias, attribute, _wanted(attribute.keyword, test))


def _in_one_item(dialect: Dialect, alias: str, sequence: Attribute, test: Within) -> Sql:
    wanted = [
        one
        for each in test.conditions
        for one in _wanted(f"{sequence.keyword}.{each.attribute.keyword}", each.test)
    ]
    return _found(dialect, alias, sequence, wanted)


def _wanted(keyword: str, test: Test) -> list[tuple[str, Test]]:
    """The keywords under which terms must be found, and what each must be: one for each part of a name."""
    match test:
        case NameIs(groups):
            return [(keyword, NameIs((group,))) for group in groups if group not in ("", "*")]
        case NameHas(tokens):
            return [(keyword + WORDS, NameHas((token,))) for token in tokens]
        case _:
            return [(keyword, test)]


def _term_test(dialect: Dialect, column: str, test: Test) -> Sql:
    match test:
        case NameIs((pattern,)):
            return any_of([fits(dialect, column, each) for each in variants(pattern)])
        case NameHas((token,)):
            return starts_with(column, token)
        case _:
            return value_test(dialect, column, test)


def _found(dialect: Dialect, alias: str, attribute: Attribute, wanted: list[tuple[str, Test]]) -> Sql:
    """Rows that have all these terms, in the same item."""
    joins = "".join(
        f" JOIN extra_term t{number} ON t{number}.level = t0.level AND t{number}.owner = t0.owner"
        f" AND t{number}.item = t0.item"
        for number in range(1, len(wanted))
    )
    parts: list[Sql] = [(f"t0.level = {int(attribute.level)}", [])]
    for number, (keyword, test) in enumerate(wanted):
        parts += [(f"t{number}.keyword = ?", [keyword]), _term_test(dialect, f"t{number}.term", test)]
    sql, values = all_of(parts)
    return f"{alias}.id IN (SELECT t0.owner FROM extra_term t0{joins} WHERE {sql})", values
