"""Adding a peer to the configuration file.

Rules that hold here: only the new entry is added, every other byte stays as it was; the new text has to load,
and to say what the old one said, before it takes the place of the file; the file is replaced in one step with
its mode and owner, so that a crash leaves the old or the new one; two that add at a time follow each other.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .complaints import Complaint, Complaints, Where
from .document import Node, parse, plain
from .files import load_text, read_text
from .reader import Resolver, dns

INDENT = 2


def add_peer(
    path: Path,
    aet: str,
    entry: Mapping[str, object],
    *,
    environ: Mapping[str, str] = os.environ,
    resolve: Resolver = dns,
) -> None:
    """Durably add a peer under its AE title; raises Complaints and changes nothing when that does not do."""
    path = Path(os.path.realpath(path))
    with _locked(path.parent) as folder:
        old = read_text(path)
        new = with_peer(old, str(path), aet, entry)
        load_text(new, path, environ=environ, insecure=True, resolve=resolve)
        _replace(path, new, folder)


def with_peer(text: str, file: str, aet: str, entry: Mapping[str, object]) -> str:
    """The text with one more entry under ``peers``."""
    before = _tree(text, file)
    assert isinstance(before.content, dict)
    known = before.content.get("peers", Node(Where(file), "peers"))
    by_hand = f"add by hand: {_flow({aet: dict(entry)})}"
    if isinstance(known.content, dict) and aet in known.content:
        raise _refusal(known.content[aet].where, f"peers.{aet}", "is configured already", "edit its entry in the file")
    if not isinstance(known.content, dict | None):
        raise _refusal(known.where, "peers", "not a mapping", by_hand)
    try:
        new = _insert(text, _flow({aet: dict(entry)}))
    except (yaml.YAMLError, ValueError):  # a tab that only the C parser lets pass; "? peers" without a colon
        new = ""
    if not _is_added(new, before, file, aet, entry):
        raise _refusal(known.where, "peers", "the form of this file leaves no place for a new entry", by_hand)
    return new


def _is_added(new: str, before: Node, file: str, aet: str, entry: Mapping[str, object]) -> bool:
    """Whether the new text says what the old one said, and the entry."""
    complaints: list[Complaint] = []
    after = parse(new, file, complaints)
    if complaints or _said(after, without=aet) != _said(before):
        return False
    wanted = parse(_flow({"peers": {aet: dict(entry)}}), file, complaints)
    return bool(_said(after)["peers"].get(aet) == _said(wanted)["peers"][aet])


def _tree(text: str, file: str) -> Node:
    complaints: list[Complaint] = []
    tree = parse(text, file, complaints)
    if complaints:
        raise Complaints(complaints)
    return tree


def _said(tree: Node, without: str = "") -> dict[str, Any]:
    """What the file says, leaving out one peer; no peers at all is the same as none."""
    said: Any = plain(tree)
    peers = {name: each for name, each in (said.get("peers") or {}).items() if name != without}
    return {**said, "peers": peers}


def _refusal(where: Where, key: str, problem: str, remedy: str) -> Complaints:
    return Complaints([Complaint(where, key, "", problem, remedy)])


def _flow(value: Mapping[str, object]) -> str:
    """One line of YAML, without the braces around it."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf"))
    return text.strip()[1:-1]


def _insert(text: str, line: str) -> str:
    # The Python parser: its marks count characters of this very text.
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    end = "\r\n" if "\r\n" in text else "\n"
    if not isinstance(root, yaml.MappingNode):
        return f"{_ended(text, end)}peers:{end}{' ' * INDENT}{line}{end}"
    found = next(((name, value) for name, value in root.value if name.value == "peers"), None)
    if found is None:
        return _insert_section(text, root, line, end)
    name, value = found
    if isinstance(value, yaml.MappingNode) and value.value:
        return _insert_entry(text, value, line, end)
    return _fill_section(text, root, name, value, line, end)


def _ended(text: str, end: str) -> str:
    return text if not text or text.endswith("\n") else text + end


def _insert_section(text: str, root: yaml.MappingNode, line: str, end: str) -> str:
    """``peers`` as last key of the file."""
    if root.flow_style:
        last = _last_inside(root)
        return f"{text[:last]}{', ' if root.value else ''}peers: {{{line}}}{text[last:]}"
    place = root.end_mark.index
    head = _ended(text[:place], end)
    indent = " " * root.start_mark.column
    return f"{head}{indent}peers:{end}{indent}{' ' * INDENT}{line}{end}{text[place:]}"


def _fill_section(text: str, root: yaml.MappingNode, name: yaml.Node, value: yaml.Node, line: str, end: str) -> str:
    """The first entry of an empty ``peers``: nothing, ``null``, ``~`` or ``{}``."""
    colon = text.index(":", name.end_mark.index)
    empty = text[value.start_mark.index : value.end_mark.index] if value.start_mark.index > colon else ""
    if root.flow_style:
        stop = value.end_mark.index if empty else colon + 1
        return f"{text[: colon + 1]} {{{line}}}{text[stop:]}"
    head, tail = text[: colon + 1], text[colon + 1 :]
    if empty:
        head, tail = text[: value.start_mark.index].rstrip(" "), text[value.end_mark.index :]
    rest, newline, tail = tail.partition("\n")
    return f"{head}{rest}{newline or end}{' ' * (name.start_mark.column + INDENT)}{line}{end}{tail}"


def _insert_entry(text: str, peers: yaml.MappingNode, line: str, end: str) -> str:
    """One more entry after the last one, its comment left with it."""
    last = _last_inside(peers) if peers.flow_style else _last(peers)
    if peers.flow_style:
        return f"{text[:last]}, {line}{text[last:]}"
    stop = text.find("\n", last)
    head, tail = (text + end, "") if stop < 0 else (text[: stop + 1], text[stop + 1 :])
    return f"{head}{' ' * peers.value[0][0].start_mark.column}{line}{end}{tail}"


def _last(node: yaml.Node) -> int:
    """Where the text of a node ends; an alias (*name) stands elsewhere, so that its key has to do."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    if isinstance(last, tuple):
        return max(int(last[0].end_mark.index), _last(last[1]))
    return _last(last)


def _last_inside(node: yaml.MappingNode) -> int:
    """Where the last value inside braces ends."""
    return _last(node.value[-1][1]) if node.value else int(node.start_mark.index) + 1


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """The folder's descriptor, while nobody else adds a peer to a file in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str, folder: int) -> None:
    """Durable: the file is the new one on stable storage when this returns."""
    facts = path.stat()
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            os.fchown(descriptor, facts.st_uid, facts.st_gid)
            os.fchmod(descriptor, facts.st_mode & 0o7777)
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    os.fsync(folder)
