"""The journal: one sequential write and one sync that make a group of stored objects durable.

Rules that hold here: a record is appended, and synced, before its file or its row exists; a record may
be overwritten only after `checkpoint` has seen its file and its row on stable storage; replaying a
record that took effect already changes nothing. Each process has a journal of its own, held by a lock.

The file has two halves. Records fill one while the other is being checkpointed. A half needs no
header: its records carry ascending sequence numbers, so what an older round left behind the newest
record is recognised by its lower number.

    record = HEAD (magic, crc32 of all that follows but the data, sequence, sizes) | meta | data

`meta` is written by marshal, which takes a tenth of the time of JSON; older versions wrote JSON, and the magic
says which. Either is read only when its crc is right.
"""

from __future__ import annotations

import errno
import fcntl
import json
import marshal
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archive.storage.local import sync_folder, write_all

JSON_MAGIC, MAGIC = b"AJ01", b"AJ02"
MARSHAL = 4  # the version of its format, which later Pythons go on reading
HEAD = struct.Struct(">4sIQIQ")
_CRC = struct.Struct(">I")
COVERED = 8  # the crc covers the record from here on: everything but magic and the crc itself
ZEROS = bytes(1 << 20)


@dataclass(slots=True)
class Record:
    """`meta` says in plain values what the object is and where it goes; `data` is the whole file, or empty when the
    file is durable."""

    meta: dict[str, Any]
    data: Sequence[bytes | bytearray | memoryview] = ()
    sequence: int = 0

    @property
    def size(self) -> int:
        return sum(len(piece) for piece in self.data)


Settle = Callable[[Sequence[str], Iterator[Record]], None]


@dataclass(slots=True)
class Half:
    start: int
    end: int
    position: int
    paths: list[str] = field(default_factory=list)
    clean: bool = True
    full: bool = False

    def restart(self) -> None:
        self.position, self.paths, self.full, self.clean = self.start, [], False, True


class Journal:
    """One process's journal. `append` is for one thread at a time; `checkpoint` for one other."""

    def __init__(self, folder: Path, size: int, slot: int | None = None) -> None:
        self._fd, self.slot = _take(folder, slot)
        self._wanted = size
        if os.fstat(self._fd).st_size == 0:
            _preallocate(self._fd, size)
            sync_folder(folder)
        self._divide()
        self._active = 0
        self._sequence = 0
        self._changed = threading.Condition()
        self._broken = False
        self.wake = threading.Event()  # set when a half waits for its checkpoint

    def _divide(self) -> None:
        self.size = os.fstat(self._fd).st_size
        middle = self.size // 2
        self._halves = [Half(0, middle, 0), Half(middle, self.size, middle)]

    @property
    def largest(self) -> int:
        """The largest object worth a place here: several must fit into a half."""
        return self.size // 8

    # -- after a crash ------------------------------------------------------------------------

    def replay(self) -> list[Iterator[Record]]:
        """The records of both halves, older half first; data is read one record at a time."""
        firsts = [(next(self._records(half), None), half) for half in self._halves]
        ordered = sorted((first.sequence, half) for first, half in firsts if first)
        return [self._records(half) for _, half in ordered]

    def start(self, newest: int) -> None:
        """Begin a new round after every record was settled; `newest` is the last sequence number that was given."""
        self._sequence = newest
        if self.size < self._wanted:  # only now: growing overwrites the records that were there
            _preallocate(self._fd, self._wanted)
        self._divide()

    def _records(self, half: Half) -> Iterator[Record]:
        position, previous = half.start, 0
        while record := self._read(position, half.end):
            if previous and record.sequence != previous + 1:
                return
            yield record
            previous = record.sequence
            position += HEAD.size + record.meta["_meta"] + record.size

    def _read(self, position: int, end: int) -> Record | None:
        if position + HEAD.size > end:
            return None
        head = os.pread(self._fd, HEAD.size, position)
        magic, crc, sequence, meta_size, data_size = HEAD.unpack(head)
        if magic not in (MAGIC, JSON_MAGIC) or position + HEAD.size + meta_size + data_size > end:
            return None
        meta = os.pread(self._fd, meta_size, position + HEAD.size)
        if zlib.crc32(meta, zlib.crc32(head[COVERED:])) != crc:
            return None
        data = os.pread(self._fd, data_size, position + HEAD.size + meta_size)
        said = marshal.loads(meta) if magic == MAGIC else json.loads(meta)
        return Record(said | {"_meta": meta_size}, [data] if data else [], sequence)

    # -- append -------------------------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> int:
        """Make `records` durable in one write and one sync; return the last sequence number.

        Raises OSError, and then none of them counts. Waits when both halves await their checkpoint.
        """
        pieces: list[bytes | bytearray | memoryview] = []
        for sequence, record in enumerate(records, self._sequence + 1):
            record.sequence = sequence
            pieces += [_encode(record), *record.data]
        size = sum(map(len, pieces))
        half = self._room(size)
        os.lseek(self._fd, half.position, os.SEEK_SET)
        write_all(self._fd, pieces)
        os.fdatasync(self._fd)
        self._sequence += len(records)
        half.position += size
        half.paths += [record.meta["path"] for record in records]
        half.clean = False
        return self._sequence

    def _room(self, size: int) -> Half:
        half = self._halves[self._active]
        if not half.full and half.position + size <= half.end:
            return half
        if half.start + size > half.end:
            raise OSError(errno.EFBIG, f"a group of {size} bytes does not fit into the journal")
        other = self._halves[1 - self._active]
        with self._changed:
            half.full = True
            self.wake.set()
            self._changed.wait_for(lambda: other.clean or self._broken)
            if not other.clean:
                raise OSError(errno.EIO, "the last checkpoint failed")
            self._active = 1 - self._active
        return other

    # -- checkpoint ---------------------------------------------------------------------------

    def checkpoint(self, settle: Settle, *, everything: bool = False) -> None:
        """Let `settle` make files and rows durable, then free the half that waits (or both).

        `settle(paths, records)` gets the records too, to write a file anew whose sync failed. While it
        raises nothing is overwritten and `append` refuses as soon as it runs out of room.
        """
        self.wake.clear()
        for half in self._halves:
            if half.full or (everything and not half.clean):
                try:
                    settle(half.paths, self._records(half))
                except Exception:
                    self._report(broken=True)
                    raise
                half.restart()
        self._report(broken=False)

    def _report(self, *, broken: bool) -> None:
        with self._changed:
            self._broken = broken
            self._changed.notify_all()

    def close(self, settle: Settle) -> None:
        """Checkpoint all and forget the records, so that the next start has nothing to replay."""
        self.checkpoint(settle, everything=True)
        for half in self._halves:
            os.pwrite(self._fd, bytes(HEAD.size), half.start)
        os.fdatasync(self._fd)
        os.close(self._fd)

    def leave(self) -> None:
        """Let go of it with all its records."""
        os.close(self._fd)


def _take(folder: Path, wanted: int | None) -> tuple[int, int]:
    """Lock the wanted slot, or the lowest one that nobody alive holds."""
    slot = wanted or 0
    while True:
        fd = os.open(folder / f"{slot:03d}.journal", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd, slot
        except BlockingIOError:
            os.close(fd)
            if wanted is not None:
                raise
            slot += 1


def slots(folder: Path) -> list[int]:
    """Every slot that has a journal file, in use or not."""
    return sorted(int(path.stem) for path in folder.glob("[0-9][0-9][0-9].journal"))


def in_use(folder: Path) -> int:
    """How many journals are held by a process that is alive."""
    return sum(_is_held(folder / f"{slot:03d}.journal") for slot in slots(folder))


def _is_held(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _preallocate(fd: int, size: int) -> None:
    # Written, not only reserved: overwriting blocks that exist needs no metadata in the sync, which halves its time.
    os.lseek(fd, 0, os.SEEK_SET)
    for offset in range(0, size, len(ZEROS)):
        write_all(fd, [memoryview(ZEROS)[: min(len(ZEROS), size - offset)]])
    os.fsync(fd)


def _encode(record: Record) -> bytes:
    meta = marshal.dumps(record.meta, MARSHAL)
    body = HEAD.pack(MAGIC, 0, record.sequence, len(meta), record.size)[COVERED:]
    return MAGIC + _CRC.pack(zlib.crc32(meta, zlib.crc32(body))) + body + meta
