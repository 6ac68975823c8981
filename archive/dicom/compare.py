"""Whether two forms of an object say the same: every pixel, and every element that does not describe the coding.

Rules that hold here: both forms are read from their finished bytes by the decoders, nothing is taken from the
encoder's word; what cannot be compared is not the same; one frame of each is in memory at a time.
Like decoders, for child processes only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from archive.dicom.decoders import decode
from archive.dicom.elements import Buffer
from archive.dicom.encoding import EXPLICIT_LE
from archive.dicom.pixels import PHOTOMETRIC, PLANAR, Description, Frame
from archive.dicom.spans import spans
from archive.dicom.stored import EXTENDED_LENGTHS, EXTENDED_OFFSETS, Stored, take_apart
from archive.dicom.targets import opened
from archive.dicom.uids import transfer_syntax
from archive.errors import NotTranscodable

_CODING = frozenset((PHOTOMETRIC, PLANAR, EXTENDED_OFFSETS, EXTENDED_LENGTHS))
MAC_PARAMETERS, DIGITAL_SIGNATURES = 0x4FFE0001, 0xFFFAFFFA  # PS3.3 C.12.1.1.3


def require_comparable(data: Buffer, syntax: str) -> None:
    """NotTranscodable for an object without pixels, or with a digital signature over the form it has now."""
    parts = take_apart(data, syntax)
    if parts.pixels is None:
        raise NotTranscodable("No pixels")
    signed = frozenset((MAC_PARAMETERS, DIGITAL_SIGNATURES))
    if any(span.tag in signed for half in (parts.head, parts.tail) for span in spans(half, EXPLICIT_LE)):
        raise NotTranscodable("Object is digitally signed")


def require_same(first: Buffer, first_syntax: str, second: Buffer, second_syntax: str) -> str:
    """NotTranscodable unless both say the same; the photometric interpretation of the second, if it is another one."""
    one, other = take_apart(first, first_syntax), take_apart(second, second_syntax)
    if _elements(one.head) != _elements(other.head) or _elements(one.tail) != _elements(other.tail):
        raise NotTranscodable("Data sets would differ outside of the pixels")
    said, now = one.description(), other.description()
    _require_alike(opened(said, first_syntax), opened(now, second_syntax))
    for number, (before, after) in enumerate(zip(_frames(one, said), _frames(other, now), strict=True)):
        if not np.array_equal(before, after):
            raise NotTranscodable("Pixels would differ", f"in frame {number + 1}")
    return now.photometric if now.photometric != said.photometric else ""


def _elements(half: bytes) -> list[bytes]:
    """What does not describe the coding; group lengths (retired) say nothing."""
    found = (span for span in spans(half, EXPLICIT_LE) if span.tag not in _CODING and span.tag & 0xFFFF)
    return [half[span.start : span.end] for span in found]


def _require_alike(before: Description, after: Description) -> None:
    if replace(before, planar=0, lossy=False) != replace(after, planar=0, lossy=False):
        raise NotTranscodable("Pixels would be described otherwise")


def _frames(parts: Stored, said: Description) -> Iterator[Frame]:
    if transfer_syntax(parts.syntax).uncompressed:
        return parts.native_frames(said)
    return (decode(frame, parts.syntax, said) for frame in parts.coded_frames(said))
