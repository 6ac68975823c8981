"""When to look for the order of a study, as causes of tasks."""

from __future__ import annotations

from collections.abc import Iterator

from archive.config import Config
from archive.index import NewTask
from archive.services.causes import ORDER, STUDY, Causes, Event
from archive.services.lifecycle import READY, UNMATCHED
from archive.workers.matching import KIND

LANE = "orders"  # one after the other: two studies may want one order


def add(causes: Causes, config: Config) -> None:
    """For app/store.py: where orders come in, studies are matched with them."""
    wanted = config.studies.match_orders
    if wanted == "on" or (wanted == "auto" and config.hl7 is not None):
        causes.on(STUDY, _on_study)
        causes.on(ORDER, _on_order)


def _on_study(event: Event) -> Iterator[NewTask]:
    """A study that was put back to ready by a match needs no look."""
    if event.facts("StudyState") == READY and event.details.get("previous") != UNMATCHED:
        yield NewTask(KIND, {"study": event.study_uid}, lane=LANE)


def _on_order(event: Event) -> Iterator[NewTask]:
    if event.study_uid:
        # An order that was there before has a UID of its own, whatever the message would have made.
        keys = {name: value for name, value in event.details["keys"].items() if value}
        yield NewTask(KIND, {"order": {"study_uid": event.study_uid, **keys}}, lane=LANE)
