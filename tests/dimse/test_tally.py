"""Sub-operations are counted honestly."""

from __future__ import annotations

import io

import pydicom
import pytest

from archive.dimse.tally import Result, Sent, Tally, failed_list

EXPLICIT, BIG, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2"


def tally(sent: int = 0, failed: int = 0, warned: int = 0, *, total: int | None = None) -> Tally:
    found = Tally(sent + failed + warned if total is None else total)
    for result, count in ((Result.SENT, sent), (Result.FAILED, failed), (Result.WARNING, warned)):
        for number in range(count):
            found.add(Sent(f"1.2.{number}", result, reason="no room"))
    return found


@pytest.mark.parametrize(
    ("sent", "failed", "warned", "status"),
    [(3, 0, 0, 0x0000), (2, 1, 0, 0xB000), (0, 3, 0, 0xA702), (2, 0, 1, 0xB000), (0, 1, 1, 0xB000), (0, 0, 0, 0x0000)],
)
def test_the_final_status_follows_from_the_results(sent: int, failed: int, warned: int, status: int) -> None:
    assert tally(sent, failed, warned).answer().status == status


def test_a_peer_that_takes_warnings_for_failures_gets_success_unless_something_failed() -> None:
    assert tally(2, 0, 1).answer(warnings_fail=False).status == 0x0000
    assert tally(1, 1, 1).answer(warnings_fail=False).status == 0xB000


def test_a_cancelled_retrieval_says_what_remains() -> None:
    found = tally(2, 1, total=10)
    assert found.answer(cancelled=True).status == 0xFE00
    assert found.counts()["NumberOfRemainingSuboperations"] == 7


def test_a_cancel_after_the_last_sub_operation_changes_nothing() -> None:
    assert tally(2).answer(cancelled=True).status == 0x0000


def test_counts_above_16_bits_are_said_as_65535() -> None:
    found = Tally(70_000)
    assert found.counts()["NumberOfRemainingSuboperations"] == 65_535
    found.completed = 70_000
    assert found.counts(final=True) == {
        "NumberOfCompletedSuboperations": 65_535,
        "NumberOfFailedSuboperations": 0,
        "NumberOfWarningSuboperations": 0,
    }
    assert found.remaining == 0


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG, IMPLICIT])
@pytest.mark.parametrize("count", [1, 3, 5000])
def test_the_failed_list_can_be_read_by_others(syntax: str, count: int) -> None:
    uids = [f"1.2.840.99999.{number}" for number in range(count)]
    raw = failed_list(uids, syntax)
    read = pydicom.filereader.read_dataset(
        io.BytesIO(raw), is_implicit_VR=syntax == IMPLICIT, is_little_endian=syntax != BIG
    )
    value = read[0x00080058].value
    found = value.decode().rstrip("\0").split("\\") if isinstance(value, bytes) else value
    assert ([found] if isinstance(found, str) else list(found)) == uids
