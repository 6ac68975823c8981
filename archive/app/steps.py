"""Rules of passing on performed procedure steps, as causes of tasks."""

from __future__ import annotations

from collections.abc import Iterator

from archive.config import Config
from archive.dicom.rule import holds, parse_rule
from archive.index import NewTask
from archive.services.causes import PERFORMED, Causes, Event
from archive.workers.performed import FORWARD


def add(found: Causes, config: Config) -> None:
    """For app/store.py: performed steps that are passed on."""
    rules = [(parse_rule(rule.match), rule.to) for rule in config.mpps.forward]

    def pass_on(event: Event) -> Iterator[NewTask]:
        receivers = {peer: None for rule, peers in rules if holds(rule, event.facts) for peer in peers}
        return (NewTask(FORWARD, event.details, lane=peer) for peer in receivers)

    if rules:
        found.on(PERFORMED, pass_on)
