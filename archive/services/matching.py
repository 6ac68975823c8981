"""Which order a study is of: by its UID, its accession number, or its patient, time and procedure; else unmatched.

Rules that hold here: a study is matched by itself only when one order fits and nothing contradicts; whatever is less
sure is a candidate with its score and reasons, for a person to decide; a match that a person makes puts the order's
patient and numbers over the study as corrections, and taking it back undoes them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import count
from typing import Any

from archive.dicom.attributes import Level
from archive.dicom.names import same_name
from archive.errors import Conflict, NotPossible, NotThere
from archive.index import Index
from archive.index.corrections import Operation
from archive.index.matches import Match
from archive.index.ordervalues import OrderSummary
from archive.index.person import Person
from archive.index.states import StudyStates
from archive.services.corrections import Corrections, by
from archive.services.lifecycle import OPEN, READY, UNMATCHED, Lifecycle

log = logging.getLogger(__name__)

# What speaks for an order, and how much; SURE is what a match by itself needs.
UID, ACCESSION, PATIENT, NAME, BIRTH, SEX, DAY, NEAR, MODALITY, PROCEDURE = 100, 80, 40, 25, 10, 5, 25, 10, 20, 10
SURE = 85  # patient, day and modality together, or the accession number with anything of the patient
CANDIDATE = 30
NEAR_DAYS = 7

# What a match puts over the study, from the order (PS3.3 C.7.1.1, C.7.2.1).
_PATIENT = ("PatientName", "PatientBirthDate", "PatientSex")
_STUDY = ("AccessionNumber", "ReferringPhysicianName", "StudyDescription")


@dataclass(frozen=True, slots=True)
class Candidate:
    """An order that may be a study's."""

    order: OrderSummary
    score: int
    reasons: tuple[str, ...]
    contradictions: tuple[str, ...]


class Matching:
    """Matches studies and orders of one archive."""

    def __init__(
        self, index: Index, corrections: Corrections, lifecycle: Lifecycle, clock: Callable[[], float]
    ) -> None:
        self._index = index
        self._states = StudyStates(index.database)
        self._corrections = corrections
        self._lifecycle = lifecycle
        self._clock = clock

    def look(self, study_uid: str) -> Match | None:
        """Match a study that is ready if one order surely fits; else it is unmatched."""
        state = self._lifecycle.state(study_uid)
        if not state or state in OPEN:
            return None
        known = self._index.matches.of(study_uid)
        if known is None:
            found = [each for each in self.candidates(study_uid) if each.score >= SURE and not each.contradictions]
            if len(found) == 1 or (found and found[0].score >= found[1].score + UID // 2):
                return self._link(study_uid, found[0].order, ", ".join(found[0].reasons), ())
            if state == READY:
                self._lifecycle.set_state(study_uid, UNMATCHED, "several orders fit" if found else "no order fits")
        return known

    def candidates(self, study_uid: str) -> list[Candidate]:
        """Orders that may be the study's, the likeliest first. Raises NotThere."""
        facts = self._facts(study_uid)
        orders = self._index.matches.candidates(
            study_uid=study_uid,
            accession_number=facts.get("AccessionNumber", ""),
            patient_id=facts.get("PatientID", ""),
            dates=_around(facts.get("StudyDate", "")),
        )
        found = [_judged(order, facts, study_uid) for order in orders if order.state != "CANCELLED"]
        found = [each for each in found if each.score >= CANDIDATE]
        return sorted(found, key=lambda each: (-each.score, len(each.contradictions), -each.order.id))

    def match(self, study_uid: str, order: OrderSummary, actor: str, reason: str) -> Match:
        """A person says that this is the study's order. Raises NotThere, Conflict, NotPossible."""
        if self._index.matches.of(study_uid) is not None:
            raise Conflict("study is matched already; unmatch it first", study_uid)
        done = self._correct(study_uid, order, actor, reason)
        return self._link(study_uid, order, f"by {actor}: {reason}", [each.number for each in done])

    def unmatch(self, study_uid: str, actor: str, reason: str) -> None:
        """Take a match back, with what it corrected. Raises NotThere, NotPossible."""
        known = self._index.matches.of(study_uid)
        if known is None:
            raise NotThere("study is of no order", study_uid)
        for number in reversed(known.operations):
            self._corrections.undo(number, by(actor, reason))
        self._index.matches.remove(study_uid)
        if self._lifecycle.state(study_uid) == READY:
            self._lifecycle.set_state(study_uid, UNMATCHED, f"unmatched by {actor}: {reason}")

    def _correct(self, study_uid: str, order: OrderSummary, actor: str, reason: str) -> list[Operation]:
        """The order's patient and numbers over the study's."""
        facts, values = self._facts(study_uid), order.attributes
        if not order.patient_id:
            raise NotPossible("order names no patient", order.study_uid)
        person = Person(order.patient_id, order.issuer)
        turn = self._turn(f"match:{study_uid}:{order.study_uid}")
        patient = {keyword: str(values[keyword]) for keyword in _PATIENT if values.get(keyword)}
        done: list[Operation | None] = []
        if (facts.get("PatientID"), facts.get("IssuerOfPatientID", "")) != person or _other_name(facts, patient):
            who = by(actor, reason, f"{turn}:p")
            done.append(self._corrections.move_studies([study_uid], person, who, values=patient))
        else:  # so already, or made so by a match that was interrupted before it was noted
            done.append(self._index.corrections.operation(f"{turn}:p"))
        described = dict(values) | {"StudyDescription": values.get("RequestedProcedureDescription", "")}
        wanted = {keyword: str(described[keyword]) for keyword in _STUDY if described.get(keyword)}
        if wanted:
            done.append(self._corrections.edit(Level.STUDY, study_uid, wanted, by(actor, reason, f"{turn}:s")))
        return [each for each in done if each is not None]

    def _turn(self, match: str) -> str:
        """The same name when a match that was interrupted is made again, another after it was taken back."""
        for number in count(1):
            known = [self._index.corrections.operation(f"{match}:{number}:{part}") for part in "ps"]
            if not any(each and each.undone_by for each in known):
                break
        return f"{match}:{number}"

    def _link(self, study_uid: str, order: OrderSummary, how: str, operations: Sequence[int]) -> Match:
        now = self._clock()
        modalities = self._facts(study_uid).get("ModalitiesInStudy", "").split("\\")
        if not self._index.matches.add(study_uid, order.study_uid, how, now, operations, modalities=modalities):
            raise Conflict("study is matched already; unmatch it first", study_uid)
        log.info("study %s is of order %s: %s", study_uid, order.study_uid, how)
        if self._lifecycle.state(study_uid) == UNMATCHED:
            self._lifecycle.set_state(study_uid, READY, f"matched {how}")
        return Match(study_uid, order.study_uid, how, now, tuple(operations))

    def _facts(self, study_uid: str) -> Mapping[str, str]:
        life = self._states.life(study_uid)
        if life is None:
            raise NotThere("no such study", study_uid)
        return self._states.facts(life)


def _other_name(facts: Mapping[str, str], patient: Mapping[str, str]) -> bool:
    return not same_name(facts.get("PatientName", ""), patient.get("PatientName", ""))


def _around(day: str) -> tuple[str, str]:
    """The days near a day, empty when there is none."""
    try:
        middle = datetime.strptime(day, "%Y%m%d").date()
        return f"{middle - timedelta(NEAR_DAYS):%Y%m%d}", f"{middle + timedelta(NEAR_DAYS):%Y%m%d}"
    except (ValueError, OverflowError):
        return "", ""


def _judged(order: OrderSummary, facts: Mapping[str, str], study_uid: str) -> Candidate:
    """What speaks for an order, and what against it."""
    values, score = order.attributes, 0
    reasons: list[str] = []
    contradictions: list[str] = []

    def count(points: int, reason: str) -> None:
        nonlocal score
        score += points
        reasons.append(reason)

    def compare(keyword: str, points: int, reason: str) -> None:
        said, wanted = facts.get(keyword, ""), str(values.get(keyword, ""))
        if said and wanted:
            count(points, reason) if said == wanted else contradictions.append(f"other {reason}")

    if order.study_uid == study_uid:
        count(UID, "Study Instance UID")
    compare("AccessionNumber", ACCESSION, "accession number")
    compare("PatientID", PATIENT, "patient ID")
    compare("IssuerOfPatientID", 0, "issuer")
    name, wanted = facts.get("PatientName", ""), str(values.get("PatientName", ""))
    if name and wanted:
        count(NAME, "name") if same_name(name, wanted) else contradictions.append("other name")
    compare("PatientBirthDate", BIRTH, "birth date")
    compare("PatientSex", SEX, "sex")
    _judge_steps(order, facts, count)
    return Candidate(order, score, tuple(filter(None, reasons)), tuple(contradictions))


def _judge_steps(order: OrderSummary, facts: Mapping[str, str], count: Callable[[int, str], None]) -> None:
    steps: list[Mapping[str, Any]] = [attributes for _, _, attributes in order.steps]
    days = {str(step.get("ScheduledProcedureStepStartDate", "")) for step in steps}
    if facts.get("StudyDate", "") in days - {""}:
        count(DAY, "day")
    elif any(_is_near(day, facts.get("StudyDate", "")) for day in days):
        count(NEAR, "near in time")
    if {str(step.get("Modality", "")) for step in steps} & set(facts.get("ModalitiesInStudy", "").split("\\")) - {""}:
        count(MODALITY, "modality")
    words = {str(order.attributes.get("RequestedProcedureDescription", "")).casefold()}
    words |= {str(step.get("ScheduledProcedureStepDescription", "")).casefold() for step in steps}
    if facts.get("StudyDescription", "").casefold() in words - {""}:
        count(PROCEDURE, "procedure")


def _is_near(day: str, other: str) -> bool:
    try:
        first, second = (datetime.strptime(each, "%Y%m%d").date() for each in (day, other))
    except ValueError:
        return False
    return abs(first - second) <= timedelta(NEAR_DAYS) and first != date.min
