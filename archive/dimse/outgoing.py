"""Messages on their way out: cut into P-DATA, gathered, and sent with few calls (PS3.8 9.3.5, annex E).

Rules that hold here: a fragment travels alone in its PDU, no larger than the peer bears; payload is
never copied into PDUs, header and payload go out side by side; memory does not grow with a data set.
"""

from __future__ import annotations

from collections.abc import Iterable

from archive.dimse import wire
from archive.dimse.connection import IOV_MAX, Bytes, Connection
from archive.dimse.filebuffer import FileBuffer

OWN_PDU = 256 * 1024  # what we send in one PDU when the peer sets no limit
WORTHWHILE = 32 * 1024  # measured: PDUs from which sendfile takes a third of the time; smaller ones go by FileBuffer
ENOUGH = 64 * 1024  # bytes of small messages that are worth a call


class Outgoing:
    """The sending side of an association."""

    def __init__(self, connection: Connection, peer_max_pdu: int) -> None:
        self._connection = connection
        self._fragment = wire.fragment_size(peer_max_pdu, OWN_PDU)
        self._parts: list[Bytes] = []
        self._size = 0
        self._file_buffer: FileBuffer | None = None

    @property
    def pending(self) -> bool:
        return bool(self._parts)

    def queue(self, context_id: int, command: bytes, data: bytes | None = None) -> None:
        """A small message that may wait for others."""
        self._cut(context_id, command, command=True, last=True)
        if data is not None:
            self._cut(context_id, data, command=False, last=True)
        if self._size >= ENOUGH or len(self._parts) > IOV_MAX - 8:
            self.flush()

    def flush(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        for start in range(0, len(parts), IOV_MAX):
            self._connection.send(parts[start : start + IOV_MAX] if len(parts) > IOV_MAX else parts)

    def send_file(self, context_id: int, command: bytes, fd: int, offset: int, size: int) -> None:
        """A message whose data set is `size` bytes of a file. Raises OSError when the file is shorter."""
        self._cut(context_id, command, command=True, last=True)
        before, self._parts, self._size = self._parts, [], 0
        if self._fragment >= WORTHWHILE and size and not self._connection.tls:
            self._splice(before, context_id, fd, offset, size)
            return
        if self._file_buffer is None:
            self._file_buffer = FileBuffer(self._fragment)
        self._file_buffer.send(self._connection, before, context_id, fd, offset, size)

    def _splice(self, before: list[Bytes], context_id: int, fd: int, offset: int, size: int) -> None:
        """From the page cache to the socket, PDU by PDU."""
        while size:
            count = min(size, self._fragment)
            header = wire.data_header(context_id, count, command=False, last=count == size)
            self._connection.send_file([*before, header], fd, offset, count)
            before = []
            offset += count
            size -= count

    def send_stream(self, context_id: int, command: bytes, chunks: Iterable[Bytes]) -> None:
        """A message whose data set comes in chunks of any size; one of them is held back for the last flag."""
        self._cut(context_id, command, command=True, last=True)
        held: Bytes = b""
        for chunk in chunks:
            if len(held):
                self._cut(context_id, held, command=False, last=False)
                self.flush()
            held = chunk
        self._cut(context_id, held, command=False, last=True)
        self.flush()

    def drop(self) -> None:
        """Nothing more can be sent."""
        self._parts.clear()

    def _cut(self, context_id: int, data: Bytes, *, command: bool, last: bool) -> None:
        """Into fragments, each behind its header; an empty data set is one empty fragment."""
        size = self._fragment
        self._size += len(data)
        if len(data) <= size:
            self._parts += (wire.data_header(context_id, len(data), command=command, last=last), data)
            return
        view = memoryview(data)
        for start in range(0, len(view), size):
            part = view[start : start + size]
            ends = last and start + size >= len(view)
            self._parts += (wire.data_header(context_id, len(part), command=command, last=ends), part)
