"""A stored data set taken apart for transcoding: what stands before the pixels, the pixels, what stands behind.

Rules that hold here: everything but the pixels becomes Explicit VR Little Endian once and is otherwise left
byte for byte; pixels stay where they are until a frame is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from archive.dicom.convert import convert
from archive.dicom.elements import Buffer
from archive.dicom.encoding import EXPLICIT_LE, encoding_of
from archive.dicom.frames import Fragments, offsets, read_fragments
from archive.dicom.icons import native_icons
from archive.dicom.pixels import (
    DESCRIPTION_TAGS,
    PIXEL_DATA,
    PIXEL_TAGS,
    Description,
    Frame,
    describe,
    interleaved,
)
from archive.dicom.spans import Span, spans
from archive.dicom.uids import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, transfer_syntax
from archive.errors import NotTranscodable

EXTENDED_OFFSETS, EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002


@dataclass(frozen=True, slots=True)
class Stored:
    """One data set and where its pixels are; ``head`` and ``tail`` are Explicit LE."""

    syntax: str
    head: bytes
    tail: bytes
    data: Buffer  # what ``pixels`` points into, little endian
    pixels: Span | None  # None: no pixels, or an empty element

    @property
    def has_float_pixels(self) -> bool:
        return self.pixels is not None and self.pixels.tag != PIXEL_DATA

    def values(self, wanted: frozenset[int]) -> dict[int, bytes]:
        """Raw values of top-level elements of the head."""
        return {
            span.tag: self.head[span.value : span.end] for span in spans(self.head, EXPLICIT_LE) if span.tag in wanted
        }

    def description(self) -> Description:
        return describe(self.values(DESCRIPTION_TAGS))

    def fragments(self) -> Fragments:
        if self.pixels is None or not self.pixels.undefined:
            raise NotTranscodable("Pixel data is not encapsulated as its syntax says", self.syntax)
        return read_fragments(self.data, self.pixels.value, self.pixels.end)

    def coded_frames(self, said: Description) -> Iterator[bytes]:
        """The compressed frames; NotTranscodable at once when some are missing."""
        table = self.values(frozenset((EXTENDED_OFFSETS,))).get(EXTENDED_OFFSETS, b"")
        return self.fragments().frames(said.frames, offsets(table, "Q"))

    def native_frames(self, said: Description) -> Iterator[Frame]:
        """The uncompressed frames as arrays; NotTranscodable at once when some are missing."""
        if self.pixels is None:
            raise NotTranscodable("No pixels")
        start, size = self.pixels.value, said.frame_size
        if self.pixels.end - start < size * said.frames:
            raise NotTranscodable("Pixel data is shorter than described")
        places = range(start, start + size * said.frames, size)
        return (interleaved(self.data[at : at + size], said) for at in places)


def take_apart(data: Buffer, syntax: str) -> Stored:
    """The parts of a data set in ``syntax``; NotUnderstood where it is broken."""
    facts = transfer_syntax(syntax)
    if syntax in (DEFLATED, EXPLICIT_BIG):  # rare; whole, because frames are asked for by their place
        data, facts = _joined(convert(data, syntax, EXPLICIT_LITTLE)), transfer_syntax(EXPLICIT_LITTLE)
    encoding = encoding_of(facts)
    size = len(data)
    start, end, pixels = size, size, None
    for span in spans(data, encoding, encapsulated=facts.encapsulated):
        if span.tag in PIXEL_TAGS and span.end > span.value:
            start, end, pixels = span.start, span.end, span
            break
    head, tail = _explicit(data[:start], facts.uid), _explicit(data[end:], facts.uid)
    if facts.encapsulated:
        head = native_icons(head, syntax)
    return Stored(syntax, head, tail, data, pixels)


def _joined(pieces: Iterator[bytes]) -> bytearray:
    whole = bytearray()
    for piece in pieces:
        whole += piece
    return whole


def _explicit(part: Buffer, syntax: str) -> bytes:
    """A part of a data set in Explicit LE; it is one already in compressed syntaxes."""
    if not transfer_syntax(syntax).uncompressed or syntax == EXPLICIT_LITTLE:
        return bytes(part)
    return bytes(_joined(convert(part, syntax, EXPLICIT_LITTLE)))
