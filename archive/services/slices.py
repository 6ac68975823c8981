"""The studies of a peer as questions with few enough answers: spans of study dates, halved while they hold too many.

Rules that hold here: pure functions over plain values, which are kept as JSON; a question that was cut off is replaced
by ones that together ask for the same, unless the answers show that the peer does not look at what it is asked by: it
would answer all of them alike, without end; what cannot be asked for is said, never left out in silence; studies
without a date, which no span of dates finds, are looked for at the end. Of each list of questions the last one is next.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from typing import Any

from archive.dicom.temporal import canonical_date

EARLIEST, LATEST = date(1900, 1, 1), date(2099, 12, 31)  # beyond them dates are mistakes, asked for in one span each
DAY = timedelta(days=1)
LONGEST_BEGINNING = 6  # characters of patient ids, before a question with too many answers is given up
# With ? and * left out, which are wildcards, and the backslash, which separates values (PS3.4 C.2.2.2.4).
LETTERS = " " + "".join(letter for letter in string.printable if letter.isprintable() and letter not in " ?*\\")
SUSPICIOUS = 50  # a number of answers that is a multiple of it may be a limit that the peer says nothing of
DATE, PATIENT_ID = "StudyDate", "PatientID"


@dataclass(frozen=True, slots=True)
class Slice:
    """One question: studies of a span of dates (ISO; empty is open) or of any or no date (``undated``), of patient ids
    that begin so; ``days`` is the longest span to ask for at once, 0 for any; ``rest``: all spans were asked before;
    ``letters`` of them, the last ones, are still to follow the beginning, each a question of its own."""

    since: str = ""
    until: str = ""
    undated: bool = False
    rest: bool = False
    beginning: str = ""
    days: int = 0
    letters: int = 0

    def keys(self) -> dict[str, str]:
        """What it adds to the keys of the job."""
        found = {}
        if not self.undated:
            since, until = (text.replace("-", "") for text in (self.since, self.until))
            found[DATE] = since if since == until else f"{since}-{until}"
        if self.beginning:
            found[PATIENT_ID] = f"{self.beginning}*"
        return found

    def words(self) -> str:
        span = "studies of any date" if self.undated else f"studies of {self.since or '…'} to {self.until or '…'}"
        return f"{span}, some patient ids" if self.beginning else span

    def plain(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value}


def slice_of(plain: Mapping[str, Any]) -> Slice:
    return Slice(**plain)


def plain(slices: Sequence[Slice]) -> list[dict[str, Any]]:
    return [each.plain() for each in slices]


def beginning_of(since: str = "", until: str = "", days: int = 0) -> list[Slice]:
    """The first plan: everything at once, or the span that is asked for."""
    if not since and not until:
        return [Slice(undated=True)]
    return [Slice(since or EARLIEST.isoformat(), until or LATEST.isoformat(), days=days)]


def pieces(asked: Slice, *, oldest_first: bool) -> list[Slice]:
    """The same, with a piece of no more than its days to be asked next."""
    if asked.letters:
        longer = replace(asked, beginning=asked.beginning + LETTERS[-asked.letters], letters=0)
        return [*([replace(asked, letters=asked.letters - 1)] if asked.letters > 1 else []), longer]
    if not asked.days or asked.undated:
        return [asked]
    first, last = _ends(asked)
    if (last - first).days < asked.days:
        return [asked]
    span = timedelta(days=asked.days)
    if oldest_first:
        now, rest = (first, first + span - DAY), (first + span, last)
    else:
        now, rest = (last - span + DAY, last), (first, last - span)
    return [_between(asked, *rest), _between(asked, *now)]


def seems_cut(asked: Slice, answers: int) -> bool:
    """Whether a round number of answers may be a limit of the peer; asked in parts, it would have more."""
    return answers >= 2 * SUSPICIOUS and answers % SUSPICIOUS == 0 and _spans_days(asked)


def split(
    asked: Slice, answers: Sequence[Mapping[str, str]], *, oldest_first: bool, by_patient: bool,
    dated_only: bool = False,
) -> tuple[list[Slice], str]:  # fmt: skip
    """What to ask instead, and what a person must know of it.

    ``answers`` are those that came, by keyword; ``by_patient``: the patient id is free to be asked by; ``dated_only``:
    what has no date is not looked for.
    """
    if asked.undated and not asked.rest:
        return _all(oldest_first, dated_only), ""
    if answers and not _is_heeded(asked, answers):
        return [], f"{asked.words()}: the peer does not look at all that it is asked by, some may not have been listed"
    if answers and asked.beginning and not any(_patient(each).startswith(asked.beginning) for each in answers):
        return [], ""  # the peer ignores the case of letters; there is a question for the other one
    if _spans_days(asked):
        halves = _halves(asked)
        return (halves[::-1] if oldest_first else halves), ""
    if not by_patient or len(asked.beginning) >= LONGEST_BEGINNING:
        return [], f"the peer has more {asked.words()} than it answers, some may not have been listed"
    note = f"{asked.words()} were asked for by patient id, those without one may not have been listed"
    # A blank means nothing at the beginning, so it comes first and is left out there.
    longer = replace(asked, letters=len(LETTERS) - (not asked.beginning))
    return [longer], "" if asked.beginning else note


def ignores_patients(asked: Slice, answers: Sequence[Mapping[str, str]]) -> bool:
    """Whether so many patient ids are others than were asked for, that the next letter would bring the same ones."""
    known = [found for each in answers if (found := _patient(each))]
    return bool(asked.beginning and known) and not any(_begins(found, asked) for found in known)


def has(asked: Slice, study_date: str) -> bool:
    """Whether a study of this date (DA) can be an answer; one that is no date can."""
    text = canonical_date(study_date)
    if asked.undated or text is None:
        return True
    first, last = _ends(asked)
    return first <= date.fromisoformat(text) <= last


def _is_heeded(asked: Slice, answers: Sequence[Mapping[str, str]]) -> bool:
    """Whether the answers show that the peer looks at what it is asked by: some say so, and none says otherwise."""
    dates = [has(asked, text) for each in answers if canonical_date(text := each.get(DATE, ""))]
    patients = [_begins(found, asked) for each in answers if (found := _patient(each))]
    return (asked.undated or (bool(dates) and all(dates))) and (
        not asked.beginning or (bool(patients) and all(patients))
    )


def _patient(answer: Mapping[str, str]) -> str:
    return answer.get(PATIENT_ID, "")


def _begins(patient: str, asked: Slice) -> bool:
    return patient.casefold().startswith(asked.beginning.casefold())


def _all(oldest_first: bool, dated_only: bool) -> list[Slice]:
    """Any date in spans, and then what has none."""
    spans = [
        Slice("", (EARLIEST - DAY).isoformat()),
        Slice(EARLIEST.isoformat(), LATEST.isoformat()),
        Slice((LATEST + DAY).isoformat(), ""),
    ]
    rest = [] if dated_only else [Slice(undated=True, rest=True)]
    return [*rest, *(spans[::-1] if oldest_first else spans)]


def _spans_days(asked: Slice) -> bool:
    return not asked.undated and asked.since != asked.until


def _halves(asked: Slice) -> list[Slice]:
    """The older half first."""
    first, last = _ends(asked)
    middle = first + (last - first) // 2
    return [_between(asked, first, middle), _between(asked, middle + DAY, last)]


def _ends(asked: Slice) -> tuple[date, date]:
    first = date.fromisoformat(asked.since) if asked.since else date.min
    return first, date.fromisoformat(asked.until) if asked.until else date.max


def _between(asked: Slice, first: date, last: date) -> Slice:
    return replace(asked, since=first.isoformat(), until=last.isoformat())
