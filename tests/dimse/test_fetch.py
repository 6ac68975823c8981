"""A peer as a source of studies: pynetdicom, which behaves as its handlers say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless
from pynetdicom import evt

from archive.dimse.destinations import Destination
from archive.dimse.fetch import PeerCatalogue, PeerSource, _storage
from archive.dimse.planning import MOST_CONTEXTS
from archive.errors import Refused, Unreachable
from archive.services.fetching import Retrieval

from .archives import QUICK, ROOT, fill, instance, parts, peer, serving
from .receivers import CT
from .test_scu import pynetdicom

STUDY, SERIES = f"{ROOT}.1", f"{ROOT}.1.1"
PENDING, DONE, CANCELLED = 0xFF00, 0x0000, 0xFE00
IMPATIENT = replace(QUICK, dimse=1)


def answer(**values: str) -> Dataset:
    found = Dataset()
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


def impatient(destination: Destination) -> Destination:
    return replace(destination, timeouts=IMPATIENT)


def finding(*answers: Dataset, end: int = DONE) -> tuple[Any, Any]:
    def found(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        yield from ((PENDING, each) for each in answers)
        if end != DONE:
            yield end, None

    return evt.EVT_C_FIND, found


def test_series_and_instances_are_listed_over_one_association(tmp_path: Path) -> None:
    with serving(tmp_path, [peer("US")]) as archive:
        fill(archive, *(instance(number, series=series) for series in (1, 2) for number in (1, 2, 3)))
        with PeerSource(archive.destination("US"), "US").listing() as listing:
            assert listing.series(STUDY) == {f"{STUDY}.{number}": ("CT", 3) for number in (1, 2)}
            assert listing.images(STUDY, SERIES) == {f"{SERIES}.{number}": CT for number in (1, 2, 3)}


def test_what_belongs_to_another_study_is_not_believed() -> None:
    strange = answer(StudyInstanceUID="9.9", SeriesInstanceUID=SERIES, SOPInstanceUID="9.9.1")
    good = answer(SeriesInstanceUID=SERIES, SOPInstanceUID="1.2.3", NumberOfSeriesRelatedInstances="-5")
    nothing = answer(StudyInstanceUID=STUDY)
    with pynetdicom(finding(strange, good, nothing)) as other, PeerSource(other, "US").listing() as listing:
        assert listing.images(STUDY, SERIES) == {"1.2.3": ""}
        assert listing.series(STUDY) == {SERIES: ("", None)}


def test_a_peer_that_is_silent_in_a_query_is_given_up(tmp_path: Path) -> None:
    over = threading.Event()

    def silent(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        over.wait(60)
        yield DONE, None

    with parts(tmp_path) as archive, pynetdicom((evt.EVT_C_FIND, silent)) as other:
        retrieval = Retrieval(archive.index, PeerSource(impatient(other), "US"), STUDY)
        with pytest.raises(Unreachable):
            retrieval.look()
        assert retrieval.reached and not retrieval.looked
        over.set()


def test_a_peer_that_is_silent_in_a_retrieval_is_given_up() -> None:
    over = threading.Event()

    def silent(event: Any) -> Iterator[Any]:
        over.wait(60)
        yield None, None

    with pynetdicom((evt.EVT_C_MOVE, silent)) as other:
        with pytest.raises(Unreachable):
            PeerSource(impatient(other), "US").bring(STUDY, "", (), {})
        over.set()


def test_a_peer_that_says_for_ever_that_it_is_not_done_is_given_up() -> None:
    over = threading.Event()

    def busy(event: Any) -> Iterator[Any]:
        yield 1
        while not over.wait(0.05):
            yield PENDING, None

    with pynetdicom((evt.EVT_C_GET, busy)) as other:
        with pytest.raises(Unreachable), parts_of_nothing() as store:
            PeerSource(impatient(other), "US", store).bring(STUDY, "", (), {})
        over.set()


class parts_of_nothing:  # noqa: N801 - used like a function
    """No store: nothing comes."""

    def __enter__(self) -> Any:
        return object()

    def __exit__(self, *_: object) -> None:
        """Nothing was opened."""


def test_a_retrieval_under_way_is_stopped_from_another_thread() -> None:
    over, asked = threading.Event(), threading.Event()

    def silent(event: Any) -> Iterator[Any]:
        asked.set()
        over.wait(60)
        yield None, None

    with pynetdicom((evt.EVT_C_MOVE, silent)) as other:
        source, ends = PeerSource(other, "US"), list[BaseException]()

        def work() -> None:
            with pytest.raises(Unreachable) as raised:
                source.bring(STUDY, "", (), {})
            ends.append(raised.value)

        thread = threading.Thread(target=work)
        thread.start()
        assert asked.wait(60)
        source.stop()
        thread.join(60)
        assert "stopping" in str(ends[0])
        over.set()


def test_objects_come_by_get_as_they_are_stored_there(tmp_path: Path) -> None:
    compressed = instance(2, syntax=str(JPEGLSLossless))
    compressed.PixelData = encapsulate([b"never looked at"])
    compressed["PixelData"].is_undefined_length = True
    with serving(tmp_path / "far", [peer("US")]) as far, parts(tmp_path / "near") as near:
        fill(far, instance(1), compressed)
        source = PeerSource(far.destination("US"), "US", near.store)
        retrieval = Retrieval(near.index, source, STUDY)
        retrieval.look()
        retrieval.bring()
        assert retrieval.is_here and retrieval.words == ""
        stored = near.index.known(f"{SERIES}.2")
        assert stored is not None and stored.transfer_syntax == JPEGLSLossless


def test_what_was_not_asked_for_is_not_taken_by_get(tmp_path: Path) -> None:
    def sends_another(event: Any) -> Iterator[Any]:
        yield 1
        yield PENDING, instance(7, study=9)

    with parts(tmp_path) as near, pynetdicom((evt.EVT_C_GET, sends_another)) as other:
        words = PeerSource(other, "US", near.store).bring(STUDY, "", (), {f"{SERIES}.1": CT})
        assert "1 failed" in words
        assert near.index.is_empty()
        # Where the peer has not listed all that it has, what comes is what it has.
        assert PeerSource(other, "US", near.store).bring(STUDY, "", (), None) == ""
        assert near.index.statistics().instances == 1


def test_a_peer_that_sends_the_same_for_ever_by_get_is_given_up(tmp_path: Path) -> None:
    over = threading.Event()

    def sends_again(event: Any) -> Iterator[Any]:
        yield 60_000
        while not over.is_set():
            yield PENDING, instance(1)

    with parts(tmp_path) as near, pynetdicom((evt.EVT_C_GET, sends_again)) as other:
        source = PeerSource(impatient(other), "US", near.store)
        with pytest.raises(Unreachable):
            source.bring(STUDY, "", (), {f"{SERIES}.1": CT})
        over.set()
        assert near.index.statistics().instances <= 1


def test_contexts_for_what_comes_fit_into_an_association() -> None:
    for count in (1, 3, 60, 126):
        classes = [f"1.2.840.10008.5.1.4.1.1.{number}" for number in range(1, count + 1)]
        found = _storage(classes)
        assert len(found) <= MOST_CONTEXTS - 2 and {each[0] for each in found} == set(classes)
    assert _storage([CT, ""]) == _storage([]) == []


@pytest.mark.parametrize("end", [DONE, 0xA700, CANCELLED])
def test_a_peer_that_cuts_its_answers_off_is_found_out(end: int) -> None:
    answers = [answer(StudyInstanceUID=f"1.{number}", NumberOfStudyRelatedSeries="2") for number in range(1, 6)]
    with pynetdicom(finding(*answers, end=end)) as other:
        found = PeerCatalogue(other, 500).studies({"PatientID": "1"})
        assert (len(found.studies), found.cut) == (5, end != DONE)
        assert (found.studies[0].series, found.studies[0].instances) == (2, None)


def test_after_as_many_answers_as_are_wanted_the_peer_is_asked_to_stop(tmp_path: Path) -> None:
    with serving(tmp_path, [peer("US")]) as archive:
        fill(archive, *(instance(1, study=study) for study in range(1, 8)))
        found = PeerCatalogue(archive.destination("US"), 4).studies({})
        assert (len(found.studies), found.cut) == (4, True)


def test_a_query_that_is_refused_is_no_long_list() -> None:
    with pynetdicom(finding(end=0xA900)) as other, pytest.raises(Refused):
        PeerCatalogue(other, 500).studies({})
    with pynetdicom(finding(end=0xA700)) as other:
        assert PeerCatalogue(other, 500).studies({}).cut


def test_series_of_several_studies_are_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path, [peer("US")]) as archive:
        fill(archive, instance(1), instance(1, series=2, modality="MR"), instance(1, study=2, modality="MR"))
        found = dict(PeerCatalogue(archive.destination("US"), 4).series([STUDY, f"{ROOT}.2"], {"Modality": "CT"}))
        assert found == {STUDY: {SERIES: {"Modality": "CT"}}, f"{ROOT}.2": {}}
