"""Two archives' word about one study, compared: what is missing where, and what becomes of it.

Rules that hold here: nothing is asked and nothing is written, only decided; a study that is changing is never called
different; what was there once, or was deleted here, or was refused, is not sent or fetched again unless the plan says
so; a study that the two give to different patients is never touched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from archive.dicom.names import same_name
from archive.index import State
from archive.index.sync import Difference, OurImage, OurStudy

COUNTS, NEW, IMAGES = "counts", "new", "images"  # how closely studies are looked at
PUSH, PULL, BOTH = "push", "pull", "both"
NAMED = 50  # images of one study that are named
UNREACHED = "destination not reached"  # how a task fails whose destination was down for too long
TRIED = " tries)"  # and how one that was tried again and again


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared, and what becomes of differences."""

    match: str = ""  # the rule by which objects take part, to know when it has changed
    since: str = ""  # study dates, as DICOM writes them; empty is no bound
    until: str = ""
    recent: float = 0.0  # studies of any date that something came for since are compared as well; 0 = none
    undated: bool = False  # studies of the peer without a date as well, which have to be searched for
    compare: str = NEW
    mend: str = BOTH
    gone: bool = False  # what the peer had and has no more is sent again
    deleted: bool = False  # what was deleted here is fetched again
    dry: bool = False

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Plan:
        """What ``asdict`` gave, by this version or an older one."""
        return cls(**{name: plain[name] for name in cls.__dataclass_fields__ if name in plain})

    @property
    def pushes(self) -> bool:
        return self.mend in (PUSH, BOTH)

    @property
    def pulls(self) -> bool:
        return self.mend in (PULL, BOTH)


@dataclass(frozen=True, slots=True)
class TheirStudy:
    """A study as the peer lists it; a number it does not give is None."""

    uid: str
    date: str = ""
    series: int | None = None
    instances: int | None = None
    values: Mapping[str, str] = field(default_factory=dict)  # by keyword

    @property
    def patient_id(self) -> str:
        return self.values.get("PatientID", "").strip()

    @property
    def patient_name(self) -> str:
        return self.values.get("PatientName", "")


@dataclass(frozen=True, slots=True)
class Known:
    """What the index knows of the images of one study that are not on both sides."""

    deleted: Collection[str] = ()  # UIDs of the study, its series and images
    quarantined: Collection[str] = ()
    elsewhere: Mapping[str, str] = field(default_factory=dict)  # instance -> the study in which it is here
    fates: Mapping[str, tuple[State, str]] = field(default_factory=dict)  # of what was sent to the peer


@dataclass(slots=True)
class Verdict:
    """What becomes of one study."""

    push: list[OurImage] = field(default_factory=list)
    pull: dict[str, set[str]] = field(default_factory=dict)  # series -> images
    remaining: int = 0
    words: dict[str, int] = field(default_factory=dict)  # what is said of how many images

    def leave(self, number: int, words: str) -> None:
        self.remaining += number
        self.note(number, words)

    def note(self, number: int, words: str) -> None:
        if number:
            self.words[words] = self.words.get(words, 0) + number


def looks_equal(ours: OurStudy, theirs: TheirStudy) -> bool:
    """By numbers; a number that the peer does not give says nothing."""
    return theirs.instances == ours.instances and theirs.series in (None, ours.series)


def is_close_enough(plan: Plan, ours: OurStudy) -> bool:
    """Whether equal numbers are enough for a study: its images were compared since it has changed, or need not be."""
    known = ours.agreed_instances == ours.instances and (ours.agreed or 0.0) > ours.updated
    return plan.compare == COUNTS or (plan.compare == NEW and known)


def patients(ours: OurStudy, theirs: TheirStudy) -> str:
    """In which way the two say different things of the patient; nothing of who that is."""
    if theirs.patient_id != ours.patient_id.strip():
        return "another Patient ID there"
    if ours.patient_name and theirs.patient_name and not same_name(ours.patient_name, theirs.patient_name):
        return "another patient's name there"
    return ""


def judge(
    plan: Plan, peer: Collection[str], study_uid: str, ours: OurStudy | None, here: Sequence[OurImage],
    there: Mapping[str, str], known: Known,
) -> Verdict:  # fmt: skip
    """What becomes of the images of one study: ``here``, and ``there`` with their series.

    ``peer`` are the titles with which the peer stores.
    """
    verdict = Verdict()
    mine = {image.uid for image in here}
    agreed = (ours.agreed or 0.0) if ours is not None else 0.0
    for image in here:
        if image.uid not in there:
            was_there = image.source in peer or image.received <= agreed
            _missing_there(plan, was_there, image, known.fates.get(image.uid), verdict)
    by_series: dict[str, set[str]] = {}
    for uid, series in there.items():
        if uid not in mine:
            by_series.setdefault(series, set()).add(uid)
    for series, uids in by_series.items():
        _missing_here(plan, study_uid, series, uids, known, verdict)
    return verdict


def _missing_there(
    plan: Plan, was_there: bool, image: OurImage, fate: tuple[State, str] | None, verdict: Verdict
) -> None:
    state, reason = fate or (None, "")
    if image.damage:
        verdict.leave(1, "missing there, and damaged here")
    elif (was_there or state is State.DONE) and not plan.gone:
        verdict.leave(1, "was there and is gone")
    elif state is State.FAILED and not is_worth_another_try(reason):
        verdict.leave(1, f"missing there, was refused: {reason}")
    elif not plan.pushes:
        verdict.leave(1, "missing there")
    else:
        verdict.push.append(image)
        verdict.note(1, "missing there")


def is_worth_another_try(reason: str) -> bool:
    """Whether what failed so may go well at another time: nobody there, or trouble that came again and again."""
    return reason.startswith(UNREACHED) or reason.endswith(TRIED)


def _missing_here(plan: Plan, study: str, series: str, uids: set[str], known: Known, verdict: Verdict) -> None:
    # What is in this very study here takes no part, or has come in the meantime.
    stored = uids & known.elsewhere.keys()
    verdict.leave(sum(1 for uid in stored if known.elsewhere[uid] != study), "in another study here")
    uids = uids - stored
    held = uids & set(known.quarantined)
    verdict.leave(len(held), "missing here, in quarantine")
    uids -= held
    whole = study in known.deleted or series in known.deleted
    gone = uids if whole else uids & set(known.deleted)
    if gone and not plan.deleted:
        verdict.leave(len(gone), "deleted here")
        rest = uids - gone
        # A series is fetched as a whole: what was deleted of it would come back.
        verdict.leave(len(rest), "missing here, in a series of which images were deleted here")
    elif not plan.pulls:
        verdict.leave(len(uids), "missing here")
    elif uids:
        verdict.pull[series] = uids
        verdict.note(len(uids), "missing here")


def difference(
    ours: OurStudy | None, theirs: TheirStudy | None, verdict: Verdict, there: int | None, *, words: str = "",
    waiting: bool = False,
) -> Difference:  # fmt: skip
    """The verdict as it is kept; ``words`` are about the study as a whole."""
    details: dict[str, Any] = {
        "date": ours.date if ours else theirs.date if theirs else "",
        "here": ours.instances if ours else 0,
        "there": (theirs.instances if there is None else there) if theirs else 0,
        "what": [*([words] if words else []), *(f"{number} {text}" for text, number in verdict.words.items())],
        "images": [*[image.uid for image in verdict.push], *(uid for uids in verdict.pull.values() for uid in uids)][
            :NAMED
        ],
    }
    uid = ours.uid if ours else theirs.uid if theirs else ""
    pull = sum(len(uids) for uids in verdict.pull.values())
    remaining = verdict.remaining + (1 if words and not waiting and not verdict.remaining else 0)
    return Difference(uid, len(verdict.push), pull, waiting, remaining, details)
