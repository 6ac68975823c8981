"""Single compressed frames through the installed decoders.

Rules that hold here: a frame's own head must agree with the data set before a decoder sees it; whatever a
decoder raises becomes NotTranscodable; decoders are C and C++ and may crash or allocate without end on
hostile frames, so that only child processes call this (see ``archive.workers.codec``).
"""

from __future__ import annotations

import warnings
import zlib  # noqa: F401  before GDCM, whose libraries would tie libz to a zlib of their own and break it
from dataclasses import replace
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from archive.dicom import compressed as ts
from archive.dicom.codestream import Codestream, inspect
from archive.dicom.pixels import SUBSAMPLED, Description, Frame
from archive.dicom.uids import RLE
from archive.errors import NotTranscodable

# pydicom's names of the decoders, best first. GDCM has the libjpeg whose rounding everyone knows from lossy JPEG;
# elsewhere it comes last, because it ends the whole process on some faults.
_JPEG, _JPEG_LS, _J2K, _RLE = ("pylibjpeg", "gdcm"), ("pyjpegls", "pylibjpeg"), ("pylibjpeg",), ("pylibjpeg", "pydicom")
DECODERS: dict[str, tuple[str, ...]] = {
    ts.JPEG_BASELINE: ("gdcm", "pylibjpeg"),
    ts.JPEG_EXTENDED: _JPEG,
    ts.JPEG_LOSSLESS: _JPEG,
    ts.JPEG_LOSSLESS_SV1: _JPEG,
    ts.JPEG_LS: _JPEG_LS,
    ts.JPEG_LS_NEAR: _JPEG_LS,
    ts.JPEG_2000_LOSSLESS: _J2K,
    ts.JPEG_2000: _J2K,
    ts.HTJ2K_LOSSLESS: _J2K,
    ts.HTJ2K_LOSSLESS_RPCL: _J2K,
    ts.HTJ2K: _J2K,
    RLE: _RLE,
}
_YBR = {"YBR_FULL", SUBSAMPLED}
NOT_THE_CODEC = (MemoryError, KeyboardInterrupt, SystemExit)


def decoded(said: Description, syntax: str) -> Description:
    """The description of the pixels once they are decoded: never subsampled, samples side by side."""
    return replace(said, planar=0, photometric=_colour(said, syntax))


def _colour(said: Description, syntax: str) -> str:
    """Lossy JPEG comes out as RGB, JPEG 2000's own transforms are undone, all else is left as it was coded."""
    if said.samples != 3:
        return said.photometric
    if syntax in ts.LOSSY_JPEG:
        return "RGB" if said.photometric in _YBR else said.photometric
    if syntax in ts.JPEG_2000_FAMILY and said.photometric in ("YBR_RCT", "YBR_ICT"):
        return "RGB"
    return "YBR_FULL" if said.photometric == SUBSAMPLED else said.photometric


def decode(frame: bytes, syntax: str, said: Description) -> Frame:
    """One frame as an array of ``decoded(said, syntax)``."""
    stream = inspect(frame) if syntax != RLE else None
    if stream is not None:
        _compare(stream, said)
    reasons = []
    for plugin in DECODERS[syntax]:
        try:
            return _container(_decode(frame, syntax, said, stream, plugin), said)
        except NOT_THE_CODEC:
            raise
        except BaseException as error:  # noqa: BLE001  codecs raise whatever they like; Rust's panics are no Exceptions
            reasons.append(f"{plugin}: {error}")
    raise NotTranscodable("Pixel data cannot be decoded", "; ".join(reasons))


def _compare(stream: Codestream, said: Description) -> None:
    """Refuse frames that would allocate by a size nobody described."""
    if (stream.rows or said.rows, stream.columns) != (said.rows, said.columns):
        raise NotTranscodable("Frame and data set differ in size", f"{stream.rows}x{stream.columns} in the frame")
    if stream.samples != said.samples:
        raise NotTranscodable("Frame and data set differ in samples per pixel", f"{stream.samples} in the frame")
    if stream.precision > max(said.allocated, 8):
        raise NotTranscodable("Frame has more bits than Bits Allocated", f"{stream.precision} in the frame")


def _decode(frame: bytes, syntax: str, said: Description, stream: Codestream | None, plugin: str) -> Frame:
    allocated, stored = max(said.allocated, 8), said.stored
    if syntax in ts.CLASSIC_JPEG and stream is not None:
        allocated = 8 if stream.precision <= 8 else 16  # what these decoders return, whatever the data set says
        stored = min(stored, allocated) if syntax == ts.JPEG_EXTENDED else allocated  # GDCM aborts if they differ
    raw = syntax not in ts.LOSSY_JPEG  # lossy JPEG: YBR becomes RGB
    options: dict[str, Any] = {
        "rows": said.rows, "columns": said.columns, "number_of_frames": 1, "samples_per_pixel": said.samples,
        "bits_allocated": allocated, "bits_stored": stored, "pixel_representation": int(said.signed),
        "photometric_interpretation": said.photometric, "pixel_keyword": "PixelData",
    }  # fmt: skip
    if said.samples > 1:
        options["planar_configuration"] = 0
    if syntax not in ts.JPEG_LS_FAMILY | ts.JPEG_2000_FAMILY:
        options["correct_unused_bits"] = False  # overlays live there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoded = encapsulate([frame], has_bot=False)
        array, result = get_decoder(syntax).as_array(encoded, index=0, raw=raw, decoding_plugin=plugin, **options)
    if not raw and result["photometric_interpretation"] != _colour(said, syntax):
        raise ValueError(f"colour space is {result['photometric_interpretation']}, not {said.photometric}")
    return array


def _container(array: Frame, said: Description) -> Frame:
    """The array in the sample size of the data set."""
    if array.dtype.itemsize > said.dtype.itemsize:
        raise ValueError(f"decoded to {8 * array.dtype.itemsize} bits, {said.allocated} are allocated")
    return np.ascontiguousarray(array.astype(said.dtype, copy=False)).reshape(said.shape)
