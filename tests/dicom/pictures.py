"""Pictures for tests: every kind of pixel description, as small arrays that are hard to compress wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pydicom.config
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from archive.dicom.transcode import transcode
from archive.dicom.uids import EXPLICIT_LITTLE, transfer_syntax
from tests.builders import SC, bytes_of, image, read, samples

# Their own bytes contradict their transfer syntax or their length; every reader refuses them.
BROKEN = {
    "MR_truncated.dcm",
    "rtplan_truncated.dcm",
    "JPEG2000-embedded-sequence-delimiter.dcm",
    "JPEG-lossy.dcm",
    "SC_rgb_jpeg.dcm",
    "badVR.dcm",
}


def picture(array: np.ndarray, *, stored: int = 0, signed: bool | None = None, **overrides: Any) -> Dataset:
    """A secondary capture of frames (…, rows, columns[, 3]) with the array's own depth."""
    colour = array.shape[-1] == 3
    frames = array.shape[: array.ndim - (3 if colour else 2)]
    rows, columns = array.shape[-3:-1] if colour else array.shape[-2:]
    bits = array.dtype.itemsize * 8
    values: dict[str, Any] = {
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "PlanarConfiguration": 0 if colour else None,
        "NumberOfFrames": frames[0] if frames else None,
        "BitsAllocated": bits,
        "BitsStored": stored or bits,
        "HighBit": (stored or bits) - 1,
        "PixelRepresentation": int(array.dtype.kind == "i" if signed is None else signed),
        "PixelData": None,
    }
    made = image(SC, "OT", rows, columns, **(values | overrides))
    made.pop("PixelData", None)
    raw = array.tobytes()
    made.add_new(0x7FE00010, "OB" if bits == 8 else "OW", raw + b"\0" * (len(raw) % 2))
    return made


def compressed(dataset: Dataset, fragments: Sequence[bytes], *, table: bool = True) -> Dataset:
    """The data set with these fragments for pixel data."""
    made = Dataset(dataset)
    made.add_new(0x7FE00010, "OB", encapsulate(list(fragments), has_bot=table))
    made["PixelData"].is_undefined_length = True
    return made


def noise(shape: tuple[int, ...], dtype: str, stored: int = 0, seed: int = 7) -> np.ndarray:
    """Random samples of ``stored`` bits: the worst case of every predictor."""
    bits = stored or np.dtype(dtype).itemsize * 8
    low, high = (-(1 << bits - 1), 1 << bits - 1) if dtype[0] == "i" else (0, 1 << bits)
    return np.random.default_rng(seed).integers(low, high, size=shape).astype("<" + dtype)


def smooth(rows: int, columns: int) -> np.ndarray:
    """A colour gradient that survives lossy compression nearly unchanged."""
    y, x = np.mgrid[0:rows, 0:columns]
    return np.stack([x * 255 // columns, y * 255 // rows, (x + y) * 255 // (rows + columns)], -1).astype(np.uint8)


def changed(data: bytes, stored: str, target: str, **options: Any) -> Dataset:
    """The transcoded data set as pydicom reads it."""
    result = transcode(data, stored, [target], **options)
    assert result.transfer_syntax == target
    return read(b"".join(result.pieces), target)


def encoded(dataset: Dataset, target: str, **options: Any) -> Dataset:
    return changed(bytes_of(dataset), EXPLICIT_LITTLE, target, **options)


def pixels(dataset: Dataset, *, raw: bool = False) -> np.ndarray:
    """The pixels by pydicom's own decoder; with ``raw`` in the colour space they are in."""
    return get_decoder(UID(dataset.file_meta.TransferSyntaxUID)).as_array(dataset, raw=raw)[0]


@cache
def with_pixels() -> list[Any]:
    """pydicom's files that have pixels and are sound, each once."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    sound = (sample for sample in samples() if sample.name.endswith(".dcm") and sample.name not in BROKEN)
    found = {sample.name: sample for sample in sound if "Rows" in sample.dataset and "PixelData" in sample.dataset}
    return [sample for sample in found.values() if transfer_syntax(str(sample.syntax)).name != "Private"]
