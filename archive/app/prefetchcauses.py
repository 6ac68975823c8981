"""Rules of prefetch, as causes of tasks."""

from __future__ import annotations

from archive.app.routing import PRIORITIES
from archive.config import Config
from archive.config.prefetch import PrefetchRule
from archive.dicom.rule import parse_order_rule
from archive.services.causes import ORDER, STUDY, Causes
from archive.services.prefetch import BY_IMAGE, BY_ORDER, BY_WORKLIST, Rule, Triggers
from archive.services.relevance import Wish
from archive.services.schedule import Schedule
from archive.workers.handing import on_ready


def add(causes: Causes, config: Config) -> None:
    """For app/causes.py: what orders, entries of the worklist and first images ask for."""
    rules = prefetch_rules(config)
    triggers = Triggers(rules)
    if triggers.has(BY_ORDER, BY_WORKLIST):
        causes.on(ORDER, triggers.on_order)
    if triggers.has(BY_IMAGE):
        causes.on(STUDY, triggers.on_study)
    if any(rule.to for rule in rules):
        causes.on(STUDY, on_ready)


def prefetch_rules(config: Config) -> list[Rule]:
    """The rules of a configuration, ready to decide."""
    return [_rule(config, each) for each in config.prefetch]


def _rule(config: Config, said: PrefetchRule) -> Rule:
    priors = said.priors
    peers = [(config.peer(title), title) for title in said.from_]
    return Rule(
        name=said.name,
        on=frozenset(said.on),
        match=parse_order_rule(said.match),
        wish=Wish(priors.max, priors.within, priors.same, frozenset(priors.modalities), priors.words),
        sources=said.from_,
        to=said.to,
        ahead=said.ahead,
        late=said.late,
        skip_if_present=said.skip_if_present,
        schedule=Schedule(said.window),
        priority=PRIORITIES[said.priority],
        titles=frozenset(name for peer, title in peers for name in ((title, *peer.aliases) if peer else (title,))),
    )
