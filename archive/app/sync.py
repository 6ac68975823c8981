"""Synchronisation wired: each sync of the configuration with the peer it asks, and the worker that compares."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from archive.app.routing import PRIORITIES
from archive.app.store import Archive
from archive.config import Config
from archive.config.sync import RECONCILE, Reconcile, route_name
from archive.config.sync import Sync as SyncOption
from archive.dicom.rule import parse_rule
from archive.dimse.destinations import Destinations
from archive.dimse.inquiry import PeerInquiry
from archive.index import Index, deleted
from archive.index.sync import SyncRows
from archive.services.comparing import Plan
from archive.services.inquiry import Terms
from archive.services.reconcile import Reconciliation
from archive.services.sync import SYNC, Sync, Synchronising, Timetable, settle
from archive.services.syncreport import Report, line, plain
from archive.workers.lanes import LaneWorker
from archive.workers.worker import Worker


def synchronise(archive: Archive, config: Config) -> Iterable[Worker]:
    """For app/background.py: without syncs too, for what those of yesterday have left."""
    deleted.catch_up(archive.index.database)
    syncs = syncs_of(archive.index, config)
    settle(archive.index, syncs, time.time())
    working = Synchronising(archive.index, syncs, clock=time.time, timer=time.monotonic)
    yield LaneWorker("sync", SYNC, archive.index, working.job, clock=time.time)


def syncs_of(index: Index, config: Config) -> dict[str, Sync]:
    """The syncs of a configuration by name."""
    destinations = Destinations.of(config) if config.sync else None
    return {option.name: _sync(index, config, option, destinations) for option in config.sync if destinations}


def _sync(index: Index, config: Config, option: SyncOption, destinations: Destinations) -> Sync:
    peer = config.peer(option.peer)
    titles = frozenset({option.peer, *((peer.aet, *peer.aliases) if peer else ())})
    priority, rule = PRIORITIES[option.priority], parse_rule(option.match)
    terms = Terms(option.peer, titles, route_name(option.name), priority, rule)

    def reconciliation() -> Reconciliation:
        inquiry = PeerInquiry(destinations.named(option.peer), terms.keywords)
        return Reconciliation(index, inquiry, terms, clock=time.time)

    plan = Plan(
        match=option.match, compare=option.compare, mend=option.mends, gone=option.gone == "push",
        deleted=option.deleted == "pull",
    )  # fmt: skip
    return Sync(option.name, option.peer, plan, option.within, _timetable(option.reconcile), reconciliation)


def _timetable(reconcile: Reconcile) -> Timetable:
    return Timetable(reconcile.every, reconcile.hours, reconcile.ends)


def summaries(index: Index, config: Config) -> list[dict[str, Any]]:
    """Each sync, and what the last comparison came to, for lists and ``archive status``."""
    found = []
    for option in config.sync:
        row: dict[str, Any] = {
            "sync": option.name, "peer": option.peer, "direction": option.direction, "mend": option.mends,
            "reconcile": str(RECONCILE.show(option.reconcile)), "last": None, "result": "not compared yet",
        }  # fmt: skip
        for last in SyncRows(index.database).runs(option.name, 1):
            said = plain(last, Report(index, last).balance())
            state = "ended early; " if last.finished and last.words else "" if last.finished else "goes on; "
            why = f" ({last.words})" if last.words else ""
            row |= {"last": last.started, "result": f"{state}{line(said)}{why}", "run": said}
        found.append(row)
    return found
