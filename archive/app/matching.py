"""Matching wired: the worker that looks for orders of studies, and the service for people."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from archive.app.life import lifecycle_of
from archive.app.store import Archive
from archive.config import Config
from archive.index import Index
from archive.index.ordervalues import OrderKeys
from archive.services.corrections import Corrections
from archive.services.matching import Matching
from archive.workers.lanes import LaneWorker
from archive.workers.matching import KIND, Looking
from archive.workers.worker import Worker


def matching_of(index: Index, corrections: Corrections, config: Config) -> Matching:
    return Matching(index, corrections, lifecycle_of(index, config), time.time)


def match_studies(archive: Archive, config: Config) -> Iterable[Worker]:
    index = archive.index

    def waiting(keys: Mapping[str, str]) -> Iterable[str]:
        order = index.orders.find(OrderKeys(**keys))
        if order is not None:
            yield from index.matches.waiting(
                study_uid=order.study_uid, accession_number=order.accession_number, patient_id=order.patient_id
            )

    looking = Looking(index, matching_of(index, archive.corrections, config).look, waiting, time.time)
    return [LaneWorker("matching", KIND, index, looking, clock=time.time, batch=10)]
