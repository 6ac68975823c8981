"""Where alarms come from, beside refused objects: tasks that failed, damage, the index, certificates, processes.

Rules that hold here: what a transaction causes is a task of it (damage), so that it is told whoever found it; the rest
is raised by who sees it; what a peer said in its own words stays with the task; nothing here waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from archive.config import Config, certificates
from archive.errors import IndexUnavailable, for_log
from archive.index import Index, NewTask, Task, Wakes
from archive.index.commitment_tasks import CHECK, REPORT
from archive.services import alarms, compression, routing
from archive.services.alarms import BEGINS, OVER, Alarm, Raise
from archive.services.causes import DAMAGE, Causes, Event
from archive.services.refusals import ANSWERS
from archive.workers import availability, messages
from archive.workers.lanes import LaneWorker
from archive.workers.worker import Worker

if TYPE_CHECKING:
    from archive.app.store import Archive

KIND = "notify"  # of tasks that are alarms to be raised
DAY = 86400.0
TOGETHER = 500  # tasks handed over at a time

# Kinds of tasks that failed for good: what they are about, and what their lane is called.
FAILED: dict[str, tuple[str, str, str]] = {
    routing.DELIVER: (alarms.ROUTE, "image", "failed for {}"),
    routing.VERIFY: (alarms.ROUTE, "image", "could not be proven to be at {}"),
    messages.KIND: (alarms.HL7, "message", "could not be passed on to {}"),
    CHECK: (alarms.COMMITMENT, "storage commitment", "of {} could not be checked"),
    REPORT: (alarms.COMMITMENT, "storage commitment", "could not be reported to {}"),
    availability.KIND: (alarms.COMMITMENT, "availability notice", "could not be given to {}"),
    compression.KIND: (alarms.TASK, "image", "could not be compressed"),
}


def failed(tell: Raise) -> Callable[[str, str, str, int], None]:
    """For the queue: told of tasks that failed for good."""

    def one(kind: str, lane: str, reason: str, number: int) -> None:
        on, noun, text = FAILED.get(kind, (alarms.TASK, f"task '{kind}'", "failed"))
        about = lane if "{}" in text else kind  # other lanes are UIDs, each of which would be a line
        tell(Alarm(on, about, text.format(lane), for_log(reason), noun=noun, count=number))

    return one


def ended(name: str, how: str) -> Alarm:
    """A process that ended by itself."""
    return Alarm(alarms.PROCESS, name, f"process {name} ended by itself and was started again", how)


# -- damage ---------------------------------------------------------------------------------------------------


def add(causes: Causes, config: Config) -> None:
    """For app/causes.py: damage is told, also where a command finds it."""
    if config.notify:
        causes.on(DAMAGE, damaged)


def damaged(event: Event) -> Iterator[NewTask]:
    """Which file it is stands in the log and in 'archive fsck': a message of a thousand names helps nobody."""
    said = {"on": alarms.DAMAGE, "about": "files", "text": "found damaged or missing", "noun": "stored file"}
    yield NewTask(KIND, said)


def pass_alarms_on(archive: Archive, config: Config) -> Iterable[Worker]:
    """For app/background.py: tasks that are alarms."""
    if not config.notify:
        return []
    job = PassingOn(archive.index, archive.alarm)
    return [LaneWorker("alarms", KIND, archive.index, job, clock=time.time, batch=TOGETHER)]


class PassingOn:
    """Raises what was committed as tasks."""

    def __init__(self, index: Index, tell: Raise) -> None:
        self._index, self._tell = index, tell

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        for task in tasks:
            self._tell(Alarm(**task.payload))
            self._index.finish(task.id, owner, time.time(), keep=False)


# -- index ----------------------------------------------------------------------------------------------------


def watched(archive: Archive) -> Callable[[], Wakes]:
    """How the background listens to the index, which tells when it cannot."""

    def listen() -> Wakes:
        try:
            wakes = archive.index.listen()
        except IndexUnavailable as error:
            words = "the database does not answer"
            archive.alarm(Alarm(alarms.INDEX, "index", words, str(error), state=BEGINS))
            raise
        archive.alarm(Alarm(alarms.INDEX, "index", ANSWERS, state=OVER))
        return wakes

    return listen


# -- certificates ---------------------------------------------------------------------------------------------


def watch_certificates(archive: Archive, config: Config) -> Iterable[Worker]:
    """For app/background.py: looks at the archive's own certificates once a day."""
    return [Certificates(config, archive.alarm, time.time)] if config.notify and any(_pairs(config)) else []


class Certificates:
    """A worker; what is found is told until it is found no more."""

    name = "certificates"
    kinds: frozenset[str] = frozenset()

    def __init__(self, config: Config, tell: Raise, clock: Callable[[], float]) -> None:
        self._config, self._tell, self._clock = config, tell, clock

    def step(self) -> float | None:
        for key, cert, private in _pairs(self._config):
            found = [
                each for each in certificates.examine(cert, private, self._clock(), rsa=False) if each.option == "cert"
            ]
            for each in found:
                level = alarms.WARNING if each.warning else alarms.ERROR
                text = f"certificate of {key} {each.problem}"
                self._tell(Alarm(alarms.CERTIFICATE, key, text, each.remedy, level=level, state=BEGINS))
            if not found:
                self._tell(Alarm(alarms.CERTIFICATE, key, f"certificate of {key} is good", state=OVER))
        return DAY

    def close(self) -> None:
        """Nothing is kept."""


def _pairs(config: Config) -> Iterator[tuple[str, Path, Path]]:
    """Every certificate the archive shows, with its key, once."""
    known = [(f"listeners.{number}.tls", each.tls) for number, each in enumerate(config.listeners)]
    known += [(f"peers.{name}.tls", peer.tls) for name, peer in config.peers.items()]  # type: ignore[misc]
    seen = set()
    for key, section in [*known, ("hl7", config.hl7)]:
        pair = (section.cert, section.key) if section else (None, None)
        if pair[0] and pair[1] and pair not in seen:
            seen.add(pair)
            yield key, pair[0], pair[1]
