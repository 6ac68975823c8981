"""Retrieving: a query and who asks, to stored instances, and an instance to its open file.

Rules that hold here: what a caller may not see does not exist for it, named by its UID or not; a
large selection streams from a cursor, so that memory does not grow with it; a file that is missing, has
another length than the index says or is marked damaged is Damaged and never sent, unless a copy of it is whole; a
file that was compressed, or left the cache, since its row was read is found where it is now.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Protocol

from archive.dicom.matching import Query
from archive.errors import ArchiveError, Damaged, IndexUnavailable, StorageFailed
from archive.index import Index, Location, StoredInstance
from archive.index.copies import MAIN, recall_study
from archive.services.caller import Caller
from archive.storage.local import Volume

# Instances held in memory, some 10 MB: a usual selection lets go of the database before the first object is sent,
# because sending may take hours and an open cursor keeps the database from tidying up.
HELD = 10_000
NOTED = 600.0  # seconds for which a study counts as used: room in the cache is made for days, not for minutes
REMEMBERED = 10_000  # studies
FETCHED = 1 << 20  # bytes between two signs of life of a slow volume

Meanwhile = Callable[[], object]


def nothing() -> None:
    """Nobody has to be told that it takes a while."""


@dataclass(slots=True)
class OpenFile:
    """A stored Part-10 file, open for reading: its data set is ``size`` bytes from ``offset``. A context manager."""

    fd: int
    offset: int
    size: int
    path: Path | None = None
    transfer_syntax: str = ""  # if it is another one than was selected

    @property
    def link(self) -> Path:
        """A path to this very file for other processes, whatever has become of its name."""
        return Path(f"/proc/{os.getpid()}/fd/{self.fd}")

    def read_ahead(self) -> None:
        """Tell the kernel that the data set is wanted soon."""
        os.posix_fadvise(self.fd, self.offset, self.size, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Selection:
    """The instances a retrieval is about: how many there are, and an iterator over them (walk it once)."""

    total: int
    instances: Iterator[StoredInstance]


class Patience(Protocol):
    """Waits for what a volume may never answer; see ``archive.workers.patience``."""

    def __call__(
        self, work: Callable[[Callable[[], None]], int], discard: Callable[[int], object], meanwhile: Meanwhile
    ) -> int: ...


class Tiers:
    """Notes which studies are used, wants back what is not in the cache, and waits for slow volumes; thread-safe."""

    def __init__(self, clock: Callable[[], float], patience: Patience, *, recall: bool) -> None:
        self.patience = patience
        self._clock = clock
        self._recall = recall
        self._noted: dict[tuple[str, bool], float] = {}

    def note(self, index: Index, instance: StoredInstance) -> None:
        """Once in a while for each study; an index that does not answer keeps nobody from reading."""
        away = instance.location.volume != MAIN
        key, now = (instance.study_uid, away), self._clock()
        if 0 <= now - self._noted.get(key, -NOTED) < NOTED:
            return
        if len(self._noted) >= REMEMBERED:
            self._noted.clear()
        self._noted[key] = now
        with suppress(IndexUnavailable):
            if not away:
                index.copies.touch(instance.study_uid, now)
            elif self._recall:
                index.add_tasks([recall_study(instance.study_uid)], now)


def _fetched(volume: Volume, location: Location, alive: Callable[[], None]) -> int:
    """A descriptor of a file that was read to its end: what follows finds it in memory, and stalls nobody."""
    size = location.offset + location.size
    fd = volume.open_file(location.path, size)
    try:
        alive()
        buffer = bytearray(min(size, FETCHED))
        for position in range(0, size, FETCHED):
            os.preadv(fd, [buffer], position)
            alive()
    except OSError as error:
        os.close(fd)
        volume.require()
        raise StorageFailed("stored file cannot be read now", f"{location.path}: {error.strerror}") from error
    return fd


class Retrieve:
    """Selects from one index and opens files on the volumes; thread-safe."""

    def __init__(self, index: Index, volumes: Mapping[str, Volume], tiers: Tiers | None = None) -> None:
        self._index = index
        self._volumes = volumes
        self.tiers = tiers

    def select(self, query: Query, caller: Caller) -> Selection:
        """What ``query`` names and ``caller`` may see."""
        visible = caller.visible_if or None
        found = self._index.instances(query, visible=visible)
        first = list(islice(found, HELD + 1))
        total = len(first) if len(first) <= HELD else self._index.count(query, visible=visible)
        return Selection(total, chain(first, found))

    def open(self, instance: StoredInstance, meanwhile: Meanwhile = nothing) -> OpenFile:
        """The file of an instance; raises Damaged, and StorageFailed while its volume is not there.

        ``meanwhile`` is called every now and then while a slow volume is waited for.
        """
        if self.tiers is not None:
            self.tiers.note(self._index, instance)
        try:
            if instance.damage:
                raise Damaged("stored file is damaged", instance.damage)
            return self._open(instance.location, meanwhile)
        except (Damaged, StorageFailed) as error:
            return self._open_elsewhere(instance, error, meanwhile)

    def _open_elsewhere(self, instance: StoredInstance, error: ArchiveError, meanwhile: Meanwhile) -> OpenFile:
        """Where the file is by now, or the copy of it."""
        now = self._index.known(instance.sop_instance_uid)
        if now is None:
            raise error
        if now.location != instance.location and not now.damage:
            file = self._open(now.location, meanwhile)
        elif self.tiers is not None and (copy := self._index.copies.of(now.id)) is not None:
            file = self._open(copy, meanwhile)
        else:
            raise error
        file.transfer_syntax = now.transfer_syntax
        return file

    def _open(self, location: Location, meanwhile: Meanwhile) -> OpenFile:
        volume = self._volumes.get(location.volume)
        if volume is None:
            raise Damaged("stored file is missing", f"volume {location.volume} is not configured")
        if location.volume == MAIN or self.tiers is None:
            fd = volume.open_file(location.path, location.offset + location.size)
        else:
            fd = self.tiers.patience(lambda alive: _fetched(volume, location, alive), os.close, meanwhile)
        return OpenFile(fd, location.offset, location.size, volume.root / location.path)
