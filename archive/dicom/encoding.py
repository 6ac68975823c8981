"""The three ways in which elements are laid out: Implicit LE, Explicit LE, Explicit BE (PS3.5 chapter 7).

Rules that hold here: a tag or VR is kept as the integer its bytes make in the encoding's own byte order
("raw"), so that a pass over the bytes compares integers and never builds strings; the tables that translate
are made once for each encoding.
"""

from __future__ import annotations

import struct

from archive.dicom.dictionary import SEQUENCE_TAGS
from archive.dicom.uids import TransferSyntax

UNDEFINED = 0xFFFFFFFF  # PS3.5 7.1.1


def vrs(names: str) -> frozenset[str]:
    """A set of value representations."""
    return frozenset(names.split())


# PS3.5 7.1.2, tables 7.1-1 and 7.1-2.
SHORT_VRS = vrs("AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US")
LONG_VRS = vrs("OB OD OF OL OV OW SQ SV UC UN UR UT UV")

# PS3.5 6.2: what is text, what is numbers and how wide they are.
TEXT_VRS = vrs("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT")
NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "SV": "q", "UV": "Q", "AT": "HH"}
# Bytes that change places with the byte order (PS3.5 7.3).
WORDS = dict.fromkeys(vrs("US SS OW AT"), 2) | dict.fromkeys(vrs("UL SL FL OF OL"), 4)
WORDS |= dict.fromkeys(vrs("FD OD OV SV UV"), 8)

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD  # PS3.5 7.5
PIXEL_DATA = 0x7FE00010


class Encoding:
    """Structures, delimiters and tables of one layout; compare by identity."""

    __slots__ = (
        "name", "big", "explicit", "order", "head", "length", "raw", "item", "item_end", "sequence_end", "pixel_data",
        "vrs", "short", "sequence", "unknown", "special",
    )  # fmt: skip

    def __init__(self, explicit: bool, big: bool) -> None:
        self.name = f"{'Explicit' if explicit else 'Implicit'} VR {'Big' if big else 'Little'} Endian"
        self.explicit, self.big = explicit, big
        self.order = order = ">" if big else "<"
        self.head = struct.Struct(order + ("LHH" if explicit else "LL"))  # tag, (VR, short length) or length
        self.length = struct.Struct(order + "L")
        self.raw = (lambda tag: tag) if big else (lambda tag: (tag & 0xFFFF) << 16 | tag >> 16)
        self.item, self.item_end = self.raw(ITEM), self.raw(ITEM_END)
        self.sequence_end, self.pixel_data = self.raw(SEQUENCE_END), self.raw(PIXEL_DATA)
        self.vrs = {self.code(vr): vr for vr in SHORT_VRS | LONG_VRS}
        self.short = frozenset(map(self.code, SHORT_VRS))
        self.sequence, self.unknown = self.code("SQ"), self.code("UN")
        delimiters = (self.item, self.item_end, self.sequence_end)
        self.special = frozenset(map(self.raw, SEQUENCE_TAGS)) | frozenset(delimiters)

    def code(self, vr: str) -> int:
        """The two letters as the integer they make here."""
        return int.from_bytes(vr.encode("ascii"), "big" if self.big else "little")

    def letters(self, code: int) -> bytes:
        return code.to_bytes(2, "big" if self.big else "little")

    def tag(self, raw: int) -> int:
        return self.raw(raw)  # the halves change places both ways

    def group(self, raw: int) -> int:
        return raw >> 16 if self.big else raw & 0xFFFF


IMPLICIT_LE = Encoding(explicit=False, big=False)
EXPLICIT_LE = Encoding(explicit=True, big=False)
EXPLICIT_BE = Encoding(explicit=True, big=True)


def encoding_of(syntax: TransferSyntax) -> Encoding:
    """The layout of a transfer syntax's elements, once they are inflated."""
    if syntax.big_endian:
        return EXPLICIT_BE
    return EXPLICIT_LE if syntax.explicit else IMPLICIT_LE


# Groups with which the data sets of composite objects begin (PS3.6): identification, or patient when that is lost.
FIRST_GROUPS = (0x0008, 0x0010)


def guess_encoding(head: bytes | bytearray | memoryview, size: int) -> Encoding | None:
    """The encoding that the first 8 bytes of a data set speak of, if they are plausible at all."""
    if len(head) < 8:
        return None
    for encoding in (EXPLICIT_LE, EXPLICIT_BE):
        raw, code, _ = encoding.head.unpack(head)
        if code in encoding.vrs and encoding.tag(raw) >> 16 in FIRST_GROUPS:
            return encoding
    raw, length = IMPLICIT_LE.head.unpack(head)
    return IMPLICIT_LE if IMPLICIT_LE.tag(raw) >> 16 in FIRST_GROUPS and length <= size - 8 else None
