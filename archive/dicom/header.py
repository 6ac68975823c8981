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

from archive.dicom import uids
from archive.dicom.charset import Charset, charset_of
from archive.dicom.collect import Found, Other, collect
from archive.dicom.condense import readable
from archive.dicom.dictionary import keyword_of
from archive.dicom.elements import CUT_SHORT, Buffer, name
from archive.dicom.encoding import IMPLICIT_LE, NUMBERS, TEXT_VRS, UNDEFINED, Encoding, encoding_of, guess_encoding
from archive.dicom.limits import LIMITS, Limits
from archive.dicom.tree import DataSet, Tree
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


def read_header(
    data: Buffer,
    transfer_syntax: str,
    wanted: Collection[int] = (),
    *,
    default_charset: str = "",
    lenient_uids: bool = True,
    limits: Limits = LIMITS,
) -> Header:
    """The header of a data set (no file meta information before it) that came in ``transfer_syntax``."""
    facts, tags = uids.transfer_syntax(transfer_syntax), prepared(wanted)
    if not len(data):
        raise NotUnderstood("Data set is empty")
    if facts.deflated:
        data = readable(data, tags | tags.unasked, limits)
    encoding = encoding_of(facts)
    walk = Tree(data, facts.encapsulated, limits)
    try:
        found = collect(walk, encoding, tags.plan(encoding))
        values = _values(walk, encoding, tags, found, default_charset)
    except struct.error as error:
        raise _explained(NotUnderstood(CUT_SHORT), data, encoding) from error
    except NotUnderstood as error:
        raise _explained(error, data, encoding) from error
    return _header(values, tags, default_charset, lenient_uids)


def _values(walk: Tree, encoding: Encoding, tags: Wanted, found: Found, default_charset: str) -> dict[int, str]:
    """Tag to text, for all that was found."""
    values = _ascii_texts(found, walk.limits)
    if values is None:
        values = _other_texts(found, tags.plan(encoding), encoding, default_charset, walk.limits)
    charset = charset_of(values.get(SPECIFIC_CHARACTER_SET) or default_charset)
    values.update(found.numbers)
    for other in found.others:
        values[other.plan.tag] = _text(walk, encoding, tags, other, charset)
    if len(values) != len(found.tags) + len(found.numbers) + len(found.others):
        raise NotUnderstood("Indexed element is there twice")
    return values


def _ascii_texts(found: Found, limits: Limits) -> dict[int, str] | None:
    """All plain texts decoded in one stroke, if every one of them is ASCII, as in most objects."""
    joined = _END.join((*found.texts, b""))
    if not joined.isascii() or b"\x1b" in joined:
        return None
    joined = joined.replace(b" \x1e", _END).replace(b"\0\x1e", _END)  # the one character that makes a length even
    texts = joined.decode("ascii").split("\x1e")
    if len(texts) != len(found.tags) + 1:
        return None
    values = dict(zip(found.tags, texts, strict=False))
    if b"\0" in joined or b" \x1e" in joined or b"\x1e " in joined or joined.startswith(b" "):
        _check_nul(found)
        return {tag: _cleaned(text, limits) for tag, text in values.items()}
    if b"\\" in joined:
        values.update([(tag, _cleaned(text, limits)) for tag, text in values.items() if "\\" in text])
    return values


_END = b"\x1e"  # ASCII's record separator: no text of DICOM holds it (PS3.5 6.1.3), and if one does, it is counted


def _check_nul(found: Found) -> None:
    """NUL pads a UID; within one it would be dropped with the padding, and two objects would share a name."""
    for tag, raw in zip(found.tags, found.texts, strict=True):
        if tag in REQUIRED and b"\0" in raw.strip(b" \0"):
            raise InvalidUID(f"Invalid UID in {keyword_of(tag)}")


def _cleaned(text: str, limits: Limits) -> str:
    if text.count("\\") >= limits.values:
        raise NotUnderstood("Too many values in one element")
    return clean(text, "LO")


def _other_texts(
    found: Found, plan: Mapping[int, Plan], encoding: Encoding, default_charset: str, limits: Limits
) -> dict[int, str]:
    """The same, one by one, in the character set that one of them declares."""
    _check_nul(found)
    pairs = [(plan[encoding.raw(tag)], raw) for tag, raw in zip(found.tags, found.texts, strict=True)]
    declared = next((raw for entry, raw in pairs if entry.tag == SPECIFIC_CHARACTER_SET), b"")
    charset = charset_of(declared.decode("ascii", "replace").strip(" \0") or default_charset)
    return {entry.tag: text_of(raw, entry.vr, charset, limits=limits) or "" for entry, raw in pairs}


def _text(walk: Tree, encoding: Encoding, tags: Wanted, other: Other, charset: Charset) -> str:
    """The text of anything that is not plain text with the VR of the dictionary."""
    vr, plan, inner = other.vr, other.plan, encoding
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
        if not uids.is_uid(uid, lenient):
            raise InvalidUID(f"Invalid UID in {keyword_of(tag)}")
    sop_class, sop_instance, study, series = (values[tag] for tag in REQUIRED)
    terms = values.get(SPECIFIC_CHARACTER_SET) or default_charset
    for tag in tags.unasked:
        values.pop(tag, None)
    charset = tuple(terms.split("\\")) if terms else ()
    return Header(sop_class, sop_instance, study, series, values, charset)


def _explained(error: NotUnderstood, data: Buffer, encoding: Encoding) -> NotUnderstood:
    """The error itself, or that the data is in another encoding than was negotiated, if its first element says so."""
    actual = guess_encoding(bytes(data[:8]), len(data))
    if actual is None or actual is encoding:
        return error
    return NotUnderstood(f"Data set is {actual.name}, not {encoding.name}", str(error))
