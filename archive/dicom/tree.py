"""A data set read whole: for identifiers, and for the few sequences of a header that are indexed.

Rules that hold here: every value is text or a list of items; a Specific Character Set holds for what follows it
in its data set and below; values that have no text (OB, OW, …) are empty, so that their tag is known; group
lengths are left out; the limits are those of the walk.
"""

from __future__ import annotations

from typing import NamedTuple

from archive.dicom.charset import Charset, charset_of
from archive.dicom.dictionary import MISPLACED_GROUPS, UNKNOWN, vr_of
from archive.dicom.elements import CUT_SHORT, IMPLICIT_HEADS, Walk, name
from archive.dicom.encoding import IMPLICIT_LE, TEXT_VRS, UNDEFINED, Encoding
from archive.dicom.values import text_of
from archive.dicom.wanted import SPECIFIC_CHARACTER_SET, Wanted
from archive.errors import NotUnderstood


class Element(NamedTuple):
    """One element: text as DICOM writes it, or the items of a sequence."""

    vr: str
    value: str | list[DataSet]


class DataSet(dict[int, Element]):
    """Elements by tag, in the order they came, and the character set they were written in."""

    __slots__ = ("charset",)

    def __init__(self, charset: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.charset = charset

    def text(self, tag: int, default: str = "") -> str:
        """The text of an element; the default when it is absent or a sequence."""
        element = self.get(tag)
        return element.value if element and isinstance(element.value, str) else default

    def items_of(self, tag: int) -> list[DataSet]:
        """The items of a sequence; none when it is absent or no sequence."""
        element = self.get(tag)
        return element.value if element and isinstance(element.value, list) else []


class _Head(NamedTuple):
    tag: int
    vr: str
    pos: int  # of the value
    length: int
    inner: Encoding  # of the items, if it is a sequence


class Tree(Walk):
    """Reads data sets as trees; a ``wanted`` of None takes everything."""

    __slots__ = ()

    def data_set(
        self, pos: int, length: int, encoding: Encoding, depth: int, charset: Charset, wanted: Wanted | None = None
    ) -> tuple[DataSet, int]:
        """The data set or item whose elements start at ``pos``, and the position behind it."""
        end = self.size if length == UNDEFINED else pos + length
        elements = DataSet(charset.terms)
        delimiter = IMPLICIT_HEADS[encoding.big]
        while pos < end:
            if length == UNDEFINED and delimiter(self.data, pos)[0] == encoding.item_end:
                return elements, pos + 8
            self.spend(1)
            head = self._head(pos, encoding)
            if wanted is not None and head.tag not in wanted and head.tag != SPECIFIC_CHARACTER_SET:
                pos = self._skip(head, encoding, depth)
                continue
            element, pos = self._element(head, encoding, depth, charset, wanted)
            if head.tag & 0xFFFF:
                elements[head.tag] = element
            if head.tag == SPECIFIC_CHARACTER_SET and element.value:
                charset = charset_of(str(element.value))
                elements.charset = charset.terms
        if length == UNDEFINED or pos != end:
            raise NotUnderstood("Item is never closed" if length == UNDEFINED else "Element is longer than its item")
        return elements, pos

    def items(
        self, pos: int, length: int, encoding: Encoding, depth: int, charset: Charset, wanted: Wanted | None = None
    ) -> tuple[list[DataSet], int]:
        """The items of the sequence whose value starts at ``pos``, and the position behind it."""
        found: list[DataSet] = []

        def item(at: int, size: int, inner: Encoding, level: int) -> int:
            elements, behind = self.data_set(at, size, inner, level, charset, wanted)
            found.append(elements)
            if len(found) > self.limits.values:
                raise NotUnderstood("Too many items in one sequence")
            return behind

        return found, self.sequence(pos, length, encoding, depth + 1, item)

    def _head(self, pos: int, encoding: Encoding) -> _Head:
        if not encoding.explicit:
            raw, length = encoding.head.unpack_from(self.data, pos)
            tag = encoding.tag(raw)
            vr = vr_of(tag)
            if length == UNDEFINED:
                vr = "SQ"
            return self._checked(_Head(tag, vr.split(" or ")[0], pos + 8, length, encoding))
        raw, code, length = encoding.head.unpack_from(self.data, pos)
        pos, tag, vr, inner = pos + 8, encoding.tag(raw), encoding.vrs.get(code, ""), encoding
        if tag >> 16 == 0xFFFE:
            raise NotUnderstood("Item or delimiter outside of a sequence", name(encoding, raw))
        if not vr:
            size = self.unknown_size(raw, code, length, pos, encoding)
            return self._checked(_Head(tag, UNKNOWN, pos, size, encoding))
        if code not in encoding.short:
            (length,) = encoding.length.unpack_from(self.data, pos)
            pos += 4
        if vr == UNKNOWN:  # PS3.5 6.2.2: the dictionary may know better, and inside it is Implicit LE
            vr, inner = ("SQ" if length == UNDEFINED else vr_of(tag)), IMPLICIT_LE
        return self._checked(_Head(tag, vr, pos, length, inner))

    def _checked(self, head: _Head) -> _Head:
        if head.tag >> 16 in (*MISPLACED_GROUPS, 0xFFFE):
            raise NotUnderstood("Element of a group that has no place here", f"{head.tag:08X}")
        if head.length == UNDEFINED and head.vr != "SQ":
            raise NotUnderstood("Element has no defined length", f"{head.tag:08X}")
        return head

    def _skip(self, head: _Head, encoding: Encoding, depth: int) -> int:
        if head.vr == "SQ":
            return self.sequence(head.pos, head.length, head.inner, depth + 1)
        return head.pos + head.length

    def _element(
        self, head: _Head, encoding: Encoding, depth: int, charset: Charset, wanted: Wanted | None
    ) -> tuple[Element, int]:
        if head.vr == "SQ":
            inner = wanted.inside(head.tag) if wanted is not None else None
            items, pos = self.items(head.pos, head.length, head.inner, depth, charset, inner)
            return Element("SQ", items), pos
        behind = head.pos + head.length
        if behind > self.size:
            raise NotUnderstood(CUT_SHORT)
        if head.vr in TEXT_VRS and head.length > self.limits.text:
            raise NotUnderstood("Text value is too long", head.vr)
        raw = bytes(self.data[head.pos : behind]) if head.length <= self.limits.text else b""
        return Element(head.vr, text_of(raw, head.vr, charset, head.inner.big, self.limits) or ""), behind
