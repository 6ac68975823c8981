"""Changes laid over data sets, compared with pydicom, and byte for byte where nothing changes."""

from __future__ import annotations

from typing import Any

import pydicom.config
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from archive.dicom.coerce import (
    ALL,
    CORRECT,
    NEW,
    UNRECORDED,
    Change,
    OriginalAttributes,
    Private,
    changed,
    parse_path,
    path_text,
)
from archive.dicom.convert import convert
from archive.dicom.header import read_header
from archive.dicom.uids import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, RLE
from archive.errors import NotUnderstood
from tests.builders import bytes_of, ct, instance, read, samples, sr

SYNTAXES = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)
ORIGINAL = OriginalAttributes("ARCHIVE", "20260131101112.000000+0100", "CT1")
PATIENT_ID, PATIENT_NAME, ISSUER = 0x00100020, 0x00100010, 0x00100021


def to(text: str, value: str | None, **more: Any) -> Change:
    path, vr = parse_path(text)
    return Change(path, vr, value, **more)


def made(data: bytes, syntax: str, *changes: Change, **options: Any) -> bytes:
    return b"".join(changed(data, syntax, changes, **options))


def result(dataset: Dataset, *changes: Change, syntax: str = EXPLICIT_LITTLE, **options: Any) -> Dataset:
    data = made(bytes_of(dataset, syntax), syntax, *changes, **options)
    read_header(data, syntax)  # whole to the last byte
    return read(data, syntax)


def requested(**overrides: Any) -> Dataset:
    """An image with two requests, of two levels, and private elements."""
    steps = [Dataset(), Dataset()]
    for number, step in enumerate(steps):
        step.RequestedProcedureID = f"RP{number}"
        code = Dataset()
        code.CodeValue, code.CodeMeaning = f"C{number}", "Thorax"
        step.RequestedProcedureCodeSequence = Sequence([code])
    return ct(RequestAttributesSequence=Sequence(steps), **overrides)


# -- nothing changes --------------------------------------------------------------------------


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_without_an_effective_change_every_byte_stays(sample: Any) -> None:
    assert made(sample.data, sample.syntax) == sample.data
    absent = to("(0099,Nobody,10)", None)
    try:
        read_header(sample.data, sample.syntax)
    except NotUnderstood:
        return
    assert made(sample.data, sample.syntax, absent, original=ORIGINAL) == sample.data


@pytest.mark.parametrize("value", ["P0001", "P0001 "])
def test_the_same_value_is_no_change(value: str) -> None:
    data = bytes_of(ct())
    assert made(data, EXPLICIT_LITTLE, to("PatientID", value), original=ORIGINAL) == data


def test_a_change_only_if_missing_leaves_a_value_alone() -> None:
    dataset = ct(IssuerOfPatientID="")
    got = result(dataset, to("PatientID", "X", if_missing=True), to("IssuerOfPatientID", "I", if_missing=True))
    assert (got.PatientID, got.IssuerOfPatientID) == ("P0001", "I")


# -- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_set_add_and_remove_in_every_layout(syntax: str) -> None:
    dataset = requested()
    got = result(
        dataset, to("PatientID", "NEW"), to("IssuerOfPatientID", "H1"), to("StudyDescription", None),
        to("Rows", "7"), to("(0071,0010)", "x"), syntax=syntax,
    )  # fmt: skip
    assert (got.PatientID, got.IssuerOfPatientID, got.Rows) == ("NEW", "H1", 7)
    assert "StudyDescription" not in got
    assert got.PixelData == read(bytes_of(dataset, syntax), syntax).PixelData
    assert [element.tag for element in got] == sorted(element.tag for element in got)


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_whatever_is_not_changed_keeps_its_bytes(sample: Any) -> None:
    try:
        read_header(sample.data, sample.syntax)
    except NotUnderstood:
        return
    got = made(sample.data, sample.syntax, to("PatientID", "SOMEBODY"))
    assert str(read_header(got, sample.syntax, [PATIENT_ID]).values[PATIENT_ID]) == "SOMEBODY"
    if sample.syntax == DEFLATED:
        sample_data, got = (b"".join(convert(raw, DEFLATED, EXPLICIT_LITTLE)) for raw in (sample.data, got))
    else:
        sample_data = sample.data
    start = next(n for n in range(len(sample_data)) if sample_data[n : n + 1] != got[n : n + 1])
    tail = sample_data[-2000:] if len(sample_data) - start > 3000 else sample_data[-100:]
    assert got.endswith(tail)


def test_a_number_that_is_none_is_refused_before_the_first_byte() -> None:
    with pytest.raises(NotUnderstood, match="Rows does not fit VR US"):
        changed(bytes_of(ct()), EXPLICIT_LITTLE, [to("Rows", "many")])


def test_bytes_cannot_be_given_as_text() -> None:
    with pytest.raises(NotUnderstood, match="cannot be given a text"):
        changed(bytes_of(ct()), EXPLICIT_LITTLE, [Change((0x7FE00010,), "", "x")])


def test_a_value_too_long_for_its_vr_becomes_unknown() -> None:
    got = result(ct(), to("ImageComments", "x" * 70000))
    assert len(got.ImageComments) == 70000


def test_group_lengths_go_where_a_group_changes() -> None:
    data = bytes_of(ct())
    at = data.index(b"\x10\x00\x10\x00PN")
    data = data[:at] + b"\x10\x00\x00\x00UL\x04\x00\x10\x00\x00\x00" + data[at:]
    assert (0x0010, 0x0000) in read(made(data, EXPLICIT_LITTLE, to("StudyID", "1")), EXPLICIT_LITTLE)
    assert (0x0010, 0x0000) not in read(made(data, EXPLICIT_LITTLE, to("PatientID", "1")), EXPLICIT_LITTLE)


# -- nested -----------------------------------------------------------------------------------


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_one_item_of_a_nested_sequence(syntax: str, undefined: bool) -> None:
    dataset = requested()
    dataset["RequestAttributesSequence"].is_undefined_length = undefined
    for step in dataset.RequestAttributesSequence:
        step.is_undefined_length_sequence_item = undefined
    path = "RequestAttributesSequence[1].RequestedProcedureCodeSequence[0].CodeMeaning"
    got = result(dataset, to(path, "Chest"), syntax=syntax)
    meanings = [step.RequestedProcedureCodeSequence[0].CodeMeaning for step in got.RequestAttributesSequence]
    assert meanings == ["Thorax", "Chest"]


def test_all_items_and_one_of_them_differently() -> None:
    got = result(
        requested(),
        to("RequestAttributesSequence[*].RequestedProcedureID", "ALL"),
        to("RequestAttributesSequence[1].RequestedProcedureID", "ONE"),
    )
    assert [step.RequestedProcedureID for step in got.RequestAttributesSequence] == ["ALL", "ONE"]


def test_the_first_item_of_a_sequence_that_is_not_there_is_made() -> None:
    got = result(
        ct(),
        to("RequestAttributesSequence[0].RequestedProcedureID", "RP"),
        to("OtherPatientIDsSequence[3].PatientID", "no"),
        to("ReferencedStudySequence[*].ReferencedSOPClassUID", "1.2"),
    )
    assert got.RequestAttributesSequence[0].RequestedProcedureID == "RP"
    assert "OtherPatientIDsSequence" not in got and "ReferencedStudySequence" not in got


def test_a_new_item_is_put_behind_the_last() -> None:
    path = (0x00400275, NEW, 0x00401001)
    got = result(requested(), Change(path, "SH", "RP9"))
    assert [step.RequestedProcedureID for step in got.RequestAttributesSequence] == ["RP0", "RP1", "RP9"]


# -- private blocks ---------------------------------------------------------------------------

MINE = "Somebody, Inc."


def private(*blocks: tuple[int, str]) -> Dataset:
    dataset = ct()
    for block, creator in blocks:
        dataset.add_new((0x0021, block), "LO", creator)
        dataset.add_new((0x0021, block << 8 | 0x90), "LO", f"of {creator}")
    return dataset


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
def test_a_private_block_is_reserved_where_nobody_is(syntax: str) -> None:
    dataset = private((0x10, "OTHER"), (0x12, "THIRD"))
    dataset.add_new((0x0021, 0x1190), "LO", "whose creator was lost")
    got = result(dataset, Change((Private(0x21, MINE, 0x90),), "AE", "CT1"), syntax=syntax)
    assert got[0x0021, 0x0013].value == MINE
    assert got[0x0021, 0x1390].value in ("CT1", b"CT1 ")
    assert got[0x0021, 0x0010].value == "OTHER"
    assert (0x0021, 0x1190) in got


def test_the_block_of_the_creator_is_found_again() -> None:
    dataset = private((0x10, "OTHER"), (0x40, MINE))
    got = result(
        dataset, Change((Private(0x21, MINE, 0x90),), "AE", "CT1"), Change((Private(0x21, MINE, 0x91),), "LO", "x")
    )
    assert (got[0x0021, 0x4090].value, got[0x0021, 0x4091].value) == ("CT1", "x")
    assert sum(element.tag.group == 0x21 and element.tag.element < 0x100 for element in got) == 2


def test_nothing_is_reserved_for_a_removal() -> None:
    data = bytes_of(private((0x10, "OTHER")))
    assert made(data, EXPLICIT_LITTLE, Change((Private(0x21, MINE, 0x90),), "", None)) == data


def test_no_private_element_is_made_without_a_creator() -> None:
    data = bytes_of(ct())
    assert made(data, EXPLICIT_LITTLE, to("(0021,1090)", "x")) == data


def test_a_group_without_a_free_block_is_refused() -> None:
    dataset = ct()
    for block in range(0x10, 0x100):
        dataset.add_new((0x0021, block), "LO", f"C{block}")
    with pytest.raises(NotUnderstood, match="No private block"):
        changed(bytes_of(dataset), EXPLICIT_LITTLE, [Change((Private(0x21, MINE, 0x90),), "AE", "CT1")])


def test_private_elements_inside_new_items_have_blocks_of_their_own() -> None:
    sequence = Private(0x21, MINE, 0xA0)
    got = result(
        private((0x10, "OTHER")),
        Change((sequence, NEW, Private(0x21, MINE, 0xA1)), "LO", "received"),
        Change((sequence, NEW, Private(0x21, MINE, 0x91)), "LO", "title"),
    )
    item = got[0x0021, 0x11A0].value[0]
    assert (item[0x0021, 0x0010].value, item[0x0021, 0x10A1].value, item[0x0021, 0x1091].value) == (
        MINE, "received", "title",
    )  # fmt: skip


# -- Original Attributes ----------------------------------------------------------------------


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_original_attributes_say_what_was_there(syntax: str) -> None:
    got = result(
        requested(IssuerOfPatientID=None),
        to("PatientID", "NEW"),
        to("IssuerOfPatientID", "H1"),
        to("RequestAttributesSequence[1].RequestedProcedureID", "RP9"),
        to("StudyDescription", None),
        to("AccessionNumber", "A0001"),
        syntax=syntax, original=ORIGINAL,
    )  # fmt: skip
    (item,) = got.OriginalAttributesSequence
    assert item.ModifyingSystem == "ARCHIVE"
    assert item.SourceOfPreviousValues == "CT1"
    assert item.ReasonForTheAttributeModification == "COERCE"
    assert item.AttributeModificationDateTime == ORIGINAL.when
    (before,) = item.ModifiedAttributesSequence
    assert before.PatientID == "P0001"
    assert before["IssuerOfPatientID"].is_empty
    assert [step.RequestedProcedureID for step in before.RequestAttributesSequence] == ["RP0", "RP1"]
    assert before.StudyDescription == "CT of the phantom"
    assert "AccessionNumber" not in before


def test_what_others_recorded_is_preserved() -> None:
    data = bytes_of(ct())
    first = made(data, EXPLICIT_LITTLE, to("PatientID", "A"), original=ORIGINAL)
    second = made(
        first, EXPLICIT_LITTLE, to("PatientID", "B"), to("OriginalAttributesSequence", None),
        original=OriginalAttributes("SECOND", "20260201"),
    )  # fmt: skip
    got = read(second, EXPLICIT_LITTLE).OriginalAttributesSequence
    assert [item.ModifyingSystem for item in got] == ["ARCHIVE", "SECOND"]
    assert [item.ModifiedAttributesSequence[0].PatientID for item in got] == ["P0001", "A"]


def test_each_reason_has_its_item_and_some_are_not_recorded() -> None:
    got = result(
        ct(), to("PatientID", "A"), to("PatientName", "B", reason=CORRECT), to("StudyID", "C", reason=UNRECORDED),
        original=ORIGINAL,
    )  # fmt: skip
    items = {
        item.ReasonForTheAttributeModification: item.ModifiedAttributesSequence[0]
        for item in got.OriginalAttributesSequence
    }
    assert items["COERCE"].PatientID == "P0001" and items["CORRECT"].PatientName == "Phantom^Peter"
    assert not any("StudyID" in before for before in items.values())


def test_a_private_attribute_is_recorded_with_its_creator() -> None:
    got = result(private((0x40, MINE)), Change((Private(0x21, MINE, 0x90),), "LO", "new"), original=ORIGINAL)
    before = got.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]
    assert (before[0x0021, 0x0040].value, before[0x0021, 0x4090].value) == (MINE, f"of {MINE}")


# -- character sets ---------------------------------------------------------------------------


def test_a_value_goes_into_the_character_set_that_is_declared() -> None:
    dataset = ct(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    got = result(dataset, to("PatientName", "MÜLLER^JÖRG"), original=ORIGINAL)
    assert (str(got.PatientName), got.SpecificCharacterSet) == ("MÜLLER^JÖRG", "ISO_IR 100")
    assert str(got.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].PatientName) == "Müller^Jörg"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_value_that_does_not_fit_makes_all_text_utf_8(syntax: str) -> None:
    code = Dataset()
    code.CodeMeaning = "Schädel"
    inner = Dataset()
    inner.SpecificCharacterSet, inner.CodeMeaning = "ISO_IR 144", "Череп"
    dataset = instance(
        "1.2.840.10008.5.1.4.1.1.7", "OT", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg",
        StudyDescription="Übersicht", ProcedureCodeSequence=Sequence([code, inner]),
    )  # fmt: skip
    got = result(
        dataset, to("InstitutionName", "Ελληνικά"), to("PatientName", "Müller^J"), syntax=syntax, original=ORIGINAL
    )
    assert got.SpecificCharacterSet == "ISO_IR 192"
    assert (got.InstitutionName, got.StudyDescription, str(got.PatientName)) == ("Ελληνικά", "Übersicht", "Müller^J")
    assert [item.CodeMeaning for item in got.ProcedureCodeSequence] == ["Schädel", "Череп"]
    assert "SpecificCharacterSet" not in got.ProcedureCodeSequence[1]
    before = got.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]
    assert (before.SpecificCharacterSet, str(before.PatientName)) == ("ISO_IR 100", "Müller^Jörg")


def test_ideographic_names_survive_the_way_to_utf_8() -> None:
    dataset = ct(
        SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
    )  # fmt: skip
    got = result(dataset, to("StudyDescription", "Übersicht"))
    assert str(got.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert got.StudyDescription == "Übersicht"


def test_the_default_of_the_sender_is_what_silent_text_is_read_by() -> None:
    data = bytes_of(ct()).replace(b"Phantom^Peter ", b"M\xfcller^J\xf6rg^XY")
    got = read(
        made(data, EXPLICIT_LITTLE, to("StudyDescription", "Ελληνικά"), default_charset="ISO_IR 100"), EXPLICIT_LITTLE
    )
    assert (str(got.PatientName), got.StudyDescription) == ("Müller^Jörg^XY", "Ελληνικά")


def test_text_that_nobody_understands_is_not_made_utf_8() -> None:
    data = bytes_of(ct()).replace(b"Phantom^Peter ", b"M\xfcller^J\xf6rg^XY")
    with pytest.raises(NotUnderstood, match="PatientName cannot be made UTF-8"):
        changed(data, EXPLICIT_LITTLE, [to("StudyDescription", "Ελληνικά")])


def test_a_declaration_can_be_put_right() -> None:
    data = bytes_of(ct()).replace(b"Phantom^Peter ", b"M\xfcller^J\xf6rg^XY")
    got = read(
        made(
            data,
            EXPLICIT_LITTLE,
            to("SpecificCharacterSet", "ISO_IR 100"),
            to("StudyDescription", "für"),
            original=ORIGINAL,
        ),
        EXPLICIT_LITTLE,
    )
    assert (str(got.PatientName), got.StudyDescription) == ("Müller^Jörg^XY", "für")
    assert got.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]["SpecificCharacterSet"].is_empty


# -- broken and large -------------------------------------------------------------------------


def test_a_data_set_that_is_cut_short_is_refused_before_the_first_byte() -> None:
    data = bytes_of(sr())
    for at in range(len(data) - 1, len(data) - 60, -7):
        with pytest.raises(NotUnderstood):
            changed(data[:at], EXPLICIT_LITTLE, [to("PatientID", "X")])


def test_compressed_pixels_pass_through() -> None:
    data = bytes_of(ct(), RLE)
    got = made(data, RLE, to("PatientID", "SOMEBODY"))
    assert got[-100:] == data[-100:]


def test_large_pixels_come_in_steps_and_a_deflated_object_is_not_held() -> None:
    dataset = ct(rows=1024, columns=1024)
    data = bytes_of(dataset)
    pieces = list(changed(data, EXPLICIT_LITTLE, [to("PatientID", "X")]))
    assert max(map(len, pieces)) <= 1 << 18
    packed = b"".join(convert(data, EXPLICIT_LITTLE, DEFLATED))
    got = made(packed, DEFLATED, to("PatientID", "X"))
    assert b"".join(convert(got, DEFLATED, EXPLICIT_LITTLE)) == b"".join(pieces)


# -- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "vr"),
    [
        ("PatientName", (PATIENT_NAME,), "PN"),
        ("(0010,0010)", (PATIENT_NAME,), "PN"),
        ("RequestAttributesSequence[0].RequestedProcedureID", (0x00400275, 0, 0x00401001), "SH"),
        ("RequestAttributesSequence[*].RequestedProcedureID", (0x00400275, ALL, 0x00401001), "SH"),
        ("(0021,Somebody, Inc.,90)", (Private(0x21, MINE, 0x90),), "LO"),
        ("(0021,Somebody, Inc.,90):AE", (Private(0x21, MINE, 0x90),), "AE"),
        ("(0021,1090):DS", (0x00211090,), "DS"),
        ("(0021,A,A0)[0].(0021,A,91)", (Private(0x21, "A", 0xA0), 0, Private(0x21, "A", 0x91)), "LO"),
    ],
)  # fmt: skip
def test_paths_read_and_written(text: str, path: tuple[Any, ...], vr: str) -> None:
    assert parse_path(text) == (path, vr)
    assert parse_path(path_text(path)).path == path


@pytest.mark.parametrize(
    "text",
    ["PatientNam", "", "PatientName[0]", "PatientName.PatientID", "RequestAttributesSequence.RequestedProcedureID",
     "PatientName[0].PatientID", "(0002,0010)", "(0010,0000)", "(0020,Somebody,90)", "(0021,1090):XX", "(FFFE,E000)"],
)  # fmt: skip
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(ValueError):
        parse_path(text)


@pytest.fixture(autouse=True)
def unknown_stays_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config, "replace_un_with_known_vr", False)
