"""Who is sent which messages, as causes of tasks."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping

from archive.config import Config
from archive.hl7.telling import study_message
from archive.index import NewTask
from archive.services.causes import MESSAGE, STUDY, Causes, Event
from archive.workers.messages import KIND, packed

# What a message is about, by its type (HL7 v2.5.1 table 0076).
ABOUT: Mapping[str, str] = {
    "ORM": "orders", "OMI": "orders", "OMG": "orders", "SIU": "orders", "ADT": "patients", "ORU": "reports",
}  # fmt: skip

# What a message about a study says of it.
SAID = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
    "StudyTime", "AccessionNumber", "StudyDescription", "ModalitiesInStudy",
)  # fmt: skip


def add(causes: Causes, config: Config) -> None:
    """For app/store.py: messages that came in, and states of studies, for each receiver that wants them."""
    receivers = config.hl7.forward if config.hl7 else ()

    def as_it_came(event: Event) -> Iterator[NewTask]:
        about = ABOUT.get(str(event.details["kind"]).partition("^")[0])
        for each in receivers:
            if about in each.send:
                yield NewTask(KIND, packed(event.details["content"]), lane=each.name)

    def state_of_study(event: Event) -> Iterator[NewTask]:
        state = event.facts("StudyState")
        values = {keyword: event.facts(keyword) for keyword in SAID}
        # Known by study, state and moment: sent again, it is the same message.
        control_id = hashlib.sha256(f"{event.when}|{event.study_uid}|{state}".encode()).hexdigest()[:20]
        message = study_message(
            values, state, control_id=control_id, application=config.ae.title, now=event.when or time.time()
        )
        for each in receivers:
            if "studies" in each.send and state in each.states:
                yield NewTask(KIND, packed(message), lane=each.name)

    if receivers:
        causes.on(MESSAGE, as_it_came)
        causes.on(STUDY, state_of_study)
