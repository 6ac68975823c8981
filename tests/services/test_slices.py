"""Questions to a peer, halved until it answers them: pure functions, tried on archives that answer only so much."""

from __future__ import annotations

import json
import random
from datetime import date, timedelta

import pytest

from archive.services.slices import Slice, beginning_of, has, pieces, plain, seems_cut, slice_of, split

DAY = timedelta(days=1)


def matches(asked: Slice, study_date: str, patient: str) -> bool:
    """As a peer understands the keys."""
    keys = asked.keys()
    span, beginning = keys.get("StudyDate", ""), keys.get("PatientID", "*")
    first, mark, last = span.partition("-")
    dated = not span or bool(study_date and (first or "0") <= study_date <= ((last if mark else first) or "9"))
    return dated and patient.startswith(beginning.removesuffix("*"))


def walk(
    studies: dict[str, tuple[str, str]], limit: int, plan: list[Slice], *, oldest_first: bool = False
) -> tuple[list[str], list[str], int]:
    """Studies in the order in which they are found, notes, and how many questions that took."""
    found: dict[str, None] = {}
    notes: list[str] = []
    kept, questions = json.dumps(plain(plan)), 0
    while plan := [slice_of(each) for each in json.loads(kept)]:
        *rest, last = plan
        *later, asked = pieces(last, oldest_first=oldest_first)
        answers = [uid for uid, values in studies.items() if matches(asked, *values)][:limit]
        found |= dict.fromkeys(answers)
        more: list[Slice] = []
        if len(answers) == limit:
            values = [dict(zip(("StudyDate", "PatientID"), studies[uid], strict=True)) for uid in answers]
            more, note = split(asked, values, oldest_first=oldest_first, by_patient=True)
            notes += [note] if note else []
        kept, questions = json.dumps(plain([*rest, *later, *more])), questions + 1
    return list(found), notes, questions


def archive(count: int, *, undated: int = 0) -> dict[str, tuple[str, str]]:
    number = random.Random(count)
    days = [f"{date(2000, 1, 1) + number.randrange(9000) * DAY:%Y%m%d}" for _ in range(count)]
    days[:undated] = [""] * undated
    return {f"1.{n}": (day, f"{number.choice('AP')}{n}") for n, day in enumerate(days)}


def test_a_small_archive_is_one_question() -> None:
    studies = archive(30, undated=5)
    assert walk(studies, 500, beginning_of()) == (list(studies), [], 1)


@pytest.mark.parametrize("oldest_first", [False, True])
def test_every_study_is_found_whatever_the_limit(oldest_first: bool) -> None:
    studies = archive(120, undated=9) | {"odd": ("00010101", "P"), "far": ("99990101", "P"), "old": ("18991231", "P")}
    found, notes, _ = walk(studies, 70, beginning_of(), oldest_first=oldest_first)
    assert sorted(found) == sorted(studies)
    assert len(notes) == 1 and "by patient id" in notes[0]  # those without one may be missing, and it is said


def test_a_day_with_more_than_the_peer_answers_is_asked_for_by_patient() -> None:
    studies = {f"1.{n}": ("20200101", f"P{n:04}") for n in range(90)}
    found, notes, _ = walk(studies, 50, beginning_of("2020-01-01", "2020-01-01"))
    assert len(found) == 90 and "2020-01-01" in notes[0]


def test_what_cannot_be_asked_for_is_said() -> None:
    studies = {f"1.{n}": ("20200101", "SAMEPATIENT") for n in range(60)}
    found, notes, questions = walk(studies, 25, beginning_of("2020-01-01", "2020-01-01"))
    assert len(found) == 25 and any("may not have been listed" in note for note in notes)
    assert questions < 1000


@pytest.mark.parametrize("oldest_first", [False, True])
def test_slices_of_days_go_on_in_their_order(oldest_first: bool) -> None:
    studies = {f"1.{day}": (f"202001{day:02}", "P") for day in range(1, 31)}
    found, _, questions = walk(studies, 99, beginning_of("2020-01-01", "2020-01-30", 7), oldest_first=oldest_first)
    assert questions == 5
    weeks = [[int(uid[2:]) for uid in found][start : start + 7] for start in range(0, 28, 7)]
    assert weeks[0] == list(range(1, 8)) if oldest_first else weeks[0] == list(range(24, 31))
    assert sorted(found) == sorted(studies)


def test_the_newest_come_first() -> None:
    studies = archive(200)
    found, _, _ = walk(studies, 20, beginning_of("2000-01-01", "2030-12-31"))
    years = [studies[uid][0][:4] for uid in found]
    assert max(years[-20:]) < max(years)


def test_half_a_range_is_the_whole_when_the_other_end_is_open() -> None:
    assert beginning_of("2020-01-01") == [Slice("2020-01-01", "2099-12-31")]
    assert beginning_of(until="2020-01-01") == [Slice("1900-01-01", "2020-01-01")]


def test_a_round_number_of_answers_is_looked_into() -> None:
    span = Slice("2020-01-01", "2020-01-31")
    assert [number for number in range(1, 260) if seems_cut(span, number)] == [100, 150, 200, 250]
    assert not seems_cut(Slice("2020-01-01", "2020-01-01"), 200)


def test_an_answer_of_another_day_is_none() -> None:
    span = Slice("2020-01-01", "2020-01-31")
    dates = ("20200115", "20200201", "20191231", "", "2020.01.15", "2021.01.15", "garbage!")
    assert [has(span, text) for text in dates] == [True, False, False, True, True, False, True]


@pytest.mark.parametrize(
    ("patients", "parts", "said"),
    [
        (["a1", "a2"], 1, False),
        (["a1", "A2"], 1, False),
        (["a1", ""], 1, False),  # who gives no patient id is not against it
        ([], 1, False),  # more than it answers, and none of them given
        (["a1", "b2"], 0, True),
        (["", ""], 0, True),
        (["A1", "A2"], 0, False),  # asked for by "A*" as well
    ],
)
def test_a_question_is_asked_in_parts_when_the_answers_are_to_it(patients: list[str], parts: int, said: bool) -> None:
    asked = Slice("2020-01-01", "2020-01-01", beginning="a")
    answers = [{"StudyDate": "20200101", "PatientID": patient} for patient in patients]
    more, note = split(asked, answers, oldest_first=False, by_patient=True)
    assert (len(more), bool(note)) == (parts, said)


@pytest.mark.parametrize(
    ("dates", "parts"), [(["20200103"], 2), (["2020.01.03", ""], 2), ([""], 0), (["20200103", "20210101"], 0)]
)
def test_a_span_is_halved_when_the_answers_lie_in_it(dates: list[str], parts: int) -> None:
    answers = [{"StudyDate": day, "PatientID": "P"} for day in dates]
    more, note = split(Slice("2020-01-01", "2020-01-31"), answers, oldest_first=False, by_patient=True)
    assert (len(more), bool(note)) == (parts, not parts)
