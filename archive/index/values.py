"""What the index takes and gives: plain values that hold no connection and never query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from archive.dicom.header import Header


@dataclass(frozen=True, slots=True)
class Location:
    """Where an instance's data set is: in a file below a volume's root, ``size`` bytes from ``offset``."""

    volume: str
    path: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class NewTask:
    """Work that a transaction causes; workers find it by ``kind`` and ``lane`` once ``due`` has come.

    Within a lane higher ``priority`` (-1, 0 or 1) goes first; ``study_uid`` is for lists; a task that is wanted
    ``once`` is not added while one of its kind waits in its lane; one that is ``single`` joins the one of its kind that
    waits in its lane about its study.
    """

    kind: str
    payload: Mapping[str, Any]
    due: float = 0.0
    lane: str = ""
    study_uid: str = ""
    priority: int = 0
    once: bool = False
    single: bool = False


@dataclass(frozen=True, slots=True)
class NewInstance:
    """An object that is to become a row, with the tasks its arrival causes.

    ``policy`` says what happens to other content under a known UID: ``keep``, ``replace`` or ``same_source``;
    ``accept`` files an object under the study or series that the index has, whatever the object says;
    ``received_sha256`` and ``received_syntax`` are of the data set that came, where the stored one is another;
    an object that is ``known`` was here before the index was, or is the archive's own, so that it is no arrival.
    """

    header: Header
    location: Location
    transfer_syntax: str
    sha256: bytes
    source: str
    address: str
    received: float
    tasks: tuple[NewTask, ...] = ()
    policy: str = "keep"
    accept: bool = False
    received_sha256: bytes = b""
    received_syntax: str = ""
    known: bool = False


class Outcome(Enum):
    """What became of a NewInstance."""

    STORED = "stored"
    EQUAL = "equal"
    DIFFERENT = "different"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Added:
    """``replaced`` is the file that lost its row to a policy; no row points to it any more."""

    outcome: Outcome
    instance_id: int | None = None
    reason: str = ""
    replaced: Location | None = None


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One stored instance and where it is."""

    id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    location: Location
    sha256: bytes
    study_uid: str
    series_uid: str
    damage: str = ""  # what is wrong with its file; nothing, as far as is known
    corrected: bool = False  # it goes out otherwise than it came in


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An object that was refused but kept: ``path`` is where its bytes went, ``new`` is what its release needs."""

    id: int
    path: str
    reason: str
    new: NewInstance


class State(Enum):
    """Of a task: WAITING for its due time, LEASED by an owner, FAILED for good, or DONE."""

    WAITING = "waiting"
    LEASED = "leased"
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the outbox."""

    id: int
    kind: str
    lane: str
    payload: Mapping[str, Any]
    state: State
    due: float
    attempts: int
    lease_until: float | None
    owner: str
    created: float
    finished: float | None
    reason: str
    study_uid: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class CallerSeen:
    """A caller that was refused: how often, when, and why the last time."""

    aet: str
    address: str
    called: str
    reason: str
    first: float
    last: float
    times: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """How much there is; ``size`` in bytes of data sets."""

    patients: int
    studies: int
    series: int
    instances: int
    size: int


@dataclass(frozen=True, slots=True)
class StudySummary:
    """One study as an administrator's list shows it."""

    id: int
    study_uid: str
    patient_id: str
    patient_name: str
    study_date: str
    accession_number: str
    study_description: str
    modalities: tuple[str, ...]
    series: int
    instances: int
    created: float
    updated: float
    state: str = ""


@dataclass(frozen=True, slots=True)
class Removed:
    """What a deletion took out: the files that no row points to any more."""

    files: tuple[Location, ...] = ()
    instances: int = 0
    series: tuple[str, ...] = field(default=())
    studies: tuple[str, ...] = field(default=())
