"""Values of single attributes of a data set, wherever they are in it.

Rules that hold here: a level is listed once, when something in it is asked for; values are text as DICOM writes it,
in the character set of their level; a value that is not understood is told apart from one that is not there.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from archive.dicom.charset import REPLACEMENT, Charset, charset_of
from archive.dicom.coerce import beginning
from archive.dicom.elements import CUT_SHORT, Buffer
from archive.dicom.encoding import encoding_of
from archive.dicom.inflate import inflate
from archive.dicom.layout import Layout, Level, Place
from archive.dicom.paths import ALL, VALUES, Path, Private, step_vr
from archive.dicom.uids import transfer_syntax as syntax_facts
from archive.dicom.wanted import SPECIFIC_CHARACTER_SET
from archive.errors import NotUnderstood

REACH = 0x7FDFFFFF  # everything before the pixel data: as much of a deflated object as is looked at


class Value(NamedTuple):
    """The text of one attribute, and its VR."""

    path: Path  # with the item numbers of this one
    vr: str
    text: str
    sound: bool  # every character was understood


class Peek:
    """Looks into one data set."""

    def __init__(self, data: Buffer, transfer_syntax: str, default_charset: str = "") -> None:
        facts = syntax_facts(transfer_syntax)
        self._encoding = encoding_of(facts)
        if facts.deflated:
            data, _ = beginning(inflate(data), self._encoding, REACH)
        self._layout = Layout(memoryview(data), facts.encapsulated)
        self._default = charset_of(default_charset)
        self._levels: dict[Path, tuple[Level, Charset]] = {}

    def values(self, path: Path) -> list[Value]:
        """The attribute in every item that the path names; nothing where it is not there or has no text."""
        try:
            return self._values(path)
        except struct.error as error:
            raise NotUnderstood(CUT_SHORT) from error

    def places(self, path: Path) -> list[Path]:
        """The path with every ALL replaced by the items there are."""
        try:
            return [(*above, path[-1]) for above in self._items(path[:-1])]
        except struct.error as error:
            raise NotUnderstood(CUT_SHORT) from error

    def has(self, path: Path) -> bool:
        """Whether the attribute is there, with a value or without."""
        try:
            return any(self._find(self._level(above)[0], path[-1]) for above in self._items(path[:-1]))
        except struct.error as error:
            raise NotUnderstood(CUT_SHORT) from error

    def _values(self, path: Path) -> list[Value]:
        found = []
        for above in self._items(path[:-1]):
            level, charset = self._level(above)
            place = self._find(level, path[-1])
            if place is not None and (value := self._value(level, charset, (*above, path[-1]), place)):
                found.append(value)
        return found

    def _value(self, level: Level, charset: Charset, path: Path, place: Place) -> Value | None:
        vr = place.vr if place.vr in VALUES else step_vr(path[-1])
        if place.vr == "SQ" or vr not in VALUES:
            return None
        text = self._layout.text(place, vr, level.encoding, charset) or ""
        return Value(path, vr, text, REPLACEMENT not in text)

    def _find(self, level: Level, step: int | Private) -> Place | None:
        if isinstance(step, int):
            return level.find(step)
        for block, place in level.creators(step.group).items():
            if self._layout.creator(place) == step.creator:
                return level.find(step.group << 16 | block << 8 | step.element)
        return None

    def _items(self, above: Path) -> list[Path]:
        """The data sets and items that the beginning of a path names."""
        found: list[Path] = [()]
        for at in range(0, len(above), 2):
            step, number = above[at], above[at + 1]
            assert isinstance(number, int)
            deeper: list[Path] = []
            for path in found:
                count = self._count(path, step)
                numbers = range(count) if number == ALL else [number] if 0 <= number < count else []
                deeper += [(*path, step, each) for each in numbers]
            found = deeper
        return found

    def _count(self, path: Path, step: int | Private) -> int:
        level, _ = self._level(path)
        place = self._find(level, step)
        return len(self._layout.items(place, level.encoding)) if place is not None and place.vr == "SQ" else 0

    def _level(self, path: Path) -> tuple[Level, Charset]:
        if path not in self._levels:
            self._levels[path] = self._listed(path)
        return self._levels[path]

    def _listed(self, path: Path) -> tuple[Level, Charset]:
        if not path:
            level, charset = self._layout.level(0, self._layout.size, self._encoding, 0), self._default
        else:
            above, charset = self._level(path[:-2])
            place = self._find(above, path[-2])
            assert place is not None and isinstance(path[-1], int)
            _, start, length = self._layout.items(place, above.encoding)[path[-1]]
            level = self._layout.level(start, length, self._layout.inner(place, above.encoding), len(path) // 2)
        declared = level.find(SPECIFIC_CHARACTER_SET)
        if declared is not None and not declared.empty:
            charset = charset_of(self._layout.raw(declared).decode("ascii", "replace").strip(" \0"))
        return level, charset
