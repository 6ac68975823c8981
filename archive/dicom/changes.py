"""Changes to a data set, and the tree they make.

Rules that hold here: a change names one attribute by its path and gives its new text, or None to remove it; of two
changes to one attribute the later one holds; a change inside a sequence that is removed or replaced is lost with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from archive.dicom.paths import Path, Step

COERCE, CORRECT = "COERCE", "CORRECT"  # PS3.3 C.12.1.1.9: by the receiver's rules, or because it was wrong
UNRECORDED = "-"  # a reason for changes that Original Attributes says nothing of


@dataclass(frozen=True, slots=True)
class Change:
    """One attribute's new value, as text in which backslashes separate values; None removes the attribute."""

    path: Path
    vr: str  # "" is the VR it has, or the dictionary's
    value: str | None
    reason: str = ""  # for the Original Attributes Sequence; "" is that of the OriginalAttributes
    if_missing: bool = False  # only when there is no value yet


@dataclass(frozen=True, slots=True)
class OriginalAttributes:
    """Who changed a data set, when and why (PS3.3 C.12.1.1.9)."""

    system: str  # Modifying System
    when: str  # Attribute Modification DateTime, VR DT
    source: str = ""  # Source of Previous Values
    reason: str = COERCE


def moment(seconds: float) -> str:
    """Seconds since the epoch as VR DT has it, in local time with its offset."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y%m%d%H%M%S.%f%z")


@dataclass(slots=True)
class Items:
    """What changes in the items of a sequence."""

    of: dict[int, Node] = field(default_factory=dict)  # item number, ALL or NEW


@dataclass(slots=True)
class Node:
    """What changes in a data set or item."""

    edits: dict[Step, Change | Items] = field(default_factory=dict)

    def add(self, change: Change) -> None:
        node = self
        for step, item in zip(change.path[:-1:2], change.path[1::2], strict=True):
            inside = node.edits.get(step)
            if not isinstance(inside, Items):
                inside = node.edits[step] = Items()
            assert isinstance(item, int)
            node = inside.of.setdefault(item, Node())
        node.edits[change.path[-1]] = change

    def merged(self, other: Node | None) -> Node:
        """Both, of two changes to one attribute the other's."""
        if other is None:
            return self
        return tree([*self.changes(), *other.changes()])

    def changes(self, above: Path = ()) -> Iterable[Change]:
        """All changes below, with paths from here."""
        for step, edit in self.edits.items():
            if isinstance(edit, Change):
                yield Change((*above, step), edit.vr, edit.value, edit.reason, edit.if_missing)
            else:
                for item, node in edit.of.items():
                    yield from node.changes((*above, step, item))


def tree(changes: Iterable[Change]) -> Node:
    root = Node()
    for change in changes:
        root.add(change)
    return root
