"""The section ``fetch``: how studies are retrieved from peers, and what a peer's own entry says otherwise.

Rules that hold here: a peer's entry is laid over the section name by name; nothing here says what is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass

from .kinds import ListOf
from .pacing import GIVE_UP, RATE, RETRY, WINDOW, Hours, Retry, pauses
from .schema import option
from .values import number, one_of

WAYS = {
    "move": "C-MOVE: the peer sends to the archive as it would to anybody, so it must know the archive's address",
    "get": "C-GET: objects come back over the association that asked for them",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    retrieve: str = option(one_of(WAYS), "move", "by which service")
    associations: int = option(number(1, 16), "2", "studies that are fetched from one peer at a time")
    rate: int = option(RATE, "0", "most that is fetched from one peer in a second; 0 = no limit")
    per_minute: int = option(number(0, 100_000), "0", "studies begun in a minute; 0 = no limit")
    answers: int = option(
        number(10, 100_000), "500", "a query that has more is asked in parts; some peers cut off their answers unsaid"
    )
    window: tuple[Hours, ...] = option(ListOf(WINDOW), [], "when it may be fetched (local time); empty is always")
    retry: Retry | tuple[float, ...] = option(RETRY, {}, "when a study has failed")
    give_up: float = option(GIVE_UP, "7d", "studies fail when their peer could not be reached for so long")

    @property
    def delays(self) -> tuple[float, ...]:
        """The pauses before each further try."""
        return pauses(self.retry)
