"""Seeds of the protocol and ways to spoil them; the same number gives the same bytes.

Rules that hold here: nothing of the archive is used; every strategy is applied to every seed at least
once before chance decides.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

from tests.faults import raw
from tests.faults.objects import instance, keys_of
from tests.faults.raw import COMMAND, CT, LAST, MR, STORE_CT, Request, p_data, pdv, role, window

Strategy = Callable[[random.Random, bytes], bytes]


def seeds() -> dict[str, tuple[bool, bytes]]:
    """Name -> (sent within an association?, bytes)."""
    one = instance(uid="1.2.826.0.1.3680043.9.9999.37", size=300)
    rich = role(CT, True, True) + role(MR, False, True) + window(8, 8) + raw.item(0x55, b"FUZZ_10")
    store = p_data(pdv(STORE_CT, COMMAND | LAST, raw.store_rq(CT, one.uid)))
    find = p_data(pdv(raw.FIND, COMMAND | LAST, raw.query_rq(raw.C_FIND, raw.STUDY_FIND)))
    return {
        "request": (False, Request().pdu()),
        "rich request": (False, Request(user=rich).pdu()),
        "echo": (True, p_data(pdv(raw.ECHO, COMMAND | LAST, raw.echo_rq()))),
        "store": (True, store + p_data(pdv(STORE_CT, LAST, one.data))),
        "find": (True, find + p_data(pdv(raw.FIND, LAST, keys_of("STUDY", study="1.2.3")))),
        "release": (True, raw.release_rq()),
    }


def _at(rng: random.Random, data: bytes) -> int:
    return rng.randrange(len(data)) if data else 0


def flip(rng: random.Random, data: bytes) -> bytes:
    spoiled = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        spoiled[_at(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(spoiled)


def bytes_changed(rng: random.Random, data: bytes) -> bytes:
    spoiled = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        spoiled[_at(rng, data)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return bytes(spoiled)


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: _at(rng, data)]


def insert(rng: random.Random, data: bytes) -> bytes:
    at = _at(rng, data)
    return data[:at] + rng.randbytes(rng.randint(1, 20)) + data[at:]


def remove(rng: random.Random, data: bytes) -> bytes:
    at = _at(rng, data)
    return data[:at] + data[at + rng.randint(1, 20) :]


def repeat(rng: random.Random, data: bytes) -> bytes:
    at = _at(rng, data)
    piece = data[at : at + rng.randint(1, 200)]
    return data[:at] + piece * rng.randint(2, 20) + data[at:]


def shuffle(rng: random.Random, data: bytes) -> bytes:
    cuts = sorted(_at(rng, data) for _ in range(4))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    rng.shuffle(pieces)
    return b"".join(pieces)


def length_short(rng: random.Random, data: bytes) -> bytes:
    at = _at(rng, data[:-1])
    return data[:at] + struct.pack(">H", rng.choice([0, 1, 2, 3, 0x7FFF, 0xFFFF])) + data[at + 2 :]


def length_long(rng: random.Random, data: bytes) -> bytes:
    at = rng.choice([2, 6, _at(rng, data)])
    number = rng.choice([0, 1, 2, 3, 4, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFF0, len(data), len(data) - 7])
    return data[:at] + struct.pack(rng.choice("<>") + "I", number) + data[at + 4 :]


def kind(rng: random.Random, data: bytes) -> bytes:
    return bytes([rng.randrange(256)]) + data[1:]


def noise(rng: random.Random, data: bytes) -> bytes:
    return rng.randbytes(rng.randint(1, 400))


def consistent(rng: random.Random, data: bytes) -> bytes:
    """Spoiled inside, with the outer length put right, so that it gets further."""
    body = rng.choice([flip, bytes_changed, insert, remove, repeat, shuffle, length_short])(rng, data[6:] or b"\0")
    return data[:2] + struct.pack(">I", len(body)) + body


STRATEGIES: tuple[Strategy, ...] = (
    flip, bytes_changed, cut, insert, remove, repeat, shuffle, length_short, length_long, kind, noise, consistent,
)  # fmt: skip


def cases(count: int, number: int = 1) -> Iterator[tuple[str, bool, bytes]]:
    """`count` spoiled seeds: (what it is, within an association?, bytes)."""
    rng = random.Random(number)
    known = seeds()
    rounds = [(name, strategy) for name in known for strategy in STRATEGIES]
    for at in range(count):
        name, strategy = rounds[at] if at < len(rounds) else rng.choice(rounds)
        inside, data = known[name]
        yield f"{at}: {name}, {strategy.__name__}", inside, strategy(rng, data)
