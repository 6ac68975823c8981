"""Priors of a patient: who has which, whether they are of the same patient, and which are the best.

Rules that hold here: a study counts once, whoever has it; what is somebody else's is never wanted; a peer that fails is
told of and keeps nobody else's answers away; a peer whose list has no end, or none in time, has failed: a part of a
list is never taken for the whole.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

from archive.dicom.attributes import Level
from archive.dicom.bodyparts import PAIRED
from archive.dicom.temporal import canonical_date
from archive.errors import ArchiveError, NotPossible, Refused, Unreachable
from archive.services.relevance import DAY, Examination, Verdict, Wish, choose, judge
from archive.services.samepatient import Answer, Patient, codes, stranger, text

HERE = ""  # the archive itself, as somebody to ask
MOST_ANSWERS = 10_000  # studies of one patient at one peer; more is no patient
PATIENCE = 120.0  # seconds for all answers of one peer about one patient: studies and then series
DETAILED = 30  # studies whose series are asked for, the likeliest first: each is a question more
LONGEST_ID = 64  # VR LO, PS3.5 table 6.2-1
_WILD = re.compile(r"[*?\\\x00-\x1f]")  # a Patient ID with one of these would ask for others as well

STUDY_KEYS = (
    "StudyInstanceUID", "StudyDate", "StudyDescription", "ModalitiesInStudy", "PatientID", "PatientName",
    "PatientBirthDate", "PatientSex", "IssuerOfPatientID", "NumberOfStudyRelatedInstances",
)  # fmt: skip
_CODES = {"ProcedureCodeSequence": [{"CodeValue": "", "CodingSchemeDesignator": ""}]}
SERIES_KEYS = (
    "SeriesInstanceUID", "Modality", "BodyPartExamined", "Laterality", "SeriesDescription", "ProtocolName",
)  # fmt: skip

Ask = Callable[[str, Level, Mapping[str, Any]], Generator[Answer, None, None]]
"""Asks a source (a peer's AE title, or HERE); raises ArchiveError, also while it is gone through.

When answers take too long, that is thrown into it, so that whoever asks for us knows and does not ask again at once.
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A study of the patient's, by one source's answer."""

    source: str
    examination: Examination
    instances: int | None  # that the source has, None when it does not say
    stranger: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate and what is thought of it; ``here`` is how many of its instances the archive has."""

    candidate: Candidate
    verdict: Verdict
    here: int = 0

    @property
    def is_wanted(self) -> bool:
        return not self.verdict.against

    @property
    def is_whole(self) -> bool:
        """Whether the archive has all of it, as far as the source's count tells."""
        number = self.candidate.instances
        return bool(self.here) and (not self.candidate.source or (number is not None and number <= self.here))


@dataclass(frozen=True, slots=True)
class Found:
    """The candidates in the order of their relevance, and which sources failed, with the reason."""

    judged: tuple[Judged, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)


class Priors:
    """Looks for priors; what a source said of a patient is remembered as long as the object is."""

    def __init__(
        self,
        ask: Ask,
        issuers: Mapping[str, str],
        here: Callable[[str], int],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``issuers`` are of the Patient IDs in a source's data sets that name none, ``here`` counts instances."""
        self._ask = ask
        self._issuers = issuers
        self._here = here
        self._monotonic = monotonic
        self._known: dict[tuple[str, Patient, float | None], list[Candidate]] = {}
        self._series: dict[tuple[str, str], list[Answer]] = {}
        self._looked: dict[object, Found] = {}
        self._ends: dict[str, float] = {}  # source -> when it must have said all about one patient

    def look(
        self, patient: Patient, coming: Examination, wish: Wish, sources: Sequence[str], today: date
    ) -> Found:
        """Ask the archive itself and then the sources, and judge what they have: once for all who ask the same."""
        question = (patient, replace(coming, study_uid=""), wish, tuple(sources), today)
        known = self._looked.get(question)
        if known is None or any(each.candidate.examination.study_uid == coming.study_uid for each in known.judged):
            known = self._looked[question] = self._look(patient, coming, wish, sources, today)
        return known

    def _look(
        self, patient: Patient, coming: Examination, wish: Wish, sources: Sequence[str], today: date
    ) -> Found:
        if not patient.id or len(patient.id) > LONGEST_ID or _WILD.search(patient.id):
            raise NotPossible("the Patient ID cannot be asked for")
        found: dict[str, list[Candidate]] = {}
        failed: dict[str, str] = {}
        self._ends = {}
        for source in (HERE, *sources):
            try:
                for each in self._of(source, patient, wish.within, today):
                    found.setdefault(each.examination.study_uid, []).append(each)
            except ArchiveError as error:
                failed[source] = error.reason
        candidates = [_best(each) for each in found.values()]
        return Found(tuple(self._judged(candidates, coming, wish, today, failed)), failed)

    def _of(self, source: str, patient: Patient, within: float | None, today: date) -> list[Candidate]:
        key = (source, patient, within)
        if key not in self._known:
            keys: dict[str, Any] = dict.fromkeys(STUDY_KEYS, "") | _CODES | {"PatientID": patient.id}
            if within is not None:
                keys["StudyDate"] = f"{_since(today, within)}-"
            answers = self._answers(source, Level.STUDY, keys)
            issuer = self._issuers.get(source, "")
            self._known[key] = [_candidate(source, each, patient, issuer) for each in answers]
        return self._known[key]

    def _answers(self, source: str, level: Level, keys: Mapping[str, Any]) -> list[Answer]:
        """All answers of a source; raises Unreachable for one that is too slow, Refused for more than there can be."""
        now = self._monotonic()
        end = self._ends.setdefault(source, now + PATIENCE)
        slow = Unreachable("answers have no end", f"after {PATIENCE:g} s")
        if now > end:
            raise slow
        found: list[Answer] = []
        with closing(self._ask(source, level, keys)) as answers:
            for each in answers:
                found.append(each)
                if len(found) > MOST_ANSWERS:
                    raise Refused("more answers than a patient can have", f"{MOST_ANSWERS}")
                if self._monotonic() > end:
                    answers.throw(slow)
        return found

    # -- judging ----------------------------------------------------------------------------------

    def _judged(
        self, candidates: Sequence[Candidate], coming: Examination, wish: Wish, today: date, failed: dict[str, str]
    ) -> Iterator[Judged]:
        known = {each.examination.study_uid: each for each in candidates}
        for uid in _to_detail(candidates, coming, wish, today):
            try:
                known[uid] = self._detailed(known[uid])
            except ArchiveError as error:
                failed[known[uid].source] = error.reason
        verdicts = [_verdict(each, coming, wish, today) for each in known.values()]
        for verdict in choose(verdicts, wish.most):
            uid = verdict.prior.study_uid
            yield Judged(known[uid], verdict, self._here(uid) if not verdict.against else 0)

    def _detailed(self, candidate: Candidate) -> Candidate:
        """With what the series say."""
        key = candidate.source, candidate.examination.study_uid
        if key not in self._series:
            keys = {**dict.fromkeys(SERIES_KEYS, ""), "StudyInstanceUID": key[1]}
            self._series[key] = self._answers(candidate.source, Level.SERIES, keys)
        return replace(candidate, examination=_with_series(candidate.examination, self._series[key]))


def _to_detail(candidates: Iterable[Candidate], coming: Examination, wish: Wish, today: date) -> list[str]:
    """The studies that nothing speaks against yet and whose series could, the likeliest first."""
    asked = []
    for each in candidates:
        lacking = _lacking(each.examination, coming, wish)
        if lacking:
            same = tuple(name for name in wish.same if name not in lacking)
            modalities = frozenset() if "modality" in lacking else wish.modalities
            verdict = _verdict(each, coming, replace(wish, same=same, modalities=modalities), today)
            if not verdict.against:
                asked.append(verdict)
    return [verdict.prior.study_uid for verdict in choose(asked, DETAILED)[:DETAILED]]


def _lacking(examination: Examination, coming: Examination, wish: Wish) -> set[str]:
    """In which respects a study's own attributes do not say what would be compared."""
    found = set()
    if coming.parts and not examination.parts:
        found.add("body_part")
    if (coming.modalities or wish.modalities) and not examination.modalities:
        found.add("modality")
    if coming.side and not examination.side and (examination.parts & PAIRED or not examination.parts):
        found.add("laterality")
    return found


def _verdict(candidate: Candidate, coming: Examination, wish: Wish, today: date) -> Verdict:
    if candidate.stranger:
        return Verdict(candidate.examination, against=candidate.stranger)
    return judge(coming, candidate.examination, wish, today)


def _best(candidates: Sequence[Candidate]) -> Candidate:
    """Of one study's candidates that of the peer that has most of it; the archive's own when nobody else has it."""
    others = [each for each in candidates if each.source and not each.stranger] or candidates
    return max(others, key=lambda each: each.instances or 0)


def _candidate(source: str, answer: Answer, patient: Patient, issuer: str) -> Candidate:
    number = text(answer, "NumberOfStudyRelatedInstances")
    return Candidate(
        source,
        Examination.of(
            text(answer, "StudyInstanceUID"),
            canonical_date(text(answer, "StudyDate")) or "",
            text(answer, "ModalitiesInStudy").split("\\"),
            procedures=codes(answer, "ProcedureCodeSequence"), descriptions=[text(answer, "StudyDescription")],
        ),
        int(number) if number.isascii() and number.isdigit() else None,
        stranger(patient, Patient.of(answer, issuer)),
    )


def _with_series(examination: Examination, series: Iterable[Answer]) -> Examination:
    answers = list(series)

    def said(*keywords: str) -> list[str]:
        return [value for each in answers for keyword in keywords if (value := text(each, keyword))]

    below = Examination.of(
        examination.study_uid, body_parts=said("BodyPartExamined"), sides=said("Laterality"),
        descriptions=said("SeriesDescription", "ProtocolName"),
    )  # fmt: skip
    return replace(
        examination,
        modalities=examination.modalities or frozenset(said("Modality")),
        parts=examination.parts or below.parts,
        side=examination.side or below.side,
    )


def _since(today: date, within: float) -> str:
    try:
        return f"{today - timedelta(days=within // DAY):%Y%m%d}"
    except OverflowError:
        return "19000101"
