"""The abstract and transfer syntaxes we accept, as tables, and the `Table` made of them for a negotiation.

Rules that hold here: facts only, each table under its clause; SOP classes of the current standard come
from pynetdicom's list of it, so that a new edition is a new version of pynetdicom; what a listener or a
peer is offered is chosen by the names of the services, never by UID.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

from pydicom.uid import UID
from pynetdicom import sop_class

from archive.dicom.uids import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, TRANSFER_SYNTAXES, Pixels
from archive.dimse.negotiation import Offer, Table

VERIFICATION = "1.2.840.10008.1.1"  # PS3.4 annex A
COMMITMENT = "1.2.840.10008.1.20.1"  # PS3.4 annex J, Push Model
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"  # its well-known SOP instance (PS3.4 J.3.5)
MPPS = "1.2.840.10008.3.1.2.3.3"  # PS3.4 F.7
WORKLIST = "1.2.840.10008.5.1.4.31"  # PS3.4 annex K
AVAILABILITY = "1.2.840.10008.5.1.4.33"  # PS3.4 annex R

# PS3.4 C.6 (and, retired, Patient/Study Only): Query/Retrieve by root.
_QR = "1.2.840.10008.5.1.4.1.2"
FIND = {f"{_QR}.1.1": "Patient Root - FIND", f"{_QR}.2.1": "Study Root - FIND", f"{_QR}.3.1": "Patient/Study - FIND"}
MOVE = {f"{_QR}.1.2": "Patient Root - MOVE", f"{_QR}.2.2": "Study Root - MOVE", f"{_QR}.3.2": "Patient/Study - MOVE"}
GET = {f"{_QR}.1.3": "Patient Root - GET", f"{_QR}.2.3": "Study Root - GET", f"{_QR}.3.3": "Patient/Study - GET"}

# PS3.4 table B.5-1 of earlier editions: retired, but archives are full of them and old scanners send them.
_STORED = "1.2.840.10008.5.1.4.1.1"
RETIRED = {
    f"{_STORED}.3": "Ultrasound Multi-frame Image Storage (Retired)",
    f"{_STORED}.5": "Nuclear Medicine Image Storage (Retired)",
    f"{_STORED}.6": "Ultrasound Image Storage (Retired)",
    f"{_STORED}.8": "Standalone Overlay Storage (Retired)",
    f"{_STORED}.9": "Standalone Curve Storage (Retired)",
    f"{_STORED}.9.1": "Waveform Storage - Trial (Retired)",
    f"{_STORED}.10": "Standalone Modality LUT Storage (Retired)",
    f"{_STORED}.11": "Standalone VOI LUT Storage (Retired)",
    f"{_STORED}.12.3": "X-Ray Angiographic Bi-Plane Image Storage (Retired)",
    f"{_STORED}.77.1": "VL Image Storage - Trial (Retired)",
    f"{_STORED}.77.2": "VL Multi-frame Image Storage - Trial (Retired)",
    f"{_STORED}.88.1": "Text SR Storage - Trial (Retired)",
    f"{_STORED}.88.2": "Audio SR Storage - Trial (Retired)",
    f"{_STORED}.88.3": "Detail SR Storage - Trial (Retired)",
    f"{_STORED}.88.4": "Comprehensive SR Storage - Trial (Retired)",
    f"{_STORED}.129": "Standalone PET Curve Storage (Retired)",
    "1.2.840.10008.5.1.1.27": "Stored Print Storage (Retired)",
    "1.2.840.10008.5.1.1.29": "Hardcopy Grayscale Image Storage (Retired)",
    "1.2.840.10008.5.1.1.30": "Hardcopy Color Image Storage (Retired)",
}

# Classes of manufacturers' own that are met in the field; without these rows they need `accept_unknown_sop_classes`.
PRIVATE = {
    "1.3.46.670589.11.0.0.12.1": "Private Philips MR Spectrum Storage",
    "1.3.46.670589.11.0.0.12.2": "Private Philips MR Series Data Storage",
    "1.3.46.670589.11.0.0.12.3": "Private Philips MR Color Image Storage",
    "1.3.46.670589.11.0.0.12.4": "Private Philips MR Examcard Storage",
}


def _standard() -> dict[str, str]:
    """Objects of patients, and those of nobody: hanging protocols, palettes, templates."""
    groups = (sop_class._STORAGE_CLASSES, sop_class._NON_PATIENT_OBJECT_CLASSES)
    return {str(uid): _name(uid, keyword) for group in groups for keyword, uid in group.items()}


def _name(uid: str, keyword: str) -> str:
    """As pydicom's dictionary has it; a class that is too new for that is called by its keyword."""
    name = UID(uid).name
    return keyword if name == uid else name


STORAGE: Mapping[str, str] = _standard() | RETIRED | PRIVATE  # PS3.4 table B.5-1, annex GG
QUERY_RETRIEVE: Mapping[str, str] = FIND | MOVE | GET

MESSAGES = frozenset((IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG))  # identifiers and attribute lists
STORED = frozenset(TRANSFER_SYNTAXES)  # everything that can be kept as it is
_PLACES = frozenset(uid for uid, each in TRANSFER_SYNTAXES.items() if each.pixels is Pixels.REFERENCED)

# PS3.5 A.4.1 of 1999: JPEG processes that were retired before anybody used them much.
RETIRED_JPEG = frozenset(f"1.2.840.10008.1.2.4.{process}" for process in (*range(52, 57), *range(58, 67)))
PAPYRUS = "1.2.840.10008.1.20"
# DCMTK up to 3.6.7, and what is built on it, aborts at more than 50 transfer syntaxes in one context.
MOST_SYNTAXES = 50

# PS3.4 table C.5-2: relational, date-time, fuzzy, timezone, enhanced multi-frame conversion, empty and multiple values.
FIND_SUPPORTED = bytes((1, 1, 1, 1, 0, 1, 1))
RETRIEVE_SUPPORTED = bytes((1, 0))  # PS3.4 table C.5-4: relational, enhanced multi-frame conversion
WORKLIST_SUPPORTED = bytes((0, 0, 1, 1))  # PS3.4 table K.5.1-1: fuzzy and timezone are bytes 3 and 4
# PS3.4 B.3.1: level 2 (all attributes), digital signatures preserved bit by bit, nothing coerced.
STORAGE_LEVEL = bytes((2, 0, 3, 0, 0, 0))


def supported_of(ours: bytes) -> Callable[[bytes], bytes]:
    """Each byte asked for that we have; bytes we do not know are answered with 0 (PS3.4 C.5.1.1)."""

    def agree(asked: bytes) -> bytes:
        return bytes(min(theirs, mine) for theirs, mine in zip(asked, ours.ljust(len(asked), b"\0"), strict=False))

    return agree


def _level(_asked: bytes) -> bytes:
    return STORAGE_LEVEL


def storage_syntaxes(*, referenced: bool = False) -> frozenset[str]:
    """Transfer syntaxes to store in; those whose pixels are elsewhere only when asked for."""
    return STORED if referenced else STORED - _PLACES


def proposed_syntaxes(first: Sequence[str]) -> list[str]:
    """Transfer syntaxes to propose for objects we want sent, these before the others: what is met in the field."""
    usual = STORED - _PLACES - RETIRED_JPEG - {PAPYRUS, *first}
    return [*first, *sorted(usual)][:MOST_SYNTAXES]


def _services(stored: frozenset[str]) -> dict[str, dict[str, Offer]]:
    find = Offer(MESSAGES, extended=supported_of(FIND_SUPPORTED))
    retrieve = Offer(MESSAGES, extended=supported_of(RETRIEVE_SUPPORTED))
    storing = Offer(stored, scp=True, scu=False, extended=_level)
    return {
        "echo": {VERIFICATION: Offer(MESSAGES)},
        "store": dict.fromkeys(STORAGE, storing),
        "find": dict.fromkeys(FIND, find),
        "move": dict.fromkeys(MOVE, retrieve),
        "get": dict.fromkeys(GET, retrieve),
        "worklist": {WORKLIST: Offer(MESSAGES, extended=supported_of(WORKLIST_SUPPORTED))},
        "commit": {COMMITMENT: Offer(MESSAGES, scp=True, scu=True)},  # SCU where a peer comes to report to us
        "mpps": {MPPS: Offer(MESSAGES)},
    }


SERVICES = ("echo", "store", "find", "move", "get", "worklist", "commit", "mpps")


@lru_cache(maxsize=64)
def table(
    services: frozenset[str] = frozenset(SERVICES),
    transfer_syntaxes: frozenset[str] = STORED,
    accept_unknown: bool = False,
) -> Table:
    """What is offered for these services.

    `accept_unknown`: SOP classes in no table are taken for storage classes (`accept_unknown_sop_classes`).
    With "get", storage contexts can be had in the SCU role, so that objects can be sent back; without
    "store" they can be had in no other.
    """
    offers: dict[str, Offer] = {}
    for name, rows in _services(transfer_syntaxes).items():
        if name in services:
            offers.update(rows)
    roles = "store" in services, "get" in services
    if any(roles):
        storing = Offer(transfer_syntaxes, scp=roles[0], scu=roles[1], extended=_level)
        offers.update(dict.fromkeys(STORAGE, storing))
        return Table(offers, storing if accept_unknown else None)
    return Table(offers)


def abstract_syntaxes(services: Collection[str]) -> list[str]:
    """The abstract syntaxes of these services, for a conformance statement."""
    return [uid for name, rows in _services(STORED).items() if name in services for uid in rows]
