"""The form of UIDs and the table of transfer syntaxes."""

from __future__ import annotations

import pytest
from pydicom.uid import UID, AllTransferSyntaxes, UID_dictionary

from archive.dicom.uids import (
    EXPLICIT_BIG,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    TRANSFER_SYNTAXES,
    Pixels,
    check_uid,
    is_uid,
    transfer_syntax,
)
from archive.errors import COMMENT_LENGTH, InvalidUID

# Encodings of something else than a data set; both retired.
NO_DATA_SETS = {"1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2"}

# The transfer syntaxes of the conformance statements this archive implements, by their last components.
PROMISED = (
    ["", ".1", ".1.99", ".2", ".5"]
    + [f".4.{number}" for number in (*range(50, 67), 70, 80, 81, *range(90, 96), *range(100, 109))]
    + [".4.201", ".4.202", ".4.203"]
)


@pytest.mark.parametrize("text", ["1", "0.0", "1.2.840.10008.1.2", "2.25." + "9" * 39, "1." + "2" * 62])
def test_uids_of_the_standard_form(text: str) -> None:
    assert is_uid(text)
    assert is_uid(text, lenient=True)


@pytest.mark.parametrize("text", ["01.2", "1.02", "1.00", "1.2.840.010"])
def test_leading_zeros_need_leniency(text: str) -> None:
    assert not is_uid(text)
    assert is_uid(text, lenient=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "1.",
        ".1",
        "1..2",
        "1 .2",
        "1.2\0",
        "1.2\n",
        "1.a",
        "../1",
        "/etc",
        "1.2*",
        "CON",
        "1." + "2" * 63,
        "١.٢",
    ],
)
def test_what_is_no_uid(text: str) -> None:
    assert not is_uid(text)
    assert not is_uid(text, lenient=True)
    with pytest.raises(InvalidUID) as caught:
        check_uid(text, "StudyInstanceUID")
    assert len(caught.value.comment) <= COMMENT_LENGTH
    assert not text or text == "." or text not in caught.value.comment


def test_every_data_set_syntax_pydicom_knows_is_in_the_table() -> None:
    known = {uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"} - NO_DATA_SETS
    assert known <= TRANSFER_SYNTAXES.keys()
    assert all(TRANSFER_SYNTAXES[uid].name == UID_dictionary[uid][0] for uid in known)


@pytest.mark.parametrize("suffix", PROMISED)
def test_every_promised_syntax_is_in_the_table(suffix: str) -> None:
    assert f"1.2.840.10008.1.2{suffix}" in TRANSFER_SYNTAXES


@pytest.mark.parametrize("uid", AllTransferSyntaxes)
def test_the_facts_agree_with_pydicom(uid: UID) -> None:
    facts = transfer_syntax(uid)
    assert facts.explicit is not uid.is_implicit_VR
    assert facts.big_endian is not uid.is_little_endian
    assert facts.deflated is uid.is_deflated or facts.pixels is Pixels.REFERENCED
    if facts.pixels is not Pixels.REFERENCED:
        assert facts.encapsulated is uid.is_encapsulated


def test_the_uncompressed_syntaxes_are_those_that_convert_into_each_other() -> None:
    uncompressed = {
        uid.removeprefix("1.2.840.10008.1.") for uid, facts in TRANSFER_SYNTAXES.items() if facts.uncompressed
    }
    assert uncompressed == {"2", "2.1", "2.1.99", "2.2", "20"}


@pytest.mark.parametrize(
    ("suffix", "pixels"),
    [
        ("1", Pixels.NATIVE),
        ("5", Pixels.LOSSLESS),
        ("4.50", Pixels.LOSSY),
        ("4.70", Pixels.LOSSLESS),
        ("4.81", Pixels.LOSSY),
        ("4.90", Pixels.LOSSLESS),
        ("4.91", Pixels.LOSSY),
        ("4.94", Pixels.REFERENCED),
        ("4.100", Pixels.VIDEO),
        ("4.108", Pixels.VIDEO),
        ("4.201", Pixels.LOSSLESS),
        ("4.203", Pixels.LOSSY),
    ],
)
def test_what_a_syntax_does_to_pixels(suffix: str, pixels: Pixels) -> None:
    assert transfer_syntax(f"1.2.840.10008.1.2.{suffix}").pixels is pixels


def test_retired_syntaxes_are_marked() -> None:
    assert transfer_syntax(EXPLICIT_BIG).retired
    assert not transfer_syntax("1.2.840.10008.1.2.4.80").retired


def test_a_private_syntax_is_taken_for_explicit_and_encapsulated() -> None:
    facts = transfer_syntax("1.2.276.0.99.1")
    assert (facts.explicit, facts.big_endian, facts.encapsulated, facts.uncompressed) == (True, False, True, False)


def test_the_names_of_this_implementation_are_valid() -> None:
    assert is_uid(IMPLEMENTATION_CLASS_UID)
    assert 1 <= len(IMPLEMENTATION_VERSION_NAME) <= 16
