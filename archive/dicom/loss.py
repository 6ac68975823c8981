"""What a data set says once its pixels lost something (PS3.3 C.7.6.1.1.5, C.7.6.1.1.1, C.12.4.1.1).

Rules that hold here: what was said before stays, new values are added behind it; a picture that is compressed with loss
becomes another instance, whose UID follows from the first one's, so that the same loss always has the same name.
"""

from __future__ import annotations

import struct

from archive.dicom.compressed import METHODS
from archive.dicom.encoding import EXPLICIT_LE, ITEM
from archive.dicom.pixels import LOSSY, LOSSY_METHOD, LOSSY_RATIO
from archive.dicom.spans import element, spans
from archive.dicom.uids import named_uid, transfer_syntax

IMAGE_TYPE, SOP_CLASS_UID, SOP_INSTANCE_UID = 0x00080008, 0x00080016, 0x00080018
REFERENCED_CLASS, REFERENCED_INSTANCE = 0x00081150, 0x00081155
DERIVATION_DESCRIPTION, SOURCE_IMAGES = 0x00082111, 0x00082112
_LONGEST_ST = 1024  # PS3.5 table 6.2-1

Edits = dict[int, bytes | None]


def marked(head: bytes, syntax: str, ratio: float) -> Edits:
    """Say that pixels decoded from a lossy ``syntax`` are not the original ones, where nobody has said so yet."""
    values = _values(head)
    edits: Edits = {LOSSY: element(LOSSY, "CS", "01")}
    if not values.get(LOSSY_RATIO):
        edits[LOSSY_RATIO] = element(LOSSY_RATIO, "DS", f"{ratio:.4g}")
    if not values.get(LOSSY_METHOD):
        edits[LOSSY_METHOD] = element(LOSSY_METHOD, "CS", METHODS[syntax])
    return edits


def derived(head: bytes, syntax: str, ratio: float) -> Edits:
    """Make the data set that of a new instance, compressed with loss from the one it was."""
    values = _values(head)
    image_type = values.get(IMAGE_TYPE, b"").split(b"\\")
    edits: Edits = {
        LOSSY: element(LOSSY, "CS", "01"),
        LOSSY_RATIO: element(LOSSY_RATIO, "DS", _also(values.get(LOSSY_RATIO), f"{ratio:.4g}")),
        LOSSY_METHOD: element(LOSSY_METHOD, "CS", _also(values.get(LOSSY_METHOD), METHODS[syntax])),
        IMAGE_TYPE: element(IMAGE_TYPE, "CS", b"\\".join([b"DERIVED", *(image_type[1:] or [b"PRIMARY"])])),
        SOP_INSTANCE_UID: element(SOP_INSTANCE_UID, "UI", derived_uid(_uid(values, SOP_INSTANCE_UID), syntax)),
        SOURCE_IMAGES: _source_images(head, values),
    }
    words = f"Lossy compression {ratio:.3g}:1, {transfer_syntax(syntax).name}".encode("ascii")
    before = values.get(DERIVATION_DESCRIPTION, b"")
    if len(before) + 2 + len(words) <= _LONGEST_ST:
        both = before + b"; " + words if before else words
        edits[DERIVATION_DESCRIPTION] = element(DERIVATION_DESCRIPTION, "ST", both)
    return edits


def derived_uid(sop_instance_uid: str, syntax: str) -> str:
    """The UID of the lossy version in ``syntax``, made from a UUID (PS3.5 B.2)."""
    return named_uid(f"{sop_instance_uid}/{syntax}")


def _values(head: bytes) -> dict[int, bytes]:
    return {
        span.tag: head[span.value : span.end].rstrip(b" \0")
        for span in spans(head, EXPLICIT_LE)
        if span.tag < 0x00290000 and span.vr != "SQ"
    }


def _uid(values: dict[int, bytes], tag: int) -> str:
    return values.get(tag, b"").decode("ascii", "replace")


def _also(before: bytes | None, more: str) -> bytes:
    return before + b"\\" + more.encode("ascii") if before else more.encode("ascii")


def _source_images(head: bytes, values: dict[int, bytes]) -> bytes:
    """The sequence with one more item: the instance that this one was."""
    before = b""
    for span in spans(head, EXPLICIT_LE):
        if span.tag == SOURCE_IMAGES:
            before = head[span.value : span.end - 8 if span.undefined else span.end]
    item = b"".join(
        element(referenced, "UI", values.get(own, b""))
        for referenced, own in ((REFERENCED_CLASS, SOP_CLASS_UID), (REFERENCED_INSTANCE, SOP_INSTANCE_UID))
    )
    start = EXPLICIT_LE.length.pack(EXPLICIT_LE.raw(ITEM)) + struct.pack("<L", len(item))
    return element(SOURCE_IMAGES, "SQ", before + start + item)
