"""Asking a peer what it has, question after question on one association: to fetch from it, or to compare it with us.

Rules that hold here: what a peer says is cleaned of what is no UID, and of what belongs to another study or series (one
that cannot match by these keys answers with all it has); a number that is none is not there; a peer that does not
understand a level has refused it, and says so; every question has an end and a most number of answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

from pydicom.datadict import tag_for_keyword

from archive.dicom.attributes import Level
from archive.dicom.identifier import Identifier
from archive.dicom.query import Root
from archive.dimse import scu
from archive.dimse.access import QUERY_RETRIEVE
from archive.dimse.association import Association
from archive.dimse.destinations import Destination
from archive.errors import Refused
from archive.services.comparing import TheirStudy
from archive.services.inquiry import MOST_IMAGES, MOST_SERIES, MOST_STUDIES

FIND = f"{QUERY_RETRIEVE}.{scu.ROOT_NUMBER[Root.STUDY]}.1"
STUDY_KEYS = (
    "StudyInstanceUID", "StudyDate", "PatientID", "PatientName", "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)  # fmt: skip
STUDY_UID, SERIES_UID, IMAGE_UID, CLASS_UID = (
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID",
)  # fmt: skip
NUMBERS = ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
ABOVE = {Level.SERIES: (STUDY_UID,), Level.IMAGE: (STUDY_UID, SERIES_UID)}
# One with letters too, of a peer that knows no better; nothing that, asked for, means several of them, or any.
_UID = re.compile(r"[0-9A-Za-z._-]{1,64}", re.ASCII)
DIGITS = 9  # of a number that can be one of images
SECONDS = 1800.0  # for all answers to a question
ALL_SECONDS = 4 * 3600.0  # to one for all studies
OTHERS = 10  # answers for each study that was asked for by name


class PeerInquiry:
    """One peer; each ``open`` is an association."""

    def __init__(self, destination: Destination, keywords: Iterable[str] = ()) -> None:
        """``keywords`` are asked for of each study besides what comparing needs."""
        self._destination = destination
        self._keywords = tuple(dict.fromkeys([*STUDY_KEYS, *keywords]))

    @contextmanager
    def open(self, opened: Callable[[Association], None] = lambda _: None) -> Iterator[Questions]:
        """Raises Unreachable, also later, when the association breaks; ``opened`` is given it, to be able to end it."""
        with scu.calling(self._destination, FIND) as association:
            opened(association)
            yield Questions(association, self._destination, self._keywords)


class Questions:
    """An open association; every answer is taken to its end before the next question."""

    def __init__(self, association: Association, destination: Destination, keywords: Collection[str]) -> None:
        self._association = association
        self._destination = destination
        self._keywords = keywords

    # -- studies --------------------------------------------------------------------------------

    def between(self, since: str, until: str, limit: int = 0) -> Iterator[TheirStudy]:
        """The studies of a span of dates, all without bounds; no more than ``limit``, if that is given."""
        dates = f"{since}-{until}" if since != until else since
        return self.studies({"StudyDate": "" if dates == "-" else dates}, limit)

    def named(self, uids: Collection[str]) -> Iterator[TheirStudy]:
        """Those of these studies that are there; a peer that answers with others as well is soon asked to stop."""
        return self.studies({STUDY_UID: "\\".join(uids)}, limit=OTHERS * len(uids))

    def studies(
        self, keys: Mapping[str, str], limit: int = 0, ended: Callable[[int], None] = lambda status: None
    ) -> Iterator[TheirStudy]:
        """Those that match; the peer is asked to stop after ``limit`` of them, ``ended`` hears its final status."""
        wanted = dict.fromkeys(self._keywords, "") | dict(keys)
        for answer in self._ask(Level.STUDY, wanted, limit, ended):
            if _uid(answer, STUDY_UID):
                yield self._study(answer)

    def _study(self, answer: Identifier) -> TheirStudy:
        values = _values(answer, self._keywords)
        series, instances = (_number(values[name]) for name in NUMBERS)
        return TheirStudy(values[STUDY_UID], values["StudyDate"], series, instances, values)

    # -- what is in them ------------------------------------------------------------------------

    def series(self, study_uid: str) -> dict[str, tuple[str, int | None]]:
        """The series of a study, with their modality and how many images the peer counts."""
        found = self.series_with(study_uid, dict.fromkeys(("Modality", "NumberOfSeriesRelatedInstances"), ""))
        return {
            uid: (values["Modality"], _number(values["NumberOfSeriesRelatedInstances"]))
            for uid, values in found.items()
        }

    def series_with(self, study_uid: str, keys: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """The series of a study that match, with the peer's values of these keys."""
        wanted = {SERIES_UID: "", **keys, STUDY_UID: study_uid}
        answers = self._ask(Level.SERIES, wanted)
        return {uid: _values(each, keys) for each in answers if (uid := _uid(each, SERIES_UID))}

    def images(self, study_uid: str, series_uid: str) -> dict[str, str]:
        """The SOP Instance UIDs of a series, with their SOP classes as far as the peer gives them."""
        keys = {STUDY_UID: study_uid, SERIES_UID: series_uid, IMAGE_UID: "", CLASS_UID: ""}
        answers = self._ask(Level.IMAGE, keys)
        return {uid: _text(each, CLASS_UID) for each in answers if (uid := _uid(each, IMAGE_UID))}

    # -- any question ---------------------------------------------------------------------------

    def _ask(
        self, level: Level, keys: Mapping[str, str], limit: int = 0,
        ended: Callable[[int], None] = lambda status: None,
    ) -> Iterator[Identifier]:  # fmt: skip
        """Without a ``limit`` all answers; more than can be are Refused when the peer has ended them."""
        most = {Level.STUDY: MOST_STUDIES, Level.SERIES: MOST_SERIES, Level.IMAGE: MOST_IMAGES}[level]
        seconds = SECONDS if limit or level is not Level.STUDY else ALL_SECONDS
        answers = scu.answers(
            self._association, self._destination, Root.STUDY, level, keys, limit=limit or most + 1, seconds=seconds,
            ended=ended,
        )  # fmt: skip
        number = 0
        for answer in answers:
            number += 1
            if all(_text(answer, name) in ("", keys[name]) for name in ABOVE.get(level, ())):
                yield answer
        if not limit and number > most:
            raise Refused("peer lists more than there can be", f"{most} answers at level {level.name}")


def _values(answer: Identifier, keywords: Iterable[str]) -> dict[str, str]:
    return {keyword: _text(answer, keyword) for keyword in keywords}


def _text(answer: Identifier, keyword: str) -> str:
    """A value as text; a sequence says nothing here."""
    return answer.text(tag_for_keyword(keyword) or 0).strip(" \0")


def _uid(answer: Identifier, keyword: str) -> str:
    """Empty for what is none."""
    text = _text(answer, keyword)
    return text if _UID.fullmatch(text) else ""


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS else None
