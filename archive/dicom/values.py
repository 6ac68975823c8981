"""The bytes of one value to Unicode text and back, by value representation (PS3.5 6.2).

Rules that hold here: the text is what DICOM writes, several values joined by backslash, padding taken off;
numbers are written in decimal, tags as eight hexadecimal digits; a NUL inside a text is dropped, because no
database keeps it; a value that does not fit its VR is the caller's to refuse, a character set never is.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from archive.dicom.charset import Charset, decode_text, encode_text
from archive.dicom.encoding import NUMBERS, TEXT_VRS, vrs
from archive.dicom.limits import LIMITS, Limits
from archive.errors import NotUnderstood

# PS3.5 6.1.2.2 and 6.2: whose characters follow Specific Character Set, and where backslash is a character.
CHARSET_VRS = vrs("LO LT PN SH ST UC UT")
SINGLE_VRS = vrs("LT ST UR UT")
LEADING_VRS = SINGLE_VRS | {"UC"}  # leading spaces are significant


def clean(text: str, vr: str) -> str:
    """A decoded text without its padding."""
    if vr in LEADING_VRS:
        text = text.rstrip(" \0")
    elif "\\" in text:
        text = "\\".join([value.strip(" \0") for value in text.split("\\")])
    else:
        text = text.strip(" \0")
    return text.replace("\0", "") if "\0" in text else text


def text_of(raw: bytes, vr: str, charset: Charset, big: bool = False, limits: Limits = LIMITS) -> str | None:
    """The text of a value; None when its VR has none (OB, OW, …)."""
    if vr in TEXT_VRS:
        return _text(raw, vr, charset, limits)
    if vr in NUMBERS:
        return _numbers(raw, vr, big, limits)
    return None


def _text(raw: bytes, vr: str, charset: Charset, limits: Limits) -> str:
    if len(raw) > limits.text:
        raise NotUnderstood("Text value is too long", f"{vr}, {len(raw)} bytes")
    if vr not in SINGLE_VRS and raw.count(b"\\") >= limits.values:
        raise NotUnderstood("Too many values in one element", vr)
    if vr in CHARSET_VRS:
        text, _ = decode_text(raw, charset, person_name=vr == "PN")
    else:
        text = raw.decode("ascii", "replace")
    return clean(text, vr)


@lru_cache(maxsize=256)
def _struct(vr: str, big: bool, count: int) -> struct.Struct:
    return struct.Struct((">" if big else "<") + NUMBERS[vr] * count)


def _numbers(raw: bytes, vr: str, big: bool, limits: Limits) -> str:
    width = struct.calcsize("<" + NUMBERS[vr])
    count, rest = divmod(len(raw), width)
    if rest:
        raise NotUnderstood(f"Value of {vr} has an impossible length")
    if count > limits.values:
        raise NotUnderstood("Too many values in one element", vr)
    numbers = _struct(vr, big, count).unpack(raw)
    if vr == "AT":
        return "\\".join(
            f"{group:04X}{element:04X}" for group, element in zip(numbers[::2], numbers[1::2], strict=True)
        )
    return "\\".join([f"{number:.9g}" if vr == "FL" else repr(number) for number in numbers])


def bytes_of(text: str, vr: str, charset: Charset, big: bool = False) -> bytes | None:
    """The even-length bytes of a text; None when the set cannot carry it or it is no number of its VR."""
    if vr in NUMBERS:
        return _number_bytes(text, vr, big)
    raw = encode_text(text, charset) if vr in CHARSET_VRS else text.encode("ascii", "replace")
    if raw is not None and len(raw) & 1:
        raw += b"\0" if vr in ("UI", "OB", "UN") else b" "
    return raw


def _number_bytes(text: str, vr: str, big: bool) -> bytes | None:
    values = [value.strip() for value in text.split("\\")] if text.strip() else []
    try:
        if vr == "AT":
            numbers: list[float] = [half for value in values for half in divmod(int(value, 16), 1 << 16)]
        else:
            numbers = [float(value) if vr in ("FL", "FD") else int(value) for value in values]
        return _struct(vr, big, len(values)).pack(*numbers)
    except (ValueError, struct.error, OverflowError):
        return None
