"""Fetching wired: each peer of the configuration as a source of studies.

Rules that hold here: a peer that has gone from the configuration keeps its tasks, and says why they wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from archive.app.store import Archive
from archive.config import Config
from archive.config.fetching import Fetch
from archive.dimse.destinations import Destinations
from archive.dimse.fetch import PeerCatalogue, PeerSource
from archive.index.jobs import CARRY
from archive.services.fetching import FROM, Source
from archive.services.fetchlane import Terms
from archive.services.jobs import Carrying
from archive.services.schedule import Schedule
from archive.workers.fetching import Fetches
from archive.workers.lanes import LaneWorker
from archive.workers.worker import Worker


def fetch_studies(archive: Archive, config: Config) -> Iterable[Worker]:
    """For app/background.py: the worker that retrieves from peers."""
    sources = Sources(archive, config)
    carrying = Carrying(archive.index, sources.catalogue, time.time)
    yield Fetches(archive.index, sources.of, sources.terms, clock=time.time, ended=carrying.hear)
    yield LaneWorker("jobs", CARRY, archive.index, carrying, clock=time.time)


class Sources:
    """How each peer of one configuration is fetched from."""

    def __init__(self, archive: Archive, config: Config) -> None:
        self._archive = archive
        self._config = config
        self._destinations = Destinations.of(config)

    def of(self, lane: str) -> Source:
        """For one study; raises ArchiveError for a peer that is none or cannot be called."""
        destination = self._destinations.named(lane.removeprefix(FROM))
        store = self._archive.store if self._fetch(lane).retrieve == "get" else None
        return PeerSource(destination, self._config.ae.title, store)

    def catalogue(self, peer: str) -> PeerCatalogue:
        """For one question; raises ArchiveError for a peer that is none or cannot be called."""
        return PeerCatalogue(self._destinations.named(peer), self._fetch(peer).answers)

    def terms(self, lane: str) -> Terms:
        fetch = self._fetch(lane)
        return Terms(
            fetch.associations, fetch.rate, fetch.per_minute, Schedule(fetch.window), fetch.delays, fetch.give_up
        )

    def _fetch(self, lane: str) -> Fetch:
        peer = self._config.peer(lane.removeprefix(FROM))
        return self._config.fetch if peer is None else peer.fetch
