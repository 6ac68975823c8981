"""A data set with changes laid over it, in the transfer syntax it came in.

Rules that hold here: all that can go wrong with the changes is raised before the first byte is given; without an
effective change the bytes are those that came; the result comes in steps, so that an object of any size can be
changed from a mapped file, of a deflated one only the elements up to the last change are held; pixel data passes
through untouched. Digital signatures are not made anew: a change to a signed attribute shows, as it should.
"""

from __future__ import annotations

import itertools
import mmap
import struct
from collections.abc import Iterable, Iterator, Sequence

from archive.dicom.changes import COERCE, CORRECT, UNRECORDED, Change, Node, OriginalAttributes, moment, tree
from archive.dicom.convert import deflated
from archive.dicom.edit import ORIGINAL_ATTRIBUTES, Editor, NeedsUnicode, Pieces
from archive.dicom.elements import CUT_SHORT, Buffer
from archive.dicom.encoding import Encoding, encoding_of
from archive.dicom.inflate import inflate
from archive.dicom.layout import Layout
from archive.dicom.paths import ALL, NEW, Path, Private, parse_path, path_text
from archive.dicom.source import STEP
from archive.dicom.uids import transfer_syntax as syntax_facts
from archive.errors import NotUnderstood

__all__ = (
    "ALL", "COERCE", "CORRECT", "NEW", "UNRECORDED", "Change", "OriginalAttributes", "Path", "Private", "changed",
    "moment",
    "parse_path", "path_text",
)  # fmt: skip

FORGET = 16 << 20  # bytes of a mapped file after which its pages are given back
LONGEST_BEGINNING = 16 << 20  # bytes of a deflated object that may stand before what is changed


def changed(
    data: Buffer,
    transfer_syntax: str,
    changes: Sequence[Change],
    *,
    original: OriginalAttributes | None = None,
    default_charset: str = "",
) -> Iterator[bytes]:
    """The data set with ``changes``, in pieces, and with a record of them in Original Attributes if ``original`` says.

    ``default_charset`` is what its text is in when it does not say. Raises NotUnderstood when the data set is broken,
    or a new value fits neither its VR nor, after all text was made UTF-8, the data set.
    """
    facts, root = syntax_facts(transfer_syntax), tree(changes)
    encoding = encoding_of(facts)
    data = memoryview(data)  # slices of it are no copies
    if not changes:
        return _steps([data])
    if facts.deflated:
        return _changed_deflated(data, encoding, root, original, default_charset)
    pieces = _edited(data, facts.encapsulated, encoding, root, original, default_charset)
    return _steps([data] if pieces is None else pieces)


def _edited(
    data: Buffer, encapsulated: bool, encoding: Encoding, root: Node, original: OriginalAttributes | None, charset: str
) -> Pieces | None:
    try:
        try:
            return Editor(data, encapsulated, original).run(root, encoding, charset)
        except NeedsUnicode:
            return Editor(data, encapsulated, original, unicode=True).run(root, encoding, charset)
    except struct.error as error:
        raise NotUnderstood(CUT_SHORT) from error


def _steps(pieces: Iterable[Buffer]) -> Iterator[bytes]:
    """Small pieces gathered, large ones cut."""
    gathered = bytearray()
    for piece in pieces:
        if len(piece) < STEP // 4:
            gathered += piece
            if len(gathered) < STEP:
                continue
            piece = b""
        if gathered:
            yield bytes(gathered)
            gathered = bytearray()
        for at in range(0, len(piece), STEP):
            yield bytes(piece[at : at + STEP])
            if at % FORGET == FORGET - STEP:
                forget(piece)
    if gathered:
        yield bytes(gathered)


def forget(piece: Buffer) -> None:
    """Give back the memory that the pages of a mapped file take; what is read again comes from the page cache."""
    owner = piece.obj if isinstance(piece, memoryview) else piece
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


def _changed_deflated(
    data: Buffer, encoding: Encoding, root: Node, original: OriginalAttributes | None, charset: str
) -> Iterator[bytes]:
    """Inflated only as far as the changes reach; the rest streams behind."""
    reach = max(step if isinstance(step, int) else step.group << 16 | 0xFFFF for step in root.edits)
    pieces = inflate(data)
    before, rest = beginning(pieces, encoding, max(reach, ORIGINAL_ATTRIBUTES))
    try:
        try:
            made = Editor(memoryview(before), False, original).run(root, encoding, charset)
        except NeedsUnicode:
            before, rest = beginning(itertools.chain((before, rest), pieces), encoding, 0xFFFFFFFF)
            made = Editor(memoryview(before), False, original, unicode=True).run(root, encoding, charset)
    except struct.error as error:
        raise NotUnderstood(CUT_SHORT) from error
    if made is None:
        return _steps([data])
    return deflated(itertools.chain(_steps([*made, rest]), pieces))


def beginning(pieces: Iterator[bytes], encoding: Encoding, reach: int) -> tuple[bytes, bytes]:
    """The bytes before the first element behind ``reach``, and what was inflated with them."""
    buffer, enough = bytearray(), STEP
    for piece in pieces:
        buffer += piece
        if len(buffer) < enough:
            continue
        enough *= 2
        behind = _behind(buffer, encoding, reach)
        if behind is not None:
            return bytes(buffer[:behind]), bytes(buffer[behind:])
        if len(buffer) > LONGEST_BEGINNING:
            raise NotUnderstood("Deflated data set is too large to be changed")
    return bytes(buffer), b""


def _behind(buffer: bytearray, encoding: Encoding, reach: int) -> int | None:
    """Where the first element behind ``reach`` begins; None when that is not yet known."""
    layout, pos = Layout(buffer), 0
    while pos < len(buffer):
        try:
            place = layout.place(pos, encoding, 0)
        except (struct.error, NotUnderstood):  # what is really broken shows when all is there
            return None
        if place.tag > reach:
            return pos
        pos = place.end
    return None
