"""A message taken apart: segments, and the text of a field by its path.

Rules that hold here: a path is ``PID-3``, ``PID-3(2)``, ``PID-3.4`` or ``PID-3.4.1`` (field, repetition, component,
subcomponent, each from 1); what is not there is empty text; escapes are resolved (HL7 v2.5.1 2.7) and anything that
is none stays as it is; the two double quotes that mean "delete" are given as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import hl7

from archive.errors import NotUnderstood
from archive.hl7.charsets import decoded

SEGMENTS = 5_000  # of one message; a report of thousands of lines stays below

_PATH = re.compile(r"([A-Z][A-Z0-9]{2})-(\d+)(?:\((\d+)\))?(?:\.(\d+))?(?:\.(\d+))?")
_ESCAPE = re.compile(r"\\([^\\]{0,100})\\")
_HEX = re.compile(r"[0-9A-Fa-f]+")
_FORMATTING = {".br": "\r\n", ".sp": "\r\n", ".fi": "", ".nf": "", ".in": "", ".ti": "", ".sk": " ", ".ce": "\r\n"}


@dataclass(frozen=True, slots=True)
class Path:
    """Where a value stands."""

    segment: str
    field: int
    repetition: int = 1
    component: int = 0  # 0 = the whole field
    subcomponent: int = 0

    def __str__(self) -> str:
        text = f"{self.segment}-{self.field}"
        for number in (self.component, self.subcomponent):
            text += f".{number}" if number else ""
        return text


@lru_cache(maxsize=1024)
def path(text: str) -> Path:
    """Raises ValueError for a text that is no path."""
    found = _PATH.fullmatch(text.strip())
    if not found or found[2] == "0":
        raise ValueError(f"{text} is no field, such as PID-3.1 or ZDS-1(2).4.2")
    _, field, repetition, component, subcomponent = found.groups(default="0")
    return Path(found[1], int(field), int(repetition) or 1, int(component), int(subcomponent))


class Segment:
    """One segment of a message."""

    def __init__(self, content: hl7.Segment, separators: str) -> None:
        self._content = content
        self._separators = separators
        self.name = str(content[0])

    def text(self, field: int, component: int = 0, subcomponent: int = 0, repetition: int = 1) -> str:
        """The text of a value, empty when it is not there."""
        repetitions = self._repetitions(field)
        if repetition > len(repetitions):
            return ""
        found: object = repetitions[repetition - 1]
        if component:
            found = _part(found, component)
        if subcomponent:
            found = _part(found, subcomponent)
        return self._unescaped(str(found)).strip()

    def repetitions(self, field: int) -> int:
        return len(self._repetitions(field))

    def _repetitions(self, field: int) -> list[object]:
        if field >= len(self._content):
            return []
        return list(self._content[field])

    def _unescaped(self, text: str) -> str:
        return _ESCAPE.sub(self._resolve, text) if "\\" in text else text

    def _resolve(self, found: re.Match[str]) -> str:
        """HL7 v2.5.1 2.7.1 to 2.7.6; highlighting and sets switched by escapes are dropped."""
        code = found[1]
        if code in self._delimiters:
            return self._delimiters[code]
        if code[:1] == "X" and _HEX.fullmatch(code[1:]) and len(code) % 2:
            return bytes.fromhex(code[1:]).replace(b"\0", b"").decode("latin-1")
        if code[:3] in _FORMATTING:
            return _FORMATTING[code[:3]]
        return "" if code[:1] in "HNCMZ" and code else found[0]

    @property
    def _delimiters(self) -> dict[str, str]:
        return dict(zip("FSRET", self._separators, strict=True))


def _part(found: object, number: int) -> object:
    """A component of a repetition, or a subcomponent of a component; the first is also the whole that has no parts."""
    if isinstance(found, hl7.Container):
        return found[number - 1] if number <= len(found) else ""
    return found if number == 1 else ""


class Message:
    """A whole message. Raises NotUnderstood for what is none."""

    def __init__(self, data: bytes, *, default_charset: str = "UNICODE UTF-8") -> None:
        self.data = data
        header = _header(data)
        text = decoded(data, header[17] if len(header) > 17 else "", default_charset).replace("\0", "")
        lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
        if len(lines) > SEGMENTS:
            raise NotUnderstood(f"message has more than {SEGMENTS} segments")
        try:
            parsed = hl7.parse("\r".join(lines) + "\r")
        except (hl7.HL7Exception, AssertionError, IndexError, ValueError) as error:
            raise NotUnderstood("message cannot be taken apart", str(error)) from error
        separators = text[3] + (text[4:8] if len(header) > 1 and len(header[1]) >= 4 else "^~\\&")
        self.segments = [Segment(each, separators) for each in parsed]

    def text(self, where: str, within: list[Segment] | None = None) -> str:
        """The text at a path, in the first segment of its name."""
        at = path(where)
        for segment in self.all(at.segment, within):
            return segment.text(at.field, at.component, at.subcomponent, at.repetition)
        return ""

    def all(self, name: str, within: list[Segment] | None = None) -> Iterator[Segment]:
        return (segment for segment in (self.segments if within is None else within) if segment.name == name)

    def has(self, name: str) -> bool:
        return any(self.all(name))

    # -- the header (HL7 v2.5.1 2.15.9) ---------------------------------------------------------

    @property
    def sender(self) -> str:
        """Sending application and facility."""
        return "|".join(filter(None, (self.text("MSH-3.1"), self.text("MSH-4.1"))))

    @property
    def kind(self) -> str:
        """Message type and trigger event, such as ORM^O01."""
        return "^".join(filter(None, (self.text("MSH-9.1"), self.text("MSH-9.2"))))

    @property
    def control_id(self) -> str:
        return self.text("MSH-10")


def header_fields(data: bytes) -> list[str]:
    """MSH-1 (index 0) and on, as far as they can be read: for the acknowledgement of what is no message."""
    try:
        return _header(data)
    except NotUnderstood:
        return []


def _header(data: bytes) -> list[str]:
    """The fields of MSH, read byte by byte because the character set is one of them."""
    if not data.startswith(b"MSH") or len(data) < 8:
        raise NotUnderstood("message does not begin with MSH")
    line = re.split(rb"[\r\n]", data, maxsplit=1)[0].decode("latin-1")
    if len(line) < 8 or len(set(line[3:8])) < 5:
        raise NotUnderstood("message does not say its delimiters")
    return [line[3], *line[4:].split(line[3])]
