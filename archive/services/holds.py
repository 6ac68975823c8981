"""Legal holds: put on, released and listed; what is held is deleted by nobody.

Rules that hold here: who holds and why is an operation of the journal of corrections, so that a rebuilt index has it
too; a hold on a patient or an accession number holds what comes later as well; asked for again by the same name it has
no effect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from archive.index import Index
from archive.index import holds as rows
from archive.index.corrections import By, Operation
from archive.index.held import ACCESSION, PATIENT, STUDY, Name
from archive.index.holds import Hold
from archive.index.person import Person
from archive.storage.ledger import Ledger

log = logging.getLogger(__name__)


def of_study(uid: str) -> Name:
    return Name(STUDY, uid.strip())


def of_patient(patient_id: str, issuer: str = "") -> Name:
    return Name(PATIENT, Person(patient_id.strip(), issuer.strip()).owner)


def of_accession(number: str) -> Name:
    return Name(ACCESSION, number.strip())


class Holds:
    """Of one archive. Raise NotThere, NotPossible, StorageFailed or IndexUnavailable."""

    def __init__(self, index: Index, ledger: Ledger, clock: Callable[[], float]) -> None:
        """``ledger`` is that of corrections."""
        self._index = index
        self._ledger = ledger
        self._clock = clock

    def hold(self, name: Name, who: By) -> Operation:
        """Nothing of it is deleted from now on."""
        return self._told(self._index.corrections.perform(
            self._ledger, who, lambda session: rows.hold(session, name), self._clock()
        ))  # fmt: skip

    def release(self, name: Name, who: By) -> Operation:
        """All holds on this very study, patient or accession number end."""
        return self._told(self._index.corrections.perform(
            self._ledger, who, lambda session: rows.release(session, name), self._clock()
        ))  # fmt: skip

    def release_number(self, number: int, who: By) -> Operation:
        """One hold ends."""
        return self._told(self._index.corrections.perform(
            self._ledger, who, lambda session: rows.release_number(session, number), self._clock()
        ))  # fmt: skip

    def holds(self) -> list[Hold]:
        """Those in force, the first one first."""
        return rows.holds(self._index.database)

    def holding(self, study_uid: str) -> str:
        """What holds a study, in words; empty when nothing does."""
        return rows.holding(self._index.database, study_uid)

    def _told(self, done: Operation | None) -> Operation:
        assert done is not None, "holding and releasing always are operations"
        log.info("%s %d by %s", done.kind, done.number, done.actor)
        return done
