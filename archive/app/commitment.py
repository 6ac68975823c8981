"""Storage commitment: the verbs of the acceptors, and the workers that check and report."""

from __future__ import annotations

import time
from collections.abc import Iterable

from archive.app.store import Archive
from archive.config import Config
from archive.dimse.commitment import AskCommitment, Heartbeat, Keeping, TakeReport, Way, way_of
from archive.dimse.destinations import Destinations
from archive.dimse.reports import Reporter
from archive.dimse.session import Verb
from archive.dimse.wire import Field
from archive.index import Index
from archive.services.commitment import Asking, Commitment
from archive.workers.commitment import workers
from archive.workers.leases import owner_name
from archive.workers.worker import Worker


def commitment_of(archive: Archive, config: Config) -> Commitment:
    return Commitment(
        archive.index, archive.integrity.verify, clock=time.time, max_pending=config.commitment.max_pending
    )


def commitment_verbs(archive: Archive, config: Config) -> dict[int, dict[str, Verb]]:
    """What peers ask of us, and what they report to us."""
    keeping = Keeping(owner_name(), _heartbeat(archive.index), time.time)
    return {
        Field.N_ACTION_RQ: {"commit": AskCommitment(commitment_of(archive, config), keeping)},
        Field.N_EVENT_REPORT_RQ: {"commit": TakeReport(Asking(archive.index, clock=time.time))},
    }


def _heartbeat(index: Index) -> Heartbeat:
    return lambda task, owner, seconds: index.heartbeat([task], owner, time.time(), seconds=seconds)


def commitments(archive: Archive, config: Config) -> Iterable[Worker]:
    destinations = Destinations.of(config)
    return workers(
        commitment_of(archive, config),
        archive.index,
        Reporter(destinations, [peer.aet for peer in config.peers.values() if way_of(peer) is Way.SAME]),
        pauses=config.commitment.retry,
        retain=config.commitment.retain,
        clock=time.time,
    )
