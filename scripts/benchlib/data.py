"""Synthetic, valid objects for the benchmark, the same bytes for the same seed.

Rules that hold here: explicit VR little endian; every set has its own study, so that no set is a duplicate
of another; pixels are noise, so that no file system or codec gains by compressing them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
MULTIFRAME_WORD = "1.2.840.10008.5.1.4.1.1.7.3"  # Multi-frame Grayscale Word Secondary Capture
IMPLEMENTATION = "1.2.826.0.1.3680043.8.498.1"
LARGE_SIDE, LARGE_FRAMES = 2048, 250  # × 16 bit = 2.1 GB, below the 2**31 that some toolkits stop at
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Kind:
    """What a set is made of: a square image of 16-bit pixels."""

    sop_class: str
    modality: str
    side: int


CT = Kind(CT_IMAGE, "CT", 512)  # 0.5 MB
MR = Kind(MR_IMAGE, "MR", 128)  # 34 kB
SMALL = Kind(MR_IMAGE, "MR", 16)  # for sets where only their number counts


@dataclass(frozen=True, slots=True)
class Instances:
    """A folder of files, and what to ask an archive for to get them back."""

    folder: Path
    files: tuple[Path, ...]
    study_uid: str
    sop_class: str


def uid(*words: object) -> str:
    return str(generate_uid(entropy_srcs=["bench", *map(str, words)]))


def build(folder: Path, kind: Kind, count: int, *, one_study: bool = True) -> Instances:
    """Write `count` objects; in one study, or each in a study and of a patient of its own."""
    folder.mkdir(parents=True)
    noise = random.Random(folder.name)
    files = []
    for number in range(count):
        study = 0 if one_study else number
        dataset = _image(kind, folder.name, study, number, noise)
        path = folder / f"{number:05}.dcm"
        _write(path, dataset, kind.sop_class)
        files.append(path)
    return Instances(folder, tuple(files), uid(folder.name, "study", 0), kind.sop_class)


def build_large(path: Path) -> Path:
    """One instance of 2.1 GB, its pixels written block by block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = random.Random("large")
    kind = Kind(MULTIFRAME_WORD, "OT", LARGE_SIDE)
    dataset = _head(kind, "large", 0, 0)
    dataset.NumberOfFrames = LARGE_FRAMES
    _write(path, dataset, kind.sop_class)
    blocks = [noise.randbytes(BLOCK) for _ in range(8)]
    length = LARGE_SIDE * LARGE_SIDE * 2 * LARGE_FRAMES
    with path.open("ab") as out:
        out.write(b"\xe0\x7f\x10\x00OW\x00\x00" + length.to_bytes(4, "little"))
        for number in range(length // BLOCK):
            out.write(blocks[number % len(blocks)])
    return path


def _image(kind: Kind, name: str, study: int, number: int, noise: random.Random) -> Dataset:
    dataset = _head(kind, name, study, number)
    dataset.add_new("PixelData", "OW", noise.randbytes(kind.side * kind.side * 2))
    return dataset


def _head(kind: Kind, name: str, study: int, number: int) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = kind.sop_class
    dataset.SOPInstanceUID = uid(name, "instance", number)
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = f"2024{1 + study % 12:02}{1 + study % 28:02}"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = f"{study % 24:02}{number % 60:02}00"
    dataset.AccessionNumber = f"A{study:07}"
    dataset.Modality = kind.modality
    dataset.Manufacturer = "Synthetic"
    dataset.ReferringPhysicianName = "Referrer^Some"
    dataset.StudyDescription = f"Benchmark study {study}"
    dataset.SeriesDescription = f"Benchmark {kind.modality}"
    dataset.PatientName = f"Bench^{name}^{study}"
    dataset.PatientID = f"{name}-{study}"
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = uid(name, "study", study)
    dataset.SeriesInstanceUID = uid(name, "series", study)
    dataset.StudyID = str(study)
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = number + 1
    _describe_pixels(dataset, kind.side)
    return dataset


def _describe_pixels(dataset: Dataset, side: int) -> None:
    dataset.ImagePositionPatient = [0, 0, 0]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.FrameOfReferenceUID = uid("frame")
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = side
    dataset.PixelSpacing = [0.5, 0.5]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept = "0"
    dataset.RescaleSlope = "1"


def _write(path: Path, dataset: Dataset, sop_class: str) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION
    FileDataset(str(path), dataset, file_meta=meta, preamble=bytes(128)).save_as(path, enforce_file_format=True)
