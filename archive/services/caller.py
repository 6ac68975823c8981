"""For whom a service works: the caller's name and address, and the limits its peer entry sets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """``visible_if`` is the data filter of the caller's peer entry, ``max_results`` 0 for no limit."""

    aet: str
    address: str = ""
    visible_if: str = ""
    max_results: int = 0
