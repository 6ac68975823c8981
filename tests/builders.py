"""Small valid objects for tests: data sets, their bytes and Part-10 files.

Every call makes new UIDs unless they are given, so that two objects never meet by chance; pixel data is real, a few
pixels wide. ``samples()`` are the files that pydicom brings along.
"""

from __future__ import annotations

import itertools
import os
import struct
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom.data
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from archive.dicom.convert import convert
from archive.dicom.part10 import file_meta, read_file_meta
from archive.dicom.uids import EXPLICIT_LITTLE, transfer_syntax

CT, MR, SC, SR = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.88.11",
)
_numbers = itertools.count(1)


def uid() -> str:
    """A UID nobody has used yet."""
    return f"1.2.826.0.1.3680043.10.999.{os.getpid()}.{next(_numbers)}"


def instance(sop_class: str, modality: str, **overrides: Any) -> Dataset:
    """A composite object without pixels. ``overrides`` are keywords; a value of None leaves the attribute out."""
    values: dict[str, Any] = {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": uid(),
        "StudyDate": "20240131",
        "StudyTime": "101112",
        "AccessionNumber": "A0001",
        "Modality": modality,
        "Manufacturer": "Acme",
        "ReferringPhysicianName": "Referring^Rita",
        "StudyDescription": f"{modality} of the phantom",
        "SeriesDescription": "one",
        "PatientName": "Phantom^Peter",
        "PatientID": "P0001",
        "PatientBirthDate": "19700101",
        "PatientSex": "O",
        "StudyInstanceUID": uid(),
        "SeriesInstanceUID": uid(),
        "StudyID": "S1",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
    }
    made = Dataset()
    for keyword, value in (values | overrides).items():
        if value is not None:
            setattr(made, keyword, value)
    return made


def image(sop_class: str, modality: str, rows: int = 8, columns: int = 8, **overrides: Any) -> Dataset:
    """A composite object with a 16-bit gradient for pixels."""
    values: dict[str, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "FrameOfReferenceUID": uid(),
        "ImagePositionPatient": [0, 0, 1.5],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "PixelSpacing": [0.5, 0.5],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
    }
    made = instance(sop_class, modality, **(values | overrides))
    if "PixelData" not in overrides:
        pixels = rows * columns
        made.add_new(0x7FE00010, "OW", struct.pack(f"<{pixels}H", *(n % 4096 for n in range(pixels))))
    return made


def ct(**overrides: Any) -> Dataset:
    """A CT image; ``rows`` and ``columns`` set its size."""
    return image(CT, "CT", **overrides)


def mr(**overrides: Any) -> Dataset:
    return image(MR, "MR", **overrides)


def sr(**overrides: Any) -> Dataset:
    """A structured report: no pixels, one sequence."""
    item = Dataset()
    item.RelationshipType, item.ValueType, item.TextValue = "CONTAINS", "TEXT", "nothing found"
    return instance(
        SR, "SR", ContentSequence=[item], CompletionFlag="COMPLETE", VerificationFlag="UNVERIFIED", **overrides
    )


def bytes_of(dataset: Dataset, syntax: str = EXPLICIT_LITTLE) -> bytes:
    """The data set in a transfer syntax, without file meta information.

    Compressed syntaxes get one fragment that is no real code stream: enough for everything that does not decode.
    """
    facts = transfer_syntax(syntax)
    if facts.big_endian or facts.deflated:
        return b"".join(convert(bytes_of(dataset), EXPLICIT_LITTLE, syntax))
    if facts.encapsulated and "PixelData" in dataset and not dataset["PixelData"].is_undefined_length:
        dataset = Dataset(dataset)
        dataset.add_new(0x7FE00010, "OB", encapsulate([b"\xff\xd8" + bytes(60) + b"\xff\xd9"]))
        dataset["PixelData"].is_undefined_length = True
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, not facts.explicit
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def part10(dataset: Dataset, syntax: str = EXPLICIT_LITTLE) -> bytes:
    """The same with preamble and file meta information."""
    return file_meta(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), syntax, source="TEST") + bytes_of(
        dataset, syntax
    )


def write(path: Path, dataset: Dataset | None = None, syntax: str = EXPLICIT_LITTLE) -> Path:
    """A Part-10 file; a CT image if nothing is given."""
    path.write_bytes(part10(ct() if dataset is None else dataset, syntax))
    return path


def read(data: bytes, syntax: str) -> Dataset:
    """What pydicom makes of the bytes of a data set: the independent opinion."""
    head = file_meta(CT, "1.2.3", syntax)
    return pydicom.dcmread(BytesIO(head + data), force=True)


@dataclass(frozen=True)
class Sample:
    """A file that pydicom brings along."""

    name: str
    syntax: UID
    data: bytes  # the data set alone
    dataset: Dataset


@cache
def samples() -> tuple[Sample, ...]:
    """Every bundled file that has a transfer syntax and the UIDs of an object, and that pydicom can read."""
    root = Path(pydicom.data.__file__).parent
    files = sorted(root.glob("test_files/**/*")) + sorted(root.glob("charset_files/*.dcm"))
    return tuple(sample for path in files if path.is_file() and (sample := _sample(path)))


def _sample(path: Path) -> Sample | None:
    data = path.read_bytes()
    try:
        dataset = pydicom.dcmread(BytesIO(data))
        meta = read_file_meta(data)
    except Exception:  # noqa: BLE001  whatever pydicom says of a file that is no DICOM object
        return None
    needed = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    if not all(dataset.get(keyword) for keyword in needed):
        return None
    return Sample(path.name, UID(meta.transfer_syntax), data[meta.offset :], dataset)
