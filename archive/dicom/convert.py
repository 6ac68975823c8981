"""Stored data sets in another of the uncompressed transfer syntaxes (PS3.5 A.1, A.2, A.3, A.5).

Rules that hold here: the result comes in pieces and nothing is held whole, so a data set of any size may be
converted from a mapped file; the meaning of every value stays; compressed pixels are another module's matter.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from archive.dicom.elements import Buffer
from archive.dicom.encoding import encoding_of
from archive.dicom.inflate import RAW_DEFLATE, inflate
from archive.dicom.limits import LIMITS, Limits
from archive.dicom.rewrite import Rewriter
from archive.dicom.source import STEP, MemorySource, Source, StreamSource, copied
from archive.dicom.uids import TransferSyntax, transfer_syntax
from archive.errors import NotTranscodable, NotUnderstood


def convert(data: Buffer, from_syntax: str, to_syntax: str, limits: Limits = LIMITS) -> Iterator[bytes]:
    """The data set in ``to_syntax``, piece by piece. NotTranscodable at once; NotUnderstood where it is broken."""
    read, write = _uncompressed(from_syntax), _uncompressed(to_syntax)
    pieces = _converted(data, read, write, limits)
    return deflated(pieces) if write.deflated else pieces


def converted(pieces: Iterator[bytes], from_syntax: str, to_syntax: str, limits: Limits = LIMITS) -> Iterator[bytes]:
    """The same for a data set that comes in pieces."""
    read, write = _uncompressed(from_syntax), _uncompressed(to_syntax)
    if read.deflated:
        pieces = _inflated(pieces)
    if encoding_of(read) is not encoding_of(write):
        pieces = Rewriter(StreamSource(pieces), encoding_of(read), encoding_of(write), limits=limits).pieces()
    return deflated(pieces) if write.deflated else pieces


def _uncompressed(syntax: str) -> TransferSyntax:
    facts = transfer_syntax(syntax)
    if not facts.uncompressed:
        raise NotTranscodable("Not an uncompressed transfer syntax", syntax)
    return facts


def _converted(data: Buffer, read: TransferSyntax, write: TransferSyntax, limits: Limits) -> Iterator[bytes]:
    pieces = inflate(data, limits) if read.deflated else None
    if encoding_of(read) is encoding_of(write):
        return pieces if pieces is not None else copied(MemorySource(data), len(data))
    source: Source = StreamSource(pieces) if pieces is not None else MemorySource(data)
    return Rewriter(source, encoding_of(read), encoding_of(write), limits=limits).pieces()


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """What comes deflated, in bounded steps; how much it is was looked at when it was stored."""
    inflater = zlib.decompressobj(RAW_DEFLATE)
    try:
        for piece in pieces:
            while piece:
                yield inflater.decompress(piece, STEP)
                piece = inflater.unconsumed_tail
        yield inflater.flush()
    except zlib.error as error:
        raise NotUnderstood("Data set is not deflated as its transfer syntax says", str(error)) from error
    if not inflater.eof:
        raise NotUnderstood("Deflated data set ends in the middle")


def deflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Deflated without a zlib header, made even by a NUL (PS3.5 A.5)."""
    deflater = zlib.compressobj(wbits=RAW_DEFLATE)
    size = 0
    for piece in pieces:
        made = deflater.compress(piece)
        size += len(made)
        if made:
            yield made
    made = deflater.flush()
    yield made + b"\0" if (size + len(made)) & 1 else made
