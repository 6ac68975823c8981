"""Data sets of storage commitment."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from pydicom.dataset import Dataset

from archive.dicom.references import (
    MOST,
    Failure,
    Outcome,
    Reference,
    decode_outcome,
    decode_request,
    encode_outcome,
    encode_request,
)
from archive.dicom.uids import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from archive.errors import InvalidQuery, NotUnderstood

CT = "1.2.840.10008.5.1.4.1.1.2"
SYNTAXES = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)
SOME = tuple(Reference(CT, f"1.2.3.{number}") for number in range(3))


def some(number: int) -> tuple[Reference, ...]:
    return tuple(Reference(CT, f"1.2.3.{each}") for each in range(number))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_is_encoded_is_decoded(syntax: str) -> None:
    assert decode_request(encode_request("1.9", SOME, syntax), syntax) == ("1.9", SOME)
    outcome = Outcome("1.9", SOME[:2], (Failure(*SOME[2], 0x0112),))
    assert decode_outcome(encode_outcome(outcome, syntax), syntax) == outcome


def test_another_library_reads_a_report() -> None:
    outcome = Outcome("1.9", (), (Failure(*SOME[2], 0x0112),))
    found: Dataset = pydicom.dcmread(BytesIO(encode_outcome(outcome, EXPLICIT_LITTLE)), force=True)
    assert found.TransactionUID == "1.9" and "ReferencedSOPSequence" not in found
    (failed,) = found.FailedSOPSequence
    assert (failed.ReferencedSOPClassUID, failed.ReferencedSOPInstanceUID, failed.FailureReason) == (*SOME[2], 0x0112)


def test_thousands_of_references_are_read() -> None:
    many = some(12_000)
    assert decode_request(encode_request("1.9", many, IMPLICIT_LITTLE), IMPLICIT_LITTLE) == ("1.9", many)


def test_a_reference_counts_once() -> None:
    assert decode_request(encode_request("1.9", SOME * 2, IMPLICIT_LITTLE), IMPLICIT_LITTLE) == ("1.9", SOME)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "data set is missing"),
        (encode_request("", SOME, IMPLICIT_LITTLE), "Transaction UID is missing"),
        (encode_request("1.x", SOME, IMPLICIT_LITTLE), "Transaction UID is no UID"),
        (encode_request("1.9", (), IMPLICIT_LITTLE), "Referenced SOP Sequence is empty"),
        (encode_request("1.9", (Reference(CT, ""),), IMPLICIT_LITTLE), "Referenced SOP Instance UID is missing"),
        (encode_request("1.9", (Reference("1" * 65, "1"),), IMPLICIT_LITTLE), "Referenced SOP Class UID is no UID"),
    ],
)
def test_a_request_that_cannot_be_meant_says_why(data: bytes | None, words: str) -> None:
    with pytest.raises(InvalidQuery) as refused:
        decode_request(data, IMPLICIT_LITTLE)
    assert refused.value.comment == words


def test_a_request_beyond_every_study_or_cut_short_is_not_understood() -> None:
    with pytest.raises(NotUnderstood):
        decode_request(encode_request("1.9", some(MOST + 1), IMPLICIT_LITTLE), IMPLICIT_LITTLE)
    with pytest.raises(NotUnderstood):
        decode_request(encode_request("1.9", SOME, IMPLICIT_LITTLE)[:-3], IMPLICIT_LITTLE)
