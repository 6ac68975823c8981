"""Reports: kept with their study as objects that can be queried and retrieved, and the state of the study follows.

Rules that hold here: a report is an object of its study, stored like any other but no late image; it waits until its
study is here; the same report again changes nothing; a preliminary report means that the study was read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from archive.dicom.names import same_name
from archive.dicom.report import Report, encoded
from archive.dicom.uids import EXPLICIT_LITTLE
from archive.errors import Conflict, NotPossible, NotThere
from archive.index import Index
from archive.index.ordervalues import OrderSummary
from archive.index.states import StudyStates
from archive.services.lifecycle import COMPLETE, OPEN, READ, REPORTED, Lifecycle
from archive.services.store import Origin, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class About:
    """Which study a report is about, as its message says it."""

    study_uid: str = ""
    placer: str = ""
    filler: str = ""
    accession_number: str = ""
    patient_id: str = ""
    patient_name: str = ""

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> About:
        return cls(**{name: str(payload.get(name, "")) for name in cls.__slots__})


def _is_of_another(about: About, study: Mapping[str, str]) -> bool:
    """Another ID alone may be one that was merged, another name alone one that has changed."""
    other_id = bool(about.patient_id) and about.patient_id != study.get("PatientID", "")
    return other_id and bool(about.patient_name) and not same_name(about.patient_name, study.get("PatientName", ""))


class Reports:
    """Files reports into one archive."""

    def __init__(
        self, index: Index, store: Callable[[], Store], lifecycle: Lifecycle, *, title: str, after: str = REPORTED
    ) -> None:
        """``title`` is our AE title; ``after`` the state that a final report leaves, REPORTED or COMPLETE."""
        self._index = index
        self._states = StudyStates(index.database)
        self._store = store
        self._lifecycle = lifecycle
        self._title = title
        self._after = after

    def file(self, about: About, report: Report) -> str:
        """Store a report with its study and return the study's UID. Raises NotThere while there is no such study."""
        study_uid = self._study(about)
        life = self._states.life(study_uid)
        if life is None:
            raise NotThere("study is not here", study_uid)
        facts = self._states.facts(life)
        if _is_of_another(about, facts):
            raise NotPossible("report names another patient than its study", study_uid)
        self._keep(report, facts)
        if self._lifecycle.state(study_uid) in OPEN:
            raise NotThere("report is stored; its state waits for the study to be ready", study_uid)
        for state in (REPORTED, COMPLETE) if report.final and self._after == COMPLETE else (self._state(report),):
            self._follow(study_uid, state)
        return study_uid

    def _state(self, report: Report) -> str:
        return REPORTED if report.final else READ

    def _keep(self, report: Report, study: Mapping[str, str]) -> None:
        data = encoded(report, study)
        origin = Origin(self._title, self._title, own=True)
        reception = self._store().receive(origin, report.sop_class_uid, report.sop_instance_uid, EXPLICIT_LITTLE)
        try:
            reception.write(data)
            reception.finish()
        finally:
            reception.discard()

    def _follow(self, study_uid: str, state: str) -> None:
        if state == READ and self._lifecycle.state(study_uid) in (REPORTED, COMPLETE):
            return  # a preliminary result that was overtaken by the final one
        try:
            self._lifecycle.set_state(study_uid, state, "report received")
        except Conflict as error:
            log.warning("study %s keeps its state: %s", study_uid, error)

    def _study(self, about: About) -> str:
        """The study of a report: the one it names, or that of its order, or the one with its accession number."""
        if about.study_uid and self._states.life(about.study_uid) is not None:
            return about.study_uid
        for order in self._orders(about):
            for uid in self._index.matches.studies(order.study_uid) or [order.study_uid]:
                if self._states.life(uid) is not None:
                    return uid
        found = self._index.matches.with_accession(about.accession_number, about.patient_id)
        if len(found) != 1:
            words = "several studies have this accession number" if found else "no study of this report is here"
            raise NotThere(words, about.accession_number or about.study_uid)
        return found[0]

    def _orders(self, about: About) -> list[OrderSummary]:
        orders = self._index.orders
        for name in ("placer", "filler", "accession_number"):
            value = getattr(about, name)
            found = orders.latest(limit=2, **{name: value}) if value else []
            if len(found) == 1:
                return found
        return []
