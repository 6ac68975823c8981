"""The way back: what is on a long-term volume alone is copied to the cache again, for who wants it next.

Rules that hold here: bytes are hashed while they come back, and what is not what came stays where it is; the file has
its name in the cache, durably and noted, before the row names it; the file on the long-term volume stays, as the copy.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress

from archive.errors import Damaged, IndexUnavailable, StorageFailed
from archive.index import Index, Location, StoredInstance
from archive.services.integrity import Integrity
from archive.services.placing import MAIN, Note, Noted
from archive.services.tiering import Progress
from archive.storage.local import Part, Volume

log = logging.getLogger(__name__)

GROUP = 32  # instances of one step
CHUNK = 1 << 20


class Recall:
    """Into one cache; for one thread."""

    def __init__(
        self, index: Index, volumes: Mapping[str, Volume], integrity: Integrity, clock: Callable[[], float]
    ) -> None:
        self._index = index
        self._volumes = volumes
        self._cache = volumes[MAIN]
        self._integrity = integrity
        self._clock = clock
        self._doubtful: list[Note] = []

    def some(self, study_uid: str, after: int = 0) -> tuple[Progress, int]:
        """Bring some of a study back, from behind an id; and the id to go on after.

        Raises StorageFailed or OutOfResources while a volume is not there or the cache has no room, IndexUnavailable.
        """
        self.settle_doubts()
        page = self._index.copies.away(study_uid, GROUP, after)
        files = size = 0
        for instance in page:
            if self.bring(instance):
                files += 1
                size += instance.location.size
        return Progress(files, size, more=bool(page)), page[-1].id if page else after

    def bring(self, instance: StoredInstance) -> bool:
        """One instance; False when it is damaged or its row has changed meanwhile."""
        source = self._volumes.get(instance.location.volume)
        if source is None:
            raise StorageFailed("storage is not available", f"volume {instance.location.volume} is not configured")
        source.require()
        self._cache.check(instance.location.offset + instance.location.size)
        try:
            part = self._read(source, instance)
        except Damaged:
            source.require()
            with suppress(Damaged):
                self._integrity.verify(instance)
            return False
        return self._place(instance, part)

    def _read(self, source: Volume, instance: StoredInstance) -> Part:
        """The file in the spool of the cache, synced. Raises Damaged when it is not what came."""
        place = instance.location
        fd = source.open_file(place.path, place.offset + place.size)
        try:
            part = self._cache.part()
            try:
                self._carry(fd, part, instance)
            except BaseException:
                part.discard()
                raise
        except OSError as error:
            raise StorageFailed("storage failed", f"{place.path}: {error.strerror}") from error
        finally:
            os.close(fd)
        self._cache.sync_part(part)
        return part

    def _carry(self, fd: int, part: Part, instance: StoredInstance) -> None:
        place, sha = instance.location, hashlib.sha256()
        part.write([os.pread(fd, place.offset, 0)])
        position, end = place.offset, place.offset + place.size
        while position < end and (block := os.pread(fd, min(CHUNK, end - position), position)):
            sha.update(block)
            part.write([block])
            position += len(block)
        if sha.digest() != instance.sha256:
            raise Damaged("stored file is damaged", place.path)
        # By these times files are taken in when the index is lost.
        os.utime(part.fd, ns=(os.fstat(fd).st_mtime_ns,) * 2)

    def _place(self, instance: StoredInstance, part: Part) -> bool:
        old = instance.location
        new = Location(self._cache.name, self._cache.new_path(), old.offset, old.size)
        note = Note(self._volumes, [Noted(instance.sop_instance_uid, new.volume, new.path)])
        self._doubtful.append(note)
        try:
            self._cache.place(part, new.path)
            done = self._index.copies.recall(instance, new, self._clock())
            if done:
                note.forget()
                self._doubtful.remove(note)
            return done
        finally:
            part.discard()
            self.settle_doubts()

    def settle_doubts(self) -> None:
        """Leave the files that rows point to; while index or volume are away, their notes wait."""
        for note in list(self._doubtful):
            with suppress(IndexUnavailable, StorageFailed):
                note.settle(self._index)
                self._doubtful.remove(note)
