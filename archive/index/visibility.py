"""Filter expressions to SQL: what a caller may see, as a condition on the rows it asks for.

Rules that hold here: a condition is true or false, never NULL, so that NOT means what it says; a missing value is
empty text; values are parameters.
"""

from __future__ import annotations

from archive.dicom.attributes import Attribute, Level
from archive.dicom.expression import And, Compare, Expression, Not, Or
from archive.dicom.keys import canonical_number, is_wild, squeezed
from archive.dicom.names import fold_group
from archive.dicom.query import Condition, NameIs, OneOf, Wild
from archive.index.computed import kept
from archive.index.conditions import FALSE, Sql, all_of, any_of, condition, value_test
from archive.index.database import Dialect


def expression_sql(dialect: Dialect, expression: Expression, aliases: dict[Level, str]) -> Sql:
    """A filter expression as a condition that is true or false, never NULL."""
    match expression:
        case And(parts):
            sql, values = all_of([expression_sql(dialect, part, aliases) for part in parts])
            return f"({sql})", values
        case Or(parts):
            return any_of([expression_sql(dialect, part, aliases) for part in parts])
        case Not(part):
            sql, values = expression_sql(dialect, part, aliases)
            return f"NOT ({sql})", values
        case Compare():
            return _compare(dialect, expression, aliases)


def _compare(dialect: Dialect, wanted: Compare, aliases: dict[Level, str]) -> Sql:
    attribute, values = wanted.attribute, wanted.values
    alias = aliases[attribute.level]
    if wanted.operator in ("<", "<=", ">", ">="):
        return _ordered(dialect, wanted, alias)
    if attribute.vr == "PN":
        names = [NameIs((fold_group(value),)) for value in values]
        return any_of([_certain(condition(dialect, alias, Condition(attribute, name))) for name in names])
    column = f"COALESCE({_column(attribute, alias)}, '')"
    if wanted.operator == "like":
        pattern = squeezed(values[0])
        test = Wild(pattern) if is_wild(pattern) else OneOf((pattern,))
        return value_test(dialect, column, test, multiple=attribute.multiple)
    known = tuple(canonical_number(attribute.vr, value) for value in values)
    return value_test(dialect, column, OneOf(tuple(dict.fromkeys(values + known))), multiple=attribute.multiple)


def _certain(test: Sql) -> Sql:
    return f"COALESCE(({test[0]}), 1 = 0)", test[1]


def _column(attribute: Attribute, alias: str) -> str:
    if not attribute.computed:
        return f"{alias}.{attribute.column}"
    column = kept(attribute, alias)
    return f"CAST({column} AS TEXT)" if attribute.vr == "IS" else column


def _ordered(dialect: Dialect, wanted: Compare, alias: str) -> Sql:
    """Numbers compare as numbers, all else as text, which is right for dates and times."""
    attribute, value = wanted.attribute, wanted.values[0]
    text = _column(attribute, alias)
    if attribute.vr not in ("IS", "DS", "US"):
        return f"(COALESCE({text}, '') <> '' AND {text} {wanted.operator} ?)", [value]
    number = dialect.number.format(column=text)
    try:
        return f"COALESCE({number} {wanted.operator} ?, 1 = 0)", [float(value)]
    except ValueError:
        return FALSE
