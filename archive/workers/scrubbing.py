"""The worker that reads all files again: nobody wakes it, it says itself when it goes on."""

from __future__ import annotations

from archive.services.scrub import Scrub


class Scrubber:
    """A slice of reading a step."""

    name = "scrub"
    kinds: frozenset[str] = frozenset()

    def __init__(self, scrub: Scrub) -> None:
        self._scrub = scrub

    def step(self) -> float | None:
        return self._scrub.step()

    def close(self) -> None:
        self._scrub.rest()
