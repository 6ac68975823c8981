"""Valid conversations, and the ways to spoil them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from archive.dimse import wire
from archive.dimse.associate import UserIdentity, UserInformation
from archive.dimse.connection import BUFFER, TIMEOUTS, Connection
from archive.dimse.reasons import Aborted

from .raw import CT, FIND, association_request, cancel, data_pdu, echo, find, store

REQUESTS = {
    "small": association_request(),
    "full": association_request(
        user=UserInformation(
            0, "1.2.3", "V", (3, 3), {CT: (True, True)}, {FIND: b"\1\1"}, {}, UserIdentity(2, b"user", b"secret", True)
        )
    ),
    "wide": association_request([f"1.2.840.10008.5.1.4.1.1.{i}" for i in range(128)], ["1.2.840.10008.1.2"] * 3),
}
CONVERSATIONS = {
    "echo": data_pdu((1, 3, echo())) + wire.RELEASE_REQUEST,
    "store": data_pdu((3, 3, store())) + data_pdu((3, 0, bytes(200))) + data_pdu((3, 2, bytes(100))),
    "one pdu": data_pdu((3, 3, store(1)), (3, 2, b"one"), (7, 3, find(2)), (7, 2, b"two"), (7, 3, cancel(2))),
    "pieces": data_pdu((3, 1, store()[:30])) + data_pdu((3, 3, store()[30:]), (3, 0, b"a"), (3, 2, b"b")),
    "abort": data_pdu((1, 3, echo())) + wire.abort_pdu(2, 6),
}

Strategy = Callable[[bytes, random.Random], bytes]
_EDGES = (0, 1, 2, 3, 5, 6, 7, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def flip(data: bytes, dice: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        found[dice.randrange(len(found))] ^= 1 << dice.randrange(8)
    return bytes(found)


def overwrite(data: bytes, dice: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        found[dice.randrange(len(found))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
    return bytes(found)


def lengths(data: bytes, dice: random.Random) -> bytes:
    """A field of two or four bytes becomes a number at an edge."""
    form = dice.choice((">H", ">I", "<H", "<I"))
    value = dice.choice(_EDGES) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
    at = dice.randrange(max(1, len(data) - 4))
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def truncate(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def remove(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + data[at + dice.randint(1, 40) :]


def repeat(data: bytes, dice: random.Random) -> bytes:
    at, to = sorted((dice.randrange(len(data)), dice.randrange(len(data))))
    return data[:to] + data[at:to] * dice.randint(1, 3) + data[to:]


def insert(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + dice.randbytes(dice.randint(1, 40)) + data[at:]


def exchange(data: bytes, dice: random.Random) -> bytes:
    middle = sorted(dice.randrange(len(data)) for _ in range(3))
    return data[: middle[0]] + data[middle[1] : middle[2]] + data[middle[0] : middle[1]] + data[middle[2] :]


def noise(data: bytes, dice: random.Random) -> bytes:
    return dice.randbytes(dice.randint(0, len(data)))


STRATEGIES: tuple[Strategy, ...] = (flip, overwrite, lengths, truncate, remove, repeat, insert, exchange, noise)


class Canned(Connection):
    """A connection that gives out what it was made of, in pieces, and then is closed by its peer."""

    def __init__(self, data: bytes, dice: random.Random, buffer: bytearray) -> None:
        self.timeouts = TIMEOUTS
        self.buffer = memoryview(buffer)
        self.start = self.end = self.received = self.sent = 0
        self.hurry = False
        self._data = data
        self._dice = dice

    def expect(self, seconds: float) -> None:
        """Nothing has to be waited for."""

    def _receive(self) -> bool:
        if not self._data:
            raise Aborted("the end")
        room = min(len(self._data), BUFFER - self.end)
        assert room > 0, "received into a full buffer"
        count = self._dice.choice((1, 7, 100, room))
        count = min(count, room)
        self.buffer[self.end : self.end + count] = self._data[:count]
        self._data = self._data[count:]
        self.end += count
        return True
