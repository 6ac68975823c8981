"""The header pass: what it reads, what it refuses, and that it agrees with pydicom."""

from __future__ import annotations

import json
import mmap
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from archive.dicom.attributes import HEADER_TAGS
from archive.dicom.header import read_header
from archive.dicom.limits import Limits
from archive.dicom.uids import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from archive.errors import COMMENT_LENGTH, InvalidUID, NotUnderstood
from tests.builders import Sample, bytes_of, ct, samples, sr
from tests.dicom.hostile import (
    ITEM,
    ITEM_CLOSE,
    ITEM_OPEN,
    SEQUENCE_CLOSE,
    bombs,
    deflated,
    explicit,
    implicit,
    nested,
    with_tail,
)

JPEG = "1.2.840.10008.1.2.4.70"
UNDEFINED = 0xFFFFFFFF
DAMAGED = {"MR_truncated.dcm", "rtplan_truncated.dcm"}
OTHER_ENCODING = {"SC_rgb_jpeg.dcm"}  # Implicit VR under a JPEG transfer syntax
WHOLE = [sample for sample in samples() if sample.name not in DAMAGED | OTHER_ENCODING]


def refusal(data: bytes, syntax: str = EXPLICIT_LITTLE) -> str:
    """The comment with which a data set is refused."""
    with pytest.raises(NotUnderstood) as caught:
        read_header(data, syntax, HEADER_TAGS)
    assert len(caught.value.comment) <= COMMENT_LENGTH
    return caught.value.comment


def expected(value: Any) -> str:
    """What pydicom read, as DICOM writes it."""
    if value is None:
        return ""
    if isinstance(value, MultiValue | list):
        return "\\".join(str(one).strip() for one in value)
    return str(value).strip()


@pytest.mark.parametrize("sample", WHOLE, ids=lambda sample: sample.name)
def test_every_sample_reads_as_pydicom_reads_it(sample: Sample) -> None:
    header = read_header(sample.data, sample.syntax, HEADER_TAGS)
    present = {int(element.tag): element for element in sample.dataset if int(element.tag) in HEADER_TAGS}
    assert header.values.keys() == present.keys()
    for tag, element in present.items():
        if element.VR == "SQ":
            assert len(json.loads(header.values[tag])) == len(element.value)
        else:
            assert header.values[tag].rstrip("=") == expected(element.value), element.keyword
    assert header.sop_instance_uid == sample.dataset.SOPInstanceUID
    assert header.series_uid == sample.dataset.SeriesInstanceUID


@pytest.mark.parametrize("sample", [sample for sample in samples() if sample.name in DAMAGED], ids=lambda s: s.name)
def test_a_truncated_sample_is_refused(sample: Sample) -> None:
    assert refusal(sample.data, sample.syntax) == "Data set ends in the middle of an element"


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED, JPEG])
def test_the_same_object_reads_the_same_in_every_encoding(syntax: str) -> None:
    item = Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID = "SPS1", "RP1"
    dataset = ct(PatientName="Mustermann^Jörg", SpecificCharacterSet="ISO_IR 100", RequestAttributesSequence=[item])
    header = read_header(bytes_of(dataset, syntax), syntax, HEADER_TAGS)
    assert header.values[0x00100010] == "Mustermann^Jörg"
    assert header.values[0x00280010] == "8"
    assert header.values[0x00080008] == "ORIGINAL\\PRIMARY\\AXIAL"
    assert json.loads(header.values[0x00400275]) == [
        {"ScheduledProcedureStepID": "SPS1", "RequestedProcedureID": "RP1"}
    ]
    assert header.charset == ("ISO_IR 100",)
    assert header.sop_class_uid == dataset.SOPClassUID


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(kind: Any) -> None:
    dataset = ct()
    assert read_header(kind(bytes_of(dataset)), EXPLICIT_LITTLE, HEADER_TAGS).study_uid == dataset.StudyInstanceUID


@pytest.mark.parametrize("tail", [b"", b"\0"])
def test_a_mapped_file_can_be_closed_afterwards(tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"prefix" + bytes_of(ct()) + tail)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        with memoryview(mapped)[6:] as data:
            if tail:
                with pytest.raises(NotUnderstood):
                    read_header(data, EXPLICIT_LITTLE, HEADER_TAGS)
            else:
                assert read_header(data, EXPLICIT_LITTLE, HEADER_TAGS).values


def test_only_wanted_attributes_are_returned() -> None:
    header = read_header(bytes_of(ct(PatientID="  P1 ")), EXPLICIT_LITTLE, {0x00100020})
    assert header.values == {0x00100020: "P1"}


def test_absent_and_empty_are_different() -> None:
    values = read_header(bytes_of(ct(PatientID="", StudyID=None)), EXPLICIT_LITTLE, HEADER_TAGS).values
    assert values[0x00100020] == ""
    assert 0x00200010 not in values


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, ""])
def test_an_object_without_its_uids_is_refused(keyword: str, value: str | None) -> None:
    assert refusal(bytes_of(ct(**{keyword: value}))) == f"{keyword} is missing"


def test_a_missing_patient_id_is_not_the_headers_matter() -> None:
    assert 0x00100020 not in read_header(bytes_of(ct(PatientID=None)), EXPLICIT_LITTLE, HEADER_TAGS).values


@pytest.mark.parametrize(
    "uid", ["../../etc/passwd", "/etc/passwd", "1.2\n3", "1.2*", "1.2'", "CON", "1." + "2" * 63, "1.2.", "1..2", "1.²"]
)
def test_an_invalid_uid_is_refused_without_repeating_it(uid: str) -> None:
    data = bytes_of(ct(SOPInstanceUID="1.9.9"))
    raw = uid.encode("utf-8")
    raw += b"\0" * (len(raw) % 2)
    old = explicit(0x00080018, "UI", b"1.9.9\0")
    with pytest.raises(InvalidUID, match="SOPInstanceUID") as caught:
        read_header(data.replace(old, explicit(0x00080018, "UI", raw)), EXPLICIT_LITTLE, HEADER_TAGS)
    assert uid not in str(caught.value)


def test_leading_zeros_are_a_matter_of_leniency() -> None:
    data = bytes_of(ct(SeriesInstanceUID="1.02.3"))
    assert read_header(data, EXPLICIT_LITTLE).series_uid == "1.02.3"
    with pytest.raises(InvalidUID):
        read_header(data, EXPLICIT_LITTLE, lenient_uids=False)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", bytes(1000), b"\x7fELF" + bytes(500), b"PK\3\4" + bytes(range(256)), b"just some text, not DICOM"],
)
@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED, JPEG])
def test_what_is_no_data_set_is_refused(data: bytes, syntax: str) -> None:
    refusal(data, syntax)


@pytest.mark.parametrize(
    ("real", "negotiated", "comment"),
    [
        (IMPLICIT_LITTLE, EXPLICIT_LITTLE, "Data set is Implicit VR Little Endian, not Explicit VR Little Endian"),
        (EXPLICIT_LITTLE, IMPLICIT_LITTLE, "Data set is Explicit VR Little Endian, not Implicit VR Little Endian"),
        (EXPLICIT_LITTLE, EXPLICIT_BIG, "Data set is Explicit VR Little Endian, not Explicit VR Big Endian"),
        (EXPLICIT_BIG, EXPLICIT_LITTLE, "Data set is Explicit VR Big Endian, not Explicit VR Little Endian"),
        (EXPLICIT_LITTLE, DEFLATED, "Data set is not deflated as its transfer syntax says"),
        (EXPLICIT_LITTLE, JPEG, "Native pixel data in a compressed transfer syntax"),
        (JPEG, EXPLICIT_LITTLE, "Encapsulated pixel data in a native transfer syntax"),
    ],
)
def test_another_encoding_than_negotiated_is_named(real: str, negotiated: str, comment: str) -> None:
    assert refusal(bytes_of(ct(), real), negotiated) == comment[:COMMENT_LENGTH]


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED, JPEG])
@pytest.mark.parametrize("make", [ct, sr])
def test_every_truncation_is_refused_unless_it_ends_an_element(syntax: str, make: Any) -> None:
    data = bytes_of(make(), syntax)
    for end in range(len(data)):
        try:
            read_header(data[:end], syntax, HEADER_TAGS)
        except NotUnderstood:
            continue
        if syntax == DEFLATED:
            assert data[end:] == b"\0"  # the padding
            continue
        assert data[end : end + 2] in (
            b"\x20\0",
            b"\0\x20",
            b"\x28\0",
            b"\0\x28",
            b"\xe0\x7f",
            b"\x7f\xe0",
            b"\x40\0",
            b"\0\x40",
        )


@pytest.mark.parametrize(
    ("tail", "comment"),
    [
        (explicit(0x00990010, "LO", b"x", 0xFFFE), "Data set ends in the middle of an element"),
        (explicit(0x00990010, "UN", b"x" * 10, 0xFFFFFFF0), "Data set ends in the middle of an element"),
        (explicit(0x00990010, "OB", b"", UNDEFINED), "Element (0099,0010) has no defined length"),
        (explicit(0x30060010, "SQ", b"", UNDEFINED), "Sequence is never closed"),
        (explicit(0x30060010, "SQ", ITEM_OPEN, UNDEFINED), "Data set ends in the middle of an element"),
        (explicit(0x30060010, "SQ", ITEM_OPEN + explicit(0x00990010, "LO", b""), UNDEFINED), "Item is never closed"),
        (explicit(0x30060010, "SQ", ITEM_CLOSE), "Sequence holds something that is no item"),
        (
            explicit(0x30060010, "SQ", ITEM[:4] + b"\6\0\0\0" + explicit(0x00990010, "LO", b"")[:6], 12),
            "Data set ends in the middle of an element",
        ),
        (
            explicit(0x30060010, "SQ", ITEM[:4] + b"\x08\0\0\0", 12) + bytes(4) + b"LO\0\0",
            "Item is longer than its sequence",
        ),
        (ITEM, "Item or delimiter outside of a sequence"),
        (SEQUENCE_CLOSE, "Item or delimiter outside of a sequence"),
        (explicit(0x00020010, "UI", b"1.2\0"), "Element (0002,0010) has no place in a data set"),
        (explicit(0x00000002, "UI", b"1.2\0"), "Element (0000,0002) has no place in a data set"),
        (explicit(0x00100020, "LO", b"other "), "Indexed element is there twice"),
        (explicit(0x00104000, "??", b"text"), "Indexed element (0010,4000) has an unknown VR"),
        (explicit(0x00104000, "US", b"\1\0"), "Indexed element (0010,4000) has VR US, not LT"),
        (explicit(0x00104000, "OB", b"text"), "Indexed element (0010,4000) has VR OB, not LT"),
        (explicit(0x00400275, "LO", b"text"), "Indexed element (0040,0275) has VR LO, not SQ"),
        (explicit(0x00204000, "UT", b"x" * 1_000_001), "Indexed element (0020,4000) is too long"),
    ],
)
def test_broken_structure_is_refused(tail: bytes, comment: str) -> None:
    assert refusal(with_tail(tail)) == comment


def test_an_item_may_not_end_outside_of_its_sequence() -> None:
    inner = explicit(0x00990010, "LO", b"abcd")
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(inner) - 2) + inner
    assert refusal(with_tail(explicit(0x30060010, "SQ", item))) == "Element is longer than its item"


def test_a_data_set_may_not_begin_with_file_meta_information() -> None:
    assert refusal(explicit(0x00020010, "UI", b"1.2\0") + bytes_of(ct())) == "Data set begins with group 0000 or 0002"


@pytest.mark.parametrize(
    "tail",
    [
        explicit(0x00990010, "LO", b"odd"),
        explicit(0x00990010, "??", b"broken VR"),
        explicit(0x00990010, "UN", b"unknown"),
        explicit(0x00990010, "ZZ", b"\0\0\4\0\0\0abcd"[2:], 0),  # a VR to come: 32-bit length
        explicit(0x00081199, "US", b"order"),
        explicit(0x00990010, "LO", b"once") + explicit(0x00990010, "LO", b"twice"),
        explicit(0xFFFCFFFC, "OB", bytes(1000)),
        explicit(0x30060010, "SQ", b"", 0),
        explicit(0x30060010, "SQ", ITEM),
        explicit(0x30060010, "SQ", ITEM_OPEN + ITEM_CLOSE + SEQUENCE_CLOSE, UNDEFINED),
        explicit(0x00990010, "UN", ITEM_OPEN + implicit(0x00990011, b"abc") + ITEM_CLOSE + SEQUENCE_CLOSE, UNDEFINED),
        explicit(0x00990010, "SQ", ITEM_OPEN + implicit(0x00990011, b"abc") + ITEM_CLOSE + SEQUENCE_CLOSE, UNDEFINED),
        explicit(0x00204000, "UN", b"known all the same"),
        explicit(0x00204000, "LO", b"another text VR"),
        explicit(0x00400275, "UN", b""),
    ],
)
def test_what_does_no_harm_is_accepted(tail: bytes) -> None:
    dataset = ct(PixelData=None)
    assert read_header(bytes_of(dataset) + tail, EXPLICIT_LITTLE, HEADER_TAGS).series_uid == dataset.SeriesInstanceUID


def test_an_indexed_sequence_may_hide_in_un() -> None:
    item = implicit(0x00400009, b"SPS1")
    value = struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item
    for element in (
        explicit(0x00400275, "UN", value),
        explicit(0x00400275, "UN", value + SEQUENCE_CLOSE, UNDEFINED),
    ):
        values = read_header(with_tail(element), EXPLICIT_LITTLE, HEADER_TAGS).values
        assert json.loads(values[0x00400275]) == [{"ScheduledProcedureStepID": "SPS1"}]


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
@pytest.mark.parametrize("depth", [1, 50, 64])
def test_deep_sequences_are_read_up_to_the_limit(depth: int, undefined: bool, syntax: str) -> None:
    assert read_header(nested(depth, undefined, syntax), syntax, HEADER_TAGS).study_uid
    assert refusal(nested(65, undefined, syntax), syntax) == "Sequences are nested too deep"


def test_what_would_cost_too_much_is_refused() -> None:
    for name, (data, syntax) in bombs().items():
        assert refusal(data, syntax), name


@pytest.mark.parametrize("name", ["a million elements", "half a million items", "300 MB of zeros, deflated"])
def test_refusing_takes_little_memory(name: str) -> None:
    data, syntax = bombs()[name]
    tracemalloc.start()
    try:
        refusal(data, syntax)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_the_limits_are_what_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: with the limits lifted the same data sets are taken."""
    bold = Limits(elements=10**8, objects=10**8, values=10**8, text=10**8, depth=100, inflated=10**10, ratio=2000)
    assert read_header(nested(65, True), EXPLICIT_LITTLE, limits=bold).study_uid
    assert read_header(with_tail(explicit(0x30060010, "SQ", ITEM * 500_000)), EXPLICIT_LITTLE, limits=bold).study_uid
    data = with_tail(implicit(0x30060050, b"1\\" * 1_000_000), IMPLICIT_LITTLE)
    assert read_header(data, IMPLICIT_LITTLE, limits=bold).study_uid


def test_fragments_must_end_with_their_delimiter() -> None:
    data = bytes_of(ct(), JPEG)
    assert read_header(data, JPEG, HEADER_TAGS)
    assert refusal(data[:-8], JPEG) == "Data set ends in the middle of an element"
    assert refusal(data[:-8] + ITEM_CLOSE, JPEG) == "Pixel data fragments do not end with a delimiter"
    assert refusal(data[:-4] + b"\2\0\0\0", JPEG) == "Pixel data fragments do not end with a delimiter"


def test_fragments_with_a_sequence_delimiter_inside_are_stepped_over() -> None:
    fragment = struct.pack("<HHL", 0xFFFE, 0xE000, 16) + SEQUENCE_CLOSE * 2
    tail = explicit(0x7FE00010, "OB", ITEM + fragment + SEQUENCE_CLOSE, UNDEFINED)
    assert read_header(with_tail(tail), JPEG, HEADER_TAGS).study_uid


def test_an_icon_in_a_compressed_image_may_be_native() -> None:
    icon = Dataset()
    icon.add_new(0x7FE00010, "OW", bytes(8))
    dataset = ct()
    dataset.IconImageSequence = [icon]
    assert read_header(bytes_of(dataset, JPEG), JPEG, HEADER_TAGS).study_uid


def test_the_default_character_set_is_used_when_none_is_declared() -> None:
    data = bytes_of(ct(SpecificCharacterSet="ISO_IR 100", PatientName="Jörg")).replace(
        explicit(0x00080005, "CS", b"ISO_IR 100"), b""
    )
    header = read_header(data, EXPLICIT_LITTLE, HEADER_TAGS, default_charset="ISO_IR 100")
    assert (header.values[0x00100010], header.charset) == ("Jörg", ("ISO_IR 100",))
    assert read_header(data, EXPLICIT_LITTLE, HEADER_TAGS).values[0x00100010] == "J\ufffdrg"


@pytest.mark.parametrize("term", ["ISO_IR 999", "nonsense", "ISO 2022 IR 87\\rubbish", "\\" * 30, "\ufffd"])
def test_a_character_set_fault_never_refuses_an_object(term: str) -> None:
    data = explicit(0x00080005, "CS", term.encode("utf-8")[:64].ljust(64)) + bytes_of(ct(PatientName=None))
    tail = explicit(0x00101001, "PN", b"\x1b$B\xff\x1b\x1b(Z\xe4\0\x1b$)C\xff")
    values = read_header(data + tail, EXPLICIT_LITTLE, HEADER_TAGS).values
    assert "\ufffd" in values[0x00101001]
    assert "\0" not in values[0x00101001]


@pytest.mark.parametrize("text", ["A%_[\\B", "line\nbreak", "quote'\"", "tab\there"])
def test_odd_characters_are_kept(text: str) -> None:
    tail = explicit(0x00104000, "LT", text.encode())
    assert read_header(with_tail(tail), EXPLICIT_LITTLE, HEADER_TAGS).values[0x00104000] == text


def test_a_nul_inside_a_text_is_dropped() -> None:
    values = read_header(with_tail(explicit(0x00101000, "LO", b"A\0B\0")), EXPLICIT_LITTLE, HEADER_TAGS).values
    assert values[0x00101000] == "AB"


def test_the_separator_of_the_fast_path_may_stand_in_a_value() -> None:
    values = read_header(with_tail(explicit(0x00101000, "LO", b"A\x1eB ")), EXPLICIT_LITTLE, HEADER_TAGS).values
    assert values[0x00101000] == "A\x1eB"
    assert values[0x00100020] == "P0001"


def test_a_large_deflated_object_is_read_without_its_pixels() -> None:
    item = Dataset()
    item.ScheduledProcedureStepID = "SPS1"
    dataset = ct(PixelData=None, RequestAttributesSequence=[item])
    pixels = bytes(range(256)) * 80_000
    limits = Limits(always_inflated=1_000_000, ratio=2000)
    data = deflated(bytes_of(dataset) + explicit(0x7FE00010, "OW", pixels))
    header = read_header(data, DEFLATED, HEADER_TAGS, limits=limits)
    assert header == read_header(bytes_of(dataset), EXPLICIT_LITTLE, HEADER_TAGS)


@pytest.mark.parametrize("tail", [b"x", b"\0\0", b"more than a little"])
def test_bytes_behind_a_deflated_data_set_are_refused(tail: bytes) -> None:
    assert refusal(deflated(bytes_of(ct())) + tail, DEFLATED) == "Bytes follow the end of the deflated data set"


def test_the_padding_of_a_deflated_data_set_is_accepted() -> None:
    assert read_header(deflated(bytes_of(ct())) + b"\0", DEFLATED, HEADER_TAGS).study_uid
