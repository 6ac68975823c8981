"""Bytes of text values to Unicode and back, by Specific Character Set (0008,0005).

Rules that hold here: nothing raises, whatever was declared or sent; what cannot be decoded becomes
U+FFFD and the result says that it is not sound; escape sequences are honoured whether or not their set
was declared; sets that stand alone (UTF-8, GB18030, GBK) know no escapes; misspelt terms are understood;
what cannot be encoded is None, never a question mark.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

REPLACEMENT = "\ufffd"
UTF_8 = "ISO_IR 192"

_HIGH = bytes(byte | 0x80 for byte in range(256))
_LOW = bytes(byte & 0x7F for byte in range(256))

# JIS X 0201: ASCII (yen sign and overline keep their ASCII meaning, as delimiters must) and half-width katakana.
_JIS_X_0201 = (
    "".join(map(chr, range(0x80))) + "\ufffe" * 0x21 + "".join(map(chr, range(0xFF61, 0xFFA0))) + "\ufffe" * 0x20
)
_JIS_X_0201_BACK = {char: code for code, char in enumerate(_JIS_X_0201) if char != "\ufffe"}


@dataclass(frozen=True, slots=True)
class CodeElement:
    """A set of characters that an escape sequence brings into G0 or G1 (ISO 2022)."""

    number: int  # ISO-IR registration number
    escape: bytes
    codec: str
    width: int = 1  # bytes a character
    slot: int = 1  # 0: bytes below 0x80, 1: bytes above
    prefix: bytes = b""  # what the codec wants before each character

    def decode(self, raw: bytes, errors: str) -> str:
        """Text of bytes in this set, or in ASCII where they are below 0x80 and the slot is 1."""
        if self.codec == "jis_x_0201":
            return codecs.charmap_decode(raw, errors, _JIS_X_0201)[0]
        if self.slot == 0:
            pairs = raw.translate(_HIGH)
            raw = b"".join(self.prefix + pairs[at : at + 2] for at in range(0, len(pairs), 2))
        return raw.decode(self.codec, errors)

    def encode(self, char: str) -> bytes | None:
        """The bytes of one character that is not ASCII; None when the set does not hold it."""
        try:
            if self.codec == "jis_x_0201":
                return bytes((_JIS_X_0201_BACK[char],))
            raw = char.encode(self.codec)
        except (UnicodeEncodeError, KeyError):
            return None
        if not raw.startswith(self.prefix) or len(raw) != len(self.prefix) + self.width or min(raw) < 0x80:
            return None
        raw = raw[len(self.prefix) :]
        if self.width == 2 and raw[0] == 0x8E:  # EUC's half-width katakana, which is another set
            return None
        return raw if self.slot else raw.translate(_LOW)


# PS3.3 tables C.12-2, C.12-3 and C.12-4.
_ELEMENTS: dict[int, CodeElement] = {
    element.number: element
    for element in (
        CodeElement(100, b"\x1b-A", "iso8859_1"),
        CodeElement(101, b"\x1b-B", "iso8859_2"),
        CodeElement(109, b"\x1b-C", "iso8859_3"),
        CodeElement(110, b"\x1b-D", "iso8859_4"),
        CodeElement(144, b"\x1b-L", "iso8859_5"),
        CodeElement(127, b"\x1b-G", "iso8859_6"),
        CodeElement(126, b"\x1b-F", "iso8859_7"),
        CodeElement(138, b"\x1b-H", "iso8859_8"),
        CodeElement(148, b"\x1b-M", "iso8859_9"),
        CodeElement(203, b"\x1b-b", "iso8859_15"),
        CodeElement(166, b"\x1b-T", "tis_620"),
        CodeElement(13, b"\x1b)I", "jis_x_0201"),
        CodeElement(87, b"\x1b$B", "euc_jp", 2, 0),
        CodeElement(159, b"\x1b$(D", "euc_jp", 2, 0, b"\x8f"),
        CodeElement(149, b"\x1b$)C", "euc_kr", 2),
        CodeElement(58, b"\x1b$)A", "gb2312", 2),
    )
}
_BY_ESCAPE = {element.escape: element for element in _ELEMENTS.values()} | {b"\x1b$@": _ELEMENTS[87]}
_ASCII_ESCAPES = (b"\x1b(B", b"\x1b(J")  # back to one byte a character in G0: ISO-IR 6, ISO-IR 14
_ALONE = {192: "utf-8", 18030: "gb18030", 936: "gbk"}
_ALONE_TERMS = {"utf-8": UTF_8, "gb18030": "GB18030", "gbk": "GBK"}

# What people write instead of the defined terms, after letters and digits alone are kept.
_SPELLINGS = {
    "": 6, "ASCII": 6, "USASCII": 6, "ISO646": 6, "LATIN1": 100, "LATIN2": 101, "LATIN3": 109, "LATIN4": 110,
    "LATIN5": 148, "LATIN9": 203, "CYRILLIC": 144, "ARABIC": 127, "GREEK": 126, "HEBREW": 138, "THAI": 166,
    "UTF8": 192, "UNICODE": 192, "GB18030": 18030, "GBK": 936, "ISO2022GBK": 936, "CP936": 936, "GB2312": 58,
    "ISO202258": 58, "EUCKR": 149, "KSC5601": 149, "ISO88591": 100, "ISO88592": 101, "ISO88593": 109, "ISO88594": 110,
    "ISO88595": 144, "ISO88596": 127, "ISO88597": 126, "ISO88598": 138, "ISO88599": 148, "ISO885911": 166,
    "ISO885915": 203, "WINDOWS1252": 100, "CP1252": 100,
}  # fmt: skip
_REGISTERED = re.compile(r"(?:ISO)?(?:2022)?(?:IR)?0*([0-9]+)").fullmatch
_NOISE = re.compile(r"[^A-Z0-9]+")


def _number(term: str) -> int | None:
    """The registration number behind a term, 6 for none, None for a term that nobody knows."""
    spelling = _NOISE.sub("", term.upper())
    if spelling in _SPELLINGS:
        return _SPELLINGS[spelling]
    match = _REGISTERED(spelling)
    number = int(match[1]) if match and len(match[1]) < 6 else None
    return number if number in _ELEMENTS or number in _ALONE or number in (6, 14) else None


@dataclass(frozen=True, slots=True)
class Charset:
    """The declared terms, resolved."""

    terms: tuple[str, ...]
    alone: str  # codec of a set that stands alone, or ""
    initial: CodeElement | None  # G1 at the start and after each delimiter
    romaji: bool  # G0 is JIS X 0201 Romaji rather than ASCII
    elements: tuple[CodeElement, ...]  # every declared set, in the order of the terms
    known: bool  # every term was understood

    @property
    def fallback(self) -> CodeElement | None:
        """What bytes above 0x7F mean to writers who forgot the escape sequence."""
        return self.initial or next((element for element in self.elements if element.slot == 1), None)

    @property
    def defined_terms(self) -> str:
        """The value of (0008,0005) that declares this set, spelled as PS3.3 C.12.1.1.2 does; "" for ASCII alone."""
        if self.alone:
            return _ALONE_TERMS[self.alone]
        if len(self.terms) == 1 and (not self.elements or self.elements[0].width == 1):
            return f"ISO_IR {self.elements[0].number}" if self.elements else ""
        terms = [f"ISO 2022 IR {element.number}" for element in self.elements]
        return "\\".join(terms if self.initial else ["", *terms])  # sets of two bytes are never value 1


@lru_cache(maxsize=256)
def charset_of(terms: str | tuple[str, ...]) -> Charset:
    """The set declared by the value(s) of (0008,0005); "" is the default repertoire, ASCII."""
    if isinstance(terms, str):
        terms = tuple(terms.split("\\"))
    numbers = [_number(term) for term in terms[:16]]  # the standard defines fewer than 20 sets in all
    alone = next((_ALONE[number] for number in numbers if number in _ALONE), "")
    elements = tuple(_ELEMENTS[number] for number in numbers if number in _ELEMENTS)
    first = _ELEMENTS.get(numbers[0] or 6) if numbers else None
    return Charset(
        terms=tuple(term.strip() for term in terms),
        alone=alone,
        initial=first if first and first.width == 1 else None,
        romaji=bool(numbers) and numbers[0] in (13, 14),
        elements=elements,
        known=None not in numbers,
    )


# PS3.5 6.1.2.5.3: where the sets of value 1 are active again.
_RESET = re.compile(rb"[\\\t\n\f\r]").search
_RESET_NAME = re.compile(rb"[\\^=\t\n\f\r]").search
_RESET_CONTROL = re.compile(rb"[\t\n\f\r]").search
_ESCAPE = re.compile(rb"(\x1b(?:\$[()]?[@-D]|[-()][A-Za-z]))")
_PAIRS = re.compile(rb"([\x21-\x7e]+)")


def decode_text(raw: bytes, charset: Charset, person_name: bool = False) -> tuple[str, bool]:
    """Unicode text of a value and whether every byte was understood."""
    if charset.alone:
        return _decode_all(raw, lambda part, errors: part.decode(charset.alone, errors), charset.known)
    if b"\x1b" in raw:
        return _decode_extended(raw, charset, _RESET_NAME if person_name else _RESET)
    if charset.initial:
        return _decode_all(raw, charset.initial.decode, charset.known)
    if raw.isascii():
        return raw.decode("ascii"), charset.known
    return _decode_undeclared(raw, charset)


def _decode_all(raw: bytes, decode: Callable[[bytes, str], str], known: bool) -> tuple[str, bool]:
    try:
        return decode(raw, "strict"), known
    except UnicodeDecodeError:
        return decode(raw, "replace"), False


def _decode_undeclared(raw: bytes, charset: Charset) -> tuple[str, bool]:
    """Bytes above 0x7F where none may be: the declared set without its escape, UTF-8 if it fits, else replaced."""
    for decode in (charset.fallback.decode if charset.fallback else None, lambda part, _: part.decode("utf-8")):
        if decode:
            try:
                return decode(raw, "strict"), False
            except UnicodeDecodeError:
                continue
    return raw.decode("ascii", "replace"), False


def _decode_extended(
    raw: bytes, charset: Charset, reset: Callable[[bytes], re.Match[bytes] | None]
) -> tuple[str, bool]:
    """Code extension by ISO 2022: pieces between escape sequences, each in the sets that are active there."""
    g0: CodeElement | None = None
    g1, sound, out = charset.initial, charset.known, []
    for piece in _ESCAPE.split(raw):
        if piece in _ASCII_ESCAPES:
            g0 = None
        elif piece in _BY_ESCAPE:
            element = _BY_ESCAPE[piece]
            g0, g1 = (element, g1) if element.slot == 0 else (g0, element)
        elif piece:
            boundary = (_RESET_CONTROL if g0 else reset)(piece)
            cut = boundary.start() if boundary else len(piece)
            for part, in_g0, in_g1 in ((piece[:cut], g0, g1), (piece[cut:], None, charset.initial or g1)):
                text, good = _decode_piece(part, in_g0, in_g1)
                out.append(text)
                sound = sound and good
            if boundary:
                g0, g1 = None, charset.initial or g1  # a set left in G1 does no harm where value 1 names none
    return "".join(out), sound


def _decode_piece(raw: bytes, g0: CodeElement | None, g1: CodeElement | None) -> tuple[str, bool]:
    if not raw:
        return "", True
    if g0 is None:
        return _decode_single(raw, g1)
    parts = [
        _decode_all(part, g0.decode, True) if index % 2 else _decode_single(part, g1)
        for index, part in enumerate(_PAIRS.split(raw))
    ]
    return "".join(text for text, _ in parts), all(good for _, good in parts)


def _decode_single(raw: bytes, g1: CodeElement | None) -> tuple[str, bool]:
    text, good = _decode_all(raw, g1.decode if g1 else lambda part, errors: part.decode("ascii", errors), True)
    return (text.replace("\x1b", REPLACEMENT), False) if "\x1b" in text else (text, good)


def encode_text(text: str, charset: Charset | str | tuple[str, ...]) -> bytes | None:
    """The bytes of a text, or None when the set cannot carry all of it."""
    if not isinstance(charset, Charset):
        charset = charset_of(charset)
    if text.isascii() and ("\x1b" not in text or charset.alone):
        return text.encode("ascii")
    if charset.alone:
        try:
            return text.encode(charset.alone)
        except UnicodeEncodeError:
            return None
    return _encode_extended(text, charset)


def _encode_extended(text: str, charset: Charset) -> bytes | None:
    """Single-byte sets and code extension: the active sets first, then the declared ones in their order."""
    back = b"\x1b(J" if charset.romaji else b"\x1b(B"
    initial_escape = charset.initial.escape if charset.initial else b""
    g0: CodeElement | None = None
    g1, out = charset.initial, bytearray()
    for char in text:
        if char < "\x80":
            out += back if g0 else b""
            g0 = None
            if char in "\\^=\t\n\f\r" and g1 is not charset.initial:
                out += initial_escape
                g1 = charset.initial
            out += char.encode("ascii")
            continue
        found = _find(char, g0, g1, charset)
        if found is None:
            return None
        element, raw = found
        if element is not g0 and element is not g1:
            out += element.escape
            g0, g1 = (element, g1) if element.slot == 0 else (g0, element)
        out += raw
    if "\x1b" in text:
        return None
    return bytes(out + (back if g0 else b"") + (initial_escape if g1 is not charset.initial else b""))


def _find(
    char: str, g0: CodeElement | None, g1: CodeElement | None, charset: Charset
) -> tuple[CodeElement, bytes] | None:
    for element in (g0, g1, *charset.elements):
        raw = element.encode(char) if element else None
        if element and raw:
            return element, raw
    return None
