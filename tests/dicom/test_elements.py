"""Walking by lengths: positions, budgets and the three encodings."""

from __future__ import annotations

import struct

import pytest

from archive.dicom.elements import Walk
from archive.dicom.encoding import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, PIXEL_DATA, UNDEFINED, Encoding
from archive.dicom.limits import Limits
from archive.errors import NotUnderstood
from tests.dicom.hostile import ITEM, ITEM_CLOSE, ITEM_OPEN, SEQUENCE_CLOSE, explicit, implicit

ENCODINGS = [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)
def test_tags_are_the_same_both_ways(encoding: Encoding) -> None:
    for tag in (0x00080005, PIXEL_DATA, 0xFFFEE0DD, 0):
        assert encoding.tag(encoding.raw(tag)) == tag
        assert struct.pack(encoding.order + "HH", tag >> 16, tag & 0xFFFF) == encoding.length.pack(encoding.raw(tag))
        assert encoding.group(encoding.raw(tag)) == tag >> 16


@pytest.mark.parametrize("encoding", [EXPLICIT_LE, EXPLICIT_BE], ids=lambda encoding: encoding.name)
def test_vrs_are_the_same_both_ways(encoding: Encoding) -> None:
    for code, vr in encoding.vrs.items():
        assert encoding.letters(code) == vr.encode()
        assert encoding.code(vr) == code


@pytest.mark.parametrize("value", [b"", ITEM, ITEM * 3, ITEM[:4] + b"\x0a\0\0\0" + explicit(0x00080060, "CS", b"CT")])
def test_a_sequence_ends_where_it_says(value: bytes) -> None:
    data = b"before" + value + b"behind"
    assert Walk(data).sequence(6, len(value), EXPLICIT_LE, 1) == 6 + len(value)
    data = b"before" + value + SEQUENCE_CLOSE + b"behind"
    assert Walk(data).sequence(6, UNDEFINED, EXPLICIT_LE, 1) == 14 + len(value)


def test_items_of_undefined_length_may_hold_sequences_of_either_kind() -> None:
    inner = explicit(0x00400100, "SQ", ITEM) + explicit(0x00400275, "SQ", ITEM + SEQUENCE_CLOSE, UNDEFINED)
    value = ITEM_OPEN + inner + ITEM_CLOSE
    assert Walk(value).sequence(0, len(value), EXPLICIT_LE, 1) == len(value)


def test_each_item_is_given_to_the_reader() -> None:
    seen = []

    def read(pos: int, length: int, encoding: Encoding, depth: int) -> int:
        seen.append((pos, length, depth))
        return pos + length

    Walk(ITEM * 2 + ITEM[:4] + b"\4\0\0\0abcd").sequence(0, 28, EXPLICIT_LE, 7, read)
    assert seen == [(8, 0, 7), (16, 0, 7), (24, 4, 7)]


def test_elements_and_items_are_paid_from_one_budget() -> None:
    item = explicit(0x00080060, "CS", b"CT") * 4
    value = (ITEM[:4] + struct.pack("<L", len(item)) + item) * 4
    walk = Walk(value, limits=Limits(objects=20))
    walk.sequence(0, len(value), EXPLICIT_LE, 1)
    assert walk.left == 4
    with pytest.raises(NotUnderstood, match="Too many elements and items"):
        Walk(value, limits=Limits(objects=15)).sequence(0, len(value), EXPLICIT_LE, 1)


@pytest.mark.parametrize(
    ("encoding", "element"),
    [(EXPLICIT_LE, explicit(0x00090010, "LO", b"")), (IMPLICIT_LE, implicit(0x00090010, b""))],
    ids=["explicit", "implicit"],
)
def test_one_item_holds_only_so_many_elements(encoding: Encoding, element: bytes) -> None:
    value = ITEM[:4] + struct.pack("<L", len(element) * 11) + element * 11
    assert Walk(value, limits=Limits(elements=11)).sequence(0, len(value), encoding, 1) == len(value)
    with pytest.raises(NotUnderstood, match="Too many elements"):
        Walk(value, limits=Limits(elements=10)).sequence(0, len(value), encoding, 1)


def test_a_sequence_known_by_the_dictionary_is_walked_in_implicit_vr() -> None:
    bad = implicit(0x00400100, b"no item!")
    value = ITEM[:4] + struct.pack("<L", len(bad)) + bad
    with pytest.raises(NotUnderstood, match="no item"):
        Walk(value).sequence(0, len(value), IMPLICIT_LE, 1)


def test_big_endian_items_are_walked() -> None:
    element = struct.pack(">HH2sH", 8, 0x60, b"CS", 2) + b"CT"
    value = struct.pack(">HHL", 0xFFFE, 0xE000, len(element)) + element
    assert Walk(value).sequence(0, len(value), EXPLICIT_BE, 1) == len(value)
