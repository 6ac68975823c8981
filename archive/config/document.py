"""A YAML text as a tree in which every value knows its file, line and key.

Rules that hold here: a scalar keeps the text that was written (an AE title ``0123`` or ``NO`` is no number and no
boolean; the option's kind decides what a text means); a key stands once in its mapping; ``${NAME}`` is replaced
inside values only, after parsing, so that no variable can add structure; ``<<`` merges as YAML says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import yaml

from .complaints import Complaint, Where, shown

MAX_DEPTH = 16  # twice the deepest contract; stops an alias that contains itself
MAX_NODES = 1_000_000  # thousands of peers; stops aliases that multiply

# The C parser reads 500 peers in 20 ms, the Python one in 300 ms; wheels carry it, a source build may not.
LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NULL = "tag:yaml.org,2002:null"
VARIABLE = re.compile(r"\$(\$\{)|\$\{([^}:]*)(?::-([^}]*))?\}")


@dataclass(slots=True)
class Node:
    """One value: ``content`` is text, list, mapping or None; ``written`` is the text before ``${NAME}``."""

    where: Where
    key: str
    content: str | list[Node] | dict[str, Node] | None = None
    written: str = ""

    def complaint(self, problem: str, remedy: str) -> Complaint:
        return Complaint(self.where, self.key, shown(self.written), problem, remedy)


def parse(text: str, file: str, complaints: list[Complaint]) -> Node:
    """The tree of a text; what is wrong with its form joins the complaints."""
    empty = Node(Where(file), "", {})
    try:
        root = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        complaints.append(_malformed(error, text, file))
        return empty
    except yaml.YAMLError as error:  # a character that YAML forbids
        complaints.append(
            Complaint(Where(file), "", "", f"not YAML: {error}".split("\n")[0], "plain UTF-8 text would do")
        )
        return empty
    if root is None or _is_null(root):
        return empty
    node = Builder(file, complaints).build(root, "", root.start_mark.line + 1, 0)
    if not isinstance(node.content, dict):
        complaints.append(node.complaint("not a mapping", "lines of the form 'name: value' would do"))
        return empty
    return node


def _malformed(error: yaml.MarkedYAMLError, text: str, file: str) -> Complaint:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    lines = text.splitlines()
    here = lines[line - 1] if 0 < line <= len(lines) else ""
    remedy = "correct the YAML here or on the line before"
    if "${" in here:
        remedy = 'write "${NAME}" in quotes inside { } and [ ]'
    elif "\t" in here:
        remedy = "indent with spaces, not tabs"
    problem = " ".join(filter(None, (error.context, error.problem)))
    return Complaint(Where(file, line), "", shown(here.strip()), f"not YAML: {problem}", remedy)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == NULL


@dataclass(slots=True)
class Builder:
    """Turns composed YAML into Nodes, collecting complaints on the way."""

    file: str
    complaints: list[Complaint]
    count: int = 0

    def build(self, node: yaml.Node, key: str, line: int, depth: int) -> Node:
        self.count += 1
        made = Node(Where(self.file, line), key)
        if depth > MAX_DEPTH or self.count > MAX_NODES:
            if self.count <= MAX_NODES + 1:
                self.complaints.append(
                    made.complaint("nested too deeply or too large", "fewer aliases (*name) would do")
                )
            return made
        if isinstance(node, yaml.ScalarNode):
            made.written = node.value
            made.content = None if node.tag == NULL else node.value
        elif isinstance(node, yaml.SequenceNode):
            made.content = [
                self.build(item, f"{key}.{number}", item.start_mark.line + 1, depth + 1)
                for number, item in enumerate(node.value)
            ]
        elif isinstance(node, yaml.MappingNode):
            made.content = self.mapping(node, key, depth)
        return made

    def mapping(self, node: yaml.MappingNode, key: str, depth: int) -> dict[str, Node]:
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for name, value in node.value:
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode):
                self.complaints.append(
                    Complaint(Where(self.file, line), key, "", "a key is not a name", "a word would do")
                )
            elif name.tag == "tag:yaml.org,2002:merge":
                for source in _merged(value):
                    merged = {**self.mapping(source, key, depth + 1), **merged} if depth < MAX_DEPTH else merged
            else:
                child = self.build(value, join(key, name.value), line, depth + 1)
                self.keep(own, name.value, child)
        return {**merged, **own}

    def keep(self, mapping: dict[str, Node], name: str, child: Node) -> None:
        if name not in mapping:
            mapping[name] = child
            return
        first = mapping[name].where.line
        self.complaints.append(child.complaint(f"given twice, first on line {first}", "keep one of the two"))


def expand(node: Node, environ: Mapping[str, str], complaints: list[Complaint]) -> None:
    """Replace ``${NAME}`` and ``${NAME:-default}`` in every value of the tree; ``$${`` stands for ``${``."""
    if isinstance(node.content, str):
        if "$" in node.content:
            node.content = VARIABLE.sub(lambda match: _variable(match, node, environ, complaints), node.content)
        return
    for child in children(node):
        expand(child, environ, complaints)


def _variable(match: re.Match[str], node: Node, environ: Mapping[str, str], complaints: list[Complaint]) -> str:
    if match[1]:
        return match[1]
    value = environ.get(match[2], match[3])
    if value is None:
        remedy = f"set {match[2]} or write ${{{match[2]}:-default}}"
        complaints.append(node.complaint(f"the environment has no {match[2]!r}", remedy))
    return value or ""


def children(node: Node) -> Iterable[Node]:
    """What is directly inside a list or a mapping."""
    if isinstance(node.content, dict):
        return node.content.values()
    return node.content if isinstance(node.content, list) else ()


def _merged(value: yaml.Node) -> Iterator[yaml.MappingNode]:
    for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
        if isinstance(source, yaml.MappingNode):
            yield source


def join(key: str, name: str) -> str:
    """The key path of a child; a name with a dot in it is quoted."""
    name = f'"{name}"' if "." in name else name
    return f"{key}.{name}" if key else name


def plain(node: Node) -> object:
    """The tree as lists and dicts of texts: equal trees say the same."""
    if isinstance(node.content, dict):
        return {name: plain(child) for name, child in node.content.items()}
    if isinstance(node.content, list):
        return [plain(child) for child in node.content]
    return None if node.content is None else node.written
