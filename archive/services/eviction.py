"""Room in the cache: what is safe on a long-term volume leaves it, the least recently used study first.

Rules that hold here: nothing leaves the cache whose copy was not read again just now and is what came: a year may have
passed since it was made; rows go first, by one transaction with the tombstones of the files, so that a retrieval finds
either file, and one that has a file open goes on reading it; a round frees what the marks ask for and no more, a piece
at a time, whatever is still open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from archive.errors import Damaged, OutOfResources
from archive.index import Index
from archive.index.copies import Pair
from archive.services.deletion import LATER, Unlinking
from archive.services.integrity import Integrity
from archive.services.placing import MAIN
from archive.storage.local import Volume
from archive.storage.space import Space

log = logging.getLogger(__name__)

TOGETHER = 100  # files that leave the cache in one transaction, right after their copies were read
STUDIES = 50  # looked at together
PIECE = 1 << 30  # bytes that leave in one go: their copies are read first, and others have their turn


class Marks(NamedTuple):
    """Bytes in use of a file system: above ``high`` room is made until ``low`` is reached. Functions of its size."""

    high: Callable[[int], int]
    low: Callable[[int], int]

    def excess(self, space: Space) -> int:
        """Bytes that have to go."""
        return space.used - self.low(space.total) if space.used > self.high(space.total) else 0


class Evicted(NamedTuple):
    """What left, and whether more is to go."""

    studies: int = 0
    files: int = 0
    size: int = 0
    more: bool = False


class Eviction:
    """From one cache; for one thread."""

    def __init__(
        self, index: Index, volumes: Mapping[str, Volume], marks: Marks, unlinking: Unlinking, integrity: Integrity
    ) -> None:
        self._index = index
        self._volumes = volumes
        self._cache = volumes[MAIN]
        self._marks = marks
        self._unlinking = unlinking
        self._integrity = integrity
        self._under_way = False  # a round goes on to the low mark

    def make_room(self) -> Evicted:
        """Evict a piece of what the marks ask for. Raises StorageFailed while the cache is not there, IndexUnavailable.
        """
        self._cache.require()
        excess = self._excess()
        if excess > 0 and self._index.deletion.waiting():
            self._unlink()  # what is on its way out already
            excess = self._excess()
        if excess <= 0 or not any(map(self._is_mounted, self._volumes.keys() - {MAIN})):
            self._under_way = False
            return Evicted()
        done = self.evict(min(excess, PIECE))
        if done.files:
            self._unlink()
            log.info("%d files of %d studies left the cache, %d bytes", done.files, done.studies, done.size)
        self._under_way = bool(done.files) and excess > done.size
        return done._replace(more=self._under_way)

    def _excess(self) -> int:
        """Bytes that have to go: once the high mark is crossed, down to the low one."""
        space = self._cache.space()
        return space.used - self._marks.low(space.total) if self._under_way else self._marks.excess(space)

    def _unlink(self) -> None:
        """What can be unlinked now; the rest waits for its volume."""
        while (wait := self._unlinking.some()) is not None and wait < LATER:
            pass

    def evict(self, wanted: int) -> Evicted:
        """Let at least so many bytes leave the cache, by whole studies, if there are as many."""
        done, after = Evicted(), (0.0, "")
        while page := self._index.copies.oldest(STUDIES, after):
            for used, uid in page:
                if done.size >= wanted:
                    return done
                files, size = self.evict_study(uid)
                done = Evicted(done.studies + bool(files), done.files + files, done.size + size)
                after = used, uid
        return done

    def evict_study(self, uid: str) -> tuple[int, int]:
        """Files and bytes of a study that left the cache."""
        files = size = 0
        while pairs := self._index.copies.of_study(uid, TOGETHER):
            there = {name for name in {pair.copy.volume for pair in pairs} if self._is_mounted(name)}
            safe = [pair for pair in pairs if pair.copy.volume in there and self._is_whole(pair)]
            gone = self._index.copies.evict(safe)
            files += len(gone)
            size += sum(pair.instance.location.offset + pair.instance.location.size for pair in gone)
            if len(gone) < len(pairs):
                break  # some changed meanwhile, or have a copy that cannot be read now
        self._index.copies.left(uid)
        return files, size

    def _is_mounted(self, name: str) -> bool:
        return name in self._volumes and self._volumes[name].is_there()

    def _is_whole(self, pair: Pair) -> bool:
        """Whether the copy is what came, read from its volume; a damaged one is made again."""
        try:
            self._integrity.look_at_copy(pair)
            return True
        except Damaged as error:
            log.error("instance %s stays in the cache: its copy: %s", pair.instance.sop_instance_uid, error)
            self._integrity.renew_copy(pair)
        except OutOfResources as error:
            log.warning("instance %s stays in the cache: its copy: %s", pair.instance.sop_instance_uid, error)
        return False
