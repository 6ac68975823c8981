"""What causes which tasks, by the rules of a configuration: every part's wish in one table.

Rules that hold here: a cause is asked within the transaction of what happened and adds rows to it, so it reads its
configuration beforehand; nothing here opens anything, so that whoever opens the store may ask.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from archive.app import alarming, keeping, prefetchcauses, routing, volumes
from archive.config import Config
from archive.dicom.rule import holds, parse_rule
from archive.dicom.uids import new_uid
from archive.hl7.telling import study_message
from archive.index import NewTask
from archive.services.causes import MESSAGE, ORDER, PERFORMED, STUDY, Causes, Event
from archive.services.lifecycle import READY, UNMATCHED
from archive.workers import availability, matching, messages
from archive.workers.performed import FORWARD

# What a message is about, by its type (HL7 v2.5.1 table 0076).
ABOUT: Mapping[str, str] = {
    "ORM": "orders", "OMI": "orders", "OMG": "orders", "SIU": "orders", "ADT": "patients", "ORU": "reports",
}  # fmt: skip

# What a message about a study says of it.
SAID = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
    "StudyTime", "AccessionNumber", "StudyDescription", "ModalitiesInStudy",
)  # fmt: skip

MATCHING = "orders"  # the one lane: two studies may want one order


def causes(config: Config) -> Causes:
    """Which tasks are caused by what happens, by the rules of ``config``."""
    found = Causes()
    for add in CAUSES:
        add(found, config)
    return found


def receivers_of(rules: Iterable[tuple[str, Sequence[str]]]) -> Callable[[Event], Iterable[str]]:
    """Who is named by the rules that hold of an event, each once; of ``match`` and ``to``."""
    parsed = [(parse_rule(match), to) for match, to in rules]
    return lambda event: {peer: None for rule, to in parsed if holds(rule, event.facts) for peer in to}


# -- performed procedure steps --------------------------------------------------------------------


def forward_steps(found: Causes, config: Config) -> None:
    """Performed steps are passed on."""
    receivers = receivers_of((rule.match, rule.to) for rule in config.mpps.forward)

    def pass_on(event: Event) -> Iterator[NewTask]:
        return (NewTask(FORWARD, event.details, lane=peer) for peer in receivers(event))

    if config.mpps.forward:
        found.on(PERFORMED, pass_on)


# -- studies and their orders ---------------------------------------------------------------------


def match_orders(found: Causes, config: Config) -> None:
    """Where orders come in, studies are matched with them."""
    wanted = config.studies.match_orders
    if wanted == "on" or (wanted == "auto" and config.hl7 is not None):
        found.on(STUDY, _study_to_match)
        found.on(ORDER, _order_to_match)


def _study_to_match(event: Event) -> Iterator[NewTask]:
    if _is_new(event):
        yield NewTask(matching.KIND, {"study": event.study_uid}, lane=MATCHING)


def _order_to_match(event: Event) -> Iterator[NewTask]:
    if event.study_uid:
        # An order that was there before has a UID of its own, whatever the message would have made.
        keys = {name: value for name, value in event.details["keys"].items() if value}
        yield NewTask(matching.KIND, {"order": {"study_uid": event.study_uid, **keys}}, lane=MATCHING)


def _is_new(event: Event) -> bool:
    """Whether a study is ready for the first time with what it has: a match that puts it back changes no image."""
    return event.facts("StudyState") == READY and event.details.get("previous") != UNMATCHED


# -- telling others -------------------------------------------------------------------------------


def notify_availability(found: Causes, config: Config) -> None:
    """Studies that are ready are told to peers."""
    receivers = receivers_of((rule.match, rule.to) for rule in config.availability.notify)

    def notify(event: Event) -> Iterator[NewTask]:
        if _is_new(event):
            said = {"study": event.study_uid, "uid": new_uid()}  # said again after a lost answer, it is the same notice
            for peer in receivers(event):
                yield NewTask(availability.KIND, said, lane=peer, study_uid=event.study_uid)

    if config.availability.notify:
        found.on(STUDY, notify)


def forward_messages(found: Causes, config: Config) -> None:
    """Messages that came in, and states of studies, go to each receiver that wants them."""
    receivers = config.hl7.forward if config.hl7 else ()

    def as_it_came(event: Event) -> Iterator[NewTask]:
        about = ABOUT.get(str(event.details["kind"]).partition("^")[0])
        for each in receivers:
            if about in each.send:
                yield NewTask(messages.KIND, messages.packed(event.details["content"]), lane=each.name)

    def state_of_study(event: Event) -> Iterator[NewTask]:
        message = _message_about(event, config.ae.title)
        for each in receivers:
            if "studies" in each.send and event.facts("StudyState") in each.states:
                yield NewTask(messages.KIND, messages.packed(message), lane=each.name)

    if receivers:
        found.on(MESSAGE, as_it_came)
        found.on(STUDY, state_of_study)


def _message_about(event: Event, application: str) -> bytes:
    """Known by study, state and moment: sent again, it is the same message."""
    state = event.facts("StudyState")
    values = {keyword: event.facts(keyword) for keyword in SAID}
    control_id = hashlib.sha256(f"{event.when}|{event.study_uid}|{state}".encode()).hexdigest()[:20]
    return study_message(
        values, state, control_id=control_id, application=application, now=event.when or time.time()
    )


# Each part adds what it wants to be done: ``def add(causes, config)`` calls ``causes.on(EVENT, cause)``.
CAUSES: tuple[Callable[[Causes, Config], None], ...] = (
    routing.add, keeping.compress_arrivals, forward_steps, match_orders, forward_messages, notify_availability,
    alarming.add, prefetchcauses.add, volumes.add,
)  # fmt: skip
