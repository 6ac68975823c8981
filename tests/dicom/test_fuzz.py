"""Thousands of damaged data sets in process: nothing but NotUnderstood may come out, and always soon.

``FUZZ_ROUNDS`` in the environment multiplies the work for longer runs.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from archive.dicom.attributes import HEADER_TAGS
from archive.dicom.convert import convert
from archive.dicom.header import read_header
from archive.dicom.identifier import decode_identifier
from archive.dicom.limits import LIMITS
from archive.dicom.part10 import read_file_meta
from archive.dicom.uids import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, transfer_syntax
from archive.errors import COMMENT_LENGTH, NotUnderstood
from tests.builders import bytes_of, ct, part10, samples, sr
from tests.dicom.hostile import ITEM_OPEN, SEQUENCE_CLOSE, nested

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "1"))
JPEG = "1.2.840.10008.1.2.4.70"
SYNTAXES = [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED, JPEG]
LENGTHS = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xf0\xff\xff\xff", b"\1\0", b"\xff\xff"]

Mutation = Callable[[random.Random, bytearray], None]


def flip(rnd: random.Random, data: bytearray) -> None:
    data[rnd.randrange(len(data))] ^= 1 << rnd.randrange(8)


def overwrite(rnd: random.Random, data: bytearray) -> None:
    at = rnd.randrange(len(data))
    piece = rnd.choice([*LENGTHS, rnd.randbytes(4), b"SQ", b"UN", b"OB", b"??", ITEM_OPEN, SEQUENCE_CLOSE])
    data[at : at + len(piece)] = piece


def insert(rnd: random.Random, data: bytearray) -> None:
    at = rnd.randrange(len(data))
    data[at:at] = rnd.choice([rnd.randbytes(7), rnd.randbytes(20), ITEM_OPEN, SEQUENCE_CLOSE, bytes(data[:64])])


def cut(rnd: random.Random, data: bytearray) -> None:
    at = rnd.randrange(len(data))
    del data[at : at + rnd.randrange(1, 40)]


def truncate(rnd: random.Random, data: bytearray) -> None:
    del data[rnd.randrange(len(data)) :]


def move(rnd: random.Random, data: bytearray) -> None:
    one, two = rnd.randrange(len(data)), rnd.randrange(len(data))
    data[one : one + 16], data[two : two + 16] = data[two : two + 16], data[one : one + 16]


MUTATIONS: list[Mutation] = [flip, overwrite, insert, cut, truncate, move]


def mutants(seed: int, data: bytes, count: int) -> list[bytes]:
    rnd, made = random.Random(seed), []
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(rnd.randrange(1, 5)):
            if mutant:
                rnd.choice(MUTATIONS)(rnd, mutant)
        made.append(bytes(mutant))
    return made


def survives(what: Callable[[], object]) -> None:
    try:
        what()
    except NotUnderstood as error:
        assert len(error.comment) <= COMMENT_LENGTH
        assert error.comment.isascii()


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("make", [ct, sr, None], ids=["ct", "sr", "nested"])
def test_damaged_headers_are_refused_or_read(syntax: str, make: Callable[[], object] | None) -> None:
    if make is None and syntax not in (IMPLICIT_LITTLE, EXPLICIT_LITTLE):
        syntax = EXPLICIT_LITTLE
    data = nested(40, True, syntax) if make is None else bytes_of(make(), syntax)
    for mutant in mutants(1, data, 500 * ROUNDS):
        survives(lambda mutant=mutant: read_header(mutant, syntax, HEADER_TAGS))


def test_damaged_samples_are_refused_or_read() -> None:
    for number, sample in enumerate(samples()):
        for mutant in mutants(number, sample.data[:20_000], 20 * ROUNDS):
            survives(lambda mutant=mutant, sample=sample: read_header(mutant, sample.syntax, HEADER_TAGS))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_random_bytes_are_refused(syntax: str) -> None:
    rnd = random.Random(2)
    for _ in range(500 * ROUNDS):
        data = rnd.randbytes(rnd.randrange(400))
        with pytest.raises(NotUnderstood):
            read_header(data, syntax, HEADER_TAGS)
        survives(lambda data=data: decode_identifier(data, syntax))
        survives(lambda data=data: read_file_meta(data))


@pytest.mark.parametrize("syntax", SYNTAXES[:4])
def test_damaged_identifiers_are_refused_or_read(syntax: str) -> None:
    for mutant in mutants(3, bytes_of(sr(), syntax), 500 * ROUNDS):
        survives(lambda mutant=mutant: decode_identifier(mutant, syntax))


@pytest.mark.parametrize("syntax", SYNTAXES[:4])
@pytest.mark.parametrize("target", SYNTAXES[:4])
def test_damaged_data_sets_convert_or_are_refused(syntax: str, target: str) -> None:
    for mutant in mutants(4, bytes_of(sr(), syntax), 100 * ROUNDS):
        survives(lambda mutant=mutant: b"".join(convert(mutant, syntax, target)))


def test_what_a_header_accepts_can_be_converted() -> None:
    """The two passes agree on what a data set is, or a stored object could not be sent."""
    agreed = 0
    for number, sample in enumerate(samples()):
        if not transfer_syntax(sample.syntax).uncompressed:
            continue
        for mutant in mutants(number, sample.data[:3_000], 30 * ROUNDS):
            with suppress(NotUnderstood):
                read_header(mutant, sample.syntax, HEADER_TAGS)
                for target in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG):
                    result = b"".join(convert(mutant, sample.syntax, target, LIMITS))
                    read_header(result, target, HEADER_TAGS)
                agreed += 1
    assert agreed


def test_damaged_meta_information_is_refused_or_read() -> None:
    for mutant in mutants(5, part10(ct())[:600], 1000 * ROUNDS):
        survives(lambda mutant=mutant: read_file_meta(mutant))
