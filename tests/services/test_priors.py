"""Who has which priors of a patient, and which of the answers are somebody else's."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from datetime import date
from itertools import count
from typing import Any

import pytest

from archive.dicom.attributes import Level
from archive.errors import NotPossible, Unreachable
from archive.services.priors import DETAILED, HERE, MOST_ANSWERS, Found, Priors
from archive.services.relevance import Examination, Wish
from archive.services.samepatient import Answer, Patient, stranger
from archive.workers.prefetch import Cautious

JANE = Patient("P1", "HOSP", "Doe^Jane", "19600102", "F")
TODAY = date(2026, 6, 15)
CT_HEAD = Examination.of("1.1", modalities=["CT"], descriptions=["CT head"])
YEARS = 365 * 86400.0


def study(uid: str, **changes: str) -> dict[str, Any]:
    """An answer at study level."""
    return {
        "StudyInstanceUID": uid, "StudyDate": "20260101", "StudyDescription": "CT head", "ModalitiesInStudy": "CT",
        "PatientID": JANE.id, "IssuerOfPatientID": JANE.issuer, "PatientName": JANE.name,
        "PatientBirthDate": JANE.birth_date, "PatientSex": JANE.sex, "NumberOfStudyRelatedInstances": "2",
    } | changes  # fmt: skip


class Sources:
    """Archives as what they answer; what they are asked is kept."""

    def __init__(self, **studies: list[dict[str, Any]]) -> None:
        self.studies: dict[str, list[dict[str, Any]]] = {HERE: []} | studies
        self.series: dict[str, list[dict[str, Any]]] = {}
        self.down: set[str] = set()
        self.asked: list[tuple[str, Level, Mapping[str, Any]]] = []

    def __call__(self, source: str, level: Level, keys: Mapping[str, Any]) -> Generator[Answer, None, None]:
        self.asked.append((source, level, dict(keys)))
        if source in self.down:
            raise Unreachable("no answer in time")
        yield from self.studies[source] if level is Level.STUDY else self.series.get(keys["StudyInstanceUID"], [])

    def look(self, wish: Wish, patient: Patient = JANE, here: Mapping[str, int] | None = None) -> Found:
        priors = Priors(self, {"B": "HOSP"}, lambda uid: (here or {}).get(uid, 0))
        return priors.look(patient, CT_HEAD, wish, [name for name in self.studies if name], TODAY)


def wanted(found: Found) -> list[tuple[str, str]]:
    return [(each.candidate.examination.study_uid, each.candidate.source) for each in found.judged if each.is_wanted]


STRANGERS = [
    (JANE, JANE, ""),
    (JANE, JANE._replace(id="P2"), "other patient: Patient ID"),
    (JANE, JANE._replace(issuer="OTHER"), "other patient: issuer of the Patient ID"),
    (JANE, JANE._replace(issuer="", birth_date="19700101"), "other patient: birth date"),
    (JANE, JANE._replace(name="Roe^Mary"), "other patient: name"),
    (JANE, JANE._replace(sex="M"), "other patient: sex"),
    (JANE, JANE._replace(sex="O"), ""),
    (JANE, JANE._replace(name="DOE^JANE^^DR"), ""),
    (JANE, JANE._replace(issuer="", name="", sex=""), ""),
    (JANE, Patient("P1"), "nothing but the Patient ID says whose it is"),
    (Patient("P1"), JANE, "nothing but the Patient ID says whose it is"),
]


@pytest.mark.parametrize(("patient", "other", "why"), STRANGERS)
def test_an_id_alone_is_no_identity(patient: Patient, other: Patient, why: str) -> None:
    assert stranger(patient, other) == why


def test_an_id_with_its_issuer_behind_it_is_taken_apart() -> None:
    assert Patient.of({"PatientID": "P1^^^HOSP&1.2.3&ISO"})[:2] == ("P1", "HOSP")
    assert Patient.of({"PatientID": "P1"}, "HOSP")[:2] == ("P1", "HOSP")


def test_the_wrong_patient_of_another_issuer_is_not_wanted() -> None:
    found = Sources(A=[study("1"), study("2", IssuerOfPatientID="OTHER")], B=[study("3", IssuerOfPatientID="")])
    assert sorted(wanted(found.look(Wish(most=9)))) == [("1", "A"), ("3", "B")]


def test_a_study_counts_once_and_comes_from_who_has_most_of_it() -> None:
    sources = Sources(A=[study("1")], B=[study("1", NumberOfStudyRelatedInstances="5"), study("2")])
    sources.studies[HERE] = [study("2"), study("4")]
    assert sorted(wanted(sources.look(Wish(most=9)))) == [("1", "B"), ("2", "B"), ("4", HERE)]


def test_what_is_here_as_a_whole_counts_among_the_best() -> None:
    sources = Sources(A=[study("1"), study("2", StudyDate="20250101"), study("3", StudyDate="20200101")])
    found = sources.look(Wish(most=2), here={"1": 2, "2": 1})
    assert [(each.here, each.is_whole) for each in found.judged if each.is_wanted] == [(2, True), (1, False)]
    assert wanted(found) == [("1", "A"), ("2", "A")]


def test_one_source_that_fails_keeps_nobody_elses_answers_away() -> None:
    sources = Sources(A=[], B=[study("1")])
    sources.down = {"A"}
    found = sources.look(Wish())
    assert wanted(found) == [("1", "B")] and found.failed == {"A": "no answer in time"}


def test_series_are_asked_for_only_where_they_could_decide() -> None:
    sources = Sources(A=[
        study("known"), study("vague", StudyDescription="Routine"),
        study("old", StudyDescription="", StudyDate="20010101"),
        study("other", StudyDescription="CT abdomen"), study("stranger", StudyDescription="", PatientName="Roe^Mary"),
    ])  # fmt: skip
    sources.series["vague"] = [{"Modality": "CT", "BodyPartExamined": part} for part in ("", "SKULL")]
    found = sources.look(Wish(most=9, within=5 * YEARS, same=("body_part",)))
    assert sorted(wanted(found)) == [("known", "A"), ("vague", "A")]
    assert [keys["StudyInstanceUID"] for _, level, keys in sources.asked if level is Level.SERIES] == ["vague"]


def test_of_5000_vague_studies_the_series_of_a_few_are_asked_for() -> None:
    sources = Sources(A=[study(str(number), StudyDescription="") for number in range(5000)])
    found = sources.look(Wish(same=("body_part",)))
    assert len(sources.asked) == 2 + DETAILED and not wanted(found)


def test_only_dates_that_can_be_wanted_are_asked_for() -> None:
    sources = Sources(A=[])
    sources.look(Wish(within=365 * 86400.0))
    assert [keys["StudyDate"] for _, _, keys in sources.asked] == ["20250615-"] * 2


def test_a_peer_that_never_ends_is_left_and_nothing_of_it_is_taken() -> None:
    class Endless(Sources):
        closed = False

        def __call__(self, source: str, level: Level, keys: Mapping[str, Any]) -> Generator[Answer, None, None]:
            try:
                yield from (study(str(number)) for number in (count() if source else ()))
            finally:
                self.closed = True

    endless = Endless(A=[])
    found = endless.look(Wish())
    assert endless.closed and found.judged == ()
    assert found.failed == {"A": f"more answers than a patient can have: {MOST_ANSWERS}"}


def test_a_part_of_a_slow_peers_list_is_not_taken_for_the_whole_and_it_is_not_asked_again_at_once() -> None:
    clock = count(0, 30)
    sources = Sources(A=[study(str(number)) for number in range(100)], B=[study("x")])
    cautious = Cautious(sources, lambda: 1000.0)
    priors = Priors(cautious, {}, lambda uid: 0, monotonic=lambda: next(clock))
    found = priors.look(JANE, CT_HEAD, Wish(), ["A", "B"], TODAY)
    assert wanted(found) == [("x", "B")] and found.failed == {"A": "answers have no end: after 120 s"}
    again = Priors(cautious, {}, lambda uid: 0).look(JANE._replace(id="P2"), CT_HEAD, Wish(), ["A"], TODAY)
    assert again.failed == {"A": "not asked again yet: answers have no end: after 120 s"}
    assert [source for source, _, _ in sources.asked] == [HERE, "A", "B", HERE]


def test_studies_and_series_of_a_peer_have_one_deadline() -> None:
    """Else thirty series, each of them slow, would hold up everybody for an hour."""
    sources = Sources(A=[study(str(number), StudyDescription="") for number in range(5)])
    now = [0.0]

    def slow(source: str, level: Level, keys: Mapping[str, Any]) -> Generator[Answer, None, None]:
        now[0] += 50.0
        yield from sources(source, level, keys)

    priors = Priors(slow, {}, lambda uid: 0, monotonic=lambda: now[0])
    found = priors.look(JANE, CT_HEAD, Wish(same=("body_part",)), ["A"], TODAY)
    assert found.failed == {"A": "answers have no end: after 120 s"}
    assert len(sources.asked) == 4


def test_a_patient_is_asked_for_once() -> None:
    sources = Sources(A=[study("1")])
    priors = Priors(sources, {}, lambda uid: 0)
    for number in range(100):
        priors.look(JANE, replace(CT_HEAD, study_uid=f"1.{number}"), Wish(), ["A"], TODAY)
    assert len(sources.asked) == 2


@pytest.mark.parametrize("patient_id", ["", "*", "P?", "A\\B", "x" * 65])
def test_an_id_that_would_ask_for_others_is_not_asked_for(patient_id: str) -> None:
    sources = Sources(A=[])
    with pytest.raises(NotPossible):
        sources.look(Wish(), JANE._replace(id=patient_id))
    assert not sources.asked
