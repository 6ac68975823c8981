"""Where the top-level elements of a data set lie, and how some of them are exchanged.

Rules that hold here: values are never decoded; elements that are not exchanged keep their bytes, whatever their VR,
creator or character set, and their order, even a wrong one; new ones go where their tag belongs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from archive.dicom.dictionary import vr_of
from archive.dicom.elements import Buffer, Walk, understood
from archive.dicom.encoding import EXPLICIT_LE, TEXT_VRS, UNDEFINED, Encoding
from archive.errors import NotUnderstood


class Span(NamedTuple):
    """One top-level element: positions of its head, its value and the byte behind it."""

    tag: int
    vr: str
    start: int
    value: int
    end: int
    undefined: bool  # length: a sequence or encapsulated pixel data


def spans(data: Buffer, encoding: Encoding, *, encapsulated: bool = False) -> Iterator[Span]:
    """The top-level elements in their order; NotUnderstood where the data set is broken."""
    walk, pos = Walk(data, encapsulated), 0
    while pos < walk.size:
        with understood():
            span = _span(walk, pos, encoding)
        if span.end > walk.size:
            raise NotUnderstood("Data set ends in the middle of an element")
        walk.spend(1)
        pos = span.end
        yield span


def _span(walk: Walk, pos: int, encoding: Encoding) -> Span:
    if not encoding.explicit:
        raw, size = encoding.head.unpack_from(walk.data, pos)
        end = pos + 8 + size
        if size == UNDEFINED:
            end = walk.skip_implicit_other(raw, size, pos + 8, encoding, 0)
        tag = encoding.tag(raw)
        return Span(tag, vr_of(tag), pos, pos + 8, end, size == UNDEFINED)
    raw, code, size = encoding.head.unpack_from(walk.data, pos)
    tag, vr = encoding.tag(raw), encoding.vrs.get(code, "UN")
    if code in encoding.short:
        return Span(tag, vr, pos, pos + 8, pos + 8 + size, False)
    end = walk.skip_other(raw, code, size, pos + 8, encoding, 0)
    value, undefined = pos + 8, False
    if code in encoding.vrs:
        value = pos + 12
        undefined = encoding.length.unpack_from(walk.data, pos + 8)[0] == UNDEFINED
    return Span(tag, vr, pos, value, end, undefined)


def element(tag: int, vr: str, value: bytes | str | int) -> bytes:
    """One element in Explicit VR Little Endian, its value padded to even length."""
    if isinstance(value, int):
        value = struct.pack("<H", value)
    elif isinstance(value, str):
        value = value.encode("ascii")
    if len(value) & 1:
        value += b" " if vr in TEXT_VRS and vr != "UI" else b"\0"
    return head(tag, vr, len(value)) + value


def head(tag: int, vr: str, length: int, encoding: Encoding = EXPLICIT_LE) -> bytes:
    """An element up to its value."""
    start = encoding.length.pack(encoding.raw(tag))
    if not encoding.explicit:
        return start + encoding.length.pack(length)
    start += vr.encode("ascii")
    if encoding.code(vr) in encoding.short:
        return start + struct.pack(encoding.order + "H", length)
    return start + b"\0\0" + encoding.length.pack(length)


def exchanged(data: bytes, edits: Mapping[int, bytes | None], *, encapsulated: bool = False) -> bytes:
    """Explicit LE elements with those in ``edits`` replaced, added or, for None, left out.

    Group lengths (retired, PS3.5 7.2) are left out where a group changes: they would lie.
    """
    if not edits:
        return data
    groups = {tag >> 16 for tag in edits}
    found = list(spans(data, EXPLICIT_LE, encapsulated=encapsulated))
    present = {span.tag for span in found}
    new = sorted((tag, made) for tag, made in edits.items() if made is not None and tag not in present)
    parts: list[bytes] = []
    for span in found:
        while new and new[0][0] < span.tag:
            parts.append(new.pop(0)[1])
        if span.tag in edits:
            parts.append(edits[span.tag] or b"")
        elif span.tag & 0xFFFF or span.tag >> 16 not in groups:
            parts.append(data[span.start : span.end])
    return b"".join((*parts, *(made for _, made in new)))
