"""Bytes in order, from memory or from a deflated stream, for passes that must not hold a data set whole.

Rules that hold here: reading goes forward only; a read that cannot be filled is NotUnderstood; what is copied
is handed on in steps of ``STEP`` bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from archive.dicom.elements import CUT_SHORT, Buffer
from archive.errors import NotUnderstood

STEP = 1 << 18  # even and a multiple of every word, so that a step can be byte-swapped by itself


class Source(Protocol):
    """What a forward pass reads from."""

    position: int

    def read(self, size: int) -> bytes:
        """Exactly that many bytes."""

    def at_end(self) -> bool: ...


def copied(source: Source, size: int) -> Iterator[bytes]:
    """The next ``size`` bytes in steps."""
    while size > 0:
        step = min(size, STEP)
        yield source.read(step)
        size -= step


class MemorySource:
    """Reads from bytes or from a mapped file."""

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self._size = len(data)
        self.position = 0

    def read(self, size: int) -> bytes:
        end = self.position + size
        if end > self._size:
            raise NotUnderstood(CUT_SHORT)
        piece = bytes(self._data[self.position : end])
        self.position = end
        return piece

    def at_end(self) -> bool:
        return self.position >= self._size


class StreamSource:
    """Reads from pieces that come one after the other."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._at = 0
        self.position = 0

    def _fill(self, size: int) -> bool:
        """Have ``size`` bytes at hand; False when the stream ends before."""
        if len(self._buffer) - self._at >= size:
            return True
        parts, have = [self._buffer[self._at :]], len(self._buffer) - self._at
        while have < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            parts.append(piece)
            have += len(piece)
        self._buffer, self._at = b"".join(parts), 0
        return have >= size

    def read(self, size: int) -> bytes:
        if not self._fill(size):
            raise NotUnderstood(CUT_SHORT)
        piece = self._buffer[self._at : self._at + size]
        self._at += size
        self.position += size
        return piece

    def at_end(self) -> bool:
        return not self._fill(1)
