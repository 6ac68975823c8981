"""DICOM objects to send: built from bytes, small or large, each with a marker where a patient's name would be.

Rules that hold here: nothing of the archive is used; the same number gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import random
import struct
from dataclasses import dataclass

from tests.faults.raw import CT

MARKER = "CANARY"  # in every patient name and id: it must appear in no log
ROOT = "1.2.826.0.1.3680043.9.9999"
LONG_LENGTH = {"OB", "OW", "SQ", "UN", "UT"}  # 4-byte lengths (PS3.5 table 7.1-1)


def encode(elements: dict[int, tuple[str, bytes | str]]) -> bytes:
    """Explicit VR Little Endian."""
    return b"".join(element(tag, *value) for tag, value in sorted(elements.items()))


def element(tag: int, vr: str, value: bytes | str) -> bytes:
    if isinstance(value, str):
        value = value.encode()
    value += (b"\0" if vr in ("UI", "OB") else b" ") * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    return head + (struct.pack("<xxI", len(value)) if vr in LONG_LENGTH else struct.pack("<H", len(value))) + value


@dataclass(frozen=True)
class Instance:
    sop_class: str
    uid: str
    study: str
    series: str
    patient: str
    data: bytes

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.data).digest()


def new_uid() -> str:
    return f"{ROOT}.{int.from_bytes(os.urandom(12), 'big')}"


def instance(
    *, study: str = "", series: str = "", uid: str = "", patient: str = "", size: int = 2000, sop_class: str = CT
) -> Instance:
    """An image of about `size` bytes, of a study, series and patient of its own unless they are given."""
    uid = uid or new_uid()
    study, series = study or f"{uid}.1", series or f"{study or uid}.2"
    patient = patient or f"{MARKER}-{study[-12:]}"
    pixels = random.Random(uid).randbytes(size + size % 2)
    data = encode(
        {
            0x00080005: ("CS", "ISO_IR 100"),
            0x00080016: ("UI", sop_class),
            0x00080018: ("UI", uid),
            0x00080020: ("DA", "20260131"),
            0x00080030: ("TM", "120000"),
            0x00080050: ("SH", "A1"),
            0x00080060: ("CS", "CT"),
            0x00080090: ("PN", f"{MARKER}^Referring"),
            0x00100010: ("PN", f"{MARKER}^Patient"),
            0x00100020: ("LO", patient),
            0x00100030: ("DA", "19700101"),
            0x00100040: ("CS", "O"),
            0x0020000D: ("UI", study),
            0x0020000E: ("UI", series),
            0x00200010: ("SH", "1"),
            0x00200011: ("IS", "1"),
            0x00200013: ("IS", "1"),
            0x00280010: ("US", struct.pack("<H", 16)),
            0x00280011: ("US", struct.pack("<H", 16)),
            0x7FE00010: ("OW", pixels),
        }
    )
    return Instance(sop_class, uid, study, series, patient, data)


def study(count: int, size: int = 2000) -> list[Instance]:
    """`count` images of one series."""
    root = new_uid()
    return [instance(study=f"{root}.1", series=f"{root}.1.2", uid=f"{root}.3.{n}", size=size) for n in range(count)]


def keys_of(level: str, *, study: str = "", series: str = "", uid: str = "", patient: str = "") -> bytes:
    """An identifier (Explicit VR Little Endian); an empty key matches all and is answered."""
    elements: dict[int, tuple[str, bytes | str]] = {0x00080052: ("CS", level), 0x0020000D: ("UI", study)}
    if level in ("SERIES", "IMAGE"):
        elements[0x0020000E] = ("UI", series)
    if level == "IMAGE":
        elements[0x00080018] = ("UI", uid)
    if patient:
        elements[0x00100020] = ("LO", patient)
    return encode(elements)


def keys_of_instance(found: Instance) -> bytes:
    return keys_of("IMAGE", study=found.study, series=found.series, uid=found.uid)
