"""Where the elements of one data set or item lie, at any depth.

Rules that hold here: values are never decoded; what is private or unknown is found by its lengths; one level is
listed at a time, and who wants to look inside a sequence lists its items.
"""

from __future__ import annotations

from typing import NamedTuple

from archive.dicom.charset import Charset
from archive.dicom.dictionary import UNKNOWN, private_vr, vr_of
from archive.dicom.elements import CUT_SHORT, IMPLICIT_HEADS, Walk, name
from archive.dicom.encoding import IMPLICIT_LE, UNDEFINED, Encoding
from archive.dicom.values import CHARSET_VRS, text_of
from archive.errors import NotUnderstood


class Place(NamedTuple):
    """One element: positions of its head, its value and the byte behind it."""

    tag: int
    vr: str  # as written; in Implicit VR, and for UN that the dictionary knows, as the dictionary says
    start: int
    value: int
    end: int
    undefined: bool  # length: a delimiter of 8 bytes ends the value
    written: str  # the VR as written, "" in Implicit VR

    @property
    def stop(self) -> int:
        """Where the value ends."""
        return self.end - 8 if self.undefined else self.end

    @property
    def empty(self) -> bool:
        return self.value == self.stop


class Level(NamedTuple):
    """One data set or item."""

    places: list[Place]
    encoding: Encoding  # of its elements: some scanners' private items are Implicit VR inside of Explicit VR
    start: int
    stop: int  # where its elements end
    behind: int  # where the next item begins

    def find(self, tag: int) -> Place | None:
        return next((place for place in self.places if place.tag == tag), None)

    def creators(self, group: int) -> dict[int, Place]:
        """The creators of a private group by block."""
        first = group << 16
        return {place.tag & 0xFF: place for place in self.places if first | 0x10 <= place.tag <= first | 0xFF}


class Layout(Walk):
    """Lists the levels of one data set."""

    __slots__ = ()

    def level(self, pos: int, length: int, encoding: Encoding, depth: int) -> Level:
        """The data set or item whose elements begin at ``pos``; only an item has an undefined length."""
        end, start, undefined = self.size if length == UNDEFINED else pos + length, pos, length == UNDEFINED
        places: list[Place] = []
        while pos < end:
            if undefined and IMPLICIT_HEADS[encoding.big](self.data, pos)[0] == encoding.item_end:
                return Level(places, encoding, start, pos, pos + 8)
            if pos == start and depth and encoding.explicit and not encoding.big:
                encoding = self._inside(pos, encoding)
            self.spend(1)
            place = self.place(pos, encoding, depth)
            places.append(place)
            pos = place.end
        if undefined:
            raise NotUnderstood("Item is never closed")
        if pos != end or end > self.size:
            raise NotUnderstood("Element is longer than its item" if depth else CUT_SHORT)
        return Level(places, encoding, start, pos, pos)

    def _inside(self, pos: int, encoding: Encoding) -> Encoding:
        code = encoding.head.unpack_from(self.data, pos)[1]
        known = code in encoding.vrs or encoding.letters(code).isalpha()
        return encoding if known else IMPLICIT_LE

    def place(self, pos: int, encoding: Encoding, depth: int) -> Place:
        """The element whose head is at ``pos``."""
        if not encoding.explicit:
            raw, size = encoding.head.unpack_from(self.data, pos)
            tag, end = encoding.tag(raw), pos + 8 + size
            if size == UNDEFINED or raw in encoding.special:
                end = self.skip_implicit_other(raw, size, pos + 8, encoding, depth)
            vr = "SQ" if size == UNDEFINED and raw != encoding.pixel_data else vr_of(tag)
            return Place(tag, vr.split(" or ")[0], pos, pos + 8, end, size == UNDEFINED, "")
        raw, code, size = encoding.head.unpack_from(self.data, pos)
        tag, vr = encoding.tag(raw), encoding.vrs.get(code, UNKNOWN)
        if tag >> 16 == 0xFFFE:
            raise NotUnderstood("Item or delimiter outside of a sequence", name(encoding, raw))
        if code in encoding.short:
            return Place(tag, vr, pos, pos + 8, pos + 8 + size, False, vr)
        end, value, undefined = self.skip_other(raw, code, size, pos + 8, encoding, depth), pos + 8, False
        if code in encoding.vrs or not (size or not encoding.letters(code).isalpha()):
            value = pos + 12
            undefined = encoding.length.unpack_from(self.data, pos + 8)[0] == UNDEFINED
        if vr == UNKNOWN and code == encoding.unknown:  # PS3.5 6.2.2: the dictionary may know better
            vr = "SQ" if undefined else vr_of(tag).split(" or ")[0]
        return Place(tag, vr, pos, value, end, undefined, encoding.vrs.get(code, UNKNOWN))

    def inner(self, place: Place, encoding: Encoding) -> Encoding:
        """The encoding of the items of a sequence: Implicit LE in UN (PS3.5 6.2.2)."""
        return IMPLICIT_LE if place.written == UNKNOWN else encoding

    def items(self, place: Place, encoding: Encoding) -> list[tuple[int, int, int]]:
        """Start of the head, start of the elements and length of each item of a sequence."""
        inner = self.inner(place, encoding)
        found: list[tuple[int, int, int]] = []

        def item(pos: int, length: int, within: Encoding, depth: int) -> int:
            found.append((pos - 8, pos, length))
            return self.skip_item(pos, length, within, depth)

        self.sequence(place.value, UNDEFINED if place.undefined else place.end - place.value, inner, 1, item)
        return found

    def raw(self, place: Place) -> bytes:
        """The value's bytes, when they are few enough to be a text."""
        if place.stop > self.size:
            raise NotUnderstood(CUT_SHORT)
        if place.stop - place.value > self.limits.text:
            return b""
        return bytes(self.data[place.value : place.stop])

    def text(self, place: Place, vr: str, encoding: Encoding, charset: Charset) -> str | None:
        """The text of a value, None when its VR has none."""
        big = encoding.big and place.written != UNKNOWN
        return text_of(self.raw(place), vr, charset, big, self.limits)

    def text_vr(self, place: Place, level: Level) -> str:
        """The VR of an element whose characters follow Specific Character Set, else "".

        Private elements without a VR have that of their creator's dictionary.
        """
        vr = place.vr
        if vr == UNKNOWN and place.tag >> 16 & 1:
            creator = level.creators(place.tag >> 16).get(place.tag >> 8 & 0xFF)
            vr = private_vr(place.tag, self.creator(creator)) if creator else vr
        return vr if vr in CHARSET_VRS else ""

    def creator(self, place: Place) -> str:
        """The name of a private creator."""
        return self.raw(place)[:64].decode("ascii", "replace").strip(" \0")
