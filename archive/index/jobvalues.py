"""What jobs are made of: a job as it is kept, a study that a peer lists, and what became of each.

Rules that hold here: plain values, and the words for their states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

RUNNING, PAUSED, CANCELLED, DONE = "running", "paused", "cancelled", "done"  # jobs
TODO, QUEUED, HERE, FETCHED, FAILED, DROPPED = "todo", "queued", "here", "fetched", "failed", "cancelled"  # studies
COUNTS = ("series", "series_here", "series_fetched", "series_failed", "instances", "here", "fetched", "failed")


@dataclass(frozen=True, slots=True)
class Job:
    """One job; ``options`` and ``plan`` are plain values for services/jobs.py."""

    id: int
    kind: str
    peer: str
    state: str
    options: Mapping[str, Any]
    plan: Sequence[Any]
    notes: Sequence[str]
    reason: str
    task: int | None
    slot: float
    created: float
    finished: float | None


@dataclass(frozen=True, slots=True)
class Found:
    """A study that the peer lists: what it says of its size, which series are wanted, and whether all of it is here."""

    study_uid: str
    series: int = 0
    instances: int = 0
    wanted: tuple[str, ...] = ()
    is_here: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """Studies by state, and the sums of all counts."""

    studies: Mapping[str, int]
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobStudy:
    """What became of one study of a job."""

    study_uid: str
    state: str
    reason: str
    counts: Mapping[str, int]
