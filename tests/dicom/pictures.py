"""Pictures for tests: every kind of pixel description, as small arrays that are hard to compress wrongly."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.config
import pydicom.data
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from archive.dicom.part10 import read_file_meta
from archive.dicom.transcode import transcode
from archive.dicom.uids import EXPLICIT_BIG, EXPLICIT_LITTLE
from tests.builders import SC, Sample, bytes_of, image, read

# Their own bytes contradict their transfer syntax or their length; every reader refuses them.
BROKEN = {
    "MR_truncated.dcm",
    "rtplan_truncated.dcm",
    "JPEG2000-embedded-sequence-delimiter.dcm",
    "JPEG-lossy.dcm",
    "SC_rgb_jpeg.dcm",
    "badVR.dcm",
}

# A 32 x 40 ramp of 16-bit samples, coded by OpenHTJ2K.
HTJ2K_RAMP = base64.b85decode(
    "|4;u>04YEK0000e0000W00000000000000e0000W0000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&kdTm&kdTmwh="
    "~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000tN;Q3lfVEf03-e3`~gBV0H6Q~z_zvR0HQPipa2S>+G^AG01$w8Rsg^N6Tko!zzE>ceoJ)"
    "#Y}we@*#6)QMlpfxxB$Qa6%YUgssQiw^z`y~0J1WfOeT}bWU~H*J%~Vi_8|f6ya2!eD&PPYP5=P>e}a^yDNE@9PRDT^$8j9TaU92S9LI6~|9T)0f"
    "$!Kt2ftwm9{q$Md-f24?6(2`*#"
)
RAMP = np.arange(32 * 40, dtype="<u2").reshape(32, 40)


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
def with_pixels() -> tuple[Sample, ...]:
    """pydicom's files that have pixels and are sound."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    folder = Path(pydicom.data.__file__).parent / "test_files"
    return tuple(sample for path in sorted(folder.glob("*.dcm")) if (sample := _sample(path)))


def _sample(path: Path) -> Sample | None:
    data = path.read_bytes()
    if path.name in BROKEN or data[128:132] != b"DICM":
        return None
    dataset = pydicom.dcmread(BytesIO(data))
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None or "Rows" not in dataset or "PixelData" not in dataset:
        return None
    return Sample(path.name, syntax, data[read_file_meta(data).offset :], dataset)


def without_word_order(left: np.ndarray, dataset: Dataset) -> np.ndarray:
    """OW is a row of 16-bit words (PS3.5 6.2, and so DCMTK); pydicom swaps whole 32-bit samples of Big Endian."""
    if dataset.file_meta.TransferSyntaxUID != EXPLICIT_BIG or dataset.BitsAllocated != 32:
        return left
    return (left >> 16 | left << 16).astype("<u4")
