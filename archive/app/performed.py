"""Performed procedure steps wired: the verbs of the acceptors, and what follows in the background."""

from __future__ import annotations

import time
from collections.abc import Iterable

from archive.app.causes import causes
from archive.app.life import lifecycle_of
from archive.app.store import Archive
from archive.config import Config
from archive.dimse.contexts import MPPS
from archive.dimse.destinations import Destinations
from archive.dimse.mpps import CreateStep, SetStep
from archive.dimse.session import Verb
from archive.dimse.telling import Teller
from archive.dimse.wire import Field
from archive.errors import ArchiveError
from archive.services.lifecycle import READY
from archive.services.performed import READY_TASK, PerformedWork
from archive.workers.lanes import LaneWorker
from archive.workers.performed import FORWARD, PAUSES, Completing
from archive.workers.telling import Telling
from archive.workers.worker import Worker

TOGETHER = 20  # messages of one association
CAUSE = "performed procedure step completed"


def performed_verbs(archive: Archive, config: Config) -> dict[int, dict[str, Verb]]:
    work = PerformedWork(archive.index, time.time, causes(config))
    return {Field.N_CREATE_RQ: {"mpps": CreateStep(work)}, Field.N_SET_RQ: {"mpps": SetStep(work)}}


def follow_performed(archive: Archive, config: Config) -> Iterable[Worker]:
    """The workers that pass steps on, and look whether studies are whole."""
    index, lifecycle = archive.index, lifecycle_of(archive.index, config)

    def make_ready(study: str) -> None:
        try:
            lifecycle.set_state(study, READY, CAUSE)
        except ArchiveError:
            return  # it is ready or further already

    tell = Teller(Destinations.of(config), MPPS)
    forwarding = Telling(
        index, lambda peer, tasks: tell(peer, [task.payload for task in tasks]), time.time, pauses=PAUSES
    )
    completing = Completing(index, make_ready, time.time)
    return [
        LaneWorker("mpps", FORWARD, index, forwarding, clock=time.time, batch=TOGETHER, ordered=True),
        LaneWorker("mpps completed", READY_TASK, index, completing, clock=time.time, at_once=2),
    ]
