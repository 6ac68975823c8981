"""Unique identifiers: their form, the transfer syntaxes and the names of this implementation.

Rules that hold here: a UID is compared as the characters that came, never normalised; what a transfer
syntax means is a row of one table, code walks the table; a syntax that is not in the table is private
and, by PS3.5 A.4, most likely Explicit VR Little Endian with encapsulated pixel data.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from enum import Enum

from archive.dicom.tables import UIDS
from archive.errors import InvalidUID

# Made once from a random UUID (PS3.5 B.2); it names this implementation for as long as it lives.
IMPLEMENTATION_CLASS_UID = "2.25.79996380473361557210527164404186799390"
IMPLEMENTATION_VERSION_NAME = "PYARCHIVE_1"  # VR SH, at most 16 characters (PS3.7 D.3.3.2.3)

UID_LENGTH = 64  # PS3.5 9.1

# PS3.5 9.1: components of digits, no leading zero unless the component is "0".
_STRICT = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*", re.ASCII).fullmatch
_LENIENT = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII).fullmatch


def new_uid() -> str:
    """A UID that nobody has had before (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def named_uid(name: str) -> str:
    """The UID of what a name stands for, always the same (PS3.5 B.2, RFC 4122 4.3)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def is_uid(text: str, lenient: bool = False) -> bool:
    """True when the text is a UID; ``lenient`` lets components begin with zero, as some scanners do."""
    return len(text) <= UID_LENGTH and (_LENIENT if lenient else _STRICT)(text) is not None


def check_uid(text: str, name: str = "data set", lenient: bool = False) -> str:
    """The text itself, or InvalidUID that names the attribute but never repeats the value."""
    if not is_uid(text, lenient):
        raise InvalidUID(f"Invalid UID in {name}")
    return text


def is_registered(uid: str) -> bool:
    """Whether the standard has given it to something (PS3.6 annex A): it names nobody's objects then."""
    return uid in UIDS


class Pixels(Enum):
    """How the pixels of a syntax are stored, as far as their loss matters."""

    NATIVE = "native"
    LOSSLESS = "lossless"  # the syntax allows nothing else
    LOSSY = "lossy"  # the syntax allows loss, whether or not it was used
    VIDEO = "video"
    REFERENCED = "referenced"  # elsewhere: by URL or in another stream


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """What a transfer syntax says of the bytes (PS3.5 annex A)."""

    uid: str
    name: str
    explicit: bool
    big_endian: bool
    deflated: bool
    encapsulated: bool
    pixels: Pixels
    retired: bool

    @property
    def uncompressed(self) -> bool:
        """True for the syntaxes between which ``convert`` can translate."""
        return self.pixels is Pixels.NATIVE and not self.encapsulated


IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"

# The syntaxes that differ from "Explicit VR Little Endian, nothing deflated".
_IMPLICIT = {IMPLICIT_LITTLE, "1.2.840.10008.1.20"}
_BIG_ENDIAN = {EXPLICIT_BIG}
_DEFLATED = {DEFLATED, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
_NATIVE = {IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG, "1.2.840.10008.1.20"}

# PS3.6 table A-1: the last components, by what the syntax does to pixels.
_FAMILIES: dict[Pixels, str] = {
    Pixels.LOSSLESS: "1.98 4.57 4.58 4.65 4.66 4.70 4.80 4.90 4.92 4.110 4.201 4.202 5 8.1",
    Pixels.LOSSY: ("4.50 4.51 4.52 4.53 4.54 4.55 4.56 4.59 4.60 4.61 4.62 4.63 4.64 4.81 4.91 4.93 4.111 4.112 4.203"),
    Pixels.VIDEO: (
        "4.100 4.100.1 4.101 4.101.1 4.102 4.102.1 4.103 4.103.1 4.104 4.104.1 4.105 4.105.1 4.106 4.106.1 4.107 4.108"
    ),
    Pixels.REFERENCED: "4.94 4.95 4.204 4.205 7.1 7.2 7.3",
}

# Syntaxes of the current standard that pydicom's dictionary does not name yet (PS3.6 table A-1); others may add to that
# dictionary at run time, so these names come first.
NEWER_NAMES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}


def _syntax(uid: str, pixels: Pixels) -> TransferSyntax:
    known = UIDS.get(uid)
    return TransferSyntax(
        uid=uid,
        name=NEWER_NAMES.get(uid) or (known[0] if known else "Private"),
        explicit=uid not in _IMPLICIT,
        big_endian=uid in _BIG_ENDIAN,
        deflated=uid in _DEFLATED,
        encapsulated=uid not in _NATIVE and pixels is not Pixels.REFERENCED,
        pixels=pixels,
        retired=bool(known and known[3]),
    )


def _table() -> dict[str, TransferSyntax]:
    rows = dict.fromkeys(sorted(_NATIVE), Pixels.NATIVE)
    for pixels, suffixes in _FAMILIES.items():
        rows.update({f"1.2.840.10008.1.2.{suffix}": pixels for suffix in suffixes.split()})
    return {uid: _syntax(uid, pixels) for uid, pixels in rows.items()}


TRANSFER_SYNTAXES: dict[str, TransferSyntax] = _table()


def transfer_syntax(uid: str) -> TransferSyntax:
    """The facts of a syntax; one that is not in the table is taken for a private encapsulated one."""
    return TRANSFER_SYNTAXES.get(uid) or _syntax(uid, Pixels.LOSSY)
