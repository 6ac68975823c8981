"""Coercion: rules that say which attributes of an object become what.

Rules that hold here: rules are applied in their order, and the actions of one rule in that of ACTIONS, each on what
those before it made; ``match`` looks at the object as it came; a value that cannot be read without loss (an unknown
character set, a broken escape) is left alone by whatever would have to read it; what comes out is only what differs.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from archive.dicom.coerce import ALL, Change, Path
from archive.dicom.elements import Buffer
from archive.dicom.expression import Expression
from archive.dicom.paths import Target, parse_path
from archive.dicom.peek import Peek, Value
from archive.dicom.rule import WORDS, Facts, holds

RECEIVE, SEND, ROUTE = "receive", "send", "route"

# In the order in which the actions of one rule are done.
ACTIONS: Mapping[str, str] = {
    "copy": "the value of another attribute",
    "set": "a fixed value, in which {CallingAETitle} and the like stand for what is known of the object",
    "map": "one value for another, by a table; what is not in the table stays",
    "regex": "what a regular expression finds is replaced",
    "upper": "upper case",
    "lower": "lower case",
    "remove": "nothing: the attribute is taken out",
}

_PLACEHOLDER = re.compile(r"\{([A-Za-z]+)\}")


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a rule does to one attribute."""

    kind: str  # of ACTIONS
    target: Target
    text: str = ""  # for set
    source: Target | None = None  # for copy
    table: tuple[tuple[str, str], ...] = ()  # for map
    pattern: re.Pattern[str] | None = None  # for regex
    replacement: str = ""


@dataclass(frozen=True, slots=True)
class CoerceRule:
    """What is done to which objects."""

    on: str  # RECEIVE, SEND, or ROUTE: by the routes that name it
    senders: tuple[str, ...] = ()  # AE titles, ``*`` and ``?`` for any; none is everybody
    receivers: tuple[str, ...] = ()
    match: Expression | None = None
    actions: tuple[Action, ...] = ()
    name: str = ""

    def concerns(self, on: str, sender: str, receiver: str) -> bool:
        return self.on == on and _fits(self.senders, sender) and _fits(self.receivers, receiver)


def _fits(patterns: Sequence[str], title: str) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(title, pattern.replace("[", "[[]")) for pattern in patterns)


def coercions(
    rules: Iterable[CoerceRule],
    facts: Facts,
    data: Buffer,
    transfer_syntax: str,
    default_charset: str = "",
    known: Facts = lambda word: "",
    before: Sequence[Change] = (),
) -> list[Change]:
    """What the rules that concern an object make of it. Raises NotUnderstood when it is broken.

    ``facts`` are what ``match`` can ask for, ``known`` what is known besides the object's attributes, and ``before``
    the changes that others lay over it already: rules start from those.
    """
    chosen = [rule for rule in rules if holds(rule.match, facts)]
    if not chosen:
        return []
    work = _Work(Peek(data, transfer_syntax, default_charset), known, before)
    for rule in chosen:
        for action in rule.actions:
            work.apply(action)
    return work.changes()


class _Work:
    """Values as they are and as they have become."""

    def __init__(self, peek: Peek, known: Facts, before: Sequence[Change] = ()) -> None:
        self._peek = peek
        self._known = known
        self._given = {change.path: (change.vr, change.value) for change in before if not change.if_missing}
        self._new: dict[Path, tuple[str, str | None]] = {}  # path -> VR and text

    def apply(self, action: Action) -> None:
        _DO[action.kind](self, action)

    def changes(self) -> list[Change]:
        return [Change(path, vr, text) for path, (vr, text) in self._new.items() if self._differs(path, text)]

    def _differs(self, path: Path, text: str | None) -> bool:
        if path in self._given:
            return self._given[path][1] != text
        if text is None:
            return self._peek.has(path)
        before = self._peek.values(path)
        return not before or not before[0].sound or before[0].text != text

    def values(self, target: Target) -> list[Value]:
        """What a target has become so far, in every item."""
        found = {value.path: value for value in self._peek.values(target.path)}
        for path, (vr, text) in (self._given | self._new).items():
            if _is_at(path, target.path):
                found.pop(path, None)
                if text is not None:
                    found[path] = Value(path, vr, text, True)
        return list(found.values())

    def put(self, path: Path, vr: str, text: str | None) -> None:
        self._new.pop(path, None)
        self._new[path] = (vr, text)

    def rewrite(self, action: Action, made: Callable[[str], str]) -> None:
        """Every value of the target becomes what ``made`` makes of it; values that are empty or unreadable stay."""
        for value in self.values(action.target):
            if value.text and value.sound:
                parts = value.text.split("\\") if value.vr not in ("LT", "ST", "UT", "UR") else [value.text]
                self.put(value.path, action.target.vr or value.vr, "\\".join(map(made, parts)))

    def set(self, action: Action) -> None:
        text = _PLACEHOLDER.sub(lambda match: self._fact(match[1]), action.text)
        for path in self._peek.places(action.target.path) or [action.target.path]:
            self.put(path, action.target.vr, text)

    def _fact(self, word: str) -> str:
        if word in WORDS:
            return self._known(word)
        found = self.values(parse_path(word))
        return found[0].text if found and found[0].sound else ""

    def copy(self, action: Action) -> None:
        assert action.source is not None
        found = self.values(action.source)
        if found and found[0].sound:
            for path in self._peek.places(action.target.path) or [action.target.path]:
                self.put(path, action.target.vr, found[0].text)

    def map(self, action: Action) -> None:
        table = dict(action.table)
        self.rewrite(action, lambda text: table.get(text, text))

    def regex(self, action: Action) -> None:
        pattern = action.pattern
        assert pattern is not None
        self.rewrite(action, lambda text: pattern.sub(action.replacement, text))

    def upper(self, action: Action) -> None:
        self.rewrite(action, str.upper)

    def lower(self, action: Action) -> None:
        self.rewrite(action, str.lower)

    def remove(self, action: Action) -> None:
        for path in self._peek.places(action.target.path):
            self.put(path, "", None)


_DO: Mapping[str, Callable[[_Work, Action], None]] = {
    "copy": _Work.copy, "set": _Work.set, "map": _Work.map, "regex": _Work.regex, "upper": _Work.upper,
    "lower": _Work.lower, "remove": _Work.remove,
}  # fmt: skip


def _is_at(path: Path, target: Path) -> bool:
    """Whether a path with item numbers is one of those that a target names."""
    return len(path) == len(target) and all(
        mine == theirs or (at % 2 == 1 and theirs == ALL)
        for at, (mine, theirs) in enumerate(zip(path, target, strict=True))
    )


def described(change: Change, peek: Peek) -> tuple[str | None, str | None]:
    """The value before and after a change, None where there is none."""
    before = peek.values(change.path)
    return (before[0].text if before else None), change.value

