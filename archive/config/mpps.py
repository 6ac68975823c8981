"""The section ``mpps``: to whom performed procedure steps are passed on.

Rules that hold here: as in sections.py; a receiver is a peer that can be called.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .complaints import Complaint
from .kinds import ListOf, Reading
from .routing import RULE, callable_peer
from .schema import Section, option
from .values import AE_TITLE

if TYPE_CHECKING:
    from .sections import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRule:
    match: str = option(RULE, "", "which performed steps; empty is all")
    to: tuple[str, ...] = option(ListOf(AE_TITLE, 1), None, "to whom: AE titles of peers", required=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mpps:
    forward: tuple[StepRule, ...] = option(
        ListOf(Section(StepRule)), [], "performed steps of modalities are passed on by all rules that fit"
    )


def receivers(config: Config, reading: Reading) -> Iterator[Complaint]:
    """Performed steps go to peers that can be called."""
    for position, rule in enumerate(config.mpps.forward):
        for target in rule.to:
            yield from callable_peer(config, reading, f"mpps.forward.{position}", target)
