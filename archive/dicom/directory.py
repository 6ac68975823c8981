"""DICOMDIR: the directory of a medium (PS3.3 annex F, PS3.10 clause 8).

Rules that hold here: of an object only its header is read, and of each record only its bytes are held; the same
objects in the same order give the same file; what a record must have and an object lacks is filled in for the record
alone; what is read of somebody else's DICOMDIR is nothing but which files it names.
"""

from __future__ import annotations

import hashlib
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.fileset import DIRECTORY_RECORDERS
from pydicom.filewriter import write_dataset

from archive.dicom.part10 import file_meta
from archive.dicom.records import KEYWORDS, record_type, with_defaults
from archive.dicom.uids import EXPLICIT_LITTLE
from archive.errors import NotUnderstood

DIRECTORY = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage
NAME = "DICOMDIR"  # PS3.10 8.6
LEVELS = (("PATIENT", "PatientID"), ("STUDY", "StudyInstanceUID"), ("SERIES", "SeriesInstanceUID"))

_NEXT, _LOWER = 8, 30  # where the values of (0004,1400) and (0004,1420) stand in an encoded record
_ITEM = struct.Struct("<HHL")


@dataclass(slots=True)
class _Node:
    """One record: encoded, its offsets still zero; where it stands, and the records below it."""

    encoded: bytearray
    below: dict[str, _Node] = field(default_factory=dict)
    offset: int = 0

    def all(self) -> Iterator[_Node]:
        yield self
        for child in self.below.values():
            yield from child.all()


class Directory:
    """The DICOMDIR of the objects that are added to it."""

    def __init__(self) -> None:
        self._top: dict[str, _Node] = {}
        self._named: set[tuple[str, ...]] = set()

    def add(self, header: Dataset, file_id: Sequence[str]) -> None:
        """One object and the components of its file ID. Raises NotUnderstood, and then nothing is added."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._add(with_defaults(header), header, file_id)
        except Exception as error:  # noqa: BLE001  pydicom raises anything at values that are none
            raise NotUnderstood("cannot be listed in a DICOMDIR", type(error).__name__) from error

    def _add(self, known: Dataset, header: Dataset, file_id: Sequence[str]) -> None:
        names = [(kind, str(known[keyword].value), _encoded(kind, known)) for kind, keyword in LEVELS]
        sop_instance = str(known.SOPInstanceUID)
        leaf = _encoded(
            record_type(str(known.SOPClassUID)), known, ReferencedFileID=list(file_id),
            ReferencedSOPClassUIDInFile=known.SOPClassUID, ReferencedSOPInstanceUIDInFile=known.SOPInstanceUID,
            ReferencedTransferSyntaxUIDInFile=header.file_meta.TransferSyntaxUID,
        )  # fmt: skip
        below = self._top
        for _, name, encoded in names:
            below = below.setdefault(name, _Node(encoded)).below
        below[sop_instance] = _Node(leaf)
        self._named.add(tuple(file_id))

    @property
    def empty(self) -> bool:
        return not self._top

    def lists_all_of(self, file: BinaryIO) -> bool:
        """Whether every file that another DICOMDIR names is named by this one."""
        try:
            return self._named.issuperset(references(file))
        except NotUnderstood:
            return False

    def encoded(self) -> bytes:
        """The whole file."""
        nodes = [node for top in self._top.values() for node in top.all()]
        sha = hashlib.sha256(b"".join(bytes(node.encoded) for node in nodes))
        uid = f"2.25.{int.from_bytes(sha.digest()[:16], 'big')}"  # PS3.5 B.2: of the content, so it is the same again
        meta = file_meta(DIRECTORY, uid, EXPLICIT_LITTLE)
        position = len(meta) + len(self._head(0))
        for node in nodes:
            node.offset = position
            position += _ITEM.size + len(node.encoded)
        _link(self._top)
        items = [_ITEM.pack(0xFFFE, 0xE000, len(node.encoded)) + node.encoded for node in nodes]
        return b"".join((meta, self._head(sum(map(len, items))), *items))

    def _head(self, length: int) -> bytes:
        """What stands before the records (PS3.3 table F.3-2 and F.3-3)."""
        tops = list(self._top.values())
        first, last = (tops[0].offset, tops[-1].offset) if tops else (0, 0)
        return b"".join(
            (
                struct.pack("<HH2sH", 4, 0x1130, b"CS", 0),
                struct.pack("<HH2sHL", 4, 0x1200, b"UL", 4, first),
                struct.pack("<HH2sHL", 4, 0x1202, b"UL", 4, last),
                struct.pack("<HH2sHH", 4, 0x1212, b"US", 2, 0),
                struct.pack("<HH2sHL", 4, 0x1220, b"SQ", 0, length),
            )
        )


def _link(level: dict[str, _Node]) -> None:
    nodes = list(level.values())
    for node, following in zip_longest(nodes, nodes[1:]):
        lower = next(iter(node.below.values()), None)
        struct.pack_into("<L", node.encoded, _NEXT, following.offset if following else 0)
        struct.pack_into("<L", node.encoded, _LOWER, lower.offset if lower else 0)
        _link(node.below)


def _encoded(kind: str, known: Dataset, **more: object) -> bytearray:
    record = DIRECTORY_RECORDERS[kind](known)
    record.OffsetOfTheNextDirectoryRecord = 0
    record.RecordInUseFlag = 0xFFFF
    record.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    record.DirectoryRecordType = kind
    if "SpecificCharacterSet" in known:
        record.SpecificCharacterSet = known.SpecificCharacterSet
    for keyword, value in more.items():
        setattr(record, keyword, value)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, record)
    return bytearray(buffer.getvalue())


def header_of(file: BinaryIO) -> Dataset:
    """What records are made of, from a Part-10 file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(KEYWORDS))
    except Exception as error:  # noqa: BLE001  as above
        raise NotUnderstood("cannot be listed in a DICOMDIR", type(error).__name__) from error


def references(file: BinaryIO) -> list[tuple[str, ...]]:
    """The file IDs that a DICOMDIR names, each once, as they are written. Raises NotUnderstood."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = pydicom.dcmread(file)
            if read.file_meta.get("MediaStorageSOPClassUID") != DIRECTORY:
                raise NotUnderstood("not a DICOMDIR")
            return list(dict.fromkeys(_file_ids(read)))
    except NotUnderstood:
        raise
    except Exception as error:  # noqa: BLE001  as above
        raise NotUnderstood("DICOMDIR cannot be read", type(error).__name__) from error


def _file_ids(read: Dataset) -> Iterator[tuple[str, ...]]:
    for record in read.DirectoryRecordSequence:
        named = record.get("ReferencedFileID")
        if named and record.get("RecordInUseFlag") != 0:
            yield (named,) if isinstance(named, str) else tuple(named)
