"""Instance availability notices wired: the worker that tells peers."""

from __future__ import annotations

import time
from collections.abc import Iterable

from archive.app.store import Archive
from archive.config import Config
from archive.dimse.contexts import AVAILABILITY
from archive.dimse.destinations import Destinations
from archive.dimse.telling import Teller
from archive.services.availability import Notices
from archive.workers.availability import KIND, Notifying
from archive.workers.lanes import LaneWorker
from archive.workers.worker import Worker

TOGETHER = 5  # notices of one association: each lists a whole study


def notify_peers(archive: Archive, config: Config) -> Iterable[Worker]:
    tell = Teller(Destinations.of(config), AVAILABILITY)
    notifying = Notifying(archive.index, Notices(archive.index, config.ae.title).of, tell, time.time)
    return [LaneWorker("availability", KIND, archive.index, notifying, clock=time.time, batch=TOGETHER, ordered=True)]
