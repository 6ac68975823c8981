"""Stored data sets in a transfer syntax that the receiver accepts, pixels included.

Rules that hold here: pixels change only where loss was asked for; everything else in the data set keeps its bytes,
but for the attributes that describe how the pixels are written; a SOP Instance UID changes only with loss; frames
are decoded one by one, and compressed ones are held until their offset table is known.
Only child processes call this with data from outside: see ``archive.workers.codec``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from archive.dicom.codestream import inspect
from archive.dicom.compressed import LOSSY_JPEG, METHODS, WIDER
from archive.dicom.convert import convert
from archive.dicom.decoders import decode
from archive.dicom.elements import Buffer
from archive.dicom.encoders import Encoder, encode
from archive.dicom.encoding import UNDEFINED, encoding_of
from archive.dicom.frames import encapsulated
from archive.dicom.inflate import RAW_DEFLATE
from archive.dicom.loss import SOP_INSTANCE_UID, Edits, derived, derived_uid, marked
from archive.dicom.pixels import PHOTOMETRIC, PIXEL_DATA, PLANAR, Description, Frame
from archive.dicom.spans import element, exchanged, head
from archive.dicom.stored import EXTENDED_LENGTHS, EXTENDED_OFFSETS, Stored, take_apart
from archive.dicom.targets import can_transcode, candidates, encoder_for, opened
from archive.dicom.uids import EXPLICIT_LITTLE, transfer_syntax
from archive.errors import NotTranscodable

__all__ = ["Transcoded", "can_transcode", "transcode"]

STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Transcoded:
    """A data set in its new syntax; the pieces come as they are made and raise what is wrong with later frames."""

    transfer_syntax: str
    pieces: Iterator[bytes]
    sop_instance_uid: str | None = None  # a new one, only after loss


def transcode(
    data: Buffer, stored: str, accepted: Sequence[str], *, allow_lossy: bool = False, verify: bool = True
) -> Transcoded:
    """The data set in the best of the ``accepted`` syntaxes; NotTranscodable when none will do.

    ``verify`` decodes every losslessly encoded frame again and compares it.
    """
    if stored in accepted:
        return Transcoded(stored, _copied(data))
    reasons: dict[str, NotTranscodable] = {}
    parts: Stored | None = None
    for target in candidates(stored, accepted, allow_lossy=allow_lossy):
        if transfer_syntax(stored).uncompressed and transfer_syntax(target).uncompressed:
            return Transcoded(target, convert(data, stored, target))
        try:
            parts = parts or take_apart(data, stored)
            return _given(parts, target, allow_lossy, verify)
        except NotTranscodable as error:
            reasons[target] = error
    raise _refusal(stored, reasons)


def _refusal(stored: str, reasons: dict[str, NotTranscodable]) -> NotTranscodable:
    """One error for all candidates: the first one's words, the others for the log."""
    if not reasons:
        return NotTranscodable("Receiver accepts no transfer syntax")
    first = next(iter(reasons.values()))
    if len(reasons) == 1:
        return first
    details = "; ".join(f"{target}: {error}" for target, error in reasons.items())
    return NotTranscodable(first.comment, f"from {stored} to {details}")


def _copied(data: Buffer) -> Iterator[bytes]:
    return (bytes(data[at : at + STEP]) for at in range(0, len(data), STEP))


def _given(parts: Stored, target: str, allow_lossy: bool, verify: bool) -> Transcoded:
    """The data set in ``target``, or NotTranscodable."""
    stored = parts.syntax
    if parts.pixels is None:
        _require(can_transcode(stored, target, pixels=False))
        return Transcoded(target, _native(parts, target, {}, iter(()), None))
    _require(can_transcode(stored, target, allow_lossy=allow_lossy))
    if parts.has_float_pixels:
        raise NotTranscodable("Float pixels are not compressed")
    if target in WIDER.get(stored, ()):
        return Transcoded(target, _copied(parts.data))
    said = parts.description()
    _require(can_transcode(stored, target, said, allow_lossy=allow_lossy))
    plain, (frames, edits) = opened(said, stored), _frames(parts, said)
    encoder = encoder_for(target, allow_lossy)
    if encoder is None or transfer_syntax(target).uncompressed:
        edits = {**edits, **_described(said, plain)}
        return Transcoded(target, _native(parts, target, edits, frames, plain))
    coded = [encode(frame, target, plain, encoder, verify=verify) for frame in frames]
    return _compressed(parts, target, {**edits, **_described(said, encoder.coded(plain))}, coded, encoder)


def _require(reason: str | None) -> None:
    if reason is not None:
        raise NotTranscodable(reason)


def _frames(parts: Stored, said: Description) -> tuple[Iterator[Frame], Edits]:
    """The frames as arrays, and what must be said of the loss they already had."""
    stored = parts.syntax
    if transfer_syntax(stored).uncompressed:
        return parts.native_frames(said), {}
    frames = (decode(frame, stored, said) for frame in parts.coded_frames(said))
    edits: Edits = {EXTENDED_OFFSETS: None, EXTENDED_LENGTHS: None}
    if not said.lossy and stored in METHODS and _had_loss(parts, said):
        edits |= marked(parts.head, stored, said.size / max(parts.fragments().size, 1))
    return frames, edits


def _had_loss(parts: Stored, said: Description) -> bool:
    """Whether the first frame was written with loss; some lossy syntaxes carry lossless frames as well."""
    stream = inspect(next(parts.coded_frames(said)))
    return parts.syntax in LOSSY_JPEG or (stream is not None and stream.lossy)


def _described(said: Description, now: Description) -> Edits:
    """The attributes of the description that are not what they were."""
    edits: Edits = {}
    if now.photometric != said.photometric:
        edits[PHOTOMETRIC] = element(PHOTOMETRIC, "CS", now.photometric)
    if now.samples > 1 and now.planar != said.planar:
        edits[PLANAR] = element(PLANAR, "US", now.planar)
    return edits


# -- compressed ---------------------------------------------------------------------------------------


def _compressed(parts: Stored, target: str, edits: Edits, coded: list[bytes], encoder: Encoder) -> Transcoded:
    uid = None
    if encoder.lossy:
        said = parts.description()
        before = exchanged(parts.head, edits)
        edits = {**edits, **derived(before, target, said.size / max(sum(map(len, coded)), 1))}
        old = parts.values(frozenset((SOP_INSTANCE_UID,))).get(SOP_INSTANCE_UID, b"")
        uid = derived_uid(old.rstrip(b" \0").decode("ascii", "replace"), target)
    return Transcoded(target, _encapsulated(exchanged(parts.head, edits), coded, parts.tail), uid)


def _encapsulated(before: bytes, coded: list[bytes], tail: bytes) -> Iterator[bytes]:
    yield before + head(PIXEL_DATA, "OB", UNDEFINED)
    yield from encapsulated(coded)
    yield tail


# -- uncompressed -------------------------------------------------------------------------------------


def _native(
    parts: Stored, target: str, edits: Edits, frames: Iterator[Frame], plain: Description | None
) -> Iterator[bytes]:
    """The pieces of the data set with native pixels, or with none."""
    facts = transfer_syntax(target)
    layout = target if facts.uncompressed and not facts.deflated else EXPLICIT_LITTLE
    pieces = _laid_out(parts, layout, exchanged(parts.head, edits), frames, plain)
    return _deflated(pieces) if facts.deflated else pieces


def _laid_out(
    parts: Stored, layout: str, before: bytes, frames: Iterator[Frame], plain: Description | None
) -> Iterator[bytes]:
    encoding = encoding_of(transfer_syntax(layout))
    yield from convert(before, EXPLICIT_LITTLE, layout)
    if plain is not None:
        yield head(PIXEL_DATA, "OB" if plain.allocated <= 8 else "OW", plain.size + plain.size % 2, encoding)
        yield from _packed(frames) if plain.allocated == 1 else _words(frames, swap=encoding.big)
        yield b"\0" * (plain.size % 2)
    yield from convert(parts.tail, EXPLICIT_LITTLE, layout)


def _words(frames: Iterator[Frame], *, swap: bool) -> Iterator[bytes]:
    """OW is a row of 16-bit words, whatever the width of a sample (PS3.5 6.2); bytes (OB) are never swapped."""
    for frame in frames:
        raw = frame.tobytes()
        yield np.frombuffer(raw, "<u2").byteswap().tobytes() if swap and frame.itemsize > 1 else raw


def _packed(frames: Iterator[Frame]) -> Iterator[bytes]:
    """Single bits, the first pixel lowest; frames follow each other without padding (PS3.5 8.1.1)."""
    rest = np.empty(0, np.uint8)
    for frame in frames:
        bits = np.concatenate((rest, frame.reshape(-1) & 1))
        whole = len(bits) - len(bits) % 8
        yield np.packbits(bits[:whole], bitorder="little").tobytes()
        rest = bits[whole:]
    yield np.packbits(rest, bitorder="little").tobytes()


def _deflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Deflated without a zlib header, made even by a NUL (PS3.5 A.5)."""
    deflater = zlib.compressobj(wbits=RAW_DEFLATE)
    size = 0
    for piece in pieces:
        made = deflater.compress(piece)
        size += len(made)
        yield made
    made = deflater.flush()
    yield made + b"\0" * ((size + len(made)) % 2)
