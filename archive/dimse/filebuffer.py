"""A file on its way into P-DATA: read into the gaps between headers that are there already.

Rules that hold here: two calls to the kernel per buffer, one that reads and one that sends, however
small the peer's PDUs are; memory does not grow with the file; a file that ends too soon is an OSError.
"""

from __future__ import annotations

import errno
import mmap
import os

from archive.dimse import wire
from archive.dimse.connection import Bytes, Connection

BUFFER = 512 * 1024  # measured: twice our own PDU; more gains nothing
MOST_SLOTS = 512  # buffers of one preadv, half of IOV_MAX
_HEADER = wire.DATA_HEADER.size


class FileBuffer:
    """One buffer, laid out as P-DATA PDUs of one size; the files of an association go through it in turn."""

    def __init__(self, fragment: int) -> None:
        step = fragment + _HEADER
        self._fragment = fragment
        self._slots = max(1, min(MOST_SLOTS, BUFFER // step))
        self._buffer = memoryview(mmap.mmap(-1, self._slots * step))
        self._gaps = [self._buffer[i * step + _HEADER : (i + 1) * step] for i in range(self._slots)]
        self._context_id = -1

    def send(
        self, connection: Connection, before: list[Bytes], context_id: int, fd: int, offset: int, size: int
    ) -> None:
        """`size` bytes of the file behind what comes `before`, the last fragment marked as the last."""
        if context_id != self._context_id:
            self._write_headers(context_id)
        capacity = self._slots * self._fragment
        while size > capacity:
            _read(fd, self._gaps, offset, capacity)
            connection.send([*before, self._buffer])
            before = []
            offset += capacity
            size -= capacity
        self._send_last(connection, before, context_id, fd, offset, size)

    def _write_headers(self, context_id: int) -> None:
        header = wire.data_header(context_id, self._fragment, command=False, last=False)
        for start in range(0, len(self._buffer), self._fragment + _HEADER):
            self._buffer[start : start + _HEADER] = header
        self._context_id = context_id

    def _send_last(
        self, connection: Connection, before: list[Bytes], context_id: int, fd: int, offset: int, size: int
    ) -> None:
        whole = max(0, size - 1) // self._fragment  # slots before the last one
        rest = size - whole * self._fragment
        start = whole * (self._fragment + _HEADER)
        _read(fd, [*self._gaps[:whole], self._gaps[whole][:rest]], offset, size)
        usual = bytes(self._buffer[start : start + _HEADER])
        self._buffer[start : start + _HEADER] = wire.data_header(context_id, rest, command=False, last=True)
        connection.send([*before, self._buffer[: start + _HEADER + rest]])
        self._buffer[start : start + _HEADER] = usual


def _read(fd: int, gaps: list[memoryview], offset: int, size: int) -> None:
    if size and os.preadv(fd, gaps, offset) != size:
        raise OSError(errno.EIO, "the file is shorter than its entry says")
