"""Rules of instance availability notices, as causes of tasks."""

from __future__ import annotations

from collections.abc import Iterator

from archive.config import Config
from archive.dicom.rule import holds, parse_rule
from archive.dicom.uids import new_uid
from archive.index import NewTask
from archive.services.causes import STUDY, Causes, Event
from archive.services.lifecycle import READY, UNMATCHED
from archive.workers.availability import KIND


def add(found: Causes, config: Config) -> None:
    """For app/store.py: studies that are ready are told to peers."""
    rules = [(parse_rule(rule.match), rule.to) for rule in config.availability.notify]

    def notify(event: Event) -> Iterator[NewTask]:
        """A study that was matched later has the same instances."""
        if event.facts("StudyState") != READY or event.details.get("previous") == UNMATCHED:
            return
        receivers = {peer: None for rule, peers in rules if holds(rule, event.facts) for peer in peers}
        # Sent again after an answer that was lost, it is the same notice.
        said = {"study": event.study_uid, "uid": new_uid()}
        yield from (NewTask(KIND, said, lane=peer, study_uid=event.study_uid) for peer in receivers)

    if rules:
        found.on(STUDY, notify)
