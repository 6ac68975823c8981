"""Which transfer syntax a stored data set can be given in, and why not in the others.

Rules that hold here: what is stored goes out as it is if that is accepted; a code stream that the wider
syntax allows as well is only named anew; then comes whatever keeps every pixel, in the order of the list;
loss comes last and only when it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydicom.uid import UID

from archive.dicom.compressed import WIDER
from archive.dicom.decoders import DECODERS, decoded
from archive.dicom.encoders import ENCODERS, LOSSY_ENCODERS, Encoder
from archive.dicom.pixels import SUBSAMPLED, Description
from archive.dicom.uids import NEWER_NAMES, RLE, Pixels, TransferSyntax, transfer_syntax

LARGEST_NATIVE = 0xFFFFFFFE  # PS3.5 7.1: an even length of 32 bits that is not "undefined"
_BY_KIND = {
    Pixels.VIDEO: "Video is not transcoded",
    Pixels.REFERENCED: "Pixels that are kept elsewhere are not transcoded",
}


def can_transcode(
    stored: str, target: str, said: Description | None = None, *, allow_lossy: bool = False, pixels: bool = True
) -> str | None:
    """Why a data set in ``stored`` cannot be given in ``target``; None if it can, as far as its description tells.

    Without a description only the syntaxes are judged; ``pixels`` false stands for an object that has none.
    """
    read, write = transfer_syntax(stored), transfer_syntax(target)
    if stored == target or (read.uncompressed and write.uncompressed):
        return None
    if not pixels:
        return _refusal_without_pixels(read, write)
    if target in WIDER.get(stored, ()):
        return None
    return _unreadable(read, said) or _unwritable(read, write, said, allow_lossy)


def _refusal_without_pixels(read: TransferSyntax, write: TransferSyntax) -> str | None:
    for facts in (read, write):
        if facts.name == "Private":
            return "Private transfer syntax"
        if facts.pixels in _BY_KIND and facts.pixels is Pixels.REFERENCED:
            return _BY_KIND[facts.pixels]
    return None


def _unreadable(read: TransferSyntax, said: Description | None) -> str | None:
    if read.uncompressed:
        return None
    if read.pixels in _BY_KIND:
        return _BY_KIND[read.pixels]
    if read.uid not in DECODERS:
        return "Private transfer syntax" if read.name == "Private" else f"No decoder for {_short(read)}"
    if said is not None and said.allocated == 1 and read.uid == RLE:
        return "Single-bit pixels in RLE"
    if said is not None and said.size > LARGEST_NATIVE:
        return "Pixels are too large to be uncompressed"
    return None


def _unwritable(read: TransferSyntax, write: TransferSyntax, said: Description | None, allow_lossy: bool) -> str | None:
    if write.uncompressed:
        return None
    encoder = encoder_for(write.uid, allow_lossy)
    if encoder is None and write.uid in LOSSY_ENCODERS:
        return "Only with loss, which was not asked for"
    if encoder is None:
        return f"No encoder for {_short(write)}"
    return encoder.refusal(opened(said, read.uid)) if said is not None else None


def _short(facts: TransferSyntax) -> str:
    """A name that leaves room in a comment of 64 characters."""
    return facts.name if facts.uid in NEWER_NAMES else UID(facts.uid).keyword or facts.uid


def opened(said: Description, stored: str) -> Description:
    """The description of the pixels as arrays: decoded, or native ones brought into the one layout of arrays."""
    if not transfer_syntax(stored).uncompressed:
        return decoded(said, stored)
    return replace(said, planar=0, photometric="YBR_FULL" if said.photometric == SUBSAMPLED else said.photometric)


def encoder_for(target: str, allow_lossy: bool) -> Encoder | None:
    """The encoder of a compressed syntax; the one with loss goes first when loss was asked for."""
    return (LOSSY_ENCODERS.get(target) if allow_lossy else None) or ENCODERS.get(target)


def candidates(stored: str, accepted: Sequence[str], *, allow_lossy: bool) -> Iterator[str]:
    """The accepted syntaxes, best first."""
    wider = WIDER.get(stored, ())
    lossy = [target for target in accepted if allow_lossy and target in LOSSY_ENCODERS]
    rest = [target for target in accepted if target not in wider and target not in lossy]
    if transfer_syntax(stored).uncompressed:  # nothing is encoded where nothing needs to be
        rest.sort(key=lambda target: not transfer_syntax(target).uncompressed)
    yield from (target for target in accepted if target in wider)
    yield from rest
    yield from (target for target in lossy if target not in wider)
