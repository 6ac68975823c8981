"""Conversion between the uncompressed transfer syntaxes, compared with pydicom element for element."""

from __future__ import annotations

import mmap
import struct
import zlib
from pathlib import Path

import pydicom.config
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from archive.dicom.convert import convert
from archive.dicom.dictionary import UNKNOWN
from archive.dicom.encoding import IMPLICIT_LE, WORDS
from archive.dicom.header import read_header
from archive.dicom.rewrite import Rewriter
from archive.dicom.source import MemorySource
from archive.dicom.uids import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from archive.errors import NotTranscodable, NotUnderstood
from tests.builders import Sample, bytes_of, ct, read, samples

SYNTAXES = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)
BROKEN = {"MR_truncated.dcm", "rtplan_truncated.dcm"}
NATIVE = [sample for sample in samples() if sample.syntax in SYNTAXES and sample.name not in BROKEN]


@pytest.fixture(autouse=True)
def unknown_stays_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """pydicom would guess the VR of UN from its private dictionaries, and the byte order with it."""
    monkeypatch.setattr(pydicom.config, "replace_un_with_known_vr", False)


def converted(data: bytes, from_syntax: str, to_syntax: str) -> bytes:
    return b"".join(convert(data, from_syntax, to_syntax))


def little(raw: bytes | None, vr: str, big: bool) -> bytes:
    """The bytes of a value as little endian has them, without padding."""
    raw = raw or b""
    width = WORDS.get(vr, 1) if big else 1
    swapped = b"".join(raw[at : at + width][::-1] for at in range(0, len(raw), width))
    return swapped.rstrip(b" \0") if vr not in ("OB", "OW") else swapped


def assert_same(left: Dataset, left_big: bool, right: Dataset, right_big: bool, where: str) -> None:
    tags = [tag for tag in left if tag.tag.element]
    assert [element.tag for element in tags] == [element.tag for element in right if element.tag.element], where
    for element in tags:
        other = right[element.tag]
        if "SQ" in (element.VR, other.VR):
            if isinstance(element.value, bytes) or isinstance(other.value, bytes):
                continue  # pydicom reads a private sequence in UN as bytes on one side
            assert len(element.value) == len(other.value), f"{where} {element.tag}"
            for one, two in zip(element.value, other.value, strict=True):
                assert_same(one, left_big, two, right_big, f"{where} {element.tag}")
        elif UNKNOWN in (element.VR, other.VR):
            continue  # compared as bytes by the round trips
        elif isinstance(element.value, bytes):
            mine, theirs = little(element.value, element.VR, left_big), little(other.value, other.VR, right_big)
            assert mine.rstrip(b"\0") == theirs.rstrip(b"\0"), f"{where} {element.tag} {element.VR} {other.VR}"
        else:
            assert element.value == other.value, f"{where} {element.tag}"


@pytest.mark.parametrize("target", SYNTAXES)
@pytest.mark.parametrize("sample", NATIVE, ids=lambda sample: sample.name)
def test_every_sample_keeps_its_elements(sample: Sample, target: str) -> None:
    original = read(sample.data, sample.syntax)
    result = read(converted(sample.data, sample.syntax, target), target)
    assert_same(original, sample.syntax == EXPLICIT_BIG, result, target == EXPLICIT_BIG, sample.name)


@pytest.mark.parametrize("through", SYNTAXES)
@pytest.mark.parametrize("sample", NATIVE, ids=lambda sample: sample.name)
def test_there_and_back_gives_the_same_bytes(sample: Sample, through: str) -> None:
    """Compared in Implicit LE, where no VR hides a difference, with lengths as the pass leaves them."""
    back = converted(converted(sample.data, sample.syntax, through), through, IMPLICIT_LITTLE)
    if sample.syntax == IMPLICIT_LITTLE:
        assert settled(back) == settled(sample.data)
    else:
        assert settled(back) == converted(sample.data, sample.syntax, IMPLICIT_LITTLE)


def settled(data: bytes) -> bytes:
    """Implicit LE with sequences of undefined length."""
    return b"".join(Rewriter(MemorySource(data), IMPLICIT_LE, IMPLICIT_LE).pieces())


def test_words_are_swapped_for_big_endian() -> None:
    dataset = ct()
    dataset.add_new(0x00281201, "OW", b"\1\2\3\4")
    dataset.add_new(0x00409212, "FD", [1.5, 2.5])
    dataset.add_new(0x00720050, "AT", [0x00100020])
    dataset.add_new(0x00660016, "OF", struct.pack("<2f", 1, 2))
    data = converted(bytes_of(dataset), EXPLICIT_LITTLE, EXPLICIT_BIG)
    assert b"\x00\x28\x12\x01OW\0\0\0\0\0\4\2\1\4\3" in data
    assert struct.pack(">2d", 1.5, 2.5) in data
    assert b"AT\0\4\x00\x10\x00\x20" in data
    assert struct.pack(">2f", 1, 2) in data


def test_what_was_unknown_stays_unknown_with_its_bytes() -> None:
    dataset = ct()
    dataset.add_new(0x00091001, "UN", b"\1\2\3\4")
    big = converted(bytes_of(dataset), EXPLICIT_LITTLE, EXPLICIT_BIG)
    assert b"\0\x09\x10\1UN\0\0\0\0\0\4\1\2\3\4" in big


def test_a_sequence_in_un_of_undefined_length_stays_implicit_inside() -> None:
    item = struct.pack("<HHL", 0x0009, 0x1002, 4) + b"abcd"
    inside = struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    element = struct.pack("<HH2sHL", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF) + inside
    big = converted(element, EXPLICIT_LITTLE, EXPLICIT_BIG)
    assert item in big
    assert big.startswith(struct.pack(">HH2sHL", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF))
    assert item in converted(element, EXPLICIT_LITTLE, IMPLICIT_LITTLE)


def test_known_private_attributes_get_their_vr_and_unknown_ones_un() -> None:
    dataset = Dataset()
    dataset.add_new(0x00090010, "LO", "GEMS_IDEN_01")
    dataset.add_new(0x00091001, "LO", "GE_GENESIS_FF")
    dataset.add_new(0x000910FF, "LO", "unknown")
    result = read(converted(bytes_of(dataset, IMPLICIT_LITTLE), IMPLICIT_LITTLE, EXPLICIT_LITTLE), EXPLICIT_LITTLE)
    assert [result.get_item(tag).VR for tag in (0x00090010, 0x00091001, 0x000910FF)] == ["LO", "LO", "UN"]


@pytest.mark.parametrize(
    ("overrides", "tag", "vr"),
    [
        ({"PixelRepresentation": 1, "SmallestImagePixelValue": 0}, 0x00280106, "SS"),
        ({"PixelRepresentation": 0, "SmallestImagePixelValue": 0}, 0x00280106, "US"),
        ({"BitsAllocated": 16}, 0x7FE00010, "OW"),
        ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, 0x7FE00010, "OB"),
    ],
)
def test_an_ambiguous_vr_follows_the_pixel_description(overrides: dict[str, int], tag: int, vr: str) -> None:
    data = converted(bytes_of(ct(**overrides), IMPLICIT_LITTLE), IMPLICIT_LITTLE, EXPLICIT_LITTLE)
    found = read(data, EXPLICIT_LITTLE).get_item(tag).VR
    assert found == vr


def test_an_item_follows_the_pixel_description_around_it() -> None:
    item = Dataset()
    item.RealWorldValueFirstValueMapped = 1
    dataset = ct(PixelRepresentation=1)
    dataset.RealWorldValueMappingSequence = Sequence([item])
    data = converted(bytes_of(dataset, IMPLICIT_LITTLE), IMPLICIT_LITTLE, EXPLICIT_LITTLE)
    assert read(data, EXPLICIT_LITTLE)[0x00409096].value[0].get_item(0x00409216).VR == "SS"


def test_a_value_too_long_for_its_vr_becomes_unknown() -> None:
    value = b"1\\" * 40_000
    data = struct.pack("<HHL", 0x3006, 0x0050, len(value)) + value
    explicit = converted(data, IMPLICIT_LITTLE, EXPLICIT_LITTLE)
    assert explicit == struct.pack("<HH2sHL", 0x3006, 0x0050, b"UN", 0, len(value)) + value


def test_group_lengths_are_left_out_and_odd_values_made_even() -> None:
    data = struct.pack("<HHLL", 8, 0, 4, 99) + struct.pack("<HHL", 0x0010, 0x0020, 3) + b"abc"
    assert converted(data, IMPLICIT_LITTLE, EXPLICIT_LITTLE) == b"\x10\0\x20\0LO\4\0abc "


def test_the_deflated_result_inflates_to_the_explicit_one() -> None:
    data = bytes_of(ct())
    deflated = converted(data, EXPLICIT_LITTLE, DEFLATED)
    assert len(deflated) % 2 == 0
    assert zlib.decompressobj(-15).decompress(deflated) == data


def test_compressed_syntaxes_are_refused_at_once() -> None:
    with pytest.raises(NotTranscodable):
        convert(b"", "1.2.840.10008.1.2.4.70", EXPLICIT_LITTLE)
    with pytest.raises(NotTranscodable):
        convert(b"", EXPLICIT_LITTLE, "1.2.840.10008.1.2.5")


@pytest.mark.parametrize("cut", [3, 9, 100, 333])
def test_a_damaged_data_set_raises(cut: int) -> None:
    data = bytes_of(ct(), IMPLICIT_LITTLE)
    with pytest.raises(NotUnderstood):
        converted(data[:-cut], IMPLICIT_LITTLE, EXPLICIT_BIG)


@pytest.mark.parametrize("target", [IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED])
def test_memory_does_not_grow_with_the_pixels(target: str, tmp_path: Path) -> None:
    head = bytes_of(ct(PixelData=None))
    size = 200_000_000
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.write(head + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, size))
        file.truncate(file.tell() + size)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        longest = max(len(piece) for piece in convert(data, EXPLICIT_LITTLE, target))
    assert longest <= 1 << 19


def test_a_converted_image_reads_as_the_same_header() -> None:
    dataset = ct()
    data = bytes_of(dataset)
    for syntax in SYNTAXES:
        assert read_header(converted(data, EXPLICIT_LITTLE, syntax), syntax) == read_header(data, EXPLICIT_LITTLE)
