"""Frames in and out of encapsulated pixel data (PS3.5 A.4).

Rules that hold here: a frame is a list of places in the data set until it is needed; offset tables are hints
that are checked and never trusted; what was claimed but is not there is refused before anything is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from archive.dicom.elements import IMPLICIT_HEADS, Buffer, understood
from archive.dicom.encoding import IMPLICIT_LE
from archive.errors import NotTranscodable, NotUnderstood

_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_CODESTREAM_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")
_LARGEST_OFFSET = 0xFFFFFFFE  # PS3.5 A.4: the Basic Offset Table holds 32 bits


@dataclass(frozen=True, slots=True)
class Fragments:
    """Encapsulated pixel data: its fragments without the first item, which is the Basic Offset Table."""

    data: Buffer
    table: tuple[int, ...]
    places: tuple[tuple[int, int], ...]  # start and end of the value of each fragment
    origin: int  # of the offsets: the head of the first fragment

    def frames(self, count: int, offsets: Sequence[int] = ()) -> Iterator[bytes]:
        """``count`` frames; ``offsets`` are those of an Extended Offset Table. NotTranscodable at once."""
        groups = self._groups(count, offsets)
        return (b"".join(bytes(self.data[start:end]) for start, end in group) for group in groups)

    @property
    def size(self) -> int:
        return sum(end - start for start, end in self.places)

    def _groups(self, count: int, offsets: Sequence[int]) -> list[tuple[tuple[int, int], ...]]:
        places = self.places
        if len(places) < count or not places:
            raise NotTranscodable("Fewer frames than Number of Frames says", f"{len(places)} fragments")
        if count == 1:
            return [places]
        if len(places) == count:
            return [(place,) for place in places]
        for starts in (self._by_offsets(offsets), self._by_offsets(self.table), self._by_start_of_image()):
            if len(starts) == count:
                ends = [*starts[1:], len(places)]
                return [places[start:end] for start, end in zip(starts, ends, strict=True)]
        raise NotTranscodable("Fragments cannot be told apart as frames", f"{len(places)} for {count} frames")

    def _by_offsets(self, offsets: Sequence[int]) -> list[int]:
        """The first fragment of each frame; none unless every offset hits the head of a fragment, in order."""
        numbers = {start - 8 - self.origin: number for number, (start, _) in enumerate(self.places)}
        starts = [numbers.get(offset, -1) for offset in offsets]
        sound = starts[:1] == [0] and all(a < b for a, b in zip(starts, starts[1:], strict=False))
        return starts if sound else []

    def _by_start_of_image(self) -> list[int]:
        places = enumerate(self.places)
        return [n for n, (start, _) in places if bytes(self.data[start : start + 4]).startswith(_CODESTREAM_STARTS)]


def read_fragments(data: Buffer, start: int, end: int) -> Fragments:
    """The fragments of the value between ``start`` and ``end``, which a walk has checked."""
    places: list[tuple[int, int]] = []
    unpack, pos = IMPLICIT_HEADS[False], start
    with understood():
        while pos < end:
            raw, size = unpack(data, pos)
            pos += 8
            if raw != IMPLICIT_LE.item:
                break
            places.append((pos, pos + size))
            pos += size
    if not places:
        raise NotUnderstood("Pixel data without a Basic Offset Table")
    (first, last), rest = places[0], places[1:]
    return Fragments(data, offsets(bytes(data[first:last]), "L"), tuple(rest), last)


def offsets(raw: bytes, kind: str) -> tuple[int, ...]:
    """An offset table: 32-bit (``L``) in the first item, 64-bit (``Q``) in (7FE0,0001)."""
    width = struct.calcsize("<" + kind)
    count = len(raw) // width
    return struct.unpack(f"<{count}{kind}", raw[: count * width])


def encapsulated(frames: Sequence[bytes]) -> Iterator[bytes]:
    """The value of encapsulated pixel data: one fragment for each frame, with a Basic Offset Table."""
    table, at = [], 0
    for frame in frames:
        table.append(at)
        at += 8 + len(frame) + len(frame) % 2
    if at > _LARGEST_OFFSET:
        table = []  # PS3.5 A.4: the table may be empty
    yield _ITEM + struct.pack(f"<L{len(table)}L", 4 * len(table), *table)
    for frame in frames:
        padding = b"\0" * (len(frame) % 2)
        yield b"".join((_ITEM, struct.pack("<L", len(frame) + len(padding)), frame, padding))
    yield _DELIMITER + bytes(4)
