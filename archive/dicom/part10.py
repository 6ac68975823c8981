"""File Meta Information: what stands before the data set in a file (PS3.10 chapter 7).

Rules that hold here: what is written is always 128 zero bytes, "DICM" and Explicit VR Little Endian; what is read may
lack the preamble, the meta information or its group length, because files that people import do; a preamble is
never kept, it may be a program.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from archive.dicom.elements import Buffer
from archive.dicom.encoding import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, UNDEFINED, Encoding, guess_encoding
from archive.dicom.uids import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_LITTLE,
)
from archive.dicom.wanted import SOP_CLASS_UID, SOP_INSTANCE_UID
from archive.errors import NotUnderstood

PREAMBLE = bytes(128)
MAGIC = b"DICM"
META_ELEMENTS = 100  # PS3.10 table 7.1-1 has 17, private information one more

MEDIA_SOP_CLASS, MEDIA_SOP_INSTANCE, TRANSFER_SYNTAX = 0x00020002, 0x00020003, 0x00020010
SOURCE_AE, PRIVATE_CREATOR, PRIVATE = 0x00020016, 0x00020100, 0x00020102
LONGEST = 1024  # bytes that are read of a value: UIDs and AE titles are shorter, private information not much longer
GROUP_LENGTH = 0x00020000
_SYNTAX_OF = {IMPLICIT_LE: IMPLICIT_LITTLE, EXPLICIT_LE: EXPLICIT_LITTLE, EXPLICIT_BE: EXPLICIT_BIG}


def file_meta(
    sop_class: str, sop_instance: str, transfer_syntax: str, *, source: str = "", private: bytes = b""
) -> bytes:
    """Preamble, prefix and meta information of a new file; ``source`` is the AE title it came from.

    ``private`` is what the archive has to say itself, as Private Information (0002,0102).
    """
    instance = _element(0x0003, b"UI", sop_instance, b"\0")
    before, after = _surroundings(sop_class, transfer_syntax, source)
    after += _private(private)
    length = len(before) + len(instance) + len(after)
    return b"".join((PREAMBLE, MAGIC, struct.pack("<HH2sHL", 2, 0, b"UL", 4, length), before, instance, after))


def _private(said: bytes) -> bytes:
    """Private Information Creator UID and Private Information (PS3.10 table 7.1-1)."""
    if not said:
        return b""
    said += b" " * (len(said) % 2)
    creator = _element(0x0100, b"UI", IMPLEMENTATION_CLASS_UID, b"\0")
    return creator + struct.pack("<HH2sHL", 2, 0x0102, b"OB", 0, len(said)) + said


@lru_cache(maxsize=1024)
def _surroundings(sop_class: str, syntax: str, source: str) -> tuple[bytes, bytes]:
    """The elements before and after the instance UID: the same for all objects of a sender's series."""
    version = struct.pack("<HH2sHL", 2, 1, b"OB", 0, 2) + b"\0\1"
    after = (
        _element(0x0010, b"UI", syntax, b"\0"),
        _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
        _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "),
        _element(0x0016, b"AE", source, b" ") if source else b"",
    )
    return version + _element(0x0002, b"UI", sop_class, b"\0"), b"".join(after)


def _element(element: int, vr: bytes, text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) & 1:
        value += padding
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What the beginning of a file says of the data set in it."""

    transfer_syntax: str
    offset: int  # of the data set in the file
    sop_class_uid: str
    sop_instance_uid: str
    source: str = ""  # Source Application Entity Title
    private: str = ""  # what this archive has written as private information


def read_file_meta(head: Buffer) -> FileMeta:
    """Read the beginning of a file (64 kB are plenty); NotUnderstood when it is no DICOM file."""
    start = 132 if bytes(head[128:132]) == MAGIC else 4 if bytes(head[:4]) == MAGIC else 0
    try:
        values, offset = _read_group(head, start)
        encoding = guess_encoding(bytes(head[offset : offset + 8]), len(head) - offset)
        syntax = values.get(TRANSFER_SYNTAX) or (_SYNTAX_OF[encoding] if encoding else "")
        if not syntax:
            raise NotUnderstood("Not a DICOM file" if not start else "File names no transfer syntax")
        sop_class, sop_instance = values.get(MEDIA_SOP_CLASS, ""), values.get(MEDIA_SOP_INSTANCE, "")
        if encoding and not (sop_class and sop_instance):
            sop_class, sop_instance = _identity(head, offset, encoding)
    except struct.error as error:
        raise NotUnderstood("File ends within its meta information") from error
    ours = values.get(PRIVATE_CREATOR) == IMPLEMENTATION_CLASS_UID
    private = values.get(PRIVATE, "") if ours else ""
    return FileMeta(syntax, offset, sop_class, sop_instance, values.get(SOURCE_AE, ""), private)


def _read_group(head: Buffer, pos: int) -> tuple[dict[int, str], int]:
    """The elements of group 0002 as text, and where they end: by their tags, not by a group length that may lie."""
    values: dict[int, str] = {}
    for _ in range(META_ELEMENTS):
        if bytes(head[pos : pos + 2]) != b"\2\0":
            return values, pos
        tag, start, length = _head(head, pos, EXPLICIT_LE)
        if length > len(head) - start:
            break
        values[tag] = bytes(head[start : start + min(length, LONGEST)]).decode("ascii", "replace").strip(" \0")
        pos = start + length
    raise NotUnderstood("File meta information is damaged")


def _head(head: Buffer, pos: int, encoding: Encoding) -> tuple[int, int, int]:
    """Tag, start and length of the value of the element at ``pos``."""
    if not encoding.explicit:
        raw, length = encoding.head.unpack_from(head, pos)
        return encoding.tag(raw), pos + 8, length
    raw, code, length = encoding.head.unpack_from(head, pos)
    if code in encoding.short:
        return encoding.tag(raw), pos + 8, length
    return encoding.tag(raw), pos + 12, encoding.length.unpack_from(head, pos + 8)[0]


def _identity(head: Buffer, pos: int, encoding: Encoding) -> tuple[str, str]:
    """SOP class and instance of the data set itself, as far as the beginning reaches."""
    found: dict[int, str] = {}
    while pos < len(head):
        tag, start, length = _head(head, pos, encoding)
        if tag > SOP_INSTANCE_UID or length == UNDEFINED:
            break
        found[tag] = bytes(head[start : start + min(length, 256)]).decode("ascii", "replace").strip(" \0")
        pos = start + length
    return found.get(SOP_CLASS_UID, ""), found.get(SOP_INSTANCE_UID, "")
