"""What events cause: the tasks that are committed together with what happened.

Rules that hold here: an event is described before its transaction, and its tasks are rows of that transaction, so
that neither is ever there without the other; a cause only looks at the event and never waits or queries; several
causes of one event know nothing of each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from archive.dicom.rule import Facts
from archive.index import NewTask

IMAGE = "image"  # an instance is being stored
STUDY = "study"  # a study enters a state: the fact StudyState says which
ORDER = "order"  # an order is saved, new or changed: facts are of its patient and last step, "keys" its numbers
DAMAGE = "damage"  # a stored file was found damaged or missing: the detail "reason" says how
PERFORMED = "performed"  # a performed procedure step begins, goes on or ends: the details say what was told
MESSAGE = "message"  # an HL7 message is carried out: the details are its kind and content
EVENTS = (IMAGE, STUDY, ORDER, PERFORMED, MESSAGE, DAMAGE)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is about to be committed: its name, what rules can ask of it, and which rows it is about."""

    name: str
    facts: Facts
    when: float
    study_uid: str = ""
    series_uid: str = ""
    sop_instance_uid: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


Cause = Callable[[Event], Iterable[NewTask]]


class Causes:
    """Who wants to add tasks to which event."""

    def __init__(self) -> None:
        self._causes: defaultdict[str, list[Cause]] = defaultdict(list)

    def on(self, event: str, cause: Cause) -> None:
        self._causes[event].append(cause)

    def has(self, event: str) -> bool:
        """Whether anybody cares: describing an event costs time."""
        return bool(self._causes.get(event))

    def tasks(self, event: Event) -> tuple[NewTask, ...]:
        return tuple(task for cause in self._causes.get(event.name, ()) for task in cause(event))
