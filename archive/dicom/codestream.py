"""What a compressed frame says of itself: JPEG and JPEG-LS (ITU-T T.81, T.87), JPEG 2000 (T.800).

Rules that hold here: only the head of a frame is read, nothing is allocated by what it claims; a frame
whose head cannot be read gives None, the decoder then says what is wrong with it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEAD = 1 << 16  # a JPEG with an ICC profile and thumbnails has its frame header behind them
_J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
_COD, _TILE_PART = 0x52, 0x90
_LOSSLESS_FRAME, _JPEG_LS_FRAME, _SCAN = 0xC3, 0xF7, 0xDA
# T.81 table B.1: SOF0 to SOF15 without the markers in between that mean something else; T.87: SOF55.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {_JPEG_LS_FRAME}


@dataclass(frozen=True, slots=True)
class Codestream:
    """Size and kind of one compressed frame."""

    rows: int
    columns: int
    samples: int
    precision: int
    lossy: bool


def inspect(frame: bytes | memoryview) -> Codestream | None:
    """The head of a JPEG, JPEG-LS or JPEG 2000 frame; None for anything else."""
    head = bytes(frame[:HEAD])
    try:
        return _jpeg(head) if head[:2] == b"\xff\xd8" else _jpeg2000(head)
    except (struct.error, IndexError):
        return None


def _jpeg(head: bytes) -> Codestream | None:
    pos, found = 2, None
    while pos < len(head):
        if head[pos] != 0xFF:
            return found
        marker = head[pos + 1]
        if marker == 0xFF:  # fill bytes, T.81 B.1.1.2
            pos += 1
            continue
        (length,) = struct.unpack_from(">H", head, pos + 2)
        if marker in _FRAMES:
            precision, rows, columns, samples = struct.unpack_from(">BHHB", head, pos + 4)
            found = Codestream(rows, columns, samples, precision, marker != _LOSSLESS_FRAME)
            if marker != _JPEG_LS_FRAME:
                return found
        elif marker == _SCAN:
            near = head[pos + 5 + 2 * head[pos + 4]]  # T.87 C.2.3: behind the components of the scan
            return found and Codestream(found.rows, found.columns, found.samples, found.precision, near > 0)
        pos += 2 + length
    return found


def _jpeg2000(head: bytes) -> Codestream | None:
    start = head.find(_J2K_START)  # some senders leave the JP2 boxes around the code stream
    if start < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">4L", head, start + 8)
    samples, depth = struct.unpack_from(">HB", head, start + 40)
    return Codestream(bottom - top, right - left, samples, (depth & 0x7F) + 1, _irreversible(head, start + 2))


def _irreversible(head: bytes, pos: int) -> bool:
    """True when the default coding style uses the 9-7 wavelet (T.800 A.6.1)."""
    while pos + 4 <= len(head) and head[pos] == 0xFF and head[pos + 1] != _TILE_PART:
        if head[pos + 1] == _COD:
            return head[pos + 13] == 0
        pos += 2 + int(struct.unpack_from(">H", head, pos + 2)[0])
    return False
