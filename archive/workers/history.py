"""A history that ends: what is older than it is kept for is forgotten, an hour or so late."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

EVERY = 3600.0  # seconds between two looks


class History:
    """Forgets messages of HL7 that are older than they are kept."""

    name = "hl7 history"
    kinds: frozenset[str] = frozenset()

    def __init__(self, purge: Callable[[float], int], keep: float, clock: Callable[[], float]) -> None:
        """``purge`` forgets what was received before a moment and returns how many that were."""
        self._purge, self._keep, self._clock = purge, keep, clock

    def step(self) -> float:
        forgotten = self._purge(self._clock() - self._keep)
        if forgotten:
            log.info("forgot %d HL7 messages", forgotten)
        return EVERY

    def close(self) -> None:
        """It keeps nothing."""
