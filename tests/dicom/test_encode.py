"""Identifiers made from rows, read back by pydicom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from archive.dicom.attributes import BY_KEYWORD
from archive.dicom.encode import encode_identifier, prepare
from archive.dicom.identifier import decode_identifier
from archive.dicom.query import Return
from archive.dicom.uids import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from tests.builders import read

SYNTAXES = [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED]
Keys = list[tuple[int, str, tuple[Any, ...]]]

KEYS: Keys = [
    (0x0020000D, "UI", ()),
    (0x00100010, "PN", ()),
    (0x00080020, "DA", ()),
    (0x00081030, "LO", ()),
    (0x00080061, "CS", ()),
    (0x00201206, "IS", ()),
    (0x00280010, "US", ()),
    (0x00104000, "LT", ()),
]
ROW = ("1.2.3", "Doe^John", "20240131", "Thorax", "CT\\SR", "3", "512", "a\\b")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_row_is_what_pydicom_reads(syntax: str) -> None:
    data = prepare(KEYS, syntax)(ROW)
    assert len(data) % 2 == 0
    answer = read(data, syntax)
    assert [element.tag for element in answer] == sorted(key[0] for key in KEYS)
    assert answer.StudyInstanceUID == "1.2.3"
    assert answer.PatientName == "Doe^John"
    assert answer.ModalitiesInStudy == ["CT", "SR"]
    assert answer.NumberOfStudyRelatedSeries == 3
    assert answer.Rows == 512
    assert answer.PatientComments == "a\\b"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_nothing_is_returned_empty(syntax: str) -> None:
    for nothing in (None, ""):
        answer = read(prepare(KEYS, syntax)((nothing,) * len(KEYS)), syntax)
        assert len(answer) == len(KEYS)
        assert not any(element.value for element in answer)


def test_uids_are_padded_with_nul_and_text_with_space() -> None:
    assert encode_identifier([((0x0020000D, "UI", ()), "1.2")], EXPLICIT_LITTLE) == b"\x20\0\x0d\0UI\4\x001.2\0"
    assert encode_identifier([((0x00100020, "LO", ()), "abc")], IMPLICIT_LITTLE) == b"\x10\0\x20\0\4\0\0\0abc "
    assert encode_identifier([((0x00100020, "LO", ()), "abc")], EXPLICIT_BIG) == b"\0\x10\0\x20LO\0\4abc "


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("charset", "name", "answered"),
    [
        ("", "Doe", None),
        ("", "Müller", "ISO_IR 192"),
        ("ISO_IR 100", "Doe", "ISO_IR 100"),
        ("ISO_IR 100", "Müller", "ISO_IR 100"),
        ("ISO IR 100", "Müller", "ISO_IR 100"),
        ("ISO_IR 100", "Жан", "ISO_IR 192"),
        ("ISO_IR 144", "Жан", "ISO_IR 144"),
        ("ISO_IR 192", "山田", "ISO_IR 192"),
        ("GB18030", "王^小东", "GB18030"),
        ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎", ["", "ISO 2022 IR 87"]),
        ("nonsense", "Müller", "ISO_IR 192"),
        ("nonsense", "Doe", None),
    ],
)
def test_the_answer_is_in_the_requesters_set_if_that_carries_it(
    syntax: str, charset: str, name: str, answered: Any
) -> None:
    encode = prepare(KEYS, syntax, tuple(charset.split("\\")))
    answer = read(encode(("1.2.3", name, *ROW[2:])), syntax)
    assert answer.get("SpecificCharacterSet") == answered
    answer.decode()
    assert answer.PatientName == name


def test_each_row_chooses_for_itself() -> None:
    encode = prepare(KEYS, EXPLICIT_LITTLE, "ISO_IR 100")
    declared = [
        read(encode((*ROW[:3], description, *ROW[4:])), EXPLICIT_LITTLE).SpecificCharacterSet
        for description in ("plain", "Schädel", "череп", "plain")
    ]
    assert declared == ["ISO_IR 100", "ISO_IR 100", "ISO_IR 192", "ISO_IR 100"]


def test_the_character_set_is_never_taken_from_a_row() -> None:
    encode = prepare([(0x00080005, "CS", ()), (0x00100020, "LO", ())], EXPLICIT_LITTLE)
    assert "SpecificCharacterSet" not in read(encode(("ISO_IR 144", "P1")), EXPLICIT_LITTLE)


@pytest.mark.parametrize("constant", ["STUDY", "", "Ж"])
def test_constants_are_in_every_answer(constant: str) -> None:
    returns = [Return(0x00080052, "CS" if constant.isascii() else "LO", constant=constant), Return(0x00100020, "LO")]
    answer = read(prepare(returns, EXPLICIT_LITTLE)((None, "P1")), EXPLICIT_LITTLE)
    answer.decode()
    assert (answer[0x00080052].value or "", answer.PatientID) == (constant, "P1")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_sequences_come_from_json(syntax: str) -> None:
    (attribute,) = BY_KEYWORD["RequestAttributesSequence"]
    wanted = tuple(item for item in attribute.items if item.keyword in ("ScheduledProcedureStepID", "AccessionNumber"))
    text = json.dumps([{"ScheduledProcedureStepID": "SPS1", "RequestedProcedureID": "RP1"}, {}])
    encode = prepare([Return(attribute.tag, "SQ", attribute, items=wanted)], syntax)
    first, second = read(encode((text,)), syntax).RequestAttributesSequence
    assert (first.ScheduledProcedureStepID, first.AccessionNumber, second.ScheduledProcedureStepID) == ("SPS1", "", "")
    assert "RequestedProcedureID" not in first
    assert len(first) == 2


def test_a_sequence_without_item_keys_is_returned_whole() -> None:
    text = json.dumps([{"CodeValue": "T-D1100", "CodeMeaning": "Kopf – Schädel", "PurposeOfReferenceCodeSequence": []}])
    answer = read(prepare([(0x00081032, "SQ", ())], EXPLICIT_LITTLE, "ISO_IR 100")((text,)), EXPLICIT_LITTLE)
    assert answer.SpecificCharacterSet == "ISO_IR 192"
    (item,) = answer.ProcedureCodeSequence
    assert (item.CodeValue, item.CodeMeaning) == ("T-D1100", "Kopf – Schädel")


@pytest.mark.parametrize("text", [None, "", "[]", "no json", "{}", "[1, null, []]"])
def test_what_is_no_list_of_items_is_an_empty_sequence(text: str | None) -> None:
    answer = read(prepare([(0x00081032, "SQ", ())], EXPLICIT_LITTLE)((text,)), EXPLICIT_LITTLE)
    assert list(answer.ProcedureCodeSequence) == []


@pytest.mark.parametrize("text", ["many", "70000", "-1", "1e3"])
def test_a_number_that_is_none_of_its_vr_is_returned_empty(text: str) -> None:
    assert encode_identifier([((0x00280010, "US", ()), text)], EXPLICIT_LITTLE) == b"\x28\0\x10\0US\0\0"


def test_a_value_too_long_for_its_vr_is_unknown() -> None:
    data = encode_identifier([((0x00100020, "LO", ()), "x" * 70_000)], EXPLICIT_LITTLE)
    assert data[4:6] == b"UN"
    assert decode_identifier(data, EXPLICIT_LITTLE).text(0x00100020) == "x" * 70_000


def test_values_longer_than_the_table_of_lengths_are_written() -> None:
    for size in (1021, 1022, 1023, 1024, 1025, 5000):
        answer = read(encode_identifier([((0x00104000, "LT", ()), "x" * size)], EXPLICIT_LITTLE), EXPLICIT_LITTLE)
        assert answer.PatientComments == "x" * size


def test_the_first_of_two_returns_of_a_tag_counts() -> None:
    answer = read(
        prepare([(0x00100020, "LO", ()), (0x00100020, "LO", ())], EXPLICIT_LITTLE)(("a", "b")), EXPLICIT_LITTLE
    )
    assert answer.PatientID == "a"


def test_characters_nothing_can_carry_do_not_fail_an_answer() -> None:
    data = encode_identifier([((0x00100010, "PN", ()), "A\ud800B")], EXPLICIT_LITTLE)
    assert decode_identifier(data, EXPLICIT_LITTLE).text(0x00100010) == "A?B"
