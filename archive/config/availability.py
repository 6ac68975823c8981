"""The section ``availability``: who is told that a study's instances can be retrieved.

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
class NoticeRule:
    match: str = option(RULE, "", "which studies; empty is all")
    to: tuple[str, ...] = option(ListOf(AE_TITLE, 1), None, "to whom: AE titles of peers", required=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    notify: tuple[NoticeRule, ...] = option(
        ListOf(Section(NoticeRule)), [], "peers are told what a study that is ready consists of, by all rules that fit"
    )


def notified(config: Config, reading: Reading) -> Iterator[Complaint]:
    """Notices go to peers that can be called."""
    for position, rule in enumerate(config.availability.notify):
        for target in rule.to:
            yield from callable_peer(config, reading, f"availability.notify.{position}", target)
