"""Questions to a peer: pynetdicom, which ignores what it is asked by and does not come to an end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt

from archive.dimse import inquiry
from archive.dimse.inquiry import PeerInquiry
from archive.errors import Refused, Unreachable

from .test_fetch import CANCELLED, PENDING, answer, finding
from .test_scu import pynetdicom

STUDY, SERIES = "1.2.3", "1.2.3.1"


def test_what_belongs_to_other_studies_and_series_is_not_booked_to_the_one_asked_for() -> None:
    answers = [
        answer(StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID=f"{series}.1", Modality="CT")
        for study, series in ((STUDY, SERIES), (STUDY, "1.2.3.2"), ("9", "9.1"))
    ]
    with pynetdicom(finding(*answers)) as other, PeerInquiry(other).open() as questions:
        assert questions.images(STUDY, SERIES) == {f"{SERIES}.1": ""}
        assert questions.series(STUDY) == {SERIES: ("CT", None), "1.2.3.2": ("CT", None)}


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_what_is_no_uid_names_nothing_and_what_is_no_number_counts_nothing() -> None:
    uids = ("*", "1.?", "1.2\\1.3", "1" * 65, "1 2", "1/../2")
    good = [answer(StudyInstanceUID=STUDY, NumberOfStudyRelatedInstances=number) for number in ("12", "-5")]
    with pynetdicom(finding(*(answer(StudyInstanceUID=uid) for uid in uids), *good)) as other:
        with PeerInquiry(other).open() as questions:
            assert [(each.uid, each.instances) for each in questions.between("", "")] == [(STUDY, 12), (STUDY, None)]


def test_more_than_there_can_be_is_refused_and_the_next_question_has_its_own_answers(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inquiry, "MOST_IMAGES", 3)
    answers = [
        answer(StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES, SOPInstanceUID=f"{SERIES}.{number}")
        for number in range(1, 6)
    ]
    with pynetdicom(finding(*answers)) as other, PeerInquiry(other).open() as questions:
        with pytest.raises(Refused, match="more than there can be"):
            questions.images(STUDY, SERIES)
        assert [each.uid for each in questions.between("", "")] == [STUDY] * 5


def test_a_list_that_the_peer_breaks_off_is_not_taken_for_the_whole() -> None:
    found = answer(StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES, SOPInstanceUID="1")
    with pynetdicom(finding(found, end=CANCELLED)) as other, PeerInquiry(other).open() as questions:
        for ask in (questions.series, lambda uid: list(questions.between("", "", 10))):
            with pytest.raises(Refused):
                ask(STUDY)


@pytest.mark.parametrize("limit", [0, 2])
def test_answers_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Also by a peer that was asked to stop, and does not listen."""
    over = threading.Event()

    def endless(event: Any) -> Iterator[tuple[int, Dataset]]:
        while not over.is_set():
            yield PENDING, answer(StudyInstanceUID=STUDY)

    monkeypatch.setattr(inquiry, "SECONDS", 0.5)
    monkeypatch.setattr(inquiry, "ALL_SECONDS", 0.5)
    with pynetdicom((evt.EVT_C_FIND, endless)) as other:
        with pytest.raises(Unreachable, match="no end"), PeerInquiry(other).open() as questions:
            list(questions.between("", "", limit))
        over.set()
