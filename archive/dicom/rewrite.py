"""A data set from one encoding into another, element by element, in one forward pass.

Rules that hold here: values keep their meaning: only the order of bytes within words changes, and odd lengths are
made even; sequences and items that are not empty come out with undefined length, because their length is not known
before their end; group lengths (retired, PS3.5 7.2) are left out, they would lie; long values pass through in
steps; what was UN stays UN, and inside a UN of undefined length all stays Implicit LE (PS3.5 6.2.2).
"""

from __future__ import annotations

import array
import struct
from collections.abc import Callable, Iterator

from archive.dicom.dictionary import UNKNOWN, private_vr, vr_of
from archive.dicom.elements import IMPLICIT_HEADS, name
from archive.dicom.encoding import IMPLICIT_LE, ITEM, ITEM_END, SEQUENCE_END, TEXT_VRS, UNDEFINED, WORDS, Encoding
from archive.dicom.limits import LIMITS, Limits
from archive.dicom.source import STEP, Source, copied
from archive.errors import NotUnderstood

FLUSH = 1 << 16  # bytes gathered before they are handed on
_WORD_TYPES = {2: "H", 4: "I", 8: "Q"}
_LONGEST_SHORT = 0xFFFE

# What the VR of later elements depends on (PS3.5 A.1, A.2; PS3.3 C.7.6.3, C.11.1.1, C.10.9).
PIXEL_REPRESENTATION, BITS_ALLOCATED, LUT_DESCRIPTOR, WAVEFORM_BITS = 0x00280103, 0x00280100, 0x00283002, 0x54001004
_CONTEXT = {PIXEL_REPRESENTATION, BITS_ALLOCATED, LUT_DESCRIPTOR, WAVEFORM_BITS}

Keep = Callable[[int, int, int], bool]  # tag, length, depth -> whether the value is kept; the others are left empty


class _Level:
    """A data set, item or sequence that is open."""

    __slots__ = ("items", "end", "read", "write", "above", "context", "creators", "begun")

    def __init__(self, items: bool, end: int | None, read: Encoding, write: Encoding, above: _Level | None) -> None:
        self.items = items  # a sequence, which holds items; else a data set
        self.end = end  # position, None for undefined
        self.read, self.write = read, write
        self.above = above
        self.context: dict[int, int] = {}
        self.creators: dict[int, str] = {}  # private block -> creator
        self.begun = False

    def known(self, tag: int) -> int | None:
        """A value of this data set or of the nearest one around it."""
        level: _Level | None = self
        while level is not None:
            if tag in level.context:
                return level.context[tag]
            level = level.above
        return None


class Rewriter:
    """One pass from ``source`` to pieces of bytes."""

    def __init__(
        self, source: Source, read: Encoding, write: Encoding, *, keep: Keep | None = None, limits: Limits = LIMITS
    ) -> None:
        self._source = source
        self._keep = keep
        self._limits = limits
        self._left = limits.objects
        self._out = bytearray()
        self._stack = [_Level(False, None, read, write, None)]

    def pieces(self) -> Iterator[bytes]:
        """The data set in its new encoding; NotUnderstood wherever it turns out to be broken."""
        try:
            while self._stack:
                level = self._stack[-1]
                if self._closed(level):
                    continue
                if level.items:
                    self._item(level)
                else:
                    yield from self._element(level)
                if len(self._out) >= FLUSH:
                    yield self._flushed()
        except struct.error as error:
            raise NotUnderstood("Data set is damaged") from error
        yield self._flushed()

    def _flushed(self) -> bytes:
        piece = bytes(self._out)
        self._out.clear()
        return piece

    def _closed(self, level: _Level) -> bool:
        """Close a level that ends here; the data set itself ends with its source."""
        if level.above is None:
            ended = self._source.at_end()
            if ended:
                self._stack.pop()
            return ended
        if level.end is None or self._source.position < level.end:
            return False
        if self._source.position > level.end:
            raise NotUnderstood("Element is longer than its item")
        self._close(level)
        return True

    def _close(self, level: _Level) -> None:
        self._stack.pop()
        self._put_head(level.write, SEQUENCE_END if level.items else ITEM_END, 0)

    def _put_head(self, encoding: Encoding, tag: int, length: int) -> None:
        self._out += encoding.length.pack(encoding.raw(tag)) + encoding.length.pack(length)

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise NotUnderstood("Too many elements and items")

    def _open(self, items: bool, length: int, read: Encoding, write: Encoding, above: _Level) -> None:
        end = None if length == UNDEFINED else self._source.position + length
        self._stack.append(_Level(items, end, read, write, above))
        if len(self._stack) > 2 * self._limits.depth + 1:
            raise NotUnderstood("Sequences are nested too deep")

    def _item(self, level: _Level) -> None:
        self._spend()
        raw, length = IMPLICIT_HEADS[level.read.big](self._source.read(8), 0)
        tag = level.read.tag(raw)
        if tag == SEQUENCE_END and level.end is None:
            self._close(level)
        elif tag != ITEM:
            raise NotUnderstood("Sequence holds something that is no item", name(level.read, raw))
        elif length == 0:
            self._put_head(level.write, ITEM, 0)
        else:
            self._put_head(level.write, ITEM, UNDEFINED)
            self._open(False, length, level.read, level.write, level)

    def _element(self, level: _Level) -> Iterator[bytes]:
        self._spend()
        tag, vr, length = self._head(level)
        level.begun = True
        if tag == ITEM_END and level.end is None and level.above is not None:
            self._close(level)
        elif tag >> 16 == 0xFFFE:
            raise NotUnderstood("Item or delimiter outside of a sequence", f"{tag:08X}")
        elif tag & 0xFFFF == 0:
            self._skip(length)
        elif vr == "SQ" or length == UNDEFINED:
            self._sequence(level, tag, vr, length)
        elif self._keep is not None and not self._keep(tag, length, len(self._stack) // 2):
            self._skip(length)
            self._put(level.write, tag, vr, 0)
        else:
            yield from self._value(level, tag, vr, length)

    def _skip(self, length: int) -> None:
        for _ in copied(self._source, length):
            pass

    def _head(self, level: _Level) -> tuple[int, str, int]:
        """Tag, VR and length of the next element."""
        head = self._source.read(8)
        if level.read.explicit:
            raw, code, length = level.read.head.unpack(head)
            vr = level.read.vrs.get(code, "")
            if level.read.tag(raw) >> 16 == 0xFFFE:
                return level.read.tag(raw), "", 0
            letters = level.read.letters(code)
            if vr or level.begun or letters.isalpha() or level.read.big or level.above is None:
                return level.read.tag(raw), vr or UNKNOWN, self._explicit_length(level.read, vr, letters, length)
            level.read = IMPLICIT_LE  # some scanners write private items so
        raw, length = level.read.head.unpack(head)
        tag = level.read.tag(raw)
        return tag, "SQ" if length == UNDEFINED else self._implicit_vr(level, tag), length

    def _explicit_length(self, encoding: Encoding, vr: str, letters: bytes, length: int) -> int:
        """VRs to come have a 32-bit length behind two zero bytes (PS3.5 6.2); broken ones have what they had."""
        if vr:
            short = encoding.code(vr) in encoding.short
        else:
            short = bool(length) or not letters.isalpha()
        return length if short else int(encoding.length.unpack(self._source.read(4))[0])

    def _implicit_vr(self, level: _Level, tag: int) -> str:
        if tag >> 16 & 1 and tag & 0xFFFF > 0xFF:
            vr = private_vr(tag, level.creators.get(tag >> 8, ""))
        else:
            vr = vr_of(tag)
        return _resolved(vr, tag, level) if " or " in vr else vr if vr in WORDS or len(vr) == 2 else UNKNOWN

    def _sequence(self, level: _Level, tag: int, vr: str, length: int) -> None:
        if vr not in ("SQ", UNKNOWN):
            raise NotUnderstood(f"Element ({tag >> 16:04X},{tag & 0xFFFF:04X}) has no defined length")
        self._put(level.write, tag, vr, UNDEFINED if length else 0)
        if length:
            as_it_was = vr == UNKNOWN
            read = IMPLICIT_LE if as_it_was else level.read
            self._open(True, length, read, IMPLICIT_LE if as_it_was else level.write, level)

    def _put(self, encoding: Encoding, tag: int, vr: str, length: int) -> None:
        """An element up to its value."""
        self._out += encoding.length.pack(encoding.raw(tag))
        if encoding.explicit:
            self._out += vr.encode("ascii")
            if encoding.code(vr) in encoding.short:
                self._out += length.to_bytes(2, "big" if encoding.big else "little")
                return
            self._out += b"\0\0"
        self._out += encoding.length.pack(length)

    def _value(self, level: _Level, tag: int, vr: str, length: int) -> Iterator[bytes]:
        read, write = level.read, level.write
        if write.explicit and length > _LONGEST_SHORT and write.code(vr) in write.short:
            vr = UNKNOWN  # PS3.5 6.2.2: values too long for their VR
        padding = b"" if not length & 1 else b" " if vr in TEXT_VRS and vr != "UI" else b"\0"
        self._put(write, tag, vr, length + len(padding))
        width = WORDS.get(vr, 1) if read.big != write.big else 1
        if length <= STEP:
            raw = self._source.read(length)
            self._note(level, tag, raw)
            self._out += _swapped(raw, width)
        else:
            yield self._flushed()
            for step in copied(self._source, length):
                yield _swapped(step, width)
        self._out += padding

    def _note(self, level: _Level, tag: int, raw: bytes) -> None:
        """Remember what later elements depend on."""
        if tag in _CONTEXT and len(raw) >= 2:
            level.context[tag] = int.from_bytes(raw[:2], "big" if level.read.big else "little")
        elif tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF:
            level.creators[tag >> 16 << 8 | tag & 0xFF] = raw[:64].decode("ascii", "replace").strip(" \0")


def _swapped(raw: bytes, width: int) -> bytes:
    """The bytes of each word in the other order; what is left over stays as it is."""
    if width == 1:
        return raw
    whole = len(raw) - len(raw) % width
    words = array.array(_WORD_TYPES[width], raw[:whole])
    words.byteswap()
    return words.tobytes() + raw[whole:]


def _resolved(vr: str, tag: int, level: _Level) -> str:
    """One VR for an entry of the dictionary that leaves the choice (PS3.5 A.1, A.2)."""
    if vr == "US or SS":
        return "SS" if level.known(PIXEL_REPRESENTATION) == 1 else "US"
    if vr == "OB or OW":
        bits = level.known(WAVEFORM_BITS if tag >> 16 == 0x5400 else BITS_ALLOCATED) if tag >> 24 != 0x60 else None
        return "OB" if bits is not None and bits <= 8 else "OW"
    # LUT Data: one entry may be US, more are words (PS3.3 C.11.1.1.1)
    return "US" if level.known(LUT_DESCRIPTOR) == 1 else "OW"
