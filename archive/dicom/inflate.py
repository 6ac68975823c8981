"""Deflated data sets (PS3.5 A.5), inflated in bounded steps.

Rules that hold here: a step never makes more than ``STEP`` bytes, whatever the input; the sum is bounded by
the limits before the next step is made; a stream that stops early, or goes on behind its end, is refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from archive.dicom.elements import Buffer
from archive.dicom.limits import LIMITS, Limits
from archive.errors import NotUnderstood

STEP = 1 << 18  # memory of one step, small beside an association's buffers
RAW_DEFLATE = -15  # RFC 1951 without the zlib header, PS3.5 A.5


def inflate(data: Buffer, limits: Limits = LIMITS) -> Iterator[bytes]:
    """The inflated bytes, piece by piece; NotUnderstood for bombs, faults and bytes behind the end."""
    allowed = min(limits.inflated, max(limits.ratio * len(data), limits.always_inflated))
    inflater = zlib.decompressobj(RAW_DEFLATE)
    made = 0
    try:
        for at in range(0, len(data), STEP):
            for out in _steps(inflater, bytes(data[at : at + STEP])):
                made += len(out)
                if made > allowed:
                    raise NotUnderstood("Deflated data set inflates beyond the limit", f"{allowed} bytes")
                yield out
            if inflater.eof:
                _check_tail(inflater.unused_data, len(data) - at - STEP, made)
                return
    except zlib.error as error:
        raise NotUnderstood("Data set is not deflated as its transfer syntax says", str(error)) from error
    raise NotUnderstood("Deflated data set ends in the middle")


def _steps(inflater: zlib._Decompress, piece: bytes) -> Iterator[bytes]:
    while True:
        out = inflater.decompress(piece, STEP)
        yield out
        piece = inflater.unconsumed_tail
        if inflater.eof or (not piece and len(out) < STEP):
            return


def _check_tail(unused: bytes, unread: int, made: int) -> None:
    """Only the NUL that makes the length even may follow (PS3.5 A.5), or what gzip writers leave: CRC-32 and size."""
    if len(unused) >= 8 and unused[4:8] == (made & 0xFFFFFFFF).to_bytes(4, "little"):
        unused = unused[8:]
    if unread > 0 or unused not in (b"", b"\0"):
        raise NotUnderstood("Bytes follow the end of the deflated data set")
