"""Identifiers from values: the answers to queries, straight from rows.

Rules that hold here: all that does not depend on the row is done once, before the first; elements are sorted by tag
and padded to even length; a row that is ASCII is in every character set, any other is in the requester's if that
carries all of it and in UTF-8 if not, and Specific Character Set says which.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

from archive.dicom import uids
from archive.dicom.charset import UTF_8, Charset, charset_of
from archive.dicom.dictionary import keyword_of, tag_for_keyword, vr_of
from archive.dicom.encoding import TEXT_VRS, Encoding, encoding_of
from archive.dicom.inflate import RAW_DEFLATE
from archive.dicom.values import bytes_of
from archive.dicom.wanted import SPECIFIC_CHARACTER_SET

Row = Sequence[str | None]
Encode = Callable[[Row], bytes]

LONGEST_SHORT = 0xFFFE  # even values of a VR with a 16-bit length
TABLE = 1024  # lengths packed in advance; most values are below 64 bytes


class KeyLike(Protocol):
    """What is returned: an attribute, or a query's return with a constant of its own."""

    @property
    def tag(self) -> int: ...
    @property
    def vr(self) -> str: ...
    @property
    def items(self) -> Iterable[Any]: ...


Key = KeyLike | tuple[int, str, Sequence[Any]]


class _Column(NamedTuple):
    """One element of every answer."""

    tag: int
    vr: str
    items: tuple[_Column, ...]
    constant: str | None
    place: int  # of its value in the row


def _column(key: Any, place: int = 0) -> _Column:
    if isinstance(key, tuple) and not hasattr(key, "tag"):
        tag, vr, items, constant = key[0], key[1], key[2] if len(key) > 2 else (), None
    else:
        tag, vr, items, constant = key.tag, key.vr, key.items, getattr(key, "constant", None)
    return _Column(tag, vr, tuple(sorted(map(_column, items))), constant, place)


def encode_identifier(
    pairs: Iterable[tuple[Key, str | None]], transfer_syntax: str, charset: str | Sequence[str] = ""
) -> bytes:
    """One identifier from keys and their texts."""
    pairs = list(pairs)
    return prepare([key for key, _ in pairs], transfer_syntax, charset)(tuple(text for _, text in pairs))


def prepare(returns: Iterable[Key], transfer_syntax: str, charset: str | Sequence[str] = "") -> Encode:
    """A function from a row, in the order of ``returns``, to the bytes of its identifier.

    Texts are as the index holds them; None and "" are returned empty; sequences are JSON lists of objects by keyword.
    """
    facts = uids.transfer_syntax(transfer_syntax)
    columns = {column.tag: column for column in reversed([_column(key, at) for at, key in enumerate(returns)])}
    columns.pop(SPECIFIC_CHARACTER_SET, None)
    declared = charset_of(charset if isinstance(charset, str) else tuple(charset))
    writer = _Writer(encoding_of(facts), [columns[tag] for tag in sorted(columns)], declared)
    return writer.deflated if facts.deflated else writer.encode


class _Step(NamedTuple):
    """What an answer needs for one value: everything up to the length, then the length by number of bytes."""

    prefix: bytes
    lengths: Sequence[bytes]
    padding: bytes
    place: int
    column: _Column | None  # set when the value is no plain text


class _Writer:
    """The prepared parts of one request's answers."""

    def __init__(self, encoding: Encoding, columns: list[_Column], declared: Charset) -> None:
        self._encoding, self._columns = encoding, columns
        self._declared = declared if declared.known else charset_of("")
        self._lengths = _packed_lengths(encoding)
        self._steps, self._tail = self._prepare()

    def _prepare(self) -> tuple[list[_Step], bytes]:
        steps: list[_Step] = []
        static, first = b"", [column.tag < SPECIFIC_CHARACTER_SET for column in self._columns].count(True)
        for at, column in enumerate(self._columns):
            static += self._charset_element(self._declared) if at == first else b""
            constant = self._element(column, column.constant, self._declared) if column.constant is not None else None
            if constant is not None:
                static += constant
                continue
            plain = column.vr in TEXT_VRS and column.constant is None
            steps.append(self._plain_step(static, column) if plain else _Step(static, (), b"", column.place, column))
            static = b""
        return steps, static

    def _plain_step(self, static: bytes, column: _Column) -> _Step:
        prefix, wide = self._start(column.tag, column.vr)
        return _Step(static + prefix, self._lengths[wide], b"\0" if column.vr == "UI" else b" ", column.place, None)

    def encode(self, row: Row) -> bytes:
        """The identifier of one row."""
        out: list[bytes] = []
        try:
            for prefix, lengths, padding, place, column in self._steps:
                value = row[place]
                if column is None:
                    raw = value.encode("ascii") if value else b""
                    size = len(raw)
                    if size & 1:
                        raw += padding
                        size += 1
                    out += (prefix, lengths[size], raw)
                    continue
                element = self._element(column, _text(column, row), self._declared)
                if element is None:
                    return self._encode_in_one_set(row)
                out += (prefix, element)
        except (UnicodeEncodeError, IndexError):  # not ASCII, or longer than the table
            return self._encode_in_one_set(row)
        out.append(self._tail)
        return b"".join(out)

    def deflated(self, row: Row) -> bytes:
        """The same, deflated (PS3.5 A.5)."""
        deflater = zlib.compressobj(wbits=RAW_DEFLATE)
        raw = deflater.compress(self.encode(row)) + deflater.flush()
        return raw + b"\0" if len(raw) & 1 else raw

    def _encode_in_one_set(self, row: Row) -> bytes:
        """A row with text beyond ASCII: in the requester's set, or in UTF-8."""
        for charset in (self._declared, charset_of(UTF_8)):
            elements = {SPECIFIC_CHARACTER_SET: self._charset_element(charset)}
            for column in self._columns:
                element = self._element(column, _text(column, row), charset)
                if element is None:
                    break
                elements[column.tag] = element
            else:
                return b"".join(elements[tag] for tag in sorted(elements))
        raise AssertionError("UTF-8 carries every text")

    def _charset_element(self, charset: Charset) -> bytes:
        terms = charset.defined_terms
        return self._assembled(SPECIFIC_CHARACTER_SET, "CS", _even(terms.encode("ascii"), "CS")) if terms else b""

    def _element(self, column: _Column, text: str | None, charset: Charset) -> bytes | None:
        """One whole element; None when the set cannot carry it. What is no value of its VR is returned empty."""
        if column.vr == "SQ":
            raw = self._items(column, text, charset)
        elif not text:
            raw = b""
        elif charset.alone == "utf-8" and column.vr in TEXT_VRS:
            raw = _even(text.encode("utf-8", "replace"), column.vr)
        else:
            raw = bytes_of(text, column.vr, charset, self._encoding.big)
            if raw is None and column.vr not in TEXT_VRS:
                raw = b""
        return None if raw is None else self._assembled(column.tag, column.vr, raw)

    def _items(self, column: _Column, text: str | None, charset: Charset) -> bytes | None:
        """The items of a sequence from their JSON text, with the keys asked for or, if none was, with all."""
        try:
            items = json.loads(text) if text else []
        except ValueError:
            items = []
        return self._encoded_items(column.items, items, charset)

    def _encoded_items(self, wanted: tuple[_Column, ...], items: Any, charset: Charset) -> bytes | None:
        out: list[bytes] = []
        for item in filter(_is_item, items if isinstance(items, list) else ()):
            elements = [self._item_element(column, item, charset) for column in wanted or _columns_of(item)]
            if None in elements:
                return None
            body = b"".join(element for element in elements if element)
            out += (self._encoding.length.pack(self._encoding.item), self._encoding.length.pack(len(body)), body)
        return b"".join(out)

    def _item_element(self, column: _Column, item: dict[str, Any], charset: Charset) -> bytes | None:
        value = item.get(keyword_of(column.tag))
        if column.vr == "SQ":
            raw = self._encoded_items(column.items, value, charset)
            return None if raw is None else self._assembled(column.tag, "SQ", raw)
        return self._element(column, value if isinstance(value, str) else None, charset)

    def _start(self, tag: int, vr: str) -> tuple[bytes, bool]:
        """All of an element before its length, and whether the length has 32 bits."""
        encoding = self._encoding
        raw = encoding.length.pack(encoding.raw(tag))
        if not encoding.explicit:
            return raw, True
        wide = encoding.code(vr) not in encoding.short
        return raw + vr.encode("ascii") + (b"\0\0" if wide else b""), wide

    def _assembled(self, tag: int, vr: str, raw: bytes) -> bytes:
        prefix, wide = self._start(tag, vr)
        if not wide and len(raw) > LONGEST_SHORT:
            prefix, wide = self._start(tag, "UN")  # PS3.5 6.2.2, note 3
        return prefix + (self._encoding.length.pack(len(raw)) if wide else self._short_length(len(raw))) + raw

    def _short_length(self, size: int) -> bytes:
        return size.to_bytes(2, "big" if self._encoding.big else "little")


@lru_cache(maxsize=8)
def _packed_lengths(encoding: Encoding) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """Lengths in 16 bits and in 32, by number."""
    order: Literal["big", "little"] = "big" if encoding.big else "little"
    return tuple(n.to_bytes(2, order) for n in range(TABLE)), tuple(n.to_bytes(4, order) for n in range(TABLE))


def _is_item(item: Any) -> bool:
    return isinstance(item, dict)


def _text(column: _Column, row: Row) -> str | None:
    return column.constant if column.constant is not None else row[column.place]


def _columns_of(item: dict[str, Any]) -> tuple[_Column, ...]:
    """Every attribute of an item that the dictionary knows."""
    tags = {tag for tag in map(_tag, item) if tag}
    return tuple(_Column(tag, vr_of(tag).split(" or ")[0], (), None, 0) for tag in sorted(tags))


def _tag(keyword: str) -> int | None:
    return tag_for_keyword(keyword)


def _even(raw: bytes, vr: str) -> bytes:
    return raw + (b"\0" if vr == "UI" else b" ") if len(raw) & 1 else raw
