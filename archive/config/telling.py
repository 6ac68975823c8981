"""The sections ``mpps`` and ``availability``: what peers are told of by themselves, and by which rules.

Rules that hold here: as in sections.py; whoever is told is a peer that can be called.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .complaints import Complaint
from .kinds import ListOf, Reading
from .rules import RULE, callable_peer
from .schema import Section, option
from .values import AE_TITLE

if TYPE_CHECKING:
    from .sections import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class TellRule:
    match: str = option(RULE, "", "of what they are told; empty is all")
    to: tuple[str, ...] = option(ListOf(AE_TITLE, 1), None, "to whom: AE titles of peers", required=True)


RULES = ListOf(Section(TellRule))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mpps:
    forward: tuple[TellRule, ...] = option(
        RULES, [], "performed steps of modalities are passed on by all rules that fit"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    notify: tuple[TellRule, ...] = option(
        RULES, [], "peers are told what a study that is ready consists of, by all rules that fit"
    )


def told(config: Config, reading: Reading) -> Iterator[Complaint]:
    """Steps and notices go to peers that can be called."""
    for key, rules in (("mpps.forward", config.mpps.forward), ("availability.notify", config.availability.notify)):
        for position, rule in enumerate(rules):
            for target in rule.to:
                yield from callable_peer(config, reading, f"{key}.{position}", target)
