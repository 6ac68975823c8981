"""Asking a peer what it has, question after question on one association: for comparing archives.

Rules that hold here: what a peer says is taken as it comes and cleaned of what is no UID; a number that is none is not
there; a peer that does not understand a level has refused it, and says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from pydicom.datadict import tag_for_keyword

from archive.dicom.attributes import Level
from archive.dicom.identifier import Identifier
from archive.dicom.query import Root
from archive.dimse import scu
from archive.dimse.access import QUERY_RETRIEVE
from archive.dimse.association import Association
from archive.dimse.destinations import Destination
from archive.dimse.question import Keys
from archive.services.comparing import TheirStudy

FIND = f"{QUERY_RETRIEVE}.{scu.ROOT_NUMBER[Root.STUDY]}.1"
STUDY_KEYS = (
    "StudyInstanceUID", "StudyDate", "PatientID", "PatientName", "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)  # fmt: skip
UID, NUMBERS = "StudyInstanceUID", ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")


class PeerInquiry:
    """One peer; each ``open`` is an association."""

    def __init__(self, destination: Destination, keywords: Iterable[str] = ()) -> None:
        """``keywords`` are asked for of each study besides what comparing needs."""
        self._destination = destination
        self._keywords = tuple(dict.fromkeys([*STUDY_KEYS, *keywords]))

    @contextmanager
    def open(self) -> Iterator[Questions]:
        """Raises Unreachable, also later, when the association breaks."""
        with scu.calling(self._destination, FIND) as association:
            yield Questions(association, self._destination, self._keywords)


class Questions:
    """An open association; every answer is taken to its end before the next question."""

    def __init__(self, association: Association, destination: Destination, keywords: Collection[str]) -> None:
        self._association = association
        self._destination = destination
        self._keywords = keywords

    def between(self, since: str, until: str, limit: int = 0) -> Iterator[TheirStudy]:
        """The studies of a span of dates, all without bounds; no more than ``limit``, if that is given."""
        dates = f"{since}-{until}" if since != until else since
        return self._studies({"StudyDate": "" if dates == "-" else dates}, limit)

    def named(self, uids: Collection[str]) -> Iterator[TheirStudy]:
        """Those of these studies that are there."""
        return self._studies({UID: "\\".join(uids)})

    def _studies(self, keys: Keys, limit: int = 0) -> Iterator[TheirStudy]:
        wanted = dict.fromkeys(self._keywords, "") | dict(keys)
        return (study for answer in self._ask(Level.STUDY, wanted, limit) if (study := self._study(answer)).uid)

    def _study(self, answer: Identifier) -> TheirStudy:
        values = {keyword: _text(answer, keyword) for keyword in self._keywords}
        series, instances = (_number(values[name]) for name in NUMBERS)
        return TheirStudy(values[UID], values["StudyDate"], series, instances, values)

    def series(self, study_uid: str) -> dict[str, tuple[str, int | None]]:
        """The series of a study, with their modality and how many images the peer counts."""
        keys = dict.fromkeys(("SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances"), "")
        return {
            uid: (_text(answer, "Modality"), _number(_text(answer, "NumberOfSeriesRelatedInstances")))
            for answer in self._ask(Level.SERIES, {UID: study_uid, **keys})
            if (uid := _text(answer, "SeriesInstanceUID"))
        }

    def images(self, study_uid: str, series_uid: str) -> set[str]:
        """The SOP Instance UIDs of a series."""
        keys = {UID: study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": ""}
        return {uid for answer in self._ask(Level.IMAGE, keys) if (uid := _text(answer, "SOPInstanceUID"))}

    def _ask(self, level: Level, keys: Keys, limit: int = 0) -> Iterator[Identifier]:
        return scu.answers(self._association, self._destination, Root.STUDY, level, keys, limit=limit)


def _text(answer: Identifier, keyword: str) -> str:
    return answer.text(tag_for_keyword(keyword) or 0).strip(" \0")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None
