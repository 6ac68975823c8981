"""pydicom's bundled files as the sample data: every one that is a valid composite instance, once."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pydicom.data
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag

from archive.dicom.uids import is_uid

BUNDLED = Path(pydicom.data.__file__).parent
FOLDERS = ("test_files", "charset_files")
REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
DICOMDIR = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Sample:
    path: Path
    sop_class: str
    sop_instance: str
    study: str
    series: str
    transfer_syntax: str


@functools.cache
def samples() -> tuple[list[Sample], dict[str, str]]:
    """The valid instances, one for each SOP Instance UID, and the others with the reason why not."""
    valid: dict[str, Sample] = {}
    refused: dict[str, str] = {}
    for path in sorted(path for folder in FOLDERS for path in (BUNDLED / folder).rglob("*") if path.is_file()):
        name = str(path.relative_to(BUNDLED))
        found = _sample(path)
        if isinstance(found, str):
            refused[name] = found
        elif found.sop_instance in valid:
            refused[name] = f"same SOP Instance UID as {valid[found.sop_instance].path.name}"
        else:
            valid[found.sop_instance] = found
    return list(valid.values()), refused


def _sample(path: Path) -> Sample | str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError, ValueError, EOFError, NotImplementedError) as error:
            return f"not a Part-10 file ({type(error).__name__})"
    missing = [name for name in REQUIRED if not is_uid(str(data.get(name, "") or ""))]
    syntax = str(data.file_meta.get("TransferSyntaxUID", "")) if hasattr(data, "file_meta") else ""
    if missing or not syntax:
        return f"no valid {', '.join(missing or ['transfer syntax'])}"
    if data.SOPClassUID == DICOMDIR:
        return "a DICOMDIR is not sent over the network"
    return Sample(
        path,
        str(data.SOPClassUID),
        str(data.SOPInstanceUID),
        str(data.StudyInstanceUID),
        str(data.SeriesInstanceUID),
        syntax,
    )


def content(path: Path) -> dict[str, str]:
    """Every element of a data set by its path: a digest of its value, pixels byte for byte."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(_elements(pydicom.dcmread(path, force=True)))


def _elements(data: pydicom.Dataset, above: str = "") -> Iterator[tuple[str, str]]:
    for tag in sorted(data.keys()):
        # Group lengths and data set padding say nothing of the object, and senders may rewrite them.
        if Tag(tag).element == 0 or tag == 0xFFFCFFFC:
            continue
        element, name = data[tag], f"{above}{int(tag):08x}"
        if element.VR == "SQ":
            for number, item in enumerate(element.value):
                yield from _elements(item, f"{name}[{number}]")
        else:
            value = element.value if isinstance(element.value, bytes) else repr(element.value).encode()
            yield name, hashlib.sha256(value.rstrip(b"\0 ")).hexdigest()


def distinct(folder: Path) -> list[Sample]:
    """The valid samples, and of those that share a SOP Instance UID copies under UIDs of their own.

    Only the digits of the UID differ, in the same number of bytes, so every other byte is as in the bundled file.
    """
    valid, refused = samples()
    found = list(valid)
    for number, name in enumerate(sorted(name for name, why in refused.items() if why.startswith("same SOP"))):
        data = (BUNDLED / name).read_bytes()
        uid = pydicom.dcmread(BUNDLED / name, stop_before_pixels=True).SOPInstanceUID.encode()
        copy = folder / Path(name).name
        copy.write_bytes(data.replace(uid, uid[:-2] + b"%02d" % (11 + number)))
        sample = _sample(copy)
        assert isinstance(sample, Sample), (name, sample)
        found.append(sample)
    return found
