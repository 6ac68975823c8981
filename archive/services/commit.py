"""Make arrivals durable, in groups: journal, file, row, in this order, and only then the answer.

Rules that hold here: whoever finds nobody committing leads, and takes along all that wait, so that
many associations share one sync and one transaction; the index remembers with each transaction how far
the journal has taken effect, so a record at or below that mark is never applied again, and one above
it always is; an arrival that fails takes no other with it.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from archive.errors import ArchiveError, IndexUnavailable, StorageFailed
from archive.index import Added, Index, NewInstance, Outcome
from archive.services import record
from archive.services.quarantine import Quarantine
from archive.storage.journal import Journal, Record
from archive.storage.local import Part, Volume

log = logging.getLogger(__name__)

DOUBTS = 500  # settled with one group: some tenths of a second, and all that a short absence of the index leaves
META = 4096  # bytes reckoned for what a record says of its object: 1,200 are usual


class _Doubt(NamedTuple):
    """A file of which only the index can say whether it has a row; no more, as an index may be away for long."""

    sop_instance_uid: str
    path: str


def _doubt(new: NewInstance) -> _Doubt:
    return _Doubt(new.header.sop_instance_uid, new.location.path)


@dataclass(slots=True, eq=False)
class Arrival:
    """An object that is whole: its bytes in memory (`pieces`) or in a synced `part`."""

    new: NewInstance
    pieces: Sequence[bytes | bytearray | memoryview] = ()
    part: Part | None = None
    added: Added | None = None
    error: ArchiveError | None = None

    @property
    def path(self) -> str:
        return self.new.location.path

    @property
    def settled(self) -> bool:
        return self.added is not None or self.error is not None


class Committer:
    """The one place where objects become part of the archive; thread-safe, one per process."""

    def __init__(self, *, volume: Volume, index: Index, journal: Journal, group_syncs: bool = True) -> None:
        """`group_syncs` off: no object lives in the journal, files and rows are synced one by one."""
        self._volume = volume
        self._index = index
        self._journal = journal
        self._group_syncs = group_syncs
        self.check_names = False  # whether a patient of another name under the same ID is a contradiction
        self._waiting: list[Arrival] = []
        self._doubtful: deque[_Doubt] = deque()
        self._closed = False
        self._mutex = threading.Lock()
        self._leader = threading.Lock()

    @property
    def largest_in_journal(self) -> int:
        return min(self._journal.largest, 1 << 20) if self._group_syncs else 0

    def commit(self, arrival: Arrival) -> Added:
        """Return when the arrival is durable, or when it is certain that it was not added.

        Raises StorageFailed or IndexUnavailable; then neither file nor row stays.
        """
        with self._mutex:
            self._waiting.append(arrival)
        with self._leader:
            while not arrival.settled:
                self._lead(self._take_group())
        if arrival.error:
            if arrival.part:
                arrival.part.discard()
            raise arrival.error
        assert arrival.added is not None
        return arrival.added

    def _take_group(self) -> list[Arrival]:
        """As many of the waiting as fit into half a journal, in the order they came."""
        room = self._journal.size // 4
        with self._mutex:
            count = 0
            while count < len(self._waiting) and room > 0:
                room -= META + sum(len(piece) for piece in self._waiting[count].pieces)
                count += 1
            group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    def _lead(self, group: list[Arrival]) -> None:
        """Settle all of a group, whatever happens: those who wait for it have nobody else."""
        try:
            self._commit(group)
        except Exception:
            log.exception("a group of %d objects failed by a fault of the archive", len(group))
            left = [arrival for arrival in group if not arrival.settled]
            self._doubtful += map(_doubt, (arrival.new for arrival in left))
            self._refuse(left, StorageFailed("internal error"))

    def _commit(self, group: list[Arrival]) -> None:
        if self._closed:
            self._refuse(group, StorageFailed("archive is shutting down"))
            return
        try:
            self._volume.heal()
            sequence = self._journal.append([Record(record.to_plain(a.new), a.pieces) for a in group])
        except StorageFailed as error:
            self._refuse(group, error)
            return
        except OSError as error:
            self._refuse(group, self._volume.failed(error))
            return
        placed = [arrival for arrival in group if self._place(arrival)]
        self._add(placed, sequence)

    def _place(self, arrival: Arrival) -> bool:
        """Give the file its name; a failure concerns this arrival only."""
        try:
            if arrival.part:
                self._volume.place(arrival.part, arrival.path)
            else:
                self._volume.create(arrival.path, arrival.pieces)
        except OSError as error:
            arrival.error = self._volume.failed(error)
            self._volume.remove(arrival.path)
        except StorageFailed as error:
            arrival.error = error
            self._volume.remove(arrival.path)  # its name may be there, only not durably
        return arrival.error is None

    def _add(self, placed: list[Arrival], sequence: int) -> None:
        try:
            rows = [arrival.new for arrival in placed]
            added = self._index.add(
                rows,
                journal=(self._journal.slot, sequence),
                durable=not self._group_syncs,
                check_names=self.check_names,
            )
        except IndexUnavailable as error:
            # The transaction may have taken effect: only the index can tell, once it answers again.
            self._doubtful += map(_doubt, rows)
            self._refuse(placed, error)
            return
        except ArchiveError as error:
            self._refuse(placed, error)
            for arrival in placed:
                self._volume.remove(arrival.path)
            return
        for arrival, result in zip(placed, added, strict=True):
            arrival.added = result
        self._settle_doubts(DOUBTS)

    def _refuse(self, group: list[Arrival], error: ArchiveError) -> None:
        log.error("%d objects refused: %s", len(group), error)
        for arrival in group:
            arrival.error = error

    def _settle_doubts(self, most: int) -> None:
        """A few at a time: after hours without an index there may be many, and others wait."""
        for _ in range(min(most, len(self._doubtful))):
            try:
                if not self._has_row(self._doubtful[0]):
                    self._volume.remove(self._doubtful[0].path)
            except IndexUnavailable:
                return
            self._doubtful.popleft()

    def _is_row(self, new: NewInstance) -> bool:
        return self._has_row(_doubt(new))

    def _has_row(self, doubt: _Doubt) -> bool:
        """Whether a row points to a file: that of the instance, or of an earlier version of it."""
        return any(path == doubt.path for _, path in self._index.upkeep.files_of(doubt.sop_instance_uid))

    # -- checkpoint and recovery ----------------------------------------------------------------

    def checkpoint(self, *, everything: bool = False) -> None:
        """Free the part of the journal that is full. Raises StorageFailed while the disk refuses."""
        try:
            self._journal.checkpoint(self._settle, everything=everything)
        except OSError as error:
            raise self._volume.failed(error) from error

    def close(self) -> None:
        """Checkpoint everything; what comes later is refused."""
        with self._leader:
            self._closed = True
            self._settle_doubts(len(self._doubtful))
            try:
                self._journal.close(self._settle)
            except OSError as error:
                raise self._volume.failed(error) from error

    def _settle(self, paths: Sequence[str], records: Iterator[Record]) -> None:
        try:
            self._volume.sync(paths)
        except OSError as error:
            # The kernel may have dropped the pages of that file: write all of them anew from the journal.
            log.error("sync of stored files failed, writing %d of them again: %s", len(paths), error.strerror)
            for found in records:
                self._rewrite(found)
        self._index.sync()

    def _rewrite(self, found: Record) -> None:
        path = found.meta["path"]
        if found.data and (self._volume.root / path).exists():
            self._write_whole(path, found)

    def _write_whole(self, path: str, found: Record) -> None:
        part, received = self._volume.part(), found.meta["received"]
        try:
            part.write(found.data)
            os.utime(part.fd, (received, received))  # by these times files are taken in when the index is lost
        except OSError:
            part.discard()
            raise
        self._volume.sync_part(part)
        self._volume.require()
        (self._volume.root / path).parent.mkdir(parents=True, exist_ok=True)
        self._volume.place(part, path)

    def mend_files(self) -> int:
        """Make files whole that a power cut tore, and nothing else: of an index that is lost nobody can say which of
        the others were refused, replaced or deleted. The journal stays as it is. Return how many that were."""
        torn = 0
        for found in itertools.chain.from_iterable(self._journal.replay()):
            new = record.from_plain(found.meta)
            path = self._volume.root / new.location.path
            if path.exists() and self._restore(new, found, is_new=True):
                torn += 1
        self._journal.leave()
        return torn

    def recover(self) -> int:
        """Settle what a crash left in this journal; return how many objects had to be completed."""
        return recover_all([self])

    def begin_recovery(self) -> Recovery:
        """Of this journal, a record after the other."""
        return Recovery(self, self._journal, self._index.applied(self._journal.slot))

    def free(self, newest: int, paths: Sequence[str]) -> None:
        """Let the journal be overwritten: what it says, up to its newest record, is durable from here on."""
        try:
            self._volume.sync(paths)
        except OSError as error:
            raise self._volume.failed(error) from error
        # These records count as applied: what is deleted from now on stays deleted.
        self._index.add([], journal=(self._journal.slot, newest), durable=True)
        self._index.sync()  # that transaction may have changed nothing, and then has synced nothing
        self._journal.start(newest)

    def redo(self, found: Record, is_new: bool) -> bool:
        """Bring file and row to agree with one record; True when anything had to be done."""
        new = record.from_plain(found.meta)
        written = self._restore(new, found, is_new)
        if is_new and self._is_whole(new):
            added = self._index.add([new], durable=False, check_names=self.check_names)[0]  # `free` makes it so
            if added.replaced is not None:
                self._volume.remove(added.replaced.path)
            if added.outcome is Outcome.STORED:
                return True
            if added.outcome is not Outcome.EQUAL:
                self._put_aside(new, added.reason)
                return False
        if not self._is_row(new):
            self._volume.remove(new.location.path)
            return False
        return written

    def _put_aside(self, new: NewInstance, reason: str) -> None:
        """What contradicts the others now may be what was acknowledged, before they came: a person has to decide."""
        words = reason or "same SOP Instance UID, other content"
        Quarantine(self._volume, self._index).put(new, f"{words}; found in a journal after a crash")

    def _restore(self, new: NewInstance, found: Record, is_new: bool) -> bool:
        """Write the file anew if it is not whole and the record is; a record torn by the crash was never answered."""
        data = b"".join(found.data)
        if self._is_whole(new) or hashlib.sha256(data[new.location.offset :]).digest() != new.sha256:
            return False
        if is_new or self._is_row(new):
            self._write_whole(new.location.path, found)
            return True
        return False

    def _is_whole(self, new: NewInstance) -> bool:
        """Whether the file has all its bytes: after a power cut names may stand for less."""
        path = self._volume.root / new.location.path
        try:
            with open(path, "rb") as file:
                os.lseek(file.fileno(), new.location.offset, os.SEEK_SET)
                return record.digest(file.fileno()) == new.sha256
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                log.error("%s cannot be read: %s", path, error.strerror)
            return False


class Recovery:
    """What a crash left in one journal, being settled."""

    def __init__(self, committer: Committer, journal: Journal, applied: int) -> None:
        self._committer = committer
        self._journal = journal
        self._applied = self._newest = applied
        self._paths: list[str] = []
        self._completed = 0

    def steps(self) -> Iterator[tuple[float, Recovery, Record]]:
        """When each object came, and its record."""
        for found in itertools.chain.from_iterable(self._journal.replay()):
            self._newest = max(self._newest, found.sequence)
            yield found.meta["received"], self, found

    def redo(self, found: Record) -> None:
        self._completed += self._committer.redo(found, found.sequence > self._applied)
        self._paths.append(found.meta["path"])

    def end(self) -> int:
        """Let the journal be overwritten; how many objects had to be completed."""
        self._committer.free(self._newest, self._paths)
        if self._completed:
            log.warning("journal %d: completed %d objects after a crash", self._journal.slot, self._completed)
        return self._completed


def recover_all(committers: Sequence[Committer]) -> int:
    """Settle what a crash left in journals, in the order in which objects came, whoever received them: of two that
    contradict each other the first one stands. Return how many had to be completed."""
    under_way = [each.begin_recovery() for each in committers]
    for _, recovery, found in heapq.merge(*(each.steps() for each in under_way), key=lambda step: step[0]):
        recovery.redo(found)
    return sum(each.end() for each in under_way)
