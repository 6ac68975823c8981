"""Kinds of values: how an option's text becomes what the archive uses.

Rules that hold here: a kind reads a Node or raises Unfit with the words for the complaint; what it gives is
immutable; ``show`` gives plain data that reads back to the same value; nothing here looks at other options.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .complaints import Complaint, Where
from .document import Node

OFF_WORDS = {"off", "false", "no"}
ON_WORDS = {"on", "true", "yes"}


class Unfit(ValueError):
    """A value its kind cannot read: the problem, and what would do where the kind's own words are not enough."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(slots=True)
class Reading:
    """One pass over a file: the folder relative paths start at, the complaints so far, where each key stands."""

    folder: Path
    complaints: list[Complaint]
    nodes: dict[str, Node]

    def about(self, key: str, problem: str, remedy: str) -> Complaint:
        """A finding about an option; one that is not written stands where its section does."""
        node = self.nodes.get(key)
        if node is not None:
            return node.complaint(problem, remedy)
        place = key
        while place and place not in self.nodes:
            place = place.rpartition(".")[0]
        where = self.nodes[place].where if place in self.nodes else Where("")
        return Complaint(where, key, "", problem, remedy)

    def read(self, kind: Kind, node: Node, default: Any = None) -> Any:
        """The value, or the default after a complaint."""
        if node.key:
            self.nodes[node.key] = node
        try:
            return kind.read(node, self)
        except Unfit as unfit:
            self.complaints.append(node.complaint(unfit.problem, unfit.remedy or f"{kind.expects} would do"))
            return default


class Kind(Protocol):
    @property
    def expects(self) -> str:
        """What would do, as the end of a complaint and as the type in the manual."""

    def read(self, node: Node, reading: Reading) -> Any: ...

    def show(self, value: Any) -> object: ...


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value read from its text."""

    expects: str
    convert: Callable[[str], Any]
    show: Callable[[Any], object] = str

    def read(self, node: Node, reading: Reading) -> Any:
        text = text_of(node)
        try:
            return self.convert(text)
        except Unfit:
            raise
        except ValueError as error:
            raise Unfit(str(error)) from None


@dataclass(frozen=True, slots=True)
class Rooted:
    """A single value with a path in it, made absolute from the folder of the configuration."""

    expects: str
    place: Callable[[str, Path], Any]
    show: Callable[[Any], object] = str

    def read(self, node: Node, reading: Reading) -> Any:
        return self.place(text_of(node), reading.folder)


@dataclass(frozen=True, slots=True)
class ListOf:
    """Entries of one kind without repetition; a single value stands for a list of one."""

    entry: Kind
    at_least: int = 0

    @property
    def expects(self) -> str:
        least = f" of at least {self.at_least}" if self.at_least else ""
        return f"a list{least}, each {self.entry.expects}"

    def read(self, node: Node, reading: Reading) -> tuple[Any, ...]:
        entries = node.content if isinstance(node.content, list) else [node]
        found: list[Any] = []
        for entry in entries:
            value = reading.read(self.entry, entry)
            if isinstance(entry.content, str) and value in found:
                reading.complaints.append(entry.complaint("given twice in the list", "keep one of the two"))
            elif value is not None:
                found.append(value)
        if len(entries) < self.at_least:
            raise Unfit("an empty list")
        return tuple(found)

    def show(self, value: Any) -> object:
        return [self.entry.show(entry) for entry in value]


@dataclass(frozen=True, slots=True)
class Either:
    """A word that means something of its own, or another kind."""

    word: Scalar
    other: Kind
    is_word: Callable[[Any], bool]

    @property
    def expects(self) -> str:
        return f"{self.word.expects}, or {self.other.expects}"

    def read(self, node: Node, reading: Reading) -> Any:
        if isinstance(node.content, str):
            return self.word.read(node, reading)
        return self.other.read(node, reading)

    def show(self, value: Any) -> object:
        return self.word.show(value) if self.is_word(value) else self.other.show(value)


@dataclass(frozen=True, slots=True)
class Later:
    """An option whose feature is not built yet: absent, null, off or empty will do, anything else is refused."""

    expects: str = "leaving it out"

    def read(self, node: Node, reading: Reading) -> None:
        if node.content and not (isinstance(node.content, str) and node.content.lower() in OFF_WORDS):
            raise Unfit("not available in this version")

    def show(self, value: Any) -> object:
        return None


def text_of(node: Node) -> str:
    if not isinstance(node.content, str):
        form = "empty" if node.content is None else "a list" if isinstance(node.content, list) else "a mapping"
        raise Unfit(f"{form}, not a single value")
    return node.content
