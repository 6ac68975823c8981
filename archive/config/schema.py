"""Sections as dataclasses: a field carries its kind, its default and its meaning.

Rules that hold here: a default is written as in the file and read like a value of the file; an empty value means
the default; an unknown key is a complaint that names the nearest known one; fields without a kind are not for
the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .complaints import Where
from .document import Node
from .kinds import Kind, Reading, Unfit

UNSET: Any = object()


def option(
    kind: Kind, default: Any, meaning: str, *, unset: Any = UNSET, restart: bool = False, required: bool = False
) -> Any:
    """A field that the file can set.

    ``restart`` marks what a reload cannot change. An option without a default of its own is None after reading
    and taken from elsewhere by the reader; ``unset`` is what it is in an object made without a file.
    """
    metadata = {"kind": kind, "default": default, "meaning": meaning, "restart": restart, "required": required}
    if required:
        return field(metadata=metadata)
    if unset is not UNSET:
        return field(default=unset, metadata=metadata)
    return field(default_factory=lambda: default_value(metadata, Reading(Path(), [], {})), metadata=metadata)


def options(section: type) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The names and facts of what a section can set."""
    for each in fields(section):
        if "kind" in each.metadata:
            yield each.name, each.metadata


def key_of(name: str) -> str:
    """How the file calls an option: a name that is a word of Python has an underscore behind it."""
    return name.removesuffix("_")


def default_value(metadata: Mapping[str, Any], reading: Reading) -> Any:
    """The default as the kind reads it."""
    default = metadata["default"]
    return None if default is None else metadata["kind"].read(written(default), reading)


def written(value: Any) -> Node:
    """A node as if the value stood in a file."""
    if isinstance(value, list):
        return Node(Where("default"), "", [written(entry) for entry in value])
    return Node(Where("default"), "", value if isinstance(value, dict) else str(value))


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping with the options of one dataclass."""

    of: type
    expects: str = "a mapping"

    def read(self, node: Node, reading: Reading) -> Any:
        """The dataclass; None when something it cannot be without is missing."""
        given = _mapping(node)
        _complain_about_unknown(self.of, given, reading)
        values: dict[str, Any] = {}
        complete = True
        for name, metadata in options(self.of):
            child = given.get(key_of(name))
            if child is not None and child.content is not None:
                default = None if metadata["required"] else default_value(metadata, reading)
                values[name] = reading.read(metadata["kind"], child, default)
            elif metadata["required"]:
                remedy = f"{key_of(name)}: {metadata['kind'].expects}"
                reading.complaints.append(node.complaint(f"{key_of(name)} is missing", f"add {remedy}"))
            else:
                values[name] = default_value(metadata, reading)
            complete = complete and not (metadata["required"] and values.get(name) is None)
        return self.of(**values) if complete else None

    def show(self, value: Any) -> object:
        return {
            key_of(name): metadata["kind"].show(getattr(value, name))
            for name, metadata in options(self.of)
            if getattr(value, name) not in (None, "")
        }


@dataclass(frozen=True, slots=True)
class Part:
    """Some options of a section, to be laid over another one: pairs of name and value."""

    of: type
    expects: str = "a mapping"

    def read(self, node: Node, reading: Reading) -> Any:
        given = _mapping(node)
        _complain_about_unknown(self.of, given, reading)
        known = {name: metadata["kind"] for name, metadata in options(self.of) if name in given}
        pairs = [(name, reading.read(kind, given[name])) for name, kind in known.items()]
        return tuple(pair for pair in pairs if pair[1] is not None)

    def show(self, value: Any) -> object:
        return Section(self.of).show(value)


@dataclass(frozen=True, slots=True)
class Named:
    """A mapping from names to sections; the name is the default of the option ``title``."""

    entry: Section
    title: str
    expects: str = "a mapping"

    def read(self, node: Node, reading: Reading) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, child in _mapping(node).items():
            if child.content is None or isinstance(child.content, dict):
                called = Node(child.where, child.key, name, name)
                child.content = {self.title: called, **(child.content or {})}
            value = reading.read(self.entry, child)
            if value is not None:
                found[name] = value
        return found

    def show(self, value: Any) -> object:
        return {name: self.entry.show(entry) for name, entry in value.items()}


def _mapping(node: Node) -> dict[str, Node]:
    if node.content is None:
        return {}
    if not isinstance(node.content, dict):
        raise Unfit("not a mapping", "lines of the form 'name: value' would do")
    return node.content


def _complain_about_unknown(section: type, given: Mapping[str, Node], reading: Reading) -> None:
    known = [key_of(name) for name, _ in options(section)]
    for name, child in given.items():
        if name not in known:
            near = difflib.get_close_matches(name.lower().replace("-", "_"), known, 1, 0.6)
            remedy = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            reading.complaints.append(child.complaint("unknown option", remedy))
