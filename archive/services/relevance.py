"""Which earlier examinations help to read the one that is to come, and why: points by a table.

Rules that hold here: pure values in and out; every verdict says what spoke for a prior or what spoke against it; what
the coming examination does not say restricts nothing, what a prior does not say is not the same; equal points go by
date, the latest first, so that the same question has the same answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from enum import Enum

from archive.dicom.bodyparts import PAIRED, are_near, regions, side, words_of

DAY = 86400.0

# PS3.3 C.7.3.1.1.1: objects of these modalities are no images of the body, and come with any of the others.
_NO_IMAGES = frozenset(
    "AR ASMT AU DOC ECG EEG EMG EOG EPS FID HD IVUS-RPT KER KO LEN LP OAM OPR PLAN POS PR REG RESP RTINTENT RTPLAN"
    " RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SMR SR SRF STAIN TEXTUREMAP VA".split()
)
# Modalities that show the same, under the names that generations of devices give themselves.
_KINDS = {"CR": "radiography", "DX": "radiography", "RG": "radiography", "PX": "radiography", "OT": ""}
_NEAR_KINDS = (
    {"CT", "MR"}, {"CT", "PT"}, {"MR", "PT"}, {"NM", "PT"}, {"MG", "US"}, {"MG", "MR"}, {"CT", "radiography"},
    {"XA", "CT"}, {"XA", "RF"},
)  # fmt: skip


class Likeness(Enum):
    """How a prior compares in one respect."""

    SAME = "same"
    NEAR = "near"
    OTHER = "other"
    UNKNOWN = "unknown"  # the prior does not say it
    NOT_ASKED = "not asked"  # the coming examination does not say it


# Respect -> what each likeness is worth. The order is that of the sentence that explains.
POINTS: Mapping[str, Mapping[Likeness, int]] = {
    "procedure": {Likeness.SAME: 40},
    "body_part": {Likeness.SAME: 30, Likeness.NEAR: 10},
    "modality": {Likeness.SAME: 20, Likeness.NEAR: 8},
    "laterality": {Likeness.SAME: 5, Likeness.OTHER: -5},
}
WORD_POINTS = 10  # for each of the rule's own words in the description
AGES = ((183, 10), (366, 8), (731, 5), (1827, 2))  # days -> points: the last half-year, one, two and five years
RESPECTS = tuple(POINTS)
_NAMES = {"procedure": "procedure", "body_part": "body part", "modality": "modality", "laterality": "side"}


@dataclass(frozen=True, slots=True)
class Examination:
    """What is known of an examination, that is to come or was."""

    study_uid: str = ""
    date: str = ""  # YYYYMMDD
    modalities: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()  # regions of the body
    side: str = ""
    procedures: frozenset[str] = frozenset()  # codes with their scheme
    descriptions: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        study_uid: str,
        day: str = "",
        modalities: Iterable[str] = (),
        *,
        body_parts: Iterable[str] = (),
        sides: Iterable[str] = (),
        procedures: Iterable[str] = (),
        descriptions: Iterable[str] = (),
    ) -> Examination:
        """From what attributes say; what codes leave out is looked for in the descriptions."""
        texts = tuple(dict.fromkeys(text for text in descriptions if text.strip()))
        parts = regions(body_parts) or regions(texts)
        return cls(
            study_uid, day, frozenset(filter(None, modalities)), parts, side(sides, texts) if parts & PAIRED else "",
            frozenset(procedures), texts,
        )  # fmt: skip

    def kinds(self) -> frozenset[str]:
        """Its modalities as they are compared."""
        return frozenset(_KINDS.get(each, each) for each in self.modalities - _NO_IMAGES) - {""}


@dataclass(frozen=True, slots=True)
class Wish:
    """Which priors are wanted: at most ``most``, no older than ``within`` seconds, alike in ``same``."""

    most: int = 3
    within: float | None = None
    same: tuple[str, ...] = ()
    modalities: frozenset[str] = frozenset()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is thought of one prior; ``against`` says why it is not wanted, and is empty for one that is."""

    prior: Examination
    points: int = 0
    reasons: tuple[str, ...] = ()
    against: str = ""
    source: str = field(default="", compare=False)


def judge(coming: Examination, prior: Examination, wish: Wish, today: date) -> Verdict:
    """What speaks for a prior, or the first thing that speaks against it."""
    against = _against(coming, prior, wish, today)
    if against:
        return Verdict(prior, against=against)
    found: list[tuple[int, str]] = []
    for respect, points in POINTS.items():
        likeness = compare(respect, coming, prior)
        if likeness in points:
            found.append((points[likeness], f"{likeness.value} {_NAMES[respect]}{_said(respect, prior)}"))
    said = set(words_of(" ".join(prior.descriptions)))
    found += [(WORD_POINTS, f"says {word!r}") for word in wish.words if set(words_of(word)) <= said]
    found += _recency(prior, today)
    return Verdict(prior, sum(points for points, _ in found), tuple(reason for _, reason in found))


def choose(verdicts: Iterable[Verdict], most: int) -> list[Verdict]:
    """The same in the order of their relevance; what is wanted beyond ``most`` is not any more."""
    ranked = sorted(verdicts, key=_order)
    wanted = [each for each in ranked if not each.against]
    beyond = [replace(each, against=f"{most} are more relevant") for each in wanted[most:]]
    return [*wanted[:most], *beyond, *(each for each in ranked if each.against)]


def compare(respect: str, coming: Examination, prior: Examination) -> Likeness:
    """How a prior compares with the coming examination in one respect of RESPECTS."""
    if respect == "procedure":
        return _procedures(coming, prior)
    if respect == "laterality":
        return _sides(coming, prior)
    mine, theirs = (coming.kinds(), prior.kinds()) if respect == "modality" else (coming.parts, prior.parts)
    if not mine or not theirs:
        return Likeness.UNKNOWN if mine else Likeness.NOT_ASKED
    if mine & theirs:
        return Likeness.SAME
    near = are_near(mine, theirs) if respect == "body_part" else any(
        {one, other} in _NEAR_KINDS for one in mine for other in theirs
    )
    return Likeness.NEAR if near else Likeness.OTHER


def _procedures(coming: Examination, prior: Examination) -> Likeness:
    """By a code that both have, or a description in the same words."""
    mine, theirs = _sayings(coming), _sayings(prior)
    if coming.procedures & prior.procedures or mine & theirs:
        return Likeness.SAME
    if not (coming.procedures or mine):
        return Likeness.NOT_ASKED
    return Likeness.OTHER if (coming.procedures and prior.procedures) or (mine and theirs) else Likeness.UNKNOWN


def _sayings(examination: Examination) -> set[frozenset[str]]:
    return {frozenset(words_of(text)) for text in examination.descriptions} - {frozenset()}


def _sides(coming: Examination, prior: Examination) -> Likeness:
    if not coming.side or not prior.side:
        return Likeness.UNKNOWN if coming.side else Likeness.NOT_ASKED
    same = "both" in (coming.side, prior.side) or coming.side == prior.side
    return Likeness.SAME if same else Likeness.OTHER


def _against(coming: Examination, prior: Examination, wish: Wish, today: date) -> str:
    if coming.study_uid and prior.study_uid == coming.study_uid:
        return "it is the examination itself"
    if why := _too_old(prior, wish, today):
        return why
    if wish.modalities and not wish.modalities & prior.modalities:
        return f"modality is {_listed(prior.modalities)}"
    for respect in wish.same:
        likeness = compare(respect, coming, prior)
        if likeness is Likeness.UNKNOWN and respect != "laterality":  # most examinations have no side to tell
            return f"{_NAMES[respect]} is not known"
        if likeness in (Likeness.NEAR, Likeness.OTHER):
            return f"other {_NAMES[respect]}{_said(respect, prior)}"
    return ""


def _too_old(prior: Examination, wish: Wish, today: date) -> str:
    day = _day(prior.date)
    if day is None:
        return "its date is not known" if wish.within is not None else ""
    if day > today:
        return "it is dated later"
    if wish.within is not None and (today - day).days * DAY > wish.within:
        return f"older than {wish.within / DAY:g} days"
    return ""


def _recency(prior: Examination, today: date) -> list[tuple[int, str]]:
    day = _day(prior.date)
    if day is None:
        return []
    age = (today - day).days
    points = next((points for limit, points in AGES if age <= limit), 0)
    return [(points, f"{age} days old")]


def _said(respect: str, prior: Examination) -> str:
    said = {"body_part": prior.parts, "modality": prior.modalities, "laterality": {prior.side} - {""}}.get(respect)
    return f" ({_listed(said)})" if said else ""


def _listed(values: Collection[str]) -> str:
    return ", ".join(sorted(values)) or "not known"


def _order(verdict: Verdict) -> tuple[bool, int, int, str]:
    digits: Sequence[str] = verdict.prior.date
    return bool(verdict.against), -verdict.points, -int("".join(digits) or 0), verdict.prior.study_uid


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
