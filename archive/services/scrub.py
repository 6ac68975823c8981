"""Reading all files again, by and by, so that damage is found before somebody needs the image.

Rules that hold here: a step reads for about a second and never waits; how far a round has come is kept in the index,
so that it goes on after a restart; what looks damaged is judged by `integrity`, which knows of files that were
exchanged meanwhile; outside of its hours it touches no file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from archive.errors import Damaged
from archive.index import Index, StoredInstance
from archive.services.integrity import Digesting, Integrity
from archive.services.schedule import Schedule
from archive.storage.local import Volume

log = logging.getLogger(__name__)

NAME = "scrub"  # under which the index keeps the progress
PAGE = 200
SLICE = 1.0  # seconds that a step reads
AT_ONCE = 64 << 20  # bytes of a step without a limit
LEAST = 16 << 10  # what a file counts at least: opening it costs the disk as much
SAVED = 30.0  # seconds between two notes of the progress: so much is read twice after a crash


@dataclass(slots=True)
class Progress:
    """Of the round under way, or of the last one when ``ended`` is set."""

    after: int = 0
    began: float = 0.0
    ended: float = 0.0
    files: int = 0
    size: int = 0
    damaged: int = 0


def progress(index: Index) -> Progress:
    """How far scrubbing has come."""
    return Progress(**json.loads(index.get(NAME) or "{}"))


class Scrub:
    """Reads the files of an archive in rounds; for one thread."""

    def __init__(
        self,
        index: Index,
        volumes: Mapping[str, Volume],
        integrity: Integrity,
        *,
        every: float,
        rate: int,
        hours: Schedule,
        clock: Callable[[], float],
        timer: Callable[[], float],
    ) -> None:
        """A round begins ``every`` so many seconds; ``rate`` in bytes a second, 0 for no limit."""
        self._index = index
        self._volumes = volumes
        self._integrity = integrity
        self._every = every
        self._rate = rate
        self._hours = hours
        self._clock = clock
        self._timer = timer
        self._page: list[StoredInstance] = []
        self._reading: tuple[StoredInstance, Digesting] | None = None
        self._progress = progress(index)
        self._saved = clock()

    def step(self) -> float:
        """Read for a while; return the seconds until the next step."""
        now = self._clock()
        if (opens := self._hours.opens(now)) is not None:
            self.rest()
            return max(opens - now, SLICE)
        if self._progress.ended or not self._progress.began:
            if self._progress.ended and (pause := self._progress.began + self._every - now) > 0:
                return pause
            self._progress = Progress(began=now)
            log.info("scrubbing begins")
        started, budget = self._timer(), int(self._rate * SLICE) or AT_ONCE
        read = self._read(budget)
        if self._progress.ended:
            return max(self._progress.began + self._every - self._clock(), SLICE)
        if self._clock() >= self._saved + SAVED:
            self._save()
        due = read / self._rate if self._rate else 0.0
        return max(due - (self._timer() - started), 0.0)

    def rest(self) -> None:
        """Let go of files and note how far it came."""
        if self._reading is not None:
            self._reading[1].close()
            self._reading = None
        if self._progress.began and not self._progress.ended and self._page:
            self._save()
        self._page = []

    def _read(self, budget: int) -> int:
        """Read about so many bytes; return how many it were."""
        read = 0
        while read < budget:
            current = self._reading or self._next()
            if current is None:
                self._end()
                return read
            read += self._take(*current, budget - read)
        return read

    def _next(self) -> tuple[StoredInstance, Digesting] | None:
        """The next file that can be opened; None at the end of the round."""
        while True:
            if not self._page:
                self._page = self._index.upkeep.page(self._progress.after, PAGE)
                if not self._page:
                    return None
            instance = self._page[0]
            volume = self._volumes.get(instance.location.volume)
            if volume is None:
                self._done(instance)
                continue
            try:
                self._reading = (instance, Digesting(volume, instance.location))
                return self._reading
            except Damaged:
                self._judge(instance)
                self._done(instance)

    def _take(self, instance: StoredInstance, reading: Digesting, budget: int) -> int:
        before = reading.position
        try:
            if reading.step(max(budget, LEAST)):
                return reading.position - before
            reading.require(instance.sha256)
            reading.require_meta(instance)
            if instance.damage:
                self._integrity.verify(instance)
        except Damaged:
            self._judge(instance)
        reading.close()
        self._reading = None
        self._done(instance)
        return max(reading.position - before, LEAST)

    def _judge(self, instance: StoredInstance) -> None:
        """Whether it is damaged really; then it is marked."""
        if self._index.known(instance.sop_instance_uid) is None:
            return  # removed meanwhile
        try:
            self._integrity.verify(instance)
        except Damaged:
            self._progress.damaged += 1

    def _done(self, instance: StoredInstance) -> None:
        self._progress.after = instance.id
        self._progress.files += 1
        self._progress.size += instance.location.size
        self._page.pop(0)

    def _end(self) -> None:
        self._progress.ended = self._clock()
        self._save()
        found = self._progress
        log.info("scrubbing ended: %d files, %d bytes, %d damaged", found.files, found.size, found.damaged)

    def _save(self) -> None:
        self._index.put(NAME, json.dumps(asdict(self._progress)))
        self._saved = self._clock()
