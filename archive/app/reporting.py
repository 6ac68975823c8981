"""What messages bring for stored studies, wired: reports that are filed, patients that are corrected."""

from __future__ import annotations

import time
from collections.abc import Iterable

from archive.app.life import lifecycle_of
from archive.app.store import Archive
from archive.config import Config
from archive.services.reports import Reports
from archive.workers.lanes import LaneWorker
from archive.workers.patients import KIND as PATIENTS
from archive.workers.patients import Correcting
from archive.workers.reports import KIND, Filing
from archive.workers.worker import Worker


def file_reports(archive: Archive, config: Config) -> Iterable[Worker]:
    reports = Reports(
        archive.index,
        lambda: archive.store,
        lifecycle_of(archive.index, config),
        title=config.ae.title,
        after=config.studies.after_report,
    )
    filing = Filing(archive.index, reports.file, time.time)
    return [LaneWorker("reports", KIND, archive.index, filing, clock=time.time, batch=10)]


def correct_patients(archive: Archive, config: Config) -> Iterable[Worker]:
    correcting = Correcting(archive.index, archive.corrections, time.time)
    return [LaneWorker("patients", PATIENTS, archive.index, correcting, clock=time.time, batch=20, ordered=True)]
