"""Data sets that try to cost much: what a header must refuse quickly and in little memory."""

from __future__ import annotations

import struct
import zlib
from functools import cache

from archive.dicom.uids import DEFLATED, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from tests.builders import bytes_of, ct

ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
ITEM_OPEN = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
ITEM_CLOSE = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
SEQUENCE_CLOSE = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def explicit(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """One Explicit LE element; ``length`` lies about it."""
    size = len(value) if length is None else length
    if vr in ("OB", "OW", "OF", "SQ", "UN", "UT", "UC", "OD", "OL", "OV", "UR", "SV", "UV"):
        return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, size) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), size) + value


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def nested(depth: int, undefined: bool, syntax: str = EXPLICIT_LITTLE) -> bytes:
    """An image whose last element is a sequence in a sequence in a sequence …"""
    make = (lambda value, n: explicit(0x30060010, "SQ", value, n)) if syntax == EXPLICIT_LITTLE else (
        lambda value, n: implicit(0x30060010, value, n)
    )  # fmt: skip
    head = bytes_of(ct(PixelData=None), syntax)
    if undefined:
        return head + (make(b"", 0xFFFFFFFF) + ITEM_OPEN) * depth + (ITEM_CLOSE + SEQUENCE_CLOSE) * depth
    value = b""
    for _ in range(depth):
        value = make(struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value, None)
    return head + value


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(1, wbits=-15)
    return deflater.compress(data) + deflater.flush()


def deflate_bomb(size: int) -> bytes:
    """An image that inflates to ``size`` bytes of zeros."""
    deflater = zlib.compressobj(1, wbits=-15)
    head = bytes_of(ct(PixelData=None)) + explicit(0x7FE00010, "OW", b"", size)
    parts = [deflater.compress(head)]
    step = bytes(1 << 20)
    parts += [deflater.compress(step) for _ in range(size >> 20)]
    return b"".join(parts) + deflater.flush()


def with_tail(tail: bytes, syntax: str = EXPLICIT_LITTLE) -> bytes:
    return bytes_of(ct(PixelData=None), syntax) + tail


@cache
def bombs() -> dict[str, tuple[bytes, str]]:
    """Name -> bytes and transfer syntax."""
    private = b"".join(explicit(0x00990000 | 0x1000 + n % 0xEFFF, "US", b"\0\0") for n in range(61_440))
    name = b"\\" * 5_000_000
    return {
        "a million elements": (with_tail(private * 17), EXPLICIT_LITTLE),
        "a million elements in an item": (
            with_tail(explicit(0x30060010, "SQ", ITEM_OPEN + private * 17, 0xFFFFFFFF)),
            EXPLICIT_LITTLE,
        ),
        "half a million items": (with_tail(explicit(0x30060010, "SQ", ITEM * 500_000)), EXPLICIT_LITTLE),
        "half a million items of an indexed sequence": (
            with_tail(explicit(0x00400275, "SQ", ITEM * 500_000)),
            EXPLICIT_LITTLE,
        ),
        "half a million fragments too many": (
            with_tail(explicit(0x7FE00010, "OB", ITEM * 1_500_000, 0xFFFFFFFF)),
            "1.2.840.10008.1.2.4.70",
        ),
        "5 MB of backslashes in a name": (
            implicit(0x00080016, b"1.2\0") + implicit(0x00100010, name),
            IMPLICIT_LITTLE,
        ),
        "5 MB of backslashes in another name": (
            with_tail(implicit(0x40080114, name), IMPLICIT_LITTLE),
            IMPLICIT_LITTLE,
        ),
        "65,534 backslashes in a name": (
            explicit(0x00080016, "UI", b"1.2\0") + explicit(0x00100010, "PN", b"\\" * 65_534),
            EXPLICIT_LITTLE,
        ),
        "a million decimals": (
            with_tail(implicit(0x30060050, b"1\\" * 1_000_000), IMPLICIT_LITTLE),
            IMPLICIT_LITTLE,
        ),
        "20,000 levels, undefined": (nested(20_000, True), EXPLICIT_LITTLE),
        "65 levels, undefined": (nested(65, True), EXPLICIT_LITTLE),
        "2,000 levels, defined": (nested(2_000, False), EXPLICIT_LITTLE),
        "65 levels, defined": (nested(65, False), EXPLICIT_LITTLE),
        "65 levels in Implicit VR": (nested(65, True, IMPLICIT_LITTLE), IMPLICIT_LITTLE),
        "300 MB of zeros, deflated": (deflate_bomb(300_000_000), DEFLATED),
        "600 MB of elements, deflated": (
            deflated(with_tail(b"".join(explicit(0x00990000 | n, "UN", bytes(60_000)) for n in range(0x1000, 0x1400)))),
            DEFLATED,
        ),
    }
