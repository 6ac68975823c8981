"""Whether the stored bytes are still those that came: read, hashed, compared, and what follows when they are not.

Rules that hold here: bytes are read from the disk, not from the memory of the machine, as far as it lets us; a file
that compression or repair has just exchanged is no damage, so a fault is looked at again by a fresh row; damage is
marked once, alarmed once, and forgotten when a whole file is there again; a disk that is not mounted, or a process
out of descriptors, damages nothing.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from typing import Protocol

from archive.dicom.part10 import read_file_meta
from archive.errors import Damaged, Missing, NotUnderstood, OutOfResources, StorageFailed, WrongContent, WrongSize
from archive.index import Index, Location, NewInstance, StoredInstance
from archive.index.copies import Pair
from archive.services.causes import DAMAGE, Causes, Event
from archive.storage.files import make_folder
from archive.storage.local import Volume, sync_folder

log = logging.getLogger(__name__)

CHUNK = 1 << 20
HEAD = 1 << 16  # bytes in which the meta information ends
LOST = "lost+found"  # folder of files that no row points to and nobody has thrown away
# What the disk says when it cannot give back what it was given; everything else may be otherwise a moment later.
BROKEN = {errno.EIO, errno.EUCLEAN, errno.EBADMSG}
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR}

Pace = Callable[[int], None]  # told how many bytes were read; may wait


def at_once(size: int) -> None:
    """Read as fast as the disk."""


class Named(Protocol):
    """What a file's meta information names."""

    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def transfer_syntax(self) -> str: ...


class Integrity:
    """Of the files on some volumes; thread-safe."""

    def __init__(
        self,
        index: Index,
        volumes: Mapping[str, Volume],
        clock: Callable[[], float],
        causes: Causes | None = None,
    ) -> None:
        self._index = index
        self._volumes = volumes
        self._clock = clock
        self._causes = causes or Causes()

    def verify(self, instance: StoredInstance, pace: Pace = at_once) -> None:
        """Re-read and re-hash the data set; Damaged or Missing when it is not what came, and then it is marked."""
        self._settle(instance, lambda each: self.read(each, pace))

    def look(self, instance: StoredInstance) -> None:
        """The same, by name and length alone, and by the mark."""
        self._settle(instance, self._measure)

    def _settle(self, instance: StoredInstance, examine: Callable[[StoredInstance], None]) -> None:
        try:
            examine(instance)
            return
        except Damaged as error:
            fault = error
        now = self._index.known(instance.sop_instance_uid)
        if now is None:
            raise Missing("no such instance", instance.sop_instance_uid)
        if now.location != instance.location:  # exchanged a moment ago
            instance = now
            try:
                examine(instance)
                return
            except Damaged as error:
                fault = error
        if self._fall_back(instance):
            return
        self.mark(instance, fault)
        raise fault

    def read(self, instance: StoredInstance, pace: Pace = at_once) -> None:
        """Re-read and re-hash the file of this very row, without a look at other rows; marks are only removed."""
        with Digesting(self._volume(instance.location), instance.location) as reading:
            reading.read_all(pace)
            reading.require(instance.sha256)
            reading.require_meta(instance)
        if instance.damage and self._index.upkeep.clear(instance):
            log.warning("instance %s is whole again", instance.sop_instance_uid)

    def look_at_copy(self, pair: Pair, pace: Pace | None = at_once) -> None:
        """Raise Damaged when the copy of an instance is not whole: by its digest, or without a pace by its length."""
        with Digesting(self._volume(pair.copy), pair.copy) as reading:
            if pace is not None:
                reading.read_all(pace)
                reading.require(pair.instance.sha256)
                reading.require_meta(pair.instance)

    def renew_copy(self, pair: Pair) -> bool:
        """Forget a damaged copy and want another one, if the instance itself is whole."""
        if self._index.copies.of(pair.instance.id) != pair.copy:
            return False  # exchanged a moment ago
        try:
            self.read(pair.instance)
        except (Damaged, OutOfResources):
            return False
        log.error("copy of instance %s is damaged: it is made again", pair.instance.sop_instance_uid)
        return self._index.copies.lose(pair, self._clock())

    def _fall_back(self, instance: StoredInstance) -> bool:
        """Let a whole copy stand for a damaged file, which goes."""
        copy = self._index.copies.of(instance.id)
        if copy is None:
            return False
        pair = Pair(instance, copy)
        try:
            self.look_at_copy(pair)
        except (Damaged, OutOfResources):
            return False
        log.error("instance %s was damaged, and is read from its copy now", instance.sop_instance_uid)
        return self._index.copies.fall_back(pair, self._clock())

    def _measure(self, instance: StoredInstance) -> None:
        with Digesting(self._volume(instance.location), instance.location):
            pass
        if instance.damage:
            raise Damaged("stored file is damaged", instance.damage)

    def _volume(self, location: Location) -> Volume:
        volume = self._volumes.get(location.volume)
        if volume is None:
            raise StorageFailed("storage is not available", f"volume {location.volume} is not configured")
        return volume

    # -- what follows ---------------------------------------------------------------------------

    def mark(self, instance: StoredInstance, fault: Damaged) -> None:
        """From now on the file is neither sent nor committed; whoever wants to hear of it does."""
        words, now = str(fault)[:500], self._clock()
        event = Event(
            DAMAGE, lambda keyword: "", now, study_uid=instance.study_uid, series_uid=instance.series_uid,
            sop_instance_uid=instance.sop_instance_uid, details={"reason": words},
        )  # fmt: skip
        tasks = self._causes.tasks(event) if self._causes.has(DAMAGE) else ()
        if self._index.upkeep.mark(instance, words, now, tasks):
            log.error("instance %s of study %s: %s", instance.sop_instance_uid, instance.study_uid, words)

    def mend(self, new: NewInstance) -> bool:
        """Let a whole copy, whose file has its place already, stand for a damaged or missing one.

        False when the stored file is whole as far as its mark, name and length tell: then the copy is not needed.
        """
        stored = self._index.known(new.header.sop_instance_uid)
        if stored is None or stored.location == new.location:
            return stored is not None
        try:
            self._measure(stored)
            return False
        except Damaged:
            pass
        except StorageFailed as error:
            if stored.location.volume == new.location.volume:
                raise
            log.warning("instance %s came again while its file cannot be seen: %s", stored.sop_instance_uid, error)
            return False  # the index knows it to be whole there
        if not self._index.upkeep.mend(stored, new):
            return False
        aside(self._volume(stored.location), stored.location.path)
        log.warning("instance %s is whole again: a copy came", stored.sop_instance_uid)
        return True


def aside(volume: Volume, path: str) -> str:
    """Move a file that no row points to where a person can look at it; its new path, nothing if it is not there."""
    found = f"{LOST}/{secrets.token_hex(8)}-{os.path.basename(path)}"
    with volume.standing() as root_fd:
        make_folder(root_fd, LOST)
    try:
        os.rename(volume.root / path, volume.root / found)
        sync_folder(volume.root / LOST)
    except FileNotFoundError:
        return ""
    except OSError as error:
        log.error("%s could not be moved to %s: %s", path, LOST, error.strerror)
        return ""
    return found


class Digesting:
    """One stored file being hashed in steps; a context manager. Raises Missing, Damaged, and OutOfResources."""

    def __init__(self, volume: Volume, location: Location) -> None:
        self._location = location
        self._sha = hashlib.sha256()
        self._fd = _opened(volume, location)
        expected = location.offset + location.size
        if (size := os.fstat(self._fd).st_size) != expected:
            self.close()
            raise WrongSize("stored file is damaged", f"{location.path} has {size} bytes, not {expected}")
        self.position, self._end = location.offset, expected

    def read_all(self, pace: Pace) -> None:
        """Take in all that is left."""
        more = True
        while more:
            before = self.position
            more = self.step(CHUNK)
            pace(self.position - before)

    def step(self, most: int) -> bool:
        """Take in as many bytes; False when nothing is left."""
        if self.position == self._location.offset:
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)  # so that the disk is asked, not the memory
        while most > 0 and self.position < self._end:
            try:
                block = os.pread(self._fd, min(CHUNK, most, self._end - self.position), self.position)
            except OSError as error:
                raise _fault(error, self._location.path) from error
            if not block:
                raise WrongSize("stored file is damaged", f"{self._location.path} became shorter")
            self._sha.update(block)
            self.position += len(block)
            most -= len(block)
        return self.position < self._end

    def require(self, sha256: bytes) -> None:
        if self._sha.digest() != sha256:
            raise WrongContent("stored file is damaged", f"{self._location.path} has other content than came")

    def require_meta(self, instance: Named) -> None:
        """What stands before the data set must still name it: so it is decoded, and taken in when the index is lost."""
        try:
            meta = read_file_meta(os.pread(self._fd, HEAD, 0))
        except NotUnderstood as error:
            raise WrongContent("stored file is damaged", f"{self._location.path}: {error}") from error
        said = meta.offset, meta.transfer_syntax, meta.sop_instance_uid
        if said != (self._location.offset, instance.transfer_syntax, instance.sop_instance_uid):
            raise WrongContent("stored file is damaged", f"{self._location.path} names another object")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Digesting:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(volume: Volume, location: Location) -> int:
    try:
        return os.open(volume.root / location.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in GONE and not volume.is_there():
            raise volume.lost() from error
        raise _fault(error, location.path) from error


def _fault(error: OSError, path: str) -> Damaged | OutOfResources:
    if error.errno in GONE:
        return Missing("stored file is missing", path)
    if error.errno in BROKEN:
        return Damaged("stored file is damaged", f"{path} cannot be read: {error.strerror}")
    return OutOfResources("stored file cannot be read now", f"{path}: {error.strerror}")
