"""Reading all files again, by and by, so that damage is found before somebody needs the image.

Rules that hold here: a step reads for about a second and never waits; how far a round has come is kept in the index,
so that it goes on after a restart; what looks damaged is judged by `integrity`, which knows of files that were
exchanged meanwhile; outside of its hours it touches no file; copies on other volumes are read after the files of
all instances, and what is on a volume that is not there is left for the next round.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from archive.errors import Damaged
from archive.index import Index
from archive.index.copies import Pair
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
    copies_after: int = -1  # the instance up to whose copy it has come; -1 while the instances themselves are read


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
        self._page: list[Pair] = []
        self._reading: tuple[Pair, Digesting] | None = None
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

    def _next(self) -> tuple[Pair, Digesting] | None:
        """The next file that can be opened; None at the end of the round."""
        while True:
            self._page = self._page or self._next_page()
            if not self._page:
                return None
            pair = self._page[0]
            volume = self._volumes.get(pair.copy.volume)
            if volume is None or not volume.is_there():
                self._done(pair)
                continue
            try:
                self._reading = (pair, Digesting(volume, pair.copy))
                return self._reading
            except Damaged:
                self._judge(pair)
                self._done(pair)

    def _next_page(self) -> list[Pair]:
        """Instances, each as a pair with its own file; then those that have a second one, with that."""
        if self._progress.copies_after < 0:
            if page := self._index.upkeep.page(self._progress.after, PAGE):
                return [Pair(each, each.location) for each in page]
            self._progress.copies_after = 0
        return self._index.copies.page(self._progress.copies_after, PAGE)

    def _take(self, pair: Pair, reading: Digesting, budget: int) -> int:
        instance, before = pair.instance, reading.position
        try:
            if reading.step(max(budget, LEAST)):
                return reading.position - before
            reading.require(instance.sha256)
            reading.require_meta(instance)
            if instance.damage and pair.copy == instance.location:
                self._integrity.verify(instance)
        except Damaged:
            self._judge(pair)
        reading.close()
        self._reading = None
        self._done(pair)
        return max(reading.position - before, LEAST)

    def _judge(self, pair: Pair) -> None:
        """Whether it is damaged really; then it is marked, or its copy made again."""
        if self._index.known(pair.instance.sop_instance_uid) is None:
            return  # removed meanwhile
        if self._progress.copies_after >= 0:
            self._progress.damaged += self._integrity.renew_copy(pair)
            return
        try:
            self._integrity.verify(pair.instance)
        except Damaged:
            self._progress.damaged += 1

    def _done(self, pair: Pair) -> None:
        if self._progress.copies_after < 0:
            self._progress.after = pair.instance.id
        else:
            self._progress.copies_after = pair.instance.id
        self._progress.files += 1
        self._progress.size += pair.copy.size
        self._page.pop(0)

    def _end(self) -> None:
        self._progress.ended = self._clock()
        self._save()
        found = self._progress
        log.info("scrubbing ended: %d files, %d bytes, %d damaged", found.files, found.size, found.damaged)

    def _save(self) -> None:
        self._index.put(NAME, json.dumps(asdict(self._progress)))
        self._saved = self._clock()
