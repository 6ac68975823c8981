"""Copies to a long-term volume, from where the cache can be refilled.

Rules that hold here: a copy counts when its bytes were synced, read back from the disk and hashed; until then a note
says where it may be, so that whoever finds the note of a dead process leaves no orphan; one group of files at a
time, so that others have their turn; earlier versions, which nobody retrieves, are moved.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol, TypeVar

from archive.errors import Damaged, IndexUnavailable, OutOfResources, StorageFailed
from archive.index import Index, Location, StoredInstance
from archive.index.versions import Version
from archive.services.integrity import Digesting, Integrity, at_once
from archive.services.placing import Note, Noted
from archive.storage.files import copy_file, sync_files
from archive.storage.local import Volume

log = logging.getLogger(__name__)

GROUP = 64  # files copied together: they share a note, a sync and a transaction
GROUP_SIZE = 256 << 20  # bytes of a group, but for one file that is larger


class Source(Protocol):
    """What is copied: an instance or an earlier version of one."""

    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def transfer_syntax(self) -> str: ...
    @property
    def location(self) -> Location: ...
    @property
    def sha256(self) -> bytes: ...


S = TypeVar("S", bound=Source)


class Progress(NamedTuple):
    """What a step has done, and whether there may be more."""

    files: int = 0
    size: int = 0
    more: bool = False


def group_of(items: Sequence[S]) -> list[S]:
    """The first of them, as many as go together."""
    group: list[S] = []
    size = 0
    for each in items[:GROUP]:
        size += each.location.offset + each.location.size
        if group and size > GROUP_SIZE:
            break
        group.append(each)
    return group


class Copying:
    """From the cache to the first long-term volume with room; for one thread."""

    def __init__(
        self,
        index: Index,
        volumes: Mapping[str, Volume],
        targets: Sequence[str],
        integrity: Integrity,
        clock: Callable[[], float],
    ) -> None:
        """``targets`` are the names of the long-term volumes, in the order in which they are filled."""
        self._index = index
        self._volumes = volumes
        self._targets = [volumes[name] for name in targets]
        self._integrity = integrity
        self._clock = clock
        self._doubtful: list[Note] = []
        self._passed_over: set[int] = set()  # versions whose files are damaged

    def some(self, study_uid: str) -> Progress:
        """Copy a group of what a study has in the cache alone.

        Raises StorageFailed or OutOfResources while no long-term volume can take it, IndexUnavailable.
        """
        self.settle_doubts()
        if page := self._index.copies.missing(study_uid, GROUP):
            return self._carry(group_of(page), self._note_copies)
        found = self._index.copies.missing_versions(study_uid, GROUP + len(self._passed_over))
        if versions := [each for each in found if each.id not in self._passed_over]:
            return self._carry(group_of(versions), self._move_versions)
        return Progress()

    def is_possible(self) -> bool:
        """Whether any long-term volume is there."""
        return any(volume.is_there() for volume in self._targets)

    def target(self, size: int) -> Volume:
        """The long-term volume that takes so many bytes. Raises StorageFailed or OutOfResources."""
        fault = OutOfResources("no long-term volume is configured")
        for volume in self._targets:
            try:
                volume.require()
                volume.check(size)
                return volume
            except OutOfResources as error:
                fault = error
        raise fault

    # -- a group ----------------------------------------------------------------------------------

    def _carry(self, group: list[S], record: Callable[[list[tuple[S, Location]]], list[bool]]) -> Progress:
        volume = self.target(sum(each.location.offset + each.location.size for each in group))
        files = [
            (each, Location(volume.name, volume.new_path(), each.location.offset, each.location.size)) for each in group
        ]
        note = Note(self._volumes, [Noted(each.sop_instance_uid, at.volume, at.path) for each, at in files])
        self._doubtful.append(note)
        try:
            written = self._write(volume, files)
            good = [pair for pair in written if self._is_good(volume, *pair)]
            done = record(good)
            if len(done) == len(group) and all(done):
                note.forget()
                self._doubtful.remove(note)
        except OSError as error:
            raise StorageFailed("storage failed", f"{volume.root}: {error.strerror}") from error
        finally:
            self.settle_doubts()
        if len(good) < len(written):
            raise StorageFailed("copies are not what was written", str(volume.root))
        size = sum(at.size for (_, at), added in zip(good, done, strict=True) if added)
        return Progress(sum(done), size, more=True)

    def _write(self, volume: Volume, files: list[tuple[S, Location]]) -> list[tuple[S, Location]]:
        """Durable when this returns; those whose own files are missing are left out."""
        written = []
        with volume.standing() as root_fd:
            for each, place in files:
                try:
                    self._copy(root_fd, each.location, place)
                    written.append((each, place))
                except Damaged as error:
                    self._blame(each, error)
            sync_files(root_fd, [place.path for _, place in written])
        return written

    def _copy(self, root_fd: int, source: Location, place: Location) -> None:
        size = source.offset + source.size
        fd = self._volumes[source.volume].open_file(source.path, size)
        try:
            # By these times files are taken in when the index is lost.
            copy_file(root_fd, place.path, fd, size, os.fstat(fd).st_mtime_ns)
        finally:
            os.close(fd)

    def _is_good(self, volume: Volume, each: S, place: Location) -> bool:
        """Whether the copy holds what came, as read from the disk; if not, the source may be to blame."""
        try:
            with Digesting(volume, place) as reading:
                reading.read_all(at_once)
                reading.require(each.sha256)
                reading.require_meta(each)
            return True
        except Damaged as error:
            log.error("copy of %s: %s", each.sop_instance_uid, error)
            return self._blame(each, error)

    def _blame(self, each: S, error: Damaged) -> bool:
        """Mark the source if it is damaged, so that it is not copied again; always False."""
        if isinstance(each, Version):
            log.error("an earlier version of %s is not copied: %s", each.sop_instance_uid, error)
            self._passed_over.add(each.id)
        elif isinstance(each, StoredInstance):
            with suppress(Damaged):
                self._integrity.verify(each)
        return False

    # -- rows -----------------------------------------------------------------------------------------

    def _note_copies(self, files: list[tuple[StoredInstance, Location]]) -> list[bool]:
        return self._index.copies.add(files, self._clock())

    def _move_versions(self, files: list[tuple[Version, Location]]) -> list[bool]:
        return [self._index.copies.move_version(version, place) for version, place in files]

    def settle_doubts(self) -> None:
        """Leave the files that rows point to; while index or volume are away, their notes wait."""
        for note in list(self._doubtful):
            with suppress(IndexUnavailable, StorageFailed):
                note.settle(self._index)
                self._doubtful.remove(note)
