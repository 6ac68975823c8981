"""Identifiers as they come from requesters."""

from __future__ import annotations

import struct

import pytest
from pydicom.dataset import Dataset

from archive.dicom.identifier import Element, decode_identifier
from archive.dicom.uids import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from archive.errors import COMMENT_LENGTH, NotUnderstood
from tests.builders import bytes_of
from tests.dicom.hostile import ITEM, ITEM_CLOSE, ITEM_OPEN, SEQUENCE_CLOSE, deflate_bomb, explicit, implicit, nested

SYNTAXES = [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED]


def question() -> Dataset:
    item = Dataset()
    item.Modality, item.ScheduledStationAETitle = "CT", ""
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 100"
    made.QueryRetrieveLevel = "STUDY"
    made.StudyDate = "20240101-"
    made.PatientName = "Mül*"
    made.PatientID = ""
    made.StudyInstanceUID = ["1.2.3", "1.2.4"]
    made.Rows = 512
    made.ScheduledProcedureStepSequence = [item]
    return made


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_an_identifier_reads_the_same_in_every_encoding(syntax: str) -> None:
    identifier = decode_identifier(bytes_of(question(), syntax), syntax)
    assert identifier[0x00100010] == Element("PN", "Mül*")
    assert identifier[0x00100010] == ("PN", "Mül*")
    assert identifier.text(0x0020000D) == "1.2.3\\1.2.4"
    assert identifier.text(0x00280010) == "512"
    assert identifier.text(0x00100020, "absent") == ""
    assert identifier.text(0x00100030, "absent") == "absent"
    (item,) = identifier.items_of(0x00400100)
    assert (item.text(0x00080060), item[0x00400001]) == ("CT", ("AE", ""))
    assert identifier.charset == ("ISO_IR 100",)


def test_an_identifier_without_a_character_set_uses_the_default() -> None:
    data = implicit(0x00100010, "Müller".encode("latin-1"))
    assert decode_identifier(data, IMPLICIT_LITTLE, "ISO_IR 100").text(0x00100010) == "Müller"
    assert decode_identifier(data, IMPLICIT_LITTLE).text(0x00100010) == "M\ufffdller"
    assert decode_identifier(data, IMPLICIT_LITTLE, "ISO_IR 100").charset == ("ISO_IR 100",)


def test_an_empty_identifier_has_no_keys() -> None:
    assert decode_identifier(b"", EXPLICIT_LITTLE) == {}


def test_unknown_keys_are_kept_and_group_lengths_are_not() -> None:
    data = implicit(0x00080000, b"\4\0\0\0") + implicit(0x00091001, b"xyz ") + implicit(0x00F01001, b"")
    identifier = decode_identifier(data, IMPLICIT_LITTLE)
    assert identifier == {0x00091001: ("UN", ""), 0x00F01001: ("UN", "")}


def test_a_known_key_in_un_is_read_by_the_dictionary() -> None:
    identifier = decode_identifier(explicit(0x00100020, "UN", b"P1"), EXPLICIT_LITTLE)
    assert identifier[0x00100020] == ("LO", "P1")


def test_pixels_in_an_identifier_are_only_a_tag() -> None:
    assert decode_identifier(explicit(0x7FE00010, "OW", bytes(2_000_000)), EXPLICIT_LITTLE) == {0x7FE00010: ("OW", "")}


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_an_empty_sequence_has_no_items(length: int) -> None:
    tail = SEQUENCE_CLOSE if length else b""
    identifier = decode_identifier(explicit(0x00400100, "SQ", tail, length), EXPLICIT_LITTLE)
    assert identifier[0x00400100] == ("SQ", [])


def test_an_empty_item_is_an_item() -> None:
    identifier = decode_identifier(implicit(0x00400100, ITEM), IMPLICIT_LITTLE)
    assert identifier.items_of(0x00400100) == [{}]


def test_an_item_may_have_a_character_set_of_its_own() -> None:
    item = explicit(0x00080005, "CS", b"ISO_IR 192") + explicit(0x00400006, "PN", "Жан".encode())
    sequence = explicit(0x00400100, "SQ", ITEM_OPEN + item + ITEM_CLOSE + SEQUENCE_CLOSE, 0xFFFFFFFF)
    data = explicit(0x00080005, "CS", b"ISO_IR 100") + sequence + explicit(0x00401010, "PN", b"\xe9 ")
    identifier = decode_identifier(data, EXPLICIT_LITTLE)
    assert identifier.items_of(0x00400100)[0].text(0x00400006) == "Жан"
    assert identifier.text(0x00401010) == "é"


def test_a_long_list_of_uids_is_read() -> None:
    uids = "\\".join(f"1.2.3.{number}" for number in range(9_999))
    assert decode_identifier(implicit(0x00080018, uids.encode()), IMPLICIT_LITTLE).text(0x00080018) == uids


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (b"\1", EXPLICIT_LITTLE),
        (explicit(0x00100020, "LO", b"P1", 4), EXPLICIT_LITTLE),
        (explicit(0x00100020, "UN", b"P1", 0xFFFFFFF0), EXPLICIT_LITTLE),
        (implicit(0x00100020, b"P1", 0x7FFFFFFF), IMPLICIT_LITTLE),
        (explicit(0x00020010, "UI", b"1.2\0"), EXPLICIT_LITTLE),
        (implicit(0x00000900, b"\0\0"), IMPLICIT_LITTLE),
        (ITEM, EXPLICIT_LITTLE),
        (SEQUENCE_CLOSE, IMPLICIT_LITTLE),
        (implicit(0x00080018, b"1\\" * 10_001), IMPLICIT_LITTLE),
        (implicit(0x00104000, b"x" * 1_000_001), IMPLICIT_LITTLE),
        (implicit(0x00400100, ITEM * 20_000), IMPLICIT_LITTLE),
        (implicit(0x00400100, ITEM_OPEN, 0xFFFFFFFF), IMPLICIT_LITTLE),
        (explicit(0x00990010, "LO", b"") * 20_000, EXPLICIT_LITTLE),
        (explicit(0x00280010, "US", b"\1"), EXPLICIT_LITTLE),
        (explicit(0x00280010, "US", struct.pack("<20000H", *range(20_000))), EXPLICIT_LITTLE),
        (explicit(0x7FE00010, "OB", b"", 0xFFFFFFFF), EXPLICIT_LITTLE),
        (nested(20_000, True), EXPLICIT_LITTLE),
        (nested(65, False), EXPLICIT_LITTLE),
        (deflate_bomb(20_000_000), DEFLATED),
        (b"not deflated", DEFLATED),
    ],
)
def test_a_broken_or_excessive_identifier_is_refused(data: bytes, syntax: str) -> None:
    with pytest.raises(NotUnderstood) as caught:
        decode_identifier(data, syntax)
    assert len(caught.value.comment) <= COMMENT_LENGTH
