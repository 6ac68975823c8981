"""Filter expressions of the configuration, such as ``Modality != 'PR' and not InstitutionName like 'Test*'``.

Rules that hold here: an expression is parsed into frozen values and never evaluated as code; a complaint
names the column and what would do; a keyword means its lowest stored level (Modality is the series'); a missing
value counts as empty text, so that ``!=`` also holds for what is not there.

    expression = term {"or" term}          comparison = keyword ("=" | "!=" | "<" | "<=" | ">" | ">=") value
    term       = factor {"and" factor}                | keyword ["not"] "in" "(" value {"," value} ")"
    factor     = "not" factor                         | keyword ["not"] "like" value       (* and ? are wildcards)
               | "(" expression ")" | comparison
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from types import MappingProxyType

from archive.dicom.attributes import BY_KEYWORD, Attribute, Level
from archive.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Compare:
    """One attribute against values; ``operator`` is one of = < <= > >= in like."""

    attribute: Attribute
    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Expression


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Expression, ...]


Expression = Compare | Not | And | Or
Words = Mapping[str, Sequence[Attribute]]

LENGTH = 10_000  # characters of one expression
DEPTH = 50  # parentheses and "not" within each other

_TOKEN = re.compile(r"""\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<number>[0-9.]+)|(?P<text>'[^']*'|"[^"]*")
    |(?P<sign><=|>=|!=|<>|==|[=<>(),]))""", re.VERBOSE)  # fmt: skip
_SIGNS = {"==": "=", "<>": "!="}


def parse_expression(text: str, *, words: Words = MappingProxyType({})) -> Expression:
    """The expression a text says; raises ConfigurationError naming the column.

    ``words`` can be compared besides the indexed attributes.
    """
    return _parse(text) if not words else _parsed(text, words)


@lru_cache(maxsize=256)
def _parse(text: str) -> Expression:
    return _parsed(text, {})


def _parsed(text: str, words: Words) -> Expression:
    if len(text) > LENGTH:
        raise ConfigurationError(f"expression is longer than {LENGTH} characters")
    parser = _Parser(_tokens(text), words)
    found = parser.expression(0)
    if parser.kind != "end":
        parser.complain("'and', 'or' or the end")
    return found


def lowest_level(expression: Expression) -> Level:
    """The lowest level an expression looks at."""
    return max(_levels(expression))


def highest_level(expression: Expression) -> Level:
    """The highest level an expression looks at."""
    return min(_levels(expression))


def _levels(expression: Expression) -> Iterator[Level]:
    if isinstance(expression, Compare):
        yield expression.attribute.level
        return
    for part in (expression.part,) if isinstance(expression, Not) else expression.parts:
        yield from _levels(part)


Token = tuple[str, str, int]  # kind, text, column (from 1)


def _tokens(text: str) -> list[Token]:
    found, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if not match or match.lastgroup is None:
            column = position + len(text[position:]) - len(text[position:].lstrip()) + 1
            raise ConfigurationError(f"column {column}: cannot read {text[column - 1 : column + 9]!r}")
        word = match.group(match.lastgroup)
        found.append((match.lastgroup, word, match.start(match.lastgroup) + 1))
        position = match.end()
    return [*found, ("end", "", len(text) + 1)]


class _Parser:
    """Walks the tokens once, one function a rule."""

    def __init__(self, tokens: list[Token], words: Words) -> None:
        self.tokens, self.position, self.words = tokens, 0, words

    @property
    def kind(self) -> str:
        return self.tokens[self.position][0]

    def complain(self, wanted: str) -> None:
        _, text, column = self.tokens[self.position]
        raise ConfigurationError(f"column {column}: expected {wanted}, found {text or 'the end'!r}")

    def take(self, *words: str) -> str:
        """The next token in lower case if it is one of these words or signs, else nothing."""
        kind, text, _ = self.tokens[self.position]
        found = _SIGNS.get(text, text.lower())
        if kind not in ("word", "sign") or found not in words:
            return ""
        self.position += 1
        return found

    def expression(self, depth: int) -> Expression:
        parts = [self.term(depth)]
        while self.take("or"):
            parts.append(self.term(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def term(self, depth: int) -> Expression:
        parts = [self.factor(depth)]
        while self.take("and"):
            parts.append(self.factor(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def factor(self, depth: int) -> Expression:
        if depth > DEPTH:
            self.complain("fewer parentheses")
        if self.take("not"):
            return Not(self.factor(depth + 1))
        if self.take("("):
            inner = self.expression(depth + 1)
            if not self.take(")"):
                self.complain("')'")
            return inner
        return self.comparison()

    def comparison(self) -> Expression:
        attribute = self.attribute()
        negated = bool(self.take("not"))
        operator = self.take("in", "like") if negated else self.take("in", "like", "=", "!=", "<", "<=", ">", ">=")
        if not operator:
            self.complain("'in' or 'like'" if negated else "=, !=, <, <=, >, >=, in or like")
        values = self.values() if operator == "in" else (self.value(),)
        if operator == "!=":
            return Not(Compare(attribute, "=", values))
        found = Compare(attribute, operator, values)
        return Not(found) if negated else found

    def attribute(self) -> Attribute:
        kind, text, column = self.tokens[self.position]
        if kind != "word":
            self.complain("an attribute such as Modality")
        rows = BY_KEYWORD.get(text) or self.words.get(text)
        if not rows:
            near = get_close_matches(text, [*BY_KEYWORD, *self.words], 1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise ConfigurationError(f"column {column}: {text} is no indexed attribute{hint}")
        if rows[-1].vr == "SQ":
            raise ConfigurationError(f"column {column}: {text} is a sequence and cannot be compared")
        self.position += 1
        return rows[-1]

    def value(self) -> str:
        kind, text, _ = self.tokens[self.position]
        if kind not in ("text", "number"):
            self.complain("a value in quotes")
        self.position += 1
        return text[1:-1] if kind == "text" else text

    def values(self) -> tuple[str, ...]:
        if not self.take("("):
            self.complain("'('")
        found = [self.value()]
        while self.take(","):
            found.append(self.value())
        if not self.take(")"):
            self.complain("',' or ')'")
        return tuple(found)
