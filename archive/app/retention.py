"""Retention as an open archive carries it out: its policy, its workers, and who is asked what a study needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from archive.app.ledgers import deletion_of
from archive.app.store import Archive
from archive.config import Config
from archive.config.retention import COMMIT
from archive.dicom.rule import parse_rule
from archive.dimse.destinations import Destinations
from archive.dimse.proof import ByCommitment, ByQuery
from archive.index import Index, StoredInstance
from archive.index.holds import holds
from archive.index.retention import RetentionRows
from archive.services.alarms import Raise, nobody
from archive.services.disposal import Disposal
from archive.services.doctor import Finding, note
from archive.services.retention import Looking, Need, Policy, Rule
from archive.services.rounds import OldVersions, Rounds
from archive.services.schedule import Schedule
from archive.services.steadyclock import SteadyClock
from archive.services.watermarks import Marks, Watermarks, crossed
from archive.storage.local import Volume
from archive.workers.retention import Retire, WatchSpace
from archive.workers.worker import Worker

Clock = Callable[[], float]


class Peers:
    """Asks peers for what studies need."""

    def __init__(self, config: Config, index: Index) -> None:
        self._destinations = Destinations.of(config)
        self._index = index

    def missing(self, need: Need, items: Sequence[StoredInstance]) -> set[str]:
        destination = self._destinations.named(need.peer)
        proof = ByCommitment(destination, self._index) if need.kind == COMMIT else ByQuery(destination)
        return proof.missing(items)


def policy_of(config: Config) -> Policy:
    rules = [
        Rule(
            each.name, parse_rule(each.match), each.keep.years, each.keep.seconds, each.keep.forever, each.then,
            tuple(Need(*need) for need in each.needs), by_date=each.base == "study date",
        )
        for each in config.retention
    ]  # fmt: skip
    return Policy(rules, grace=config.deletion.grace)


def looking_of(index: Index, config: Config, clock: Clock = time.time) -> Looking:
    return Looking(index, policy_of(config), clock)


def retire_of(
    index: Index, volume: Volume, config: Config, clock: Clock = time.time, *, always: bool = False,
    raise_alarm: Raise = nobody,
) -> Retire:  # fmt: skip
    """What carries retention out, in its hours or ``always``."""
    policy, settings = policy_of(config), config.deletion
    rounds = Rounds(index, policy, per_day=settings.max_per_day, clock=clock)
    disposal = Disposal(
        index, policy, deletion_of(index, volume), Peers(config, index),
        per_day=settings.max_per_day, rate=settings.rate, clock=clock,
    )  # fmt: skip
    hours = Schedule([settings.window] if settings.window and not always else [])
    return Retire(
        index, rounds, disposal, OldVersions(index, settings.versions, clock), SteadyClock(index, clock),
        hours=hours, clock=clock, raise_alarm=raise_alarm,
    )  # fmt: skip


def standing(index: Index, clock: Clock = time.time) -> dict[str, Any]:
    """What a glance should show: marks that are crossed since when, a doubtful clock, how many are due and held."""
    counts = RetentionRows(index.database).counts()
    return {
        "watermarks": crossed(index).since, "clock": SteadyClock(index, clock).doubt(note=False),
        "due": sum(counts.values()), "holds": len(holds(index.database)),
    }  # fmt: skip


def trouble(index: Index, clock: Clock = time.time) -> Iterator[Finding]:
    """What a person should know of: a clock that is not believed, and a file system that fills up."""
    if doubt := SteadyClock(index, clock).doubt(note=False):
        yield Finding("retention", f"nothing is deleted by rules: {doubt}", "archive retention clock --right, if it is")
    found = crossed(index)
    for name, since in found.since.items():
        days = (clock() - since) / 86400
        remedy = "more room, or rules of retention that let studies go (archive retention)"
        say = note if name == "warn" else Finding
        yield say(f"storage.watermarks.{name}", f"is crossed since {days:.1f} days", remedy)


def marks_of(config: Config) -> Marks:
    found = config.storage.watermarks
    return Marks(found.warn, found.purge if config.retention else 0, found.purge_to, found.refuse)


def retire(archive: Archive, config: Config) -> Iterable[Worker]:
    """Always: without rules too, for what rules of yesterday have left in the queue, and for the watermarks."""
    yield retire_of(archive.index, archive.volume, config, raise_alarm=archive.alarm)
    marks = marks_of(config)
    if marks.warn or marks.purge or marks.refuse:
        steady = SteadyClock(archive.index, time.time)
        yield WatchSpace(
            Watermarks(
                archive.index, archive.volume.root, marks, policy_of(config), clock=time.time,
                believed=lambda: not steady.doubt(note=False), raise_alarm=archive.alarm,
            )
        )  # fmt: skip
