"""Prefetch wired: peers and the own index as those who are asked for priors, and the workers that ask."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from archive.app.prefetchcauses import prefetch_rules
from archive.app.receiving import sources
from archive.app.store import Archive
from archive.config import Config
from archive.config.prefetch import has_long_term
from archive.dicom.attributes import Level
from archive.dicom.identifier import decode_identifier
from archive.dicom.matching import read_query
from archive.dicom.query import Root
from archive.dicom.uids import EXPLICIT_LITTLE
from archive.dimse import scu
from archive.dimse.destinations import Destinations
from archive.dimse.question import question_in
from archive.index import Index, NewTask
from archive.index.copies import MAIN, recall_study
from archive.services.caller import Caller
from archive.services.find import Find
from archive.services.prefetch import PREFETCH
from archive.services.priors import HERE, Priors
from archive.services.samepatient import Answer
from archive.workers.handing import HAND_ON, HandingOn
from archive.workers.lanes import LaneWorker
from archive.workers.prefetch import Cautious, Seeking
from archive.workers.worker import Worker

TOGETHER = 200  # triggers of one rule that are looked at together: each patient is asked for once
SILENCE = 60.0  # seconds for a peer's next answer, whatever its entry says: somebody else's priors wait meanwhile
ALL_ANSWERS = 300.0  # seconds for all of them
US = Caller("archive")


def fetch_priors(archive: Archive, config: Config) -> Iterable[Worker]:
    """For app/background.py: the workers of prefetch."""
    index, asked = archive.index, Cautious(Asked(archive.index, config), time.time)
    priors, recall = partial(priors_of, index, config, asked), partial(recalls, index, config)
    seeking = Seeking(index, prefetch_rules(config), priors, time.time, recall=recall)
    yield LaneWorker("prefetch", PREFETCH, index, seeking, clock=time.time, batch=TOGETHER)
    yield LaneWorker("hand on", HAND_ON, index, HandingOn(index, time.time), clock=time.time, batch=TOGETHER)


def priors_of(index: Index, config: Config, ask: Asked | Cautious) -> Priors:
    return Priors(ask, sources(config).issuers, lambda uid: instances_here(index, uid))


def recalls(index: Index, config: Config, study_uid: str) -> list[NewTask]:
    """What brings a study from a long-term volume to the cache, when some of it is not there."""
    if not has_long_term(config):
        return []
    found = index.queue.described((), study_uid=study_uid)
    return [recall_study(study_uid)] if any(each.instance.location.volume != MAIN for each in found) else []


def instances_here(index: Index, study_uid: str) -> int:
    return sum(each.instances for each in index.studies(limit=1, uid=study_uid))


class Asked:
    """Asks a peer by C-FIND, or the own index in the same words."""

    def __init__(self, index: Index, config: Config) -> None:
        self._index = index
        self._destinations = Destinations.of(config)

    def __call__(self, source: str, level: Level, keys: Mapping[str, Any]) -> Generator[Answer, None, None]:
        if source == HERE:
            yield from self._here(level, keys)
            return
        peer = self._destinations.named(source)
        quick = replace(peer, timeouts=replace(peer.timeouts, dimse=min(peer.timeouts.dimse, SILENCE)))
        found: Any = scu.find(quick, Root.STUDY, level, keys, seconds=ALL_ANSWERS)
        with closing(found) as answers:  # a generator: closing it ends the association
            yield from map(scu.plain, answers)

    def _here(self, level: Level, keys: Mapping[str, Any]) -> Generator[Answer, None, None]:
        identifier = decode_identifier(question_in(EXPLICIT_LITTLE, level, keys), EXPLICIT_LITTLE)
        query = read_query(identifier, Root.STUDY, relational=True)
        names = scu.keywords(each.tag for each in query.returns)
        with closing(Find(self._index).search(query, US)) as rows:
            for row in rows:
                yield dict(zip(names, row, strict=True))
