"""MLLP frames: bytes in, whole messages out (HL7 v2.5.1 Transport Specification: MLLP, release 1).

Rules that hold here: no socket and no clock; what arrives may be cut anywhere; between frames only line ends are
allowed, and whatever else comes there ends the connection, because nobody can say where the next message begins.
"""

from __future__ import annotations

from archive.errors import NotUnderstood

START, END, CARRIAGE_RETURN = b"\x0b", b"\x1c", b"\x0d"
LONGEST = 1 << 20  # bytes of one message; a report with a PDF in it is the longest that comes

_BETWEEN = b"\r\n"


def framed(message: bytes) -> bytes:
    return START + message + END + CARRIAGE_RETURN


class Framer:
    """Takes one connection's bytes and gives its messages."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer in which there is no end
        self._broken: NotUnderstood | None = None

    @property
    def begun(self) -> bool:
        """Whether a message has begun and is not whole."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now; raises NotUnderstood, and then the connection cannot go on.

        What came whole before something that is no message is given first, and the next call raises.
        """
        if self._broken:
            raise self._broken
        self._buffer += data
        messages: list[bytes] = []
        try:
            while (message := self._next()) is not None:
                messages.append(message)
        except NotUnderstood as error:
            if not messages:
                raise
            self._broken = error
        return messages

    def _next(self) -> bytes | None:
        buffer = self._buffer
        if not self._searched:
            del buffer[: len(buffer) - len(buffer.lstrip(_BETWEEN))]
            if buffer and not buffer.startswith(START):
                raise NotUnderstood("message does not begin with VT (0x0B)")
        end = buffer.find(END, self._searched)
        if end < 0:
            self._searched = len(buffer)
            if self._searched > self._longest:
                raise NotUnderstood(f"message is longer than {self._longest} bytes")
            return None
        if end > self._longest:
            raise NotUnderstood(f"message is longer than {self._longest} bytes")
        message = bytes(buffer[1:end])
        del buffer[: end + 1]
        self._searched = 0
        return message
