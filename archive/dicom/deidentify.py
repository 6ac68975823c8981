"""A data set without what tells whose it is (PS3.15 E.1, E.2), in one forward pass.

Rules that hold here: what becomes of an attribute is the profile's word, at every depth; what nobody knows does not get
through; in a sequence that is replaced by a dummy every value is one; pixels stream through and are never looked at;
the encoding stays; a first pass without output finds whose it is, and whatever could go wrong in the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pydicom.datadict import tag_for_keyword

from archive.dicom.charset import charset_of, decode_text
from archive.dicom.confidentiality import DUMMY, EMPTY, KEEP, REMOVE, SHIFT, UID, Profile
from archive.dicom.convert import converted, deflated
from archive.dicom.deidentified import (
    CHECKED,
    IDENTITY_REMOVED,
    METHOD,
    METHOD_CODES,
    TEMPORAL,
    dummy,
    is_uids,
    may_stay,
    said,
    values,
)
from archive.dicom.dictionary import UNKNOWN, vr_of
from archive.dicom.elements import IMPLICIT_HEADS
from archive.dicom.encoding import (
    IMPLICIT_LE,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    TEXT_VRS,
    UNDEFINED,
    Encoding,
    encoding_of,
)
from archive.dicom.pseudonyms import Pseudonyms, shifted
from archive.dicom.rewrite import Rewriter, _Level
from archive.dicom.source import Source, StreamSource, copied
from archive.dicom.uids import EXPLICIT_LITTLE
from archive.dicom.uids import transfer_syntax as syntax_facts
from archive.errors import NotUnderstood

CHARSET, PATIENT_NAME, PATIENT_ID, ISSUER = 0x00080005, 0x00100010, 0x00100020, 0x00100021
BURNED_IN = 0x00280301
OVERLAY_BITS = 0x0100  # of a group 60xx: more than 1 is an overlay in the bits of the pixels (retired)
LONGEST = 1 << 16  # bytes of a value that is looked at: names, dates and identifiers are shorter

_OURS = frozenset((IDENTITY_REMOVED, METHOD, METHOD_CODES, TEMPORAL))


@dataclass(slots=True)
class Found:
    """What the first pass has seen at the top of a data set."""

    patient_id: str = ""
    patient_name: str = ""
    issuer: str = ""
    burned_in: str = ""
    overlay_in_pixels: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    """Who a data set is about, under another name."""

    patient_id: str
    days: int


class Deidentifier:
    """One profile with one key; thread-safe."""

    def __init__(self, options: Iterable[str], key: str) -> None:
        self.profile = Profile(frozenset(options))
        self.names = Pseudonyms(key)

    def uid(self, uid: str) -> str:
        """The UID under which an object, series or study goes out."""
        return uid if "retain-uids" in self.profile.options and is_uids(uid) else self.names.uid(uid)

    def look(self, pieces: Iterator[bytes], transfer_syntax: str) -> Found:
        """Read a data set from end to end. Raises NotUnderstood for whatever ``pieces`` would."""
        found = Found()
        for _ in self._passed(pieces, transfer_syntax, Person("", 0), found):
            pass
        return found

    def person(self, found: Found) -> Person:
        who = found.patient_id or f"^{found.patient_name}", found.issuer
        return Person(self.names.patient(*who), self.names.days(*who))

    def pieces(self, pieces: Iterator[bytes], transfer_syntax: str, person: Person) -> Iterator[bytes]:
        """The data set as it goes out."""
        made = self._passed(pieces, transfer_syntax, person, Found())
        return deflated(made) if syntax_facts(transfer_syntax).deflated else made

    def fact(self, keyword: str, value: str, person: Person) -> str:
        """What may be told of an attribute's value in a name; nothing of what does not stay."""
        tag = tag_for_keyword(keyword) or 0
        if tag in (PATIENT_ID, PATIENT_NAME):
            return person.patient_id
        fate = self.profile.of(tag)
        if fate == SHIFT:
            return shifted(value, person.days)
        return self.names.uids(value) if fate == UID else value if fate == KEEP else ""

    def _passed(
        self, pieces: Iterator[bytes], transfer_syntax: str, person: Person, found: Found
    ) -> Iterator[bytes]:
        facts = syntax_facts(transfer_syntax)
        if facts.deflated:
            pieces = converted(pieces, transfer_syntax, EXPLICIT_LITTLE)
        return _Pass(StreamSource(pieces), encoding_of(facts), self, person, found).pieces()


@dataclass(slots=True)
class _State:
    """Where a pass is."""

    charset: str = ""
    dummy_above: int | None = None  # the open levels around a sequence of dummies
    left: list[int] = field(default_factory=lambda: sorted(_OURS))  # what is still to be written


class _Pass(Rewriter):
    """One pass; see the module."""

    def __init__(self, source: Source, encoding: Encoding, by: Deidentifier, person: Person, found: Found) -> None:
        super().__init__(source, encoding, encoding)
        self._by, self._person, self._found = by, person, found
        self._state = _State()

    def _closed(self, level: _Level) -> bool:
        if level.above is None and self._source.at_end():
            self._insert(level, 1 << 32)
        return super()._closed(level)

    def _close(self, level: _Level) -> None:
        super()._close(level)
        above = self._state.dummy_above
        if above is not None and len(self._stack) <= above:
            self._state.dummy_above = None

    def _element(self, level: _Level) -> Iterator[bytes]:
        self._spend()
        tag, vr, length = self._head(level)
        level.begun = True
        if tag == ITEM_END and level.end is None and level.above is not None:
            self._close(level)
            return
        if tag >> 16 == 0xFFFE:
            raise NotUnderstood("Item or delimiter outside of a sequence", f"{tag:08X}")
        if level.above is None:
            self._insert(level, tag)
        fate = self._fate(level, tag, vr)
        known = vr_of(tag).split(" or ")[0]
        if vr not in ("SQ", UNKNOWN) and length == UNDEFINED:
            yield from self._fragments(level, tag, vr, fate)
        elif vr == "SQ" or length == UNDEFINED or (vr == UNKNOWN and known == "SQ"):
            self._nested(level, tag, vr, length, fate)
        elif known == "SQ" or fate == REMOVE:
            self._drop(level, tag, vr, length)
        elif self._in_dummy and fate == KEEP and tag != CHARSET:
            self._replace(level, tag, vr, length, DUMMY)
        elif fate == KEEP and tag not in (CHARSET, BURNED_IN) and (known if vr == UNKNOWN else vr) not in CHECKED:
            yield from self._value(level, tag, vr, length)
        else:
            self._replace(level, tag, vr, length, fate)

    # -- what becomes of it ---------------------------------------------------------------------

    @property
    def _in_dummy(self) -> bool:
        return self._state.dummy_above is not None

    def _fate(self, level: _Level, tag: int, vr: str) -> str:
        if not tag & 0xFFFF or (level.above is None and tag in _OURS):
            return REMOVE
        return self._by.profile.of(tag, vr)

    def _drop(self, level: _Level, tag: int, vr: str, length: int) -> None:
        """A value that does not go out, but may say whose it is or where that can be read."""
        overlay = tag >> 24 == 0x60 and tag & 0xFFFF == OVERLAY_BITS
        if level.above is not None or length > LONGEST or not (overlay or tag == ISSUER):
            self._skip(length)
            return
        raw = self._source.read(length)
        if overlay:
            bits = int.from_bytes(raw, "big" if level.read.big else "little")
            self._found.overlay_in_pixels = self._found.overlay_in_pixels or bits > 1
        else:
            self._found.issuer = self._text(raw, "LO")

    def _replace(self, level: _Level, tag: int, vr: str, length: int, fate: str) -> None:
        """A value that is read, and another in its place."""
        if length > LONGEST:
            self._skip(length)
            raw = b""
        else:
            raw = self._source.read(length)
        kind = vr_of(tag).split(" or ")[0] if vr == UNKNOWN else vr
        made = self._made(level, tag, kind, raw, fate)
        made += b"" if not len(made) & 1 else b"\0" if kind == "UI" or kind not in TEXT_VRS else b" "
        self._put(level.write, tag, vr, len(made))
        self._out += made

    def _made(self, level: _Level, tag: int, vr: str, raw: bytes, fate: str) -> bytes:
        text = self._text(raw, vr)
        if level.above is None:
            self._note_found(tag, text)
        if fate == KEEP and may_stay(vr, text):
            return raw
        if tag in (PATIENT_NAME, PATIENT_ID) and level.above is None:
            return self._person.patient_id.encode() if raw else b""
        if fate == EMPTY or not raw or (fate == KEEP and vr != "UI"):
            return b""
        if fate == UID or vr == "UI":
            return self._by.names.uids(text).encode("ascii", "replace")
        if fate == SHIFT:
            return "\\".join(shifted(value, self._person.days) for value in values(text)).encode()
        return dummy(vr, text, raw, self._by.names)

    def _text(self, raw: bytes, vr: str) -> str:
        if vr not in TEXT_VRS:
            return ""
        return decode_text(raw, charset_of(self._state.charset), vr == "PN")[0].strip(" \0")

    def _note_found(self, tag: int, text: str) -> None:
        if tag == CHARSET:
            self._state.charset = text
        elif tag == PATIENT_ID:
            self._found.patient_id = text
        elif tag == PATIENT_NAME:
            self._found.patient_name = text
        elif tag == BURNED_IN:
            self._found.burned_in = text

    # -- sequences and fragments ----------------------------------------------------------------

    def _nested(self, level: _Level, tag: int, vr: str, length: int, fate: str) -> None:
        if fate in (REMOVE, EMPTY):
            self._skip_items(level, vr, length)
            if fate == EMPTY:
                self._put(level.write, tag, vr, 0)
            return
        if fate == DUMMY and not self._in_dummy and length:
            self._state.dummy_above = len(self._stack)
        self._sequence(level, tag, vr, length)

    def _skip_items(self, level: _Level, vr: str, length: int) -> None:
        """A sequence, or fragments, that do not go out."""
        if length != UNDEFINED:
            self._skip(length)
            return
        opened = [self._inside(level, vr, True)]  # sequences and items in turn
        while opened:
            self._spend()
            if len(opened) > 2 * self._limits.depth:
                raise NotUnderstood("Sequences are nested too deep")
            tag, vr, size = self._next(opened[-1])
            if tag in (ITEM_END, SEQUENCE_END):
                opened.pop()
            elif size != UNDEFINED:
                self._skip(size)
            else:
                opened.append(self._inside(opened[-1], vr, not opened[-1].items))

    def _inside(self, above: _Level, vr: str, items: bool) -> _Level:
        """A sequence or an item of undefined length; in a UN all is Implicit LE (PS3.5 6.2.2)."""
        encoding = IMPLICIT_LE if vr == UNKNOWN else above.read
        return _Level(items, None, encoding, encoding, above)

    def _next(self, level: _Level) -> tuple[int, str, int]:
        """The next head of an item or, in an item, of an element."""
        if not level.items:
            found = self._head(level)
            level.begun = True
            return found
        raw, length = IMPLICIT_HEADS[level.read.big](self._source.read(8), 0)
        tag = level.read.tag(raw)
        if tag not in (ITEM, SEQUENCE_END):
            raise NotUnderstood("Sequence holds something that is no item")
        return tag, "", length

    def _fragments(self, level: _Level, tag: int, vr: str, fate: str) -> Iterator[bytes]:
        """Encapsulated pixel data (PS3.5 A.4)."""
        if fate != KEEP or self._in_dummy:
            self._skip_items(level, vr, UNDEFINED)
            return
        self._put(level.write, tag, vr, UNDEFINED)
        found, inside = ITEM, self._inside(level, vr, True)
        while found != SEQUENCE_END:
            found, _, length = self._next(inside)
            self._put_head(level.write, found, length)
            if length == UNDEFINED:
                raise NotUnderstood("Fragment has no defined length")
            yield self._flushed()
            yield from copied(self._source, length)

    # -- what is added --------------------------------------------------------------------------

    def _insert(self, level: _Level, before: int) -> None:
        """Say what was done, where it belongs in the order of tags."""
        left = self._state.left
        while left and left[0] < before:
            self._out += said(level.write, left.pop(0), self._by.profile.options)
