"""The header of an object: one bounded pass over its whole data set.

Rules that hold here: every element up to the last byte is walked, so an object that was cut short or that holds
something else is refused; only wanted values are copied; pixel data is stepped over, never read; an indexed
attribute must be there once and be readable, others may be as broken as they like within their length; nothing
but NotUnderstood and InvalidUID leaves this module.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from archive.dicom.charset import Charset, charset_of
from archive.dicom.condense import readable
from archive.dicom.dictionary import MISPLACED_GROUPS, keyword_of
from archive.dicom.elements import CUT_SHORT, IMPLICIT_HEADS, Buffer, name
from archive.dicom.encoding import (
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    NUMBERS,
    TEXT_VRS,
    UNDEFINED,
    Encoding,
    encoding_of,
)
from archive.dicom.limits import LIMITS, Limits
from archive.dicom.tree import DataSet, Tree
from archive.dicom.uids import is_uid, transfer_syntax
from archive.dicom.values import clean, text_of
from archive.dicom.wanted import REQUIRED, SPECIFIC_CHARACTER_SET, Plan, Wanted, prepared
from archive.errors import InvalidUID, NotUnderstood


@dataclass(frozen=True, slots=True)
class Header:
    """What the index needs to know of an object."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    values: Mapping[int, str]  # tag -> text of every wanted attribute that is there; sequences as JSON text
    charset: tuple[str, ...]  # what the texts were decoded by


# Groups with which the data sets of composite objects begin (PS3.6): identification, or patient when that is lost.
FIRST_GROUPS = (0x0008, 0x0010)


class _Found:
    """The wanted elements of one pass: plain texts apart from all that needs thought."""

    __slots__ = ("tags", "texts", "others")

    def __init__(self) -> None:
        self.tags: list[int] = []
        self.texts: list[bytes] = []  # beside their tags
        self.others: list[_Other] = []


class _Other(NamedTuple):
    raw: int
    vr: str
    plan: Plan
    value: bytes  # empty for sequences
    start: int
    length: int


def read_header(
    data: Buffer,
    syntax: str,
    wanted: Collection[int] = (),
    *,
    default_charset: str = "",
    lenient_uids: bool = True,
    limits: Limits = LIMITS,
) -> Header:
    """The header of a data set (no file meta information before it) that came in the transfer syntax ``syntax``."""
    facts, tags = transfer_syntax(syntax), prepared(wanted)
    if not len(data):
        raise NotUnderstood("Data set is empty")
    if facts.deflated:
        data = readable(data, tags | tags.unasked, limits)
    encoding = encoding_of(facts)
    walk = Tree(data, facts.encapsulated, limits)
    try:
        _check_first(data, encoding)
        collect = _collect_explicit if encoding.explicit else _collect_implicit
        values = _values(walk, encoding, tags, collect(walk, encoding, tags.plan(encoding)), default_charset)
    except struct.error as error:
        raise _explained(NotUnderstood(CUT_SHORT), data, encoding) from error
    except NotUnderstood as error:
        raise _explained(error, data, encoding) from error
    return _header(values, tags, default_charset, lenient_uids)


def _check_first(data: Buffer, encoding: Encoding) -> None:
    raw = IMPLICIT_HEADS[encoding.big](data, 0)[0]
    if encoding.tag(raw) >> 16 in MISPLACED_GROUPS:
        raise NotUnderstood("Data set begins with group 0000 or 0002", name(encoding, raw))


def _collect_explicit(walk: Tree, encoding: Encoding, wanted: Mapping[int, Plan]) -> _Found:
    """The wanted elements of the top level. Written for speed: most elements cost one unpack and two look-ups."""
    found, data, size, unpack, short = _Found(), walk.data, walk.size, encoding.head.unpack_from, encoding.short
    get, add_tag, add_text = wanted.get, found.tags.append, found.texts.append
    pos = 0
    for _ in range(walk.limits.elements):
        raw, code, length = unpack(data, pos)
        pos += 8
        plan = get(raw)
        if code in short:
            if plan is not None:
                if plan[1] == code:
                    add_tag(plan[0])
                    add_text(bytes(data[pos : pos + length]))
                else:
                    _take(walk, encoding, found, plan, raw, code, pos, length)
            pos += length
        else:
            start, pos = pos, walk.skip_other(raw, code, length, pos, encoding, 0)
            if plan is not None:
                _take_long(walk, encoding, found, plan, raw, code, start)
            elif raw == encoding.pixel_data and walk.encapsulated:
                _check_encapsulated(walk, encoding, start)
        if pos >= size:
            break
    else:
        raise NotUnderstood("Too many elements")
    if pos != size:
        raise NotUnderstood(CUT_SHORT)
    return found


def _collect_implicit(walk: Tree, encoding: Encoding, wanted: Mapping[int, Plan]) -> _Found:
    """As ``_collect_explicit``, with VRs from the dictionary."""
    found, data, size, unpack, special = _Found(), walk.data, walk.size, encoding.head.unpack_from, encoding.special
    get, add_tag, add_text, text = wanted.get, found.tags.append, found.texts.append, walk.limits.text
    pos = 0
    for _ in range(walk.limits.elements):
        raw, length = unpack(data, pos)
        start = pos = pos + 8
        if length <= text and raw not in special:
            pos += length
        else:
            pos = walk.skip_implicit_other(raw, length, pos, encoding, 0)
        plan = get(raw)
        if plan is not None:
            if plan[1] == 0 and length <= text:
                add_tag(plan[0])
                add_text(bytes(data[start : start + length]))
            else:
                _take(walk, encoding, found, plan, raw, 0, start, length)
        if pos >= size:
            break
    else:
        raise NotUnderstood("Too many elements")
    if pos != size:
        raise NotUnderstood(CUT_SHORT)
    return found


def _check_encapsulated(walk: Tree, encoding: Encoding, start: int) -> None:
    """PS3.5 A.4: pixel data of the top level is in fragments, or empty."""
    if encoding.length.unpack_from(walk.data, start)[0] not in (0, UNDEFINED):
        raise NotUnderstood("Native pixel data in a compressed transfer syntax")


def _take_long(walk: Tree, encoding: Encoding, found: _Found, plan: Plan, raw: int, code: int, start: int) -> None:
    """A wanted explicit element with a 32-bit length."""
    if code not in encoding.vrs:
        raise NotUnderstood(f"Indexed element {name(encoding, raw)} has an unknown VR")
    (length,) = encoding.length.unpack_from(walk.data, start)
    _take(walk, encoding, found, plan, raw, code, start + 4, length)


def _take(
    walk: Tree, encoding: Encoding, found: _Found, plan: Plan, raw: int, code: int, start: int, length: int
) -> None:
    """A wanted element that is not plain text with the VR of the dictionary."""
    if plan.kind == "forbidden":
        raise NotUnderstood(f"Element {name(encoding, raw)} has no place in a data set")
    vr = encoding.vrs[code] if code else plan.vr
    if length == UNDEFINED or vr == "SQ":
        value = b""
    elif length > walk.limits.text:
        raise NotUnderstood(f"Indexed element {name(encoding, raw)} is too long")
    else:
        value = bytes(walk.data[start : start + length])
    found.others.append(_Other(raw, vr, plan, value, start, length))


def _values(walk: Tree, encoding: Encoding, tags: Wanted, found: _Found, default_charset: str) -> dict[int, str]:
    """Tag to text, for all that was found."""
    values = _ascii_texts(found, walk.limits)
    if values is None:
        values = _other_texts(found, tags.plan(encoding), encoding, default_charset, walk.limits)
    charset = charset_of(values.get(SPECIFIC_CHARACTER_SET) or default_charset)
    for other in found.others:
        values[other.plan.tag] = _text(walk, encoding, tags, other, charset)
    if len(values) != len(found.tags) + len(found.others):
        raise NotUnderstood("Indexed element is there twice")
    return values


def _ascii_texts(found: _Found, limits: Limits) -> dict[int, str] | None:
    """All plain texts decoded in one stroke, if every one of them is ASCII, as in most objects."""
    joined = _BETWEEN.join(found.texts)
    if not joined.isascii() or b"\x1b" in joined:
        return None
    texts = joined.decode("ascii").split("\x1e")
    if len(texts) != len(found.tags):
        return None
    values = {tag: text.strip(" \0") for tag, text in zip(found.tags, texts, strict=True)}
    if b"\\" in joined or b"\0" in joined:
        for tag, text in values.items():
            if "\\" in text or "\0" in text:
                values[tag] = _several(text, limits)
    return values


_BETWEEN = b"\x1e"  # ASCII's record separator: no text of DICOM holds it (PS3.5 6.1.3), and if one does, it is counted


def _several(text: str, limits: Limits) -> str:
    if text.count("\\") >= limits.values:
        raise NotUnderstood("Too many values in one element")
    return clean(text, "LO")


def _other_texts(
    found: _Found, plan: Mapping[int, Plan], encoding: Encoding, default_charset: str, limits: Limits
) -> dict[int, str]:
    """The same, one by one, in the character set that one of them declares."""
    pairs = [(plan[encoding.raw(tag)], raw) for tag, raw in zip(found.tags, found.texts, strict=True)]
    declared = next((raw for entry, raw in pairs if entry.tag == SPECIFIC_CHARACTER_SET), b"")
    charset = charset_of(declared.decode("ascii", "replace").strip(" \0") or default_charset)
    return {entry.tag: text_of(raw, entry.vr, charset, limits=limits) or "" for entry, raw in pairs}


def _text(walk: Tree, encoding: Encoding, tags: Wanted, other: _Other, charset: Charset) -> str:
    """The text of anything that is not plain text with the VR of the dictionary."""
    vr, plan, inner = other.vr, other.plan, encoding
    if vr == "US" and other.length == 2 and plan.kind == "number":  # Rows, Columns, …: in every image
        return str(int.from_bytes(other.value, "big" if encoding.big else "little"))
    if vr == "UN":  # PS3.5 6.2.2: a known attribute under another name, Implicit LE inside
        vr, inner = ("SQ" if other.length == UNDEFINED else plan.vr), IMPLICIT_LE
    if vr == "SQ" and plan.kind == "sequence":
        if not other.length:
            return "[]"
        return _json(walk.items(other.start, other.length, inner, 0, charset, tags.inside(plan.tag))[0], walk.limits)
    if plan.kind == "other":
        return ""  # bytes have no text, but being there is worth knowing
    if plan.kind == "text" and vr in TEXT_VRS:
        return text_of(other.value, plan.vr if plan.vr in TEXT_VRS else vr, charset, limits=walk.limits) or ""
    if plan.kind == "number" and vr in NUMBERS:
        return text_of(other.value, vr, charset, inner.big, walk.limits) or ""
    raise NotUnderstood(f"Indexed element {name(encoding, other.raw)} has VR {vr}, not {plan.vr}")


def _json(items: list[DataSet], limits: Limits) -> str:
    text = json.dumps([_plain(item) for item in items], ensure_ascii=False)
    if len(text) > limits.text:
        raise NotUnderstood("Indexed sequence is too long")
    return text


def _plain(item: DataSet) -> dict[str, object]:
    return {
        keyword_of(tag): element.value if isinstance(element.value, str) else [_plain(inner) for inner in element.value]
        for tag, element in item.items()
    }


def _header(values: dict[int, str], tags: Wanted, default_charset: str, lenient: bool) -> Header:
    for tag in REQUIRED:
        uid = values.get(tag)
        if not uid:
            raise NotUnderstood(f"{keyword_of(tag)} is missing")
        if not is_uid(uid, lenient):
            raise InvalidUID(f"Invalid UID in {keyword_of(tag)}")
    sop_class, sop_instance, study, series = (values[tag] for tag in REQUIRED)
    terms = values.get(SPECIFIC_CHARACTER_SET) or default_charset
    for tag in tags.unasked:
        values.pop(tag, None)
    charset = tuple(terms.split("\\")) if terms else ()
    return Header(sop_class, sop_instance, study, series, values, charset)


def _explained(error: NotUnderstood, data: Buffer, encoding: Encoding) -> NotUnderstood:
    """The error itself, or that the data is in another encoding than was negotiated, if its first element says so."""
    actual = guess_encoding(data[:8], len(data))
    if actual is None or actual is encoding:
        return error
    return NotUnderstood(f"Data set is {actual.name}, not {encoding.name}", str(error))


def guess_encoding(head: Buffer, size: int) -> Encoding | None:
    """The encoding that the first 8 bytes of a data set speak of, if they are plausible at all."""
    if len(head) < 8:
        return None
    for encoding in (EXPLICIT_LE, EXPLICIT_BE):
        raw, code, _ = encoding.head.unpack(head)
        if code in encoding.vrs and encoding.tag(raw) >> 16 in FIRST_GROUPS:
            return encoding
    raw, length = IMPLICIT_LE.head.unpack(head)
    return IMPLICIT_LE if IMPLICIT_LE.tag(raw) >> 16 in FIRST_GROUPS and length <= size - 8 else None
