"""The states of studies, wired: the service that decides on them, and the worker that follows studies."""

from __future__ import annotations

import time
from collections.abc import Iterable

from archive.app.causes import causes
from archive.app.store import Archive
from archive.config import Config
from archive.index import Index
from archive.services.lifecycle import Lifecycle, Patience
from archive.workers.lifecycle import FollowStudies
from archive.workers.worker import Worker


def lifecycle_of(index: Index, config: Config) -> Lifecycle:
    """The states of studies, by the rules of this configuration."""
    patience = Patience(config.studies.ready_after, config.studies.on_association_close)
    return Lifecycle(index, patience=patience, clock=time.time, causes=causes(config))


def follow_studies(archive: Archive, config: Config) -> Iterable[Worker]:
    return [FollowStudies(archive.index, lifecycle_of(archive.index, config), time.time)]
