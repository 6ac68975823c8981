"""Walking over elements, items and fragments by their lengths, without looking at their values.

Rules that hold here: positions only grow, so every loop ends; a length is believed only as far as the
enclosing length ends in the same place, and the outermost one must end where the data ends; recursion is
bounded by ``limits.depth``, work by ``limits.elements``, ``objects`` and ``fragments``; reading behind the end raises
struct.error, which callers take for "ends in the middle" (see ``understood``).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from archive.dicom.dictionary import vr_of
from archive.dicom.encoding import IMPLICIT_LE, TEXT_VRS, UNDEFINED, Encoding
from archive.dicom.limits import LIMITS, Limits
from archive.errors import NotUnderstood

Buffer = bytes | bytearray | memoryview | mmap.mmap
ItemReader = Callable[[int, int, Encoding, int], int]  # position, length, encoding, depth -> position behind

CUT_SHORT = "Data set ends in the middle of an element"

# Items and delimiters have no VR in any encoding (PS3.5 7.5): tag and 32-bit length, by byte order.
IMPLICIT_HEADS = {False: struct.Struct("<LL").unpack_from, True: struct.Struct(">LL").unpack_from}


@contextmanager
def understood() -> Iterator[None]:
    """Turn a read behind the end of the data into its name."""
    try:
        yield
    except struct.error as error:
        raise NotUnderstood(CUT_SHORT) from error


def name(encoding: Encoding, raw: int) -> str:
    """A tag as people write it."""
    tag = encoding.tag(raw)
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


class Walk:
    """One pass over one data set: where it is allowed to go, and what it has left to spend."""

    __slots__ = ("data", "size", "limits", "encapsulated", "left")

    def __init__(self, data: Buffer, encapsulated: bool = False, limits: Limits = LIMITS) -> None:
        self.data = data
        self.size = len(data)
        self.limits = limits
        self.encapsulated = encapsulated
        self.left = limits.objects

    def spend(self, objects: int) -> None:
        self.left -= objects
        if self.left < 0:
            raise NotUnderstood("Too many elements and items")

    def sequence(self, pos: int, length: int, encoding: Encoding, depth: int, item: ItemReader | None = None) -> int:
        """The position behind a sequence whose value starts at ``pos``; each item is skipped or given to ``item``."""
        if depth > self.limits.depth:
            raise NotUnderstood("Sequences are nested too deep")
        item = item or self.skip_item
        end = self.size if length == UNDEFINED else pos + length
        head, data = IMPLICIT_HEADS[encoding.big], self.data
        while pos < end:
            raw, size = head(data, pos)
            pos += 8
            if raw != encoding.item:
                if raw == encoding.sequence_end and length == UNDEFINED and size == 0:
                    return pos
                raise NotUnderstood("Sequence holds something that is no item", name(encoding, raw))
            self.spend(1)
            pos = item(pos, size, encoding, depth)
        if length == UNDEFINED:
            raise NotUnderstood("Sequence is never closed")
        if pos != end:
            raise NotUnderstood("Item is longer than its sequence")
        return pos

    def skip_item(self, pos: int, length: int, encoding: Encoding, depth: int) -> int:
        """The position behind an item whose value starts at ``pos``."""
        if length == 0:
            return pos
        return (self._skip_explicit if encoding.explicit else self._skip_implicit)(pos, length, encoding, depth)

    def _skip_explicit(self, pos: int, length: int, encoding: Encoding, depth: int) -> int:
        unpack, short, data = encoding.head.unpack_from, encoding.short, self.data
        start, end = pos, self.size if length == UNDEFINED else pos + length
        for count in range(self.limits.elements):
            raw, vr, size = unpack(data, pos)
            pos += 8
            if vr in short:
                pos += size
            elif raw == encoding.item_end and length == UNDEFINED:
                self.spend(count)
                return pos
            elif count == 0 and not encoding.letters(vr).isalpha() and not encoding.big:
                return self._skip_implicit(start, length, IMPLICIT_LE, depth)  # some scanners' private items
            else:
                pos = self.skip_other(raw, vr, size, pos, encoding, depth)
            if pos >= end:
                self.spend(count)
                return self._item_ended(pos, end, length)
        raise NotUnderstood("Too many elements")

    def _skip_implicit(self, pos: int, length: int, encoding: Encoding, depth: int) -> int:
        unpack, special, data, text = encoding.head.unpack_from, encoding.special, self.data, self.limits.text
        end = self.size if length == UNDEFINED else pos + length
        for count in range(self.limits.elements):
            raw, size = unpack(data, pos)
            pos += 8
            if size <= text and raw not in special:
                pos += size
            elif raw == encoding.item_end and length == UNDEFINED:
                self.spend(count)
                return pos
            else:
                pos = self.skip_implicit_other(raw, size, pos, encoding, depth)
            if pos >= end:
                self.spend(count)
                return self._item_ended(pos, end, length)
        raise NotUnderstood("Too many elements")

    def _item_ended(self, pos: int, end: int, length: int) -> int:
        if length == UNDEFINED:
            raise NotUnderstood("Item is never closed")
        if pos != end:
            raise NotUnderstood("Element is longer than its item")
        return pos

    def skip_other(self, raw: int, vr: int, size: int, pos: int, encoding: Encoding, depth: int) -> int:
        """The position behind an explicit element whose VR has no 16-bit length; ``pos`` follows the first 8 bytes."""
        if vr in encoding.vrs:
            (size,) = encoding.length.unpack_from(self.data, pos)
            pos += 4
            if vr == encoding.sequence:
                return self.sequence(pos, size, encoding, depth + 1)
            if size != UNDEFINED:
                return pos + size
            if vr == encoding.unknown:  # PS3.5 6.2.2: Implicit LE inside, whatever is outside
                return self.sequence(pos, size, IMPLICIT_LE, depth + 1)
            return self._undefined(raw, pos, encoding)
        if encoding.group(raw) == 0xFFFE:
            raise NotUnderstood("Item or delimiter outside of a sequence", name(encoding, raw))
        return pos + self.unknown_size(raw, vr, size, pos, encoding)

    def unknown_size(self, raw: int, vr: int, size: int, pos: int, encoding: Encoding) -> int:
        """VRs to come have a 32-bit length behind two zero bytes (PS3.5 6.2); broken ones have what they had."""
        letters = encoding.letters(vr)
        if not 0x20 <= min(letters) <= max(letters) <= 0x7E:
            raise NotUnderstood(f"Element {name(encoding, raw)} is not in Explicit VR")
        if size or not letters.isalpha():
            return size
        (size,) = encoding.length.unpack_from(self.data, pos)
        return 4 + size

    def skip_implicit_other(self, raw: int, size: int, pos: int, encoding: Encoding, depth: int) -> int:
        """The position behind an implicit element that is a sequence, is very long, or should not be here."""
        tag = encoding.tag(raw)
        if tag >> 16 == 0xFFFE:
            raise NotUnderstood("Item or delimiter outside of a sequence", name(encoding, raw))
        if size == UNDEFINED and raw == encoding.pixel_data:
            return self._undefined(raw, pos, encoding)
        if size == UNDEFINED or raw in encoding.special:
            return self.sequence(pos, size, encoding, depth + 1)
        if vr_of(tag) in TEXT_VRS - {"UT", "UC", "UR"}:
            raise NotUnderstood(f"Text of element {name(encoding, raw)} is too long")
        return pos + size

    def _undefined(self, raw: int, pos: int, encoding: Encoding) -> int:
        if raw != encoding.pixel_data:
            raise NotUnderstood(f"Element {name(encoding, raw)} has no defined length")
        if not self.encapsulated:
            raise NotUnderstood("Encapsulated pixel data in a native transfer syntax")
        return self._fragments(pos)

    def _fragments(self, pos: int) -> int:
        """The position behind encapsulated pixel data (PS3.5 A.4)."""
        head, data, item = IMPLICIT_HEADS[False], self.data, IMPLICIT_LE.item
        for _ in range(self.limits.fragments):
            raw, size = head(data, pos)
            pos += 8
            if raw != item:
                if raw != IMPLICIT_LE.sequence_end or size:
                    raise NotUnderstood("Pixel data fragments do not end with a delimiter")
                return pos
            pos += size
        raise NotUnderstood("Too many pixel data fragments")
