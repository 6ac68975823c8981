"""What a data set says of its pixels: the Image Pixel description macro (PS3.3 C.7.6.3).

Rules that hold here: a description is read once, from raw values, and never repaired: what cannot be a
picture is refused with the reason; frames in memory are numpy arrays in little endian, rows by columns, with
the samples of a pixel side by side.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from archive.errors import NotTranscodable

SAMPLES, PHOTOMETRIC, PLANAR, FRAMES = 0x00280002, 0x00280004, 0x00280006, 0x00280008
ROWS, COLUMNS, ALLOCATED, STORED, HIGH, REPRESENTATION = (
    0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103,
)  # fmt: skip
LOSSY, LOSSY_RATIO, LOSSY_METHOD = 0x00282110, 0x00282112, 0x00282114
DESCRIPTION_TAGS = frozenset(
    (SAMPLES, PHOTOMETRIC, PLANAR, FRAMES, ROWS, COLUMNS, ALLOCATED, STORED, HIGH, REPRESENTATION, LOSSY)
)

PIXEL_DATA, FLOAT_PIXELS, DOUBLE_PIXELS = 0x7FE00010, 0x7FE00008, 0x7FE00009
PIXEL_TAGS = frozenset((PIXEL_DATA, FLOAT_PIXELS, DOUBLE_PIXELS))

SUBSAMPLED = "YBR_FULL_422"  # PS3.3 C.7.6.3.1.2: native values are Y1 Y2 Cb Cr for two pixels

Frame = np.ndarray


@dataclass(frozen=True, slots=True)
class Description:
    """The macro's values, checked to be possible."""

    rows: int
    columns: int
    frames: int
    samples: int
    allocated: int
    stored: int
    high: int
    signed: bool
    photometric: str
    planar: int  # 0: samples of a pixel side by side, 1: plane after plane
    lossy: bool = False  # Lossy Image Compression (0028,2110) is "01"

    @property
    def dtype(self) -> np.dtype:
        """How one sample lies in memory; single bits are unpacked to bytes."""
        return np.dtype(f"<{'i' if self.signed and self.allocated > 1 else 'u'}{max(self.allocated // 8, 1)}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)

    @property
    def frame_size(self) -> int:
        """Bytes of one frame as native pixel data holds it; single bits are not counted by frame."""
        pixel = 2 if self.photometric == SUBSAMPLED else self.samples
        return self.rows * self.columns * pixel * self.allocated // 8

    @property
    def size(self) -> int:
        """Bytes of all frames uncompressed, with all samples of every pixel."""
        return -(-self.rows * self.columns * self.samples * self.allocated * self.frames // 8)


def describe(values: Mapping[int, bytes]) -> Description:
    """The description in raw little endian values; NotTranscodable when it describes no picture."""
    samples = _number(values, SAMPLES, 1)
    allocated = _number(values, ALLOCATED)
    stored = _number(values, STORED, allocated)
    return checked(
        Description(
            rows=_number(values, ROWS),
            columns=_number(values, COLUMNS),
            frames=_frames(values.get(FRAMES, b"")),
            samples=samples,
            allocated=allocated,
            stored=stored,
            high=_number(values, HIGH, stored - 1),
            signed=_number(values, REPRESENTATION, 0) == 1,
            photometric=_text(values.get(PHOTOMETRIC, b"MONOCHROME2")),
            planar=_number(values, PLANAR, 0) if samples > 1 else 0,
            lossy=_text(values.get(LOSSY, b"")) == "01",
        )
    )


def checked(said: Description) -> Description:
    """The same description, or NotTranscodable."""
    if not said.rows or not said.columns:
        raise NotTranscodable("Rows or Columns is zero")
    if said.samples not in (1, 3):
        raise NotTranscodable(f"{said.samples} samples per pixel")
    if said.allocated not in (1, 8, 16, 32, 64):
        raise NotTranscodable(f"{said.allocated} bits allocated")
    if not 1 <= said.stored <= said.allocated or not said.stored - 1 <= said.high < said.allocated:
        raise NotTranscodable("Bits Stored, High Bit and Bits Allocated disagree")
    if said.allocated == 1 and said.samples != 1:
        raise NotTranscodable("Single-bit pixels with colour")
    if said.photometric == SUBSAMPLED and (said.samples != 3 or said.allocated != 8):
        raise NotTranscodable(f"{SUBSAMPLED} with other than three samples of 8 bits")
    return said


def _number(values: Mapping[int, bytes], tag: int, default: int | None = None) -> int:
    """An US value; the default when it is absent or empty."""
    raw = values.get(tag, b"")
    if len(raw) >= 2:
        return int(struct.unpack_from("<H", raw)[0])
    if default is None:
        raise NotTranscodable(f"Pixels without ({tag >> 16:04X},{tag & 0xFFFF:04X})")
    return default


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "replace").strip(" \0")


def _frames(raw: bytes) -> int:
    """Number of Frames (VR IS); absent, empty and 0 mean one frame."""
    text = _text(raw)
    if not text:
        return 1
    if not text.lstrip("+").isdecimal() or len(text) > 12:
        raise NotTranscodable("Number of Frames is no number")
    return max(int(text), 1)


def interleaved(raw: bytes | bytearray | memoryview, said: Description) -> Frame:
    """A native frame as an array; subsampled chrominance is spread over both of its pixels."""
    if said.photometric == SUBSAMPLED:
        return _spread(np.frombuffer(raw, np.uint8), said)
    samples = np.frombuffer(raw, said.dtype)
    if said.samples == 1 or said.planar == 0:
        return samples.reshape(said.shape)
    planes = samples.reshape(said.samples, said.rows, said.columns)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _spread(pairs: Frame, said: Description) -> Frame:
    if said.columns % 2:
        raise NotTranscodable(f"{SUBSAMPLED} with an odd number of columns")
    pairs = pairs.reshape(-1, 4)
    out = np.empty((len(pairs), 2, 3), np.uint8)
    out[:, :, 0] = pairs[:, :2]
    out[:, :, 1:] = pairs[:, None, 2:]
    return out.reshape(said.shape)


def fits(frame: Frame, said: Description) -> bool:
    """True when no bit outside Bits Stored carries anything but the sign: no overlay, no rubbish."""
    if said.high != said.stored - 1:
        return False
    if said.stored == said.allocated:
        return True
    low, high = int(frame.min()), int(frame.max())
    if said.signed:
        return -(1 << said.stored - 1) <= low and high < 1 << said.stored - 1
    return high < 1 << said.stored
