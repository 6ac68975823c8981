"""Data sets that are wrong in one way each, with the answers that are right (faults B01-B22).

Rules that hold here: nothing of the archive is used; each case is a whole C-STORE: class and UID of its command,
transfer syntax of its context, data set; 0000 is allowed only where the object is complete by its own lengths.
"""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.faults import objects
from tests.faults.objects import element, instance, new_uid
from tests.faults.raw import CT, EXPLICIT, IMPLICIT, MR

DEFLATED = "1.2.840.10008.1.2.1.99"
SUCCESS, NOT_UNDERSTOOD, MISMATCH, NO_ROOM = 0x0000, 0xC000, 0xA900, 0xA700
REFUSED = frozenset({NOT_UNDERSTOOD, MISMATCH})
EITHER = REFUSED | {SUCCESS}
STORED = frozenset({SUCCESS})
TOO_MUCH = frozenset({NOT_UNDERSTOOD, NO_ROOM})

ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
ITEM_OPEN = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
ITEM_CLOSE = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
SEQUENCE_CLOSE = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
SOP_CLASS, SOP_INSTANCE, STUDY, SERIES, PATIENT_ID, PIXELS = (
    0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x00100020, 0x7FE00010,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    number: str
    what: str
    data: bytes
    allowed: frozenset[int]
    uid: str
    sop_class: str = CT
    syntax: str = EXPLICIT
    context: str = CT

    def __str__(self) -> str:
        return f"{self.number} {self.what}"


def elements(uid: str) -> dict[int, tuple[str, bytes | str]]:
    """A small object without pixels."""
    return {
        0x00080005: ("CS", "ISO_IR 100"),
        SOP_CLASS: ("UI", CT),
        SOP_INSTANCE: ("UI", uid),
        0x00080020: ("DA", "20260131"),
        0x00080060: ("CS", "CT"),
        0x00100010: ("PN", f"{objects.MARKER}^Patient"),
        PATIENT_ID: ("LO", f"{objects.MARKER}-{uid[-10:]}"),
        0x00100030: ("DA", "19700101"),
        STUDY: ("UI", f"{uid}.1"),
        SERIES: ("UI", f"{uid}.2"),
        0x00200013: ("IS", "1"),
    }


def made(uid: str, tail: bytes = b"", without: int = 0, **changed: tuple[str, bytes | str]) -> bytes:
    """That object with elements changed (by their tags as hexadecimal digits) or left out, and bytes behind it."""
    every = elements(uid) | {int(tag, 16): value for tag, value in changed.items()}
    every.pop(without, None)
    return objects.encode(every) + tail


def implicit(uid: str) -> bytes:
    found = b""
    for tag, (vr, value) in sorted(elements(uid).items()):
        body = value.encode() if isinstance(value, str) else value
        body += (b"\0" if vr == "UI" else b" ") * (len(body) % 2)
        found += struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(body)) + body
    return found


def raw(tag: int, vr: str, value: bytes, length: int) -> bytes:
    """An element that lies about its length."""
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode("latin-1"))
    return head + (struct.pack("<HL", 0, length) if vr in objects.LONG_LENGTH else struct.pack("<H", length)) + value


def nested(depth: int, undefined: bool) -> bytes:
    """A sequence in a sequence in a sequence …"""
    if undefined:
        return (raw(0x30060010, "SQ", b"", 0xFFFFFFFF) + ITEM_OPEN) * depth + (ITEM_CLOSE + SEQUENCE_CLOSE) * depth
    value = b""
    for _ in range(depth):
        value = raw(0x30060010, "SQ", value := struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value, len(value))
    return value


def sequence(items: bytes) -> bytes:
    """Of undefined length."""
    return raw(0x30060010, "SQ", items, 0xFFFFFFFF) + SEQUENCE_CLOSE


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(1, wbits=-15)
    return deflater.compress(data) + deflater.flush()


def bomb(uid: str, size: int) -> bytes:
    """Deflated: inflates to an image of so many zeros."""
    deflater = zlib.compressobj(1, wbits=-15)
    parts = [deflater.compress(made(uid) + raw(PIXELS, "OW", b"", size))]
    parts += [deflater.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join(parts) + deflater.flush()


# -- the cases --------------------------------------------------------------------------------------------------

BAD_UIDS = (
    "../../../../tmp/evil", "/etc/cron.d/x", "1.2.3\0.4", "1.2.3\n4", "1.2.*", "1.2.'; drop table instance; --", "CON",
    "1.2.\u00e9", "1." + "2" * 64, "", "1.2.", ".1.2", "1..2", "1.2.3/../4",
)  # fmt: skip


def uids() -> Iterator[Case]:
    for tag, where in ((SOP_INSTANCE, "SOP Instance UID"), (STUDY, "Study UID"), (SERIES, "Series UID")):
        for bad in BAD_UIDS:
            uid = new_uid()
            sent = bad if tag == SOP_INSTANCE else uid
            data = made(uid, **{f"{tag:08x}": ("UI", bad.encode("latin-1"))})
            yield Case("B01", f"{where} {ascii(bad)[:30]}", data, REFUSED, sent)
        uid = new_uid()
        lenient = made(uid, **{f"{tag:08x}": ("UI", f"{uid}.007")})
        yield Case("B01", f"{where} with a leading zero", lenient, EITHER, f"{uid}.007" if tag == SOP_INSTANCE else uid)


def missing() -> Iterator[Case]:
    for tag in (STUDY, SERIES, SOP_INSTANCE, SOP_CLASS):
        uid = new_uid()
        yield Case("B04", f"without {tag:08x}", made(uid, without=tag), REFUSED, uid)
    uid = new_uid()
    yield Case("B04", "without Patient ID", made(uid, without=PATIENT_ID), EITHER, uid)


def mismatches() -> Iterator[Case]:
    uid = new_uid()
    only = frozenset({MISMATCH})
    yield Case("B05", "another UID than its command", made(new_uid()), only, uid)
    yield Case("B05", "another class than its command", made(uid, **{"00080016": ("UI", MR)}), only, uid)
    yield Case("B05", "command of another class than the context", made(uid), only | {0x0122}, uid, MR)
    yield Case("B07", "Implicit VR on an Explicit context", implicit(uid), REFUSED, uid)
    yield Case("B07", "Explicit VR on an Implicit context", made(uid), REFUSED, uid, syntax=IMPLICIT)
    yield Case("B07", "not deflated on a Deflated context", made(uid), REFUSED, uid, syntax=DEFLATED)


def nonsense() -> Iterator[Case]:
    uid, rng = new_uid(), random.Random(8)
    for what, data in {
        "nothing": b"", "random bytes": rng.randbytes(3000), "text": b"Dear Sir or Madam, " * 100, "zeros": bytes(3000),
        "a ZIP": b"PK\x03\x04" + rng.randbytes(500), "an ELF": b"\x7fELF\x02\x01\x01" + rng.randbytes(500),
        "a Part 10 file": bytes(128) + b"DICM" + made(uid), "0xFF": b"\xff" * 3000,
    }.items():  # fmt: skip
        yield Case("B08", what, data, REFUSED, uid)


def cuts() -> Iterator[Case]:
    one = instance(size=1500)
    whole = {match.start() for match in re.finditer(rb"(?s)\x08\x00|\x10\x00|\x20\x00|\xe0\x7f", one.data)}
    for at in range(97, len(one.data), 97):
        allowed = EITHER if at in whole else REFUSED
        yield Case("B10", f"cut at byte {at}", one.data[:at], allowed, one.uid)


def structures() -> Iterator[Case]:
    for what, tail in {
        "length 0xFFFFFFF0": raw(PIXELS, "OW", b"0123456789", 0xFFFFFFF0),
        "length past the end": raw(0x00200062, "CS", b"L ", 20),
        "one byte behind the end": b"\0",
        "seven bytes behind the end": b"\x20\x00\x62\x00CS\x00",
        "undefined length never closed": raw(0x30060010, "SQ", ITEM_OPEN, 0xFFFFFFFF),
        "item without sequence": ITEM_OPEN + ITEM_CLOSE,
        "delimiter without sequence": SEQUENCE_CLOSE,
        "item longer than its sequence": raw(0x30060010, "SQ", struct.pack("<HHL", 0xFFFE, 0xE000, 100) + b"12", 10),
        "encapsulated in a native syntax": raw(PIXELS, "OB", ITEM + SEQUENCE_CLOSE, 0xFFFFFFFF),
    }.items():
        uid = new_uid()
        number = "B12" if "item" in what or "never" in what or "delimiter" in what else "B11"
        allowed = EITHER if what.startswith("encapsulated") else REFUSED
        yield Case(number, what, made(uid, tail), allowed, uid)
    for what, tail in {
        "odd length": raw(0x00204000, "LT", b"odd", 3), "tags out of order": element(0x00080070, "LO", "Maker"),
        "a tag twice": element(0x00200013, "IS", "2"), "group 0002 inside": element(0x00020010, "UI", EXPLICIT),
        "group 0000 inside": raw(0x00000000, "UL", bytes(4), 4), "VR ??": raw(0x00204000, "??", b"12", 2),
        "VR of zeros": raw(0x00204000, "\0\0", b"12", 2), "an indexed key of a wrong VR": raw(0x00280010, "OW", b"", 0),
        "UN for a known tag": raw(0x00280011, "UN", b"\1\0", 2),
    }.items():  # fmt: skip
        uid = new_uid()
        yield Case("B15" if "VR" in what or "UN" in what else "B11", what, made(uid, tail), EITHER, uid)


def depths() -> Iterator[Case]:
    for depth, undefined in [(50, True), (50, False), (65, True), (200, False), (20_000, True), (2_000, False)]:
        uid = new_uid()
        allowed = STORED if depth == 50 else frozenset({NOT_UNDERSTOOD})
        data = made(uid, nested(depth, undefined))
        yield Case("B13", f"{depth} levels, {'un' if undefined else ''}defined lengths", data, allowed, uid)


def bombs() -> Iterator[Case]:
    """What would cost much: refused soon, and in little memory."""
    tiny = b"".join(struct.pack("<HH2sH", 0x0099, n & 0xFFFF, b"UN", 0)[:6] + bytes(6) for n in range(0x1000, 0xF000))
    builders: dict[str, tuple[Callable[[str], bytes], str]] = {
        "1,000,000 elements": (lambda uid: made(uid, tiny * 17), EXPLICIT),
        "500,000 empty items": (lambda uid: made(uid, sequence(ITEM * 500_000)), EXPLICIT),
        "5 MB of backslashes in a name": (lambda uid: _unlimited(uid, 0x00100010, b"\\" * 5_000_000), IMPLICIT),
        "1,000,000 values": (lambda uid: _unlimited(uid, 0x00080060, b"1\\" * 1_000_000), IMPLICIT),
    }  # fmt: skip
    for what, (build, syntax) in builders.items():
        uid = new_uid()
        allowed = EITHER if "items" in what else frozenset({NOT_UNDERSTOOD})
        yield Case("B14", what, build(uid), allowed, uid, syntax=syntax)
    for size in (300, 1000):
        uid = new_uid()
        yield Case("B20", f"deflated, {size} MB of zeros", bomb(uid, size << 20), TOO_MUCH, uid, syntax=DEFLATED)


def _unlimited(uid: str, tag: int, value: bytes) -> bytes:
    """Implicit VR, where a text may be longer than 64 kB."""
    data = implicit(uid)
    start = data.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
    (length,) = struct.unpack_from("<L", data, start + 4)
    return data[: start + 4] + struct.pack("<L", len(value)) + value + data[start + 8 + length :]


CHARSETS = {
    "unknown": (b"ISO_IR 999", b"M\xfcller"), "broken escape": (b"ISO 2022 IR 6\\ISO 2022 IR 87", b"\x1b$B\x1b"),
    "GB18030": (b"GB18030", "王^小东".encode("gb18030")),
    "Korean": (b"\\ISO 2022 IR 149", b"Hong^\x1b$)C\xb1\xe6\xb5\xbf"),
    "JIS X 0201": (b"ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3"), "invalid UTF-8": (b"ISO_IR 192", b"M\xff\xfeller"),
    "8 bits undeclared": (b"", b"M\xfcller"), "UTF-8": (b"ISO_IR 192", "Müller^Jörg".encode()),
}  # fmt: skip


def texts() -> Iterator[Case]:
    for what, (charset, name) in CHARSETS.items():
        uid = new_uid()
        data = made(uid, **{"00080005": ("CS", charset), "00100010": ("PN", name)})
        yield Case("B16", f"character set: {what}", data, EITHER if what == "broken escape" else STORED, uid)
    for bad in ("\0", "\n", "\x1b[31m", "%", "_", "[", "'", '"', "%s%n", "\r\nINFO forged", "\x9b"):
        uid = new_uid()
        data = made(uid, **{"00100010": ("PN", f"{objects.MARKER}{bad}x".encode("latin-1"))})
        yield Case("B17", f"{ascii(bad)} in a name", data, EITHER if bad == "\0" else STORED, uid)
    for tag, vr, bad in (
        (0x00080020, "DA", "20261332"), (0x00080020, "DA", "yesterday"), (0x00080030, "TM", "99:99"),
        (0x00101010, "AS", "old"), (0x00200013, "IS", "1" * 60_000), (0x00200013, "IS", "many"),
        (0x00101030, "DS", "1e999999"), (0x00100030, "DA", "\\\\\\"),
    ):  # fmt: skip
        uid = new_uid()
        yield Case("B18", f"{tag:08x} is {bad[:10]}", made(uid, **{f"{tag:08x}": (vr, bad)}), EITHER, uid)


GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    "uids": uids, "missing": missing, "mismatches": mismatches, "nonsense": nonsense, "cuts": cuts,
    "structures": structures, "depths": depths, "bombs": bombs, "texts": texts,
}  # fmt: skip


def every_case() -> Iterator[Case]:
    for group in GROUPS.values():
        yield from group()


# -- spoiled at random (B50) -----------------------------------------------------------------------------------------


def seeds(uid: str) -> dict[str, tuple[str, bytes]]:
    """Name -> (transfer syntax, data set) of objects that are right."""
    with_sequence = made(uid, sequence(ITEM_OPEN + element(0x30060022, "IS", "1") + ITEM_CLOSE))
    with_pixels = made(uid, element(PIXELS, "OW", bytes(300)))
    foreign = made(uid, **{"00080005": ("CS", "\\ISO 2022 IR 87"), "00100010": ("PN", b"Yamada^\x1b$B;3ED\x1b(B")})
    return {
        "explicit": (EXPLICIT, with_pixels), "sequence": (EXPLICIT, with_sequence),
        "implicit": (IMPLICIT, implicit(uid)),
        "deflated": (DEFLATED, deflated(with_pixels)), "foreign": (EXPLICIT, foreign),
        "nested": (EXPLICIT, made(uid, nested(6, True))),
    }  # fmt: skip


def numbers(rng: random.Random, data: bytes) -> bytes:
    """A length or a tag becomes one of the numbers that hurt."""
    at = rng.randrange(max(1, len(data) - 4))
    lengths = [0, 1, 0xFFFFFFFF, 0xFFFFFFF0, 0x7FFFFFFF]
    hurting = [struct.pack("<L", length) for length in lengths] + [b"\xff\xff", b"\0\0", b"\1\0"]
    piece = rng.choice([*hurting, ITEM_OPEN, ITEM_CLOSE, SEQUENCE_CLOSE, b"SQ", b"UN", b"OB", b"??"])
    return data[:at] + piece + data[at + len(piece) :]
