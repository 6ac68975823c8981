"""A deflated data set made readable without keeping it whole.

Rules that hold here: what inflates to little is kept as it is; of anything larger only wanted and small values are
kept, every other value is left empty, so that memory follows the number of elements and not the pixels.
"""

from __future__ import annotations

from collections.abc import Collection

from archive.dicom.elements import Buffer
from archive.dicom.encoding import EXPLICIT_LE
from archive.dicom.inflate import inflate
from archive.dicom.limits import Limits
from archive.dicom.rewrite import Rewriter
from archive.dicom.source import StreamSource
from archive.errors import NotUnderstood

SMALL = 1024  # bytes of a value in an item that are kept unseen: codes, names, references
CONDENSED = 24_000_000  # twice what the most elements allowed need for themselves


def readable(data: Buffer, wanted: Collection[int], limits: Limits) -> bytes | bytearray:
    """The inflated data set, or what a header needs of it."""
    whole = bytearray()
    for piece in inflate(data, limits):
        whole += piece
        if len(whole) > limits.always_inflated:
            del whole
            return _condensed(data, wanted, limits)
    return whole


def _condensed(data: Buffer, wanted: Collection[int], limits: Limits) -> bytearray:
    def keep(tag: int, length: int, depth: int) -> bool:
        return length <= SMALL if depth else tag in wanted and length <= limits.text

    condensed = bytearray()
    source = StreamSource(inflate(data, limits))
    for piece in Rewriter(source, EXPLICIT_LE, EXPLICIT_LE, keep=keep, limits=limits).pieces():
        condensed += piece
        if len(condensed) > CONDENSED:
            raise NotUnderstood("Deflated data set holds too many values")
    return condensed
