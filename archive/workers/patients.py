"""What messages say of patients, for what is stored: merged and corrected like by a person.

Rules that hold here: an operation is known by its message, so that it has one effect however often it is tried; a
patient of whom nothing is here needs no correction; what cannot be done stays in the queue as failed, for a person.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from archive.dicom.attributes import Level
from archive.errors import ArchiveError, NotThere
from archive.index import Index, Task
from archive.index.person import Person
from archive.services.corrections import Corrections, by

log = logging.getLogger(__name__)

KIND = "patient"
PAUSE = 30.0  # seconds until an operation is tried again that failed for a while
TRIES = 1000

# Of the attributes that messages carry, those of the patient (PS3.3 C.7.1.1) that corrections lay over.
CORRECTED = ("PatientName", "PatientBirthDate", "PatientSex")


class Correcting:
    """The job."""

    def __init__(self, index: Index, corrections: Corrections, clock: Callable[[], float]) -> None:
        self._index, self._corrections, self._clock = index, corrections, clock

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        """In their order: what a later message says must not be overtaken by an earlier one."""
        for number, task in enumerate(tasks):
            try:
                self._correct(task)
                self._index.finish(task.id, owner, self._clock(), keep=False)
            except NotThere:
                self._index.finish(task.id, owner, self._clock(), keep=False)
            except ArchiveError as error:
                if error.temporary and task.attempts < TRIES:
                    for each in tasks[number:]:
                        self._index.retry(each.id, owner, self._clock() + PAUSE, str(error))
                    return
                log.error("message about a patient is not carried out for stored studies: %s", error)
                self._index.fail(task.id, owner, self._clock(), str(error))

    def _correct(self, task: Task) -> None:
        said = task.payload
        person, name = Person(said["patient_id"], said["issuer"]), str(said["name"])
        values = {keyword: said["attributes"][keyword] for keyword in CORRECTED if said["attributes"].get(keyword)}
        if said["prior_id"]:
            prior = Person(said["prior_id"], said["prior_issuer"])
            who = by("HL7", f"{said['kind']} {said['control_id']}", f"{name}:merge")
            self._corrections.merge(prior, person, who, values=values, unknown=True)
        if values:
            who = by("HL7", f"{said['kind']} {said['control_id']}", f"{name}:edit")
            self._corrections.edit(Level.PATIENT, person, values, who)
