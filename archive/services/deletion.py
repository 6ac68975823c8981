"""Deleting studies, series and instances for good, in two phases.

Rules that hold here: who deletes and why is an operation of the journal of corrections; from then on nobody finds or
gets what was deleted, and the same object that comes again is stored anew under a new name; files are unlinked by and
by, never while something is received, and never when a row points to them; what was deleted stays deleted when the
index is rebuilt.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from archive.dicom.attributes import Level
from archive.errors import Damaged, NotThere, StorageFailed
from archive.index import Index
from archive.index.corrections import By
from archive.index.deletion import Seen
from archive.services.corrections import Corrections
from archive.storage.files import unlink_files
from archive.storage.ledger import Ledger
from archive.storage.local import DAY, Volume, sync_folder

log = logging.getLogger(__name__)

FOLDER = "deletions"  # of the ledger, below the root of the volume
BATCH = 100  # files unlinked in one go: some tenths of a second on a disk that turns
REST = 0.2  # seconds between two batches, for those who read and write meanwhile
LATER = 60.0  # seconds until a disk that refuses is tried again
_OLD = 2  # days after which nobody makes a file in a folder of that day any more


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was deleted, or would be: the operation is 0 when it was only tried."""

    level: Level
    uid: str
    instances: int
    size: int
    operation: int = 0


class Deletion:
    """Phase one, of one archive."""

    def __init__(
        self, index: Index, corrections: Corrections, ledger: Ledger, volume: Volume,
        others: Mapping[str, Volume] | None = None,
    ) -> None:  # fmt: skip
        """``volume`` is the one whose root has the ledger, ``others`` are those besides by their names."""
        self._index = index
        self._corrections = corrections
        self._ledger = ledger
        self._all = {**(others or {}), volume.name: volume}

    def would_delete(self, uid: str) -> Deleted:
        """What a UID names. Raises NotThere, or OnHold for what would not be deleted."""
        level = self._index.deletion.level_of(uid)
        if level is None:
            raise NotThere("no such study, series or instance", uid)
        self._index.deletion.refuse_held(level, uid)
        return Deleted(level, uid, *self._index.deletion.count(level, uid))

    def delete(self, uid: str, who: By, only: Seen | None = None, *, rest: Callable[[int], object] = id) -> Deleted:
        """Delete a study, series or instance, noted in the journal first.

        Large studies go in several transactions, with ``rest`` called with the instances of each; broken off in
        between, calling again by the same name goes on. What comes meanwhile stays. With ``only`` a study goes as it
        was seen, and images that came since keep it, or stay behind when it is half gone. Raises NotThere, OnHold,
        Conflict, StorageFailed or IndexUnavailable.
        """
        found, until = self.would_delete(uid), self._index.deletion.newest()
        words = {"level": found.level.name, "of": uid, "instances": found.instances, "size": found.size}
        operation = self._corrections.note("delete", words, who)
        entry = {"operation": operation.id, "level": found.level.name, "uid": uid}
        begun = False
        while count := self._index.deletion.bury(
            self._ledger, found.level, uid, entry, only, begun=begun, until=until
        ).instances:
            begun = True
            rest(count)
        log.info("deleted %s %s: %d instances by %s", found.level.name.lower(), uid, found.instances, who.actor)
        return Deleted(found.level, uid, found.instances, found.size, operation.number)

    def settle(self) -> int:
        """Carry out what a crash, or the loss of the index, left in the ledger alone; return how many files."""
        done = self._index.deletion.settle(self._ledger, self._is_there)
        if done:
            log.warning("%d deleted files were in the ledger alone", done)
        return done

    def start(self) -> None:
        """The same; a ledger that was altered only keeps things from being deleted."""
        try:
            self.settle()
        except Damaged as error:
            log.error("%s: nothing is deleted until %s is mended or moved away", error, self._ledger.folder)

    def _is_there(self, volume: str, path: str) -> bool:
        here = self._all.get(volume)
        return here is None or not here.is_there() or (here.root / path).exists()


class Unlinking:
    """Phase two, of one archive; nobody else unlinks what has a tombstone."""

    def __init__(self, index: Index, volumes: Mapping[str, Volume], clock: Callable[[], float]) -> None:
        self._index = index
        self._volumes = volumes
        self._clock = clock
        self._after = 0  # tombstones up to here are of volumes that are not there

    def some(self) -> float | None:
        """Unlink a batch; return the seconds until the next one, None when all is done."""
        page = self._index.deletion.tombstones(limit=BATCH, after=self._after)
        there = {name for name in {each[1] for each in page} & set(self._volumes) if self._volumes[name].is_there()}
        here = [each for each in page if each[1] in there]
        if page and not here:
            self._after = page[-1][0]
            return 0.0
        if not page:
            again, self._after = self._after, 0
            return LATER if again else None
        try:
            self._unlink([(self._volumes[volume], path) for _, volume, path in here])
        except (OSError, StorageFailed) as error:
            log.error("deleted files cannot be unlinked, trying again: %s", getattr(error, "strerror", None) or error)
            return LATER
        self._index.deletion.unlinked([key for key, _, _ in here])
        return REST

    def all(self) -> int:
        """Unlink all of them now; return how many files that were. Raises StorageFailed."""
        before = self._index.deletion.waiting()
        while (wait := self.some()) is not None:
            if wait >= LATER:
                raise StorageFailed("deleted files cannot be unlinked")
        return before

    def _unlink(self, files: Sequence[tuple[Volume, str]]) -> None:
        """When it returns, the names are gone, and would be after a power cut."""
        folders = {(volume.root / path).parent for volume, path in files}
        for volume in {volume.name: volume for volume, _ in files}.values():
            with volume.standing() as root_fd:
                unlink_files(root_fd, [path for each, path in files if each is volume])
        for folder in sorted(folders):
            self._close_folder(folder)

    def _close_folder(self, folder: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            sync_folder(folder)
            if self._is_old(folder):
                with contextlib.suppress(OSError):  # not empty
                    os.rmdir(folder)
                    sync_folder(folder.parent)

    def _is_old(self, folder: Path) -> bool:
        """Whether new files have other folders by now: their names begin with the day."""
        try:
            made = datetime.datetime.strptime(folder.parent.name, "%Y%m%d").replace(tzinfo=datetime.UTC)
        except ValueError:
            return False
        return self._clock() - made.timestamp() > (_OLD + 1) * DAY
