"""A query to one statement: rows of its level, joined upwards, filtered downwards.

Rules that hold here: everything above the level is joined, everything below is asked by EXISTS or counted by a
subquery; what may not be seen is not matched, not returned and not counted; statements are streamed, never collected.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from archive.dicom.attributes import Attribute, Level
from archive.dicom.expression import Expression, highest_level, lowest_level
from archive.dicom.query import Between, Condition, Moment, OneOf, Query, Return
from archive.index.columns import TABLES
from archive.index.computed import MODALITIES, TRANSFER_SYNTAX, counted, is_list, kept, listed
from archive.index.conditions import Sql, all_of, condition, value_test
from archive.index.database import Database, Dialect, Row, Rows
from archive.index.extra_search import extra_condition, extra_value
from archive.index.stored import STORED_COLUMNS, stored_instance
from archive.index.values import StoredInstance
from archive.index.visibility import expression_sql

ALIASES = {Level.PATIENT: "p", Level.STUDY: "s", Level.SERIES: "e", Level.IMAGE: "i"}
# The same tables once more, for subqueries that look below the row they are asked for.
_BELOW = {Level.PATIENT: "p", Level.STUDY: "s2", Level.SERIES: "e2", Level.IMAGE: "i2"}
_PARENT = {Level.STUDY: "patient", Level.SERIES: "study", Level.IMAGE: "series"}

_VERBATIM_VRS = frozenset({"DA", "TM", "DT"})


def find(database: Database, query: Query, *, limit: int | None, visible: Expression | None) -> Rows:
    """Values in the order of the query's returns."""
    statement = _Statement(database.dialect, query, visible)
    plan = [statement.value(each) for each in query.returns]
    texts = [
        (number, each.attribute)
        for number, each in enumerate(query.returns)
        if each.attribute is not None and not each.attribute.extra and each.vr in _VERBATIM_VRS
    ]
    levels = sorted({attribute.level for _, attribute in texts})
    extra = [f"{ALIASES[level]}.verbatim" for level in levels]
    sql, parameters = statement.select([*plan, *((column, []) for column in extra)], limit)
    rows = database.stream(sql, parameters)
    return _spoken(rows, len(plan), levels, texts) if texts else rows


def instances(database: Database, query: Query, *, visible: Expression | None) -> Generator[StoredInstance, None, None]:
    statement = _Statement(database.dialect, query, visible, down_to=Level.IMAGE)
    sql, parameters = statement.select([(STORED_COLUMNS, [])], None)
    with closing(database.stream(sql, parameters)) as rows:
        yield from map(stored_instance, rows)


def count(database: Database, query: Query, *, visible: Expression | None) -> int:
    statement = _Statement(database.dialect, query, visible, down_to=Level.IMAGE)
    sql, parameters = statement.select([("COUNT(*)", [])], None)
    row = database.read(lambda session: session.row(sql, parameters))
    return int(row[0]) if row else 0


def _spoken(rows: Rows, width: int, levels: Sequence[Level], texts: Sequence[tuple[int, Attribute]]) -> Rows:
    """Rows with the text as it came where the column holds something comparable, or nothing."""
    with closing(rows):
        for row in rows:
            yield _as_said(row, width, levels, texts) if any(row[width:]) else row[:width]


def _as_said(row: Row, width: int, levels: Sequence[Level], texts: Sequence[tuple[int, Attribute]]) -> Row:
    said = {level: json.loads(text) if text else {} for level, text in zip(levels, row[width:], strict=True)}
    values = list(row[:width])
    for number, attribute in texts:
        values[number] = said[attribute.level].get(attribute.column, values[number])
    return tuple(values)


@dataclass(slots=True)
class _Statement:
    """One query on its way to SQL; ``down_to`` is the level whose rows are wanted, when that is below the query's."""

    dialect: Dialect
    query: Query
    visible: Expression | None
    down_to: Level | None = None

    @property
    def level(self) -> Level:
        return self.query.level if self.down_to is None else self.down_to

    # -- what is returned -----------------------------------------------------------------------

    def value(self, wanted: Return) -> Sql:
        if wanted.constant is not None:
            return self._constant(wanted.constant)
        if wanted.attribute is None:
            return "NULL", []
        if wanted.attribute.extra:
            return extra_value(ALIASES[wanted.attribute.level], wanted.attribute)
        if wanted.attribute.computed:
            return self._computed(wanted.attribute)
        return f"{ALIASES[wanted.attribute.level]}.{wanted.attribute.column}", []

    def _constant(self, text: str) -> Sql:
        return "CAST(? AS TEXT)", [text]

    def _computed(self, attribute: Attribute) -> Sql:
        filtered = self.visible is not None and lowest_level(self.visible) > attribute.level
        plain = kept(attribute, ALIASES[attribute.level])
        if attribute.vr != "IS":
            return self._list(attribute) if filtered and is_list(attribute) else (plain, [])
        sql, parameters = self._counted(attribute) if filtered else (plain, [])
        return f"CAST({sql} AS TEXT)", parameters

    def _counted(self, attribute: Attribute) -> Sql:
        """A count of what may be seen."""
        level = counted(attribute)
        sql, parameters = self._below(attribute.level, level)
        return f"(SELECT COUNT(DISTINCT {_BELOW[level]}.id) {sql})", parameters

    def _list(self, attribute: Attribute) -> Sql:
        """The distinct values among what may be seen."""
        level, column = listed(attribute)
        sql, parameters = self._below(Level.STUDY, level)
        inner = f"SELECT DISTINCT {_BELOW[level]}.{column} AS value {sql} ORDER BY 1"
        return f"(SELECT {self.dialect.aggregate}(value, '\\') FROM ({inner}) AS found WHERE value <> '')", parameters

    def _below(self, level: Level, lowest: Level) -> Sql:
        """FROM and WHERE of all rows below a row of ``level`` that may be seen."""
        assert self.visible is not None
        lowest = max(lowest, lowest_level(self.visible))
        chain = [each for each in Level if level < each <= lowest]
        first, *rest = chain
        tables = f"FROM {TABLES[first]} {_BELOW[first]}" + "".join(
            f" JOIN {TABLES[each]} {_BELOW[each]} ON {_BELOW[each]}.{_PARENT[each]} = {_BELOW[Level(each - 1)]}.id"
            for each in rest
        )
        aliases = {each: ALIASES[each] if each <= level else _BELOW[each] for each in Level}
        seen, parameters = expression_sql(self.dialect, self.visible, aliases)
        return f"{tables} WHERE {_BELOW[first]}.{_PARENT[first]} = {ALIASES[level]}.id AND {seen}", parameters

    # -- what is matched ------------------------------------------------------------------------

    def _conditions(self) -> list[Sql]:
        leading = None if self._hides_series() else self._leading()
        above = [each for each in self.query.conditions if each.attribute.level <= self.level and each is not leading]
        below = [each for each in self.query.conditions if each.attribute.level > self.level]
        found = [self._condition(each) for each in above]
        if self.level is Level.PATIENT:
            found.append(("p.number_of_studies > 0", []))  # those without were merged into others
        if below:
            found.append(self._related(below))
        if self.visible is not None:
            found.append(self._visible())
        return found

    def _condition(self, wanted: Condition) -> Sql:
        attribute = wanted.attribute
        column = kept(attribute, ALIASES[attribute.level]) if attribute.computed else ""
        if attribute.keyword == TRANSFER_SYNTAX:
            return value_test(self.dialect, column, wanted.test)
        if not is_list(attribute):
            return _condition(self.dialect, ALIASES[attribute.level], wanted)
        if not self._hides_series():
            return value_test(self.dialect, column, wanted.test, multiple=True)
        level, single = listed(attribute)
        sql, parameters = self._below(Level.STUDY, level)
        test, values = value_test(self.dialect, f"{_BELOW[level]}.{single}", wanted.test)
        return _is_there(f"{sql} AND {test}"), parameters + values

    def _hides_series(self) -> bool:
        """Whether a study may have parts that are not to be seen: what is kept of all of them is then too much."""
        return self.visible is not None and lowest_level(self.visible) > Level.STUDY

    def _related(self, below: Sequence[Condition]) -> Sql:
        """Relational queries: rows that have something below them which fulfils all of it, and may be seen."""
        lowest = max(each.attribute.level for each in below)
        if self.visible is not None:
            lowest = max(lowest, lowest_level(self.visible))
        chain = [each for each in Level if self.level < each <= lowest]
        first, *rest = chain
        aliases = {each: ALIASES[each] if each <= self.level else _BELOW[each] for each in Level}
        joins = "".join(
            f" JOIN {TABLES[each]} {_BELOW[each]} ON {_BELOW[each]}.{_PARENT[each]} = {_BELOW[Level(each - 1)]}.id"
            for each in rest
        )
        column, head = f"{_BELOW[first]}.{_PARENT[first]}", f"FROM {TABLES[first]} {_BELOW[first]}{joins}"
        parts = [_condition(self.dialect, aliases[each.attribute.level], each) for each in below]
        sql, parameters = all_of(parts)
        leads: Sql = (f"{ALIASES[self.level]}.id IN (SELECT {column} {head} WHERE {sql})", parameters)
        if self.visible is None:
            return leads
        # Only rows that match may be the reason why something is seen.
        seen = [(f"{column} = {ALIASES[self.level]}.id", []), *parts]
        sql, parameters = all_of([*seen, expression_sql(self.dialect, self.visible, aliases)])
        return all_of([leads, (_is_there(f"{head} WHERE {sql}"), parameters)])

    def _visible(self) -> Sql:
        assert self.visible is not None
        if lowest_level(self.visible) <= self.level:
            return expression_sql(self.dialect, self.visible, ALIASES)
        sql, parameters = self._below(self.level, lowest_level(self.visible))
        return _is_there(sql), parameters

    # -- the statement --------------------------------------------------------------------------

    def select(self, values: Sequence[Sql], limit: int | None) -> Sql:
        head, before = ", ".join(sql for sql, _ in values), [value for _, more in values for value in more]
        where, parameters = all_of(self._conditions())
        tables, driver = self._tables()
        sql = f"SELECT {head} FROM {tables} WHERE {where}"
        parameters = [*before, *driver, *parameters]
        if limit is not None:
            return f"{sql} LIMIT ?", [*parameters, limit]
        return sql, parameters

    def _tables(self) -> tuple[str, list[Any]]:
        """The level's table and those above it, as far down from the patient as anything asks for."""
        highest = self._highest()
        tables, parameters = f"{TABLES[self.level]} {ALIASES[self.level]}", []
        if driver := self._driver():
            tables = f"{driver[0]} {self.dialect.leading_join} {tables} ON s.id = driver.study"
            parameters = driver[1]
        for each in reversed([level for level in Level if highest <= level < self.level]):
            child = Level(each + 1)
            tables += f" JOIN {TABLES[each]} {ALIASES[each]} ON {ALIASES[each]}.id = {ALIASES[child]}.{_PARENT[child]}"
        return tables, parameters

    def _highest(self) -> Level:
        levels = [each.attribute.level for each in self.query.conditions]
        levels += [each.attribute.level for each in self.query.returns if each.attribute and self.down_to is None]
        if self.visible is not None:
            levels.append(highest_level(self.visible))
        if self.down_to is not None:
            levels.append(Level.STUDY)
        return min([self.level, *levels])

    def _leading(self) -> Condition | None:
        """The modality, where nothing better leads: studies by modality and date have a table of their own."""
        if self.level is not Level.STUDY or any(_leads(each.attribute) for each in self.query.conditions):
            return None
        alone = (
            each for each in self.query.conditions if _is_modality(each.attribute) and isinstance(each.test, OneOf)
        )
        return next((each for each in alone if isinstance(each.test, OneOf) and len(each.test.values) == 1), None)

    def _driver(self) -> Sql | None:
        leading = self._leading()
        if leading is None:
            return None
        sql, parameters = all_of([value_test(self.dialect, "modality", leading.test), *self._dates()])
        return f"(SELECT study FROM study_modality WHERE {sql}) AS driver", parameters

    def _dates(self) -> list[Sql]:
        dates = [each for each in self.query.conditions if each.attribute.keyword == "StudyDate"]
        tests = [each.test for each in dates]
        tests = [_days(test) if isinstance(test, Moment) else test for test in tests]
        return [value_test(self.dialect, "study_date", test) for test in tests if isinstance(test, Between)]


def _condition(dialect: Dialect, alias: str, wanted: Condition) -> Sql:
    return (extra_condition if wanted.attribute.extra else condition)(dialect, alias, wanted)


def _leads(attribute: Attribute) -> bool:
    return attribute.indexed and attribute.keyword not in ("StudyDate", "StudyTime")


def _is_modality(attribute: Attribute) -> bool:
    return attribute.computed and attribute.keyword in MODALITIES


def _days(moment: Moment) -> Between:
    return Between(moment.low and moment.low[0], moment.high and moment.high[0])


def _is_there(tables: str) -> str:
    """EXISTS in a form that is looked up for each row and never joined, so that the first answers come at once."""
    return f"COALESCE((SELECT 1 {tables} LIMIT 1), 0) = 1"
