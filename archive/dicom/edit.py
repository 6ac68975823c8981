"""One data set with some attributes changed: slices of what was there, and new elements between them.

Rules that hold here: what does not change keeps its bytes, whatever it is and wherever it stands; lengths of the
sequences and items around a change are made right, undefined ones stay undefined; group lengths (retired, PS3.5
7.2) of changed groups are left out; nothing is copied that is long. When a new value does not fit into the data
set's character set, NeedsUnicode is raised, and a second Editor with ``unicode`` writes all its text in UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from archive.dicom.changes import UNRECORDED, Change, Items, Node, OriginalAttributes
from archive.dicom.charset import UTF_8, Charset, charset_of, decode_text
from archive.dicom.elements import Buffer
from archive.dicom.encoding import TEXT_VRS, UNDEFINED, Encoding
from archive.dicom.layout import Layout, Level, Place
from archive.dicom.paths import ALL, NEW, VALUES, Private, step_text, step_vr
from archive.dicom.spans import head
from archive.dicom.values import CHARSET_VRS, bytes_of, clean
from archive.dicom.wanted import SPECIFIC_CHARACTER_SET
from archive.errors import NotUnderstood

ORIGINAL_ATTRIBUTES, MODIFIED_ATTRIBUTES = 0x04000561, 0x04000550  # PS3.3 C.12.1
MODIFICATION_DATETIME, MODIFYING_SYSTEM = 0x04000562, 0x04000563
SOURCE_OF_PREVIOUS_VALUES, REASON_FOR_MODIFICATION = 0x04000564, 0x04000565

_LONGEST_SHORT = 0xFFFE

Pieces = list[Buffer]
Outcomes = dict[int, Pieces]  # tag -> what stands for it now; nothing when it is removed


class NeedsUnicode(Exception):
    """A new value does not fit into the character set of its data set."""


@dataclass(slots=True)
class _Record:
    """What Original Attributes will say, reason by reason: the elements as they were."""

    before: dict[str, dict[int, Pieces]] = field(default_factory=dict)

    def add(self, reasons: Iterable[str], tag: int, pieces: Pieces) -> None:
        for reason in reasons:
            self.before.setdefault(reason, {})[tag] = pieces


class Editor(Layout):
    """Makes one changed data set."""

    __slots__ = ("_original", "_unicode", "_effective", "_record")

    def __init__(
        self, data: Buffer, encapsulated: bool, original: OriginalAttributes | None, *, unicode: bool = False
    ) -> None:
        super().__init__(data, encapsulated)
        self._original = original
        self._unicode = unicode
        self._effective: set[str] = set()
        self._record = _Record()

    def run(self, root: Node, encoding: Encoding, default_charset: str) -> Pieces | None:
        """The pieces of the changed data set; None when nothing changes at all."""
        level = self.level(0, self.size, encoding, 0)
        return self._edited(level, root, charset_of(default_charset), 0)

    # -- a data set or item ---------------------------------------------------------------------

    def _edited(self, level: Level, node: Node | None, above: Charset, depth: int) -> Pieces | None:
        edits = self._resolved(level, node)
        before, read, write = self._charsets(level, edits.get(SPECIFIC_CHARACTER_SET), above)
        outcomes: Outcomes = {}
        for tag, edit in edits.items():
            place = level.find(tag)
            if depth == 0:
                if tag == ORIGINAL_ATTRIBUTES:
                    continue  # its items are preserved (PS3.3 C.12.1.1.9)
                self._effective = set()
            made = self._made(level, place, tag, edit, read, write, depth)
            if made is not None:
                outcomes[tag] = made
                if depth == 0:
                    self._note(level, tag, place, edit)
        if self._unicode:
            self._to_unicode(level, outcomes, read, depth)
        if depth == 0 and self._record.before:
            changed = before.terms if write.terms != before.terms else None
            outcomes[ORIGINAL_ATTRIBUTES] = self._original_attributes(level, read, changed)
        return self._assembled(level, outcomes) if outcomes else None

    def _charsets(self, level: Level, edit: Change | Items | None, above: Charset) -> tuple[Charset, Charset, Charset]:
        """What a level declares, what it is read by (a rule may know better), and what new text is written in."""
        place = level.find(SPECIFIC_CHARACTER_SET)
        before = charset_of(self._ascii(place)) if place is not None and not place.empty else above
        read = before
        if isinstance(edit, Change) and edit.value is not None:
            read = charset_of(edit.value)
        return before, read, charset_of(UTF_8) if self._unicode else read

    def _ascii(self, place: Place) -> str:
        return self.raw(place).decode("ascii", "replace").strip(" \0")

    def _assembled(self, level: Level, outcomes: Outcomes) -> Pieces:
        """The level with the outcomes in the places of their tags; new ones stand before the first higher tag."""
        groups = {tag >> 16 for tag in outcomes}
        new = sorted(tag for tag in outcomes if level.find(tag) is None)
        out: Pieces = []
        copied = level.start
        for place in level.places:
            inserted = [tag for tag in new if tag < place.tag]
            drop = place.tag in outcomes or (not place.tag & 0xFFFF and place.tag >> 16 in groups)
            if inserted or drop:
                out.append(self.data[copied : place.start])
                copied = place.end if drop else place.start
            for tag in inserted:
                out += outcomes[tag]
                new.remove(tag)
            out += outcomes.get(place.tag, ())
        out.append(self.data[copied : level.stop])
        for tag in new:
            out += outcomes[tag]
        return [piece for piece in out if len(piece)]

    # -- private blocks -------------------------------------------------------------------------

    def _resolved(self, level: Level, node: Node | None) -> dict[int, Change | Items]:
        """The edits of a level by tag, private ones in the block of their creator."""
        found: dict[int, Change | Items] = {}
        reserved: dict[tuple[int, str], int] = {}
        for step, edit in node.edits.items() if node else ():
            if isinstance(step, int):
                if not self._is_orphan(level, step, edit):
                    found[step] = edit
                continue
            block = reserved.get(step[:2]) or self._block(level, step)
            if block is None and (isinstance(edit, Items) or edit.value is not None):
                taken = {tag >> 8 & 0xFF for tag in found if tag >> 16 == step.group}
                block = self._free_block(level, step.group, taken)
                found[step.group << 16 | block] = Change((), "LO", step.creator, UNRECORDED)
            if block is not None:
                reserved[step[:2]] = block
                found[step.group << 16 | block << 8 | step.element] = edit
        return dict(sorted(found.items()))

    def _is_orphan(self, level: Level, tag: int, edit: Change | Items) -> bool:
        """Whether a private element would be made in a block that nobody has reserved (PS3.5 7.8.1)."""
        if not tag >> 16 & 1 or tag & 0xFFFF <= 0xFF:
            return False
        return level.find(tag) is None and tag >> 8 & 0xFF not in level.creators(tag >> 16)

    def _block(self, level: Level, step: Private) -> int | None:
        creators = level.creators(step.group).items()
        return next((block for block, place in creators if self.creator(place) == step.creator), None)

    def _free_block(self, level: Level, group: int, taken: set[int]) -> int:
        """A block without creator, and without elements whose creator was lost."""
        used = taken | level.creators(group).keys()
        used |= {place.tag >> 8 & 0xFF for place in level.places if place.tag >> 16 == group}
        for block in range(0x10, 0x100):
            if block not in used:
                return block
        raise NotUnderstood("No private block is free", f"group {group:04X}")

    # -- one element ----------------------------------------------------------------------------

    def _made(
        self, level: Level, place: Place | None, tag: int, edit: Change | Items, read: Charset, write: Charset,
        depth: int,
    ) -> Pieces | None:  # fmt: skip
        """What stands for an element now; None when it stays."""
        if isinstance(edit, Items):
            return self._sequence(level, place, tag, edit, read, depth)
        if edit.value is None:
            if place is None:
                return None
            self._effective.add(edit.reason)
            return []
        vr = self._vr(place, edit, tag)
        if place is not None and self._stays(level, place, vr, edit, read):
            return None
        self._effective.add(edit.reason)
        return [element(level.encoding, tag, vr, self._encoded(edit.value, vr, tag, level.encoding, write))]

    def _vr(self, place: Place | None, change: Change, tag: int) -> str:
        if place is not None and place.written and place.vr in VALUES:
            return place.vr
        vr = change.vr or (place.vr if place is not None and place.vr in VALUES else step_vr(tag))
        if vr not in VALUES and not (vr == "SQ" and not change.value):
            raise NotUnderstood(f"{step_text(tag)} cannot be given a text as value")
        return vr

    def _stays(self, level: Level, place: Place, vr: str, change: Change, read: Charset) -> bool:
        if vr == "SQ":
            return place.empty or change.if_missing
        old = self.text(place, vr, level.encoding, read)
        return bool(change.if_missing and old) or old == clean(change.value or "", vr)

    def _encoded(self, value: str, vr: str, tag: int, encoding: Encoding, write: Charset) -> bytes:
        if vr in TEXT_VRS - CHARSET_VRS and not value.isascii():
            raise NotUnderstood(f"New value of {step_text(tag)} does not fit VR {vr}")
        raw = b"" if vr == "SQ" else bytes_of(value, vr, write, encoding.big)
        if raw is not None:
            return raw
        if vr in CHARSET_VRS and not self._unicode:
            raise NeedsUnicode
        raise NotUnderstood(f"New value of {step_text(tag)} does not fit VR {vr}")

    # -- sequences ------------------------------------------------------------------------------

    def _sequence(
        self, level: Level, place: Place | None, tag: int, edit: Items | None, read: Charset, depth: int
    ) -> Pieces | None:
        items = self._items(level, place, edit, read, depth)
        return None if items is None else self._put_sequence(level, place, tag, items)

    def _items(
        self, level: Level, place: Place | None, edit: Items | None, read: Charset, depth: int
    ) -> list[Pieces] | None:
        """The items of a sequence, each with its head; None when all stay."""
        if depth >= self.limits.depth:
            raise NotUnderstood("Sequences are nested too deep")
        if place is not None and place.vr != "SQ":
            return None
        of = edit.of if edit else {}
        encoding = level.encoding if place is None else self.inner(place, level.encoding)
        found = [] if place is None else self.items(place, level.encoding)
        made = [self._item(at, encoding, of.get(number), of.get(ALL), read, depth) for number, at in enumerate(found)]
        fresh = [of[number] for number in sorted(of, reverse=True) if number <= NEW or (number == 0 and not found)]
        new = [self._new_item(node, encoding, read, depth) for node in fresh]
        new = [item for item in new if item]
        if not new and not any(made):
            return None
        kept = [item or [self.data[at[0] : self._behind(at, encoding)]] for item, at in zip(made, found, strict=True)]
        return kept + new

    def _behind(self, at: tuple[int, int, int], encoding: Encoding) -> int:
        _, start, length = at
        return self.skip_item(start, length, encoding, 1) if length == UNDEFINED else start + length

    def _item(
        self, at: tuple[int, int, int], encoding: Encoding, node: Node | None, everywhere: Node | None, read: Charset,
        depth: int,
    ) -> Pieces | None:  # fmt: skip
        node = everywhere.merged(node) if everywhere else node
        if node is None and not self._unicode:
            return None
        _, start, length = at
        inside = self.level(start, length, encoding, depth + 1)
        pieces = self._edited(inside, node, read, depth + 1)
        return None if pieces is None else item(encoding, pieces, length == UNDEFINED)

    def _new_item(self, node: Node, encoding: Encoding, read: Charset, depth: int) -> Pieces:
        pieces = self._edited(Level([], encoding, 0, 0, 0), node, read, depth + 1)
        return item(encoding, pieces, False) if pieces else []

    def _put_sequence(self, level: Level, place: Place | None, tag: int, items: Sequence[Pieces]) -> Pieces:
        pieces = [piece for item in items for piece in item]
        vr = place.written if place is not None and place.written else "SQ"
        if place is None or not place.undefined:
            return [head(tag, vr, size_of(pieces), level.encoding), *pieces]
        return [head(tag, vr, UNDEFINED, level.encoding), *pieces, self.data[place.stop : place.end]]

    # -- all text in UTF-8 ----------------------------------------------------------------------

    def _to_unicode(self, level: Level, outcomes: Outcomes, read: Charset, depth: int) -> None:
        """Add what else changes when the text of a level becomes UTF-8: one declaration, at the top, holds for all."""
        if depth == 0:
            declared = element(level.encoding, SPECIFIC_CHARACTER_SET, "CS", UTF_8.encode("ascii"))
            outcomes[SPECIFIC_CHARACTER_SET] = [declared]
        elif level.find(SPECIFIC_CHARACTER_SET) is not None:
            outcomes[SPECIFIC_CHARACTER_SET] = []
        for place in level.places:
            if place.tag in outcomes:
                continue
            if place.vr == "SQ":
                made = self._sequence(level, place, place.tag, None, read, depth)
            else:
                made = self._in_utf8(level, place, read)
            if made is not None:
                outcomes[place.tag] = made

    def _in_utf8(self, level: Level, place: Place, read: Charset) -> Pieces | None:
        vr = self.text_vr(place, level)
        raw = self.raw(place) if vr else b""
        if raw.isascii() and b"\x1b" not in raw:
            return None
        text, sound = decode_text(raw, read, person_name=vr == "PN")
        if not sound:
            raise NotUnderstood(f"Text of {step_text(place.tag)} cannot be made UTF-8")
        return [element(level.encoding, place.tag, place.written or vr, text.encode("utf-8", "replace"))]

    # -- Original Attributes --------------------------------------------------------------------

    def _note(self, level: Level, tag: int, place: Place | None, edit: Change | Items) -> None:
        """Keep what an element was: all of a sequence in which something changed, empty when it was not there."""
        if self._original is None:
            return
        reasons = {reason or self._original.reason for reason in self._effective} - {UNRECORDED}
        vr = "SQ" if isinstance(edit, Items) else self._vr(place, edit, tag) if place is None else ""
        pieces: Pieces = [self.data[place.start : place.end] if place else element(level.encoding, tag, vr, b"")]
        self._record.add(reasons, tag, pieces)
        creator = level.creators(tag >> 16).get(tag >> 8 & 0xFF) if tag >> 16 & 1 and tag & 0xFFFF > 0xFF else None
        if creator is not None:
            self._record.add(reasons, creator.tag, [self.data[creator.start : creator.end]])

    def _original_attributes(self, level: Level, read: Charset, terms: tuple[str, ...] | None) -> Pieces:
        """The sequence with an item more for each reason, behind those of others."""
        place = level.find(ORIGINAL_ATTRIBUTES)
        usable = place if place is not None and place.vr == "SQ" else None
        items = self._items(level, usable, None, read, 0) if usable else []
        if items is None and usable is not None:
            inner = self.inner(usable, level.encoding)
            items = [[self.data[at[0] : self._behind(at, inner)]] for at in self.items(usable, level.encoding)]
        encoding = self.inner(usable, level.encoding) if usable else level.encoding
        new = [self._original_item(encoding, reason, before, terms) for reason, before in self._record.before.items()]
        return self._put_sequence(level, usable, ORIGINAL_ATTRIBUTES, [*(items or []), *new])

    def _original_item(
        self, encoding: Encoding, reason: str, before: dict[int, Pieces], terms: tuple[str, ...] | None
    ) -> Pieces:
        original = self._original
        assert original is not None
        if terms is not None and SPECIFIC_CHARACTER_SET not in before:
            raw = "\\".join(terms).encode("ascii", "replace")
            before = before | {SPECIFIC_CHARACTER_SET: [element(encoding, SPECIFIC_CHARACTER_SET, "CS", raw)]}
        values = item(encoding, [piece for tag in sorted(before) for piece in before[tag]], False)
        texts = (
            (MODIFICATION_DATETIME, "DT", original.when),
            (MODIFYING_SYSTEM, "LO", original.system),
            (SOURCE_OF_PREVIOUS_VALUES, "LO", original.source),
            (REASON_FOR_MODIFICATION, "CS", reason),
        )
        pieces: Pieces = [head(MODIFIED_ATTRIBUTES, "SQ", size_of(values), encoding), *values]
        pieces += [element(encoding, tag, vr, text.encode("ascii", "replace")) for tag, vr, text in texts]
        return item(encoding, pieces, False)


def size_of(pieces: Iterable[Buffer]) -> int:
    return sum(map(len, pieces))


def element(encoding: Encoding, tag: int, vr: str, raw: bytes) -> bytes:
    """One element, padded; a value that is too long for its VR is UN (PS3.5 6.2.2)."""
    if len(raw) & 1:
        raw += b" " if vr in TEXT_VRS and vr != "UI" else b"\0"
    if encoding.explicit and len(raw) > _LONGEST_SHORT and encoding.code(vr) in encoding.short:
        vr = "UN"
    return head(tag, vr, len(raw), encoding) + raw


def item(encoding: Encoding, pieces: Pieces, undefined: bool) -> Pieces:
    """An item around its elements."""
    start = encoding.length.pack(encoding.item) + encoding.length.pack(UNDEFINED if undefined else size_of(pieces))
    if not undefined:
        return [start, *pieces]
    return [start, *pieces, encoding.length.pack(encoding.item_end) + encoding.length.pack(0)]
