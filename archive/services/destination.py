"""What a destination is to the queue: how it is reached, on which terms, and what it makes of an image.

Rules that hold here: whoever can reach a kind of destination keeps these contracts; nothing here knows a protocol; what
becomes of an image that has failed is decided once, by the terms of its route.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from archive.index import Settled, State, StoredInstance, Task
from archive.services.hooks import Hooks
from archive.services.schedule import Schedule, pause


class Fate(Enum):
    """What became of one image at a destination; LOST is an association that ended under it."""

    SENT = "sent"
    REFUSED = "refused"
    AGAIN = "again"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Delivered:
    """One image's fate, and the destination's answer, or what went wrong, in words."""

    sop_instance_uid: str
    fate: Fate
    reason: str


class Channel(Protocol):
    """A way to a destination that is open for a burst of images."""

    @property
    def alive(self) -> bool:
        """Whether anything more can come through."""
        ...

    @property
    def reason(self) -> str:
        """Why not."""
        ...

    def put(self, items: Sequence[tuple[Task, StoredInstance]]) -> None:
        """Hand over images; each comes back as a result, or is given up."""
        ...

    def results(self) -> list[Delivered]:
        """What was done since the last call; never blocks."""
        ...

    def give_up(self) -> None:
        """Begin nothing more."""
        ...

    def close(self, grace: float) -> None:
        """End in good order, or after ``grace`` seconds."""
        ...


class Reach(Protocol):
    """How one destination is reached."""

    def open(self, wake: Callable[[], None]) -> Channel:
        """A channel that calls ``wake`` when it may have results."""
        ...

    def probe(self) -> None:
        """Return when the destination answers; raises ArchiveError with the reason in words."""
        ...

    @property
    def proof(self) -> str:
        """What a proof is called in words."""
        ...

    def missing(self, items: Sequence[StoredInstance]) -> set[str]:
        """Which of these the destination does not have; raises ArchiveError when it cannot be asked."""
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What a route says about delivering: when, how often, with which proof."""

    schedule: Schedule = field(default_factory=Schedule)
    delays: tuple[float, ...] = (30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0, 600.0, 600.0, 600.0)
    give_up: float = 7 * 86400.0
    verify: bool = False
    hooks: Hooks | None = None  # what it does to the objects


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds for one destination: most bytes a second (0 = any), and the terms of each route by its name."""

    rate: int = 0
    idle: float = 5.0
    terms: Mapping[str, Terms] = field(default_factory=dict)
    usual: Terms = field(default_factory=Terms)
    down_after: float = 900.0  # seconds after which people are told that it is not reached

    def of(self, task: Task) -> Terms:
        return self.terms.get(task.payload.get("route", ""), self.usual)

    @property
    def _all(self) -> list[Terms]:
        return [*self.terms.values()] or [self.usual]

    @property
    def delays(self) -> tuple[float, ...]:
        """Between two looks at a destination that is down: as its first route says, the last pause again and again."""
        return self._all[0].delays or self.usual.delays

    @property
    def give_up(self) -> float:
        return max(terms.give_up for terms in self._all)


def again(task: Task, terms: Terms, reason: str, now: float, factor: float = 1.0) -> Settled:
    """Another try after a pause, or the end of all tries."""
    wait = pause(terms.delays, task.attempts, factor)
    if wait is None:
        tries = "" if task.attempts == 1 else f" ({task.attempts} tries)"
        return Settled(task.id, State.FAILED, f"{reason}{tries}")
    return Settled(task.id, State.WAITING, reason, now + wait)
