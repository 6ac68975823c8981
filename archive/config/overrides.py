"""``--set key.path=value``: single values laid over a configuration file.

Rules that hold here: the value is YAML; list entries go by number, the number after the last adds one; a name
with a dot in it is quoted (``peers."CT.1".port=104``); what was set says ``--set`` in every later complaint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import yaml

from .complaints import Complaint, Where, shown
from .document import LOADER, Builder, Node, children, join

ORIGIN = Where("--set")
_NAME = re.compile(r'"([^"]+)"|([^."]+)')


def apply(overrides: Iterable[str], root: Node, complaints: list[Complaint]) -> None:
    """Change the tree; an override that cannot be applied joins the complaints."""
    for override in overrides:
        try:
            _apply(override, root, complaints)
        except ValueError as error:
            problem, _, remedy = str(error).partition("; ")
            complaints.append(Complaint(ORIGIN, shown(override), "", problem, remedy))


def _apply(override: str, root: Node, complaints: list[Complaint]) -> None:
    path, equals, text = override.partition("=")
    names = _names(path)
    if not equals or not names:
        raise ValueError("not of the form key.path=value; 'storage.reserve=2GB' would do")
    value = _value(text, path.strip(), complaints)
    _assign(root, names, value)


def _names(path: str) -> list[str]:
    path = path.strip()
    names = [quoted or bare for quoted, bare in _NAME.findall(path)]
    return names if ".".join(match[0] for match in _NAME.finditer(path)) == path else []


def _value(text: str, key: str, complaints: list[Complaint]) -> Node:
    try:
        node = yaml.compose(text, Loader=LOADER)
    except yaml.YAMLError:
        raise ValueError("the value is not YAML; quote it: key.path='\"value\"'") from None
    if node is None:
        return Node(ORIGIN, key)
    made = Builder(ORIGIN.file, complaints).build(node, key, 0, 0)
    _move(made)
    return made


def _move(node: Node) -> None:
    node.where = ORIGIN
    for child in children(node):
        _move(child)


def _assign(root: Node, names: list[str], value: Node) -> None:
    node = root
    for name, following in zip(names, [*names[1:], ""], strict=True):
        last = not following
        child = value if last else Node(ORIGIN, join(node.key, name), [] if following.isdigit() else {})
        if isinstance(node.content, list):
            node = _into_list(node, name, child, last)
        elif isinstance(node.content, dict):
            node = _into_mapping(node, name, child, last)
        else:
            raise ValueError(f"{node.key} holds a single value, not names or entries; set {node.key} itself")


def _into_mapping(node: Node, name: str, child: Node, last: bool) -> Node:
    assert isinstance(node.content, dict)
    present = node.content.get(name)
    if last or present is None or present.content is None:
        node.content[name] = child
    return node.content[name]


def _into_list(node: Node, name: str, child: Node, last: bool) -> Node:
    assert isinstance(node.content, list)
    count = len(node.content)
    if not name.isdigit() or int(name) > count:
        raise ValueError(
            f"{node.key} is a list of {count}, {name!r} is none of them; a number from 0 to {count} would do"
        )
    if int(name) == count:
        node.content.append(child)
    elif last:
        node.content[int(name)] = child
    return node.content[int(name)]
