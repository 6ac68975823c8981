"""Orders for jobs: keys that can be asked for, and answers that can be meant."""

from __future__ import annotations

import pytest

from archive.dicom.attributes import Level
from archive.errors import InvalidQuery
from archive.services.joborder import Order, read_dates, read_keys, sieve


def test_keys_are_of_studies_or_of_series() -> None:
    found = read_keys({"PatientID": "1", "Modality": "CT", "StudyDate": "20200101-"})
    assert found == ({"PatientID": "1"}, {"Modality": "CT"}, "2020-01-01", "")
    assert read_dates("20200131") == ("2020-01-31", "2020-01-31")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("SOPInstanceUID", "1"), ("Nothing", "1"), ("StudyDate", "yesterday"), ("StudyDate", "20201399"),
        ("PatientBirthDate", "young"), ("SeriesDate", "2020"),
    ],
)  # fmt: skip
def test_what_nobody_could_answer_is_said_at_once(keyword: str, value: str) -> None:
    with pytest.raises(InvalidQuery):
        read_keys({keyword: value})


def test_an_order_is_kept_as_it_was_given() -> None:
    assert Order(keys={}, series_keys={}) == Order()


@pytest.mark.parametrize(
    ("keyword", "asked", "answered", "fits"),
    [
        ("PatientID", "P1", "P1", True),
        ("PatientID", "P1", "p1", True),  # the peer's own business
        ("PatientID", "P1", "P10", False),
        ("PatientID", "P1", "", True),  # says nothing
        ("PatientID", "P*", "Q1", False),
        ("PatientID", "P?", "p1", True),
        ("PatientBirthDate", "19500101-19591231", "19550505", True),
        ("PatientBirthDate", "19500101-19591231", "19600101", False),
        ("StudyTime", "0800-1200", "113000", True),
        ("StudyTime", "0800-1200", "1300", False),
        ("PatientName", "DOE^JOHN", "Doe^John^^", True),
        ("PatientName", "DOE^JOHN", "Doe^Jane", False),
        ("ModalitiesInStudy", "CT", "SR\\CT", True),
        ("AccessionNumber", "", "A1", True),
    ],
)  # fmt: skip
def test_an_answer_is_one_to_what_was_asked(keyword: str, asked: str, answered: str, fits: bool) -> None:
    assert sieve({keyword: asked}, Level.STUDY)({keyword: answered}) is fits


def test_series_are_looked_at_by_their_own_keys() -> None:
    can_be = sieve({"Modality": "CT\\MR", "SeriesNumber": "07", "SeriesInstanceUID": "1.2\\1.3"}, Level.SERIES)
    assert can_be({"Modality": "MR", "SeriesNumber": "7", "SeriesInstanceUID": "1.3"})
    assert not can_be({"Modality": "SR", "SeriesNumber": "7", "SeriesInstanceUID": "1.3"})
    assert not can_be({"Modality": "CT", "SeriesNumber": "8", "SeriesInstanceUID": "1.3"})
    assert not can_be({"Modality": "CT", "SeriesInstanceUID": "1.4"})


def test_a_key_of_an_older_job_that_makes_no_sense_leaves_nothing_out() -> None:
    assert sieve({"PatientBirthDate": "young"}, Level.STUDY)({"PatientBirthDate": "19550505"})
