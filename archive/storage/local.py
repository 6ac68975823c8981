"""A volume: a folder on a local or mounted file system that holds stored objects.

Rules that hold here: bytes reach a final name only by rename or by an exclusive create that the
journal covers; ``write = durable`` only where a docstring says so; an error of fsync is final for its
file (the kernel may have dropped the pages), so it marks the volume failed until a probe write works.

    root/.volume            the sentinel: an absent one means an unmounted disk
    root/objects/20260131/4be0c1d2/0001.dcm
    root/spool/ root/journal/ root/quarantine/
"""

from __future__ import annotations

import datetime
import errno
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from archive.errors import ConfigurationError, Damaged, OutOfResources, StorageFailed
from archive.storage import file_systems
from archive.storage.spool import Spool

SENTINEL = ".volume"
MANY = 8  # files from which one sync of the file system is cheaper than one for each: 20 ms against 170 for 480
LOOK = 0.25  # seconds for which what is free is taken to be known
BATCH = 1000  # files per folder: few enough for `ls` and backup tools, enough to make new folders rare
DAY = 86400  # seconds
FULL = {errno.ENOSPC, errno.EDQUOT}
IOV_MAX = 1024  # buffers in one call (sysconf(_SC_IOV_MAX) on Linux)


def sync_folder(path: Path) -> None:
    """Make the names in `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Volume:
    """One root folder; thread-safe. `clock` gives seconds since the epoch."""

    def __init__(self, root: Path, *, reserve: int, clock: Callable[[], float], name: str = "main") -> None:
        self.root = root
        self.name = name
        self._prefix = f"{root}/"
        self.reserve = reserve
        self._clock = clock
        self._lock = threading.Lock()
        self._batch: Batch | None = None
        self._failure = ""
        self._spool: Spool | None = None
        self._free = 0
        self._looked = -LOOK
        self._root_fd = -1

    # -- life ---------------------------------------------------------------------------------

    def open(self, *, expected: bool) -> None:
        """Take the volume into use; `expected` says that the index already points into it.

        Raises ConfigurationError when objects are expected but the sentinel is missing: writing then
        would fill the disk under an empty mount point.
        """
        sentinel = self.root / SENTINEL
        if not sentinel.exists():
            if expected:
                raise ConfigurationError(
                    f"{self.root} has no {SENTINEL} file: is the disk mounted? "
                    f"If this really is the volume, create the file {sentinel} by hand"
                )
            self._initialise(sentinel)
        self._make_folders()
        self._spool = Spool(self.root / "spool")
        # Open from now on: a sync through it reports every write error since, whoever saw it first.
        self._root_fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _make_folders(self) -> None:
        """A folder whose name a power cut takes away would take along what is in it."""
        missing = [self.root / name for name in ("objects", "quarantine", "journal") if not (self.root / name).is_dir()]
        for folder in missing:
            folder.mkdir(exist_ok=True)
        if missing:
            sync_folder(self.root)

    def _initialise(self, sentinel: Path) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            sentinel.write_text(secrets.token_hex(16) + "\n")
            sync_folder(self.root)
            sync_folder(self.root.parent)
        except OSError as error:
            raise ConfigurationError(f"storage.path {self.root} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        if self._spool:
            self._spool.close()
            self._spool = None
            os.close(self._root_fd)
            self._root_fd = -1

    @property
    def spool(self) -> Spool:
        if self._spool is None:
            raise StorageFailed("storage is not open")
        return self._spool

    # -- may we write? ------------------------------------------------------------------------

    def free(self) -> int:
        """Bytes that an unprivileged writer may still use."""
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def check(self, size: int = 0) -> None:
        """Raise OutOfResources unless `size` more bytes may be stored now."""
        self.heal()
        now = self._clock()
        if not 0 <= now - self._looked < LOOK:
            self._free, self._looked = self.free(), now
        if self._free - size < self.reserve:
            raise OutOfResources("out of disk space", f"{self.root} is below its reserve of {self.reserve} bytes")

    def failed(self, error: OSError) -> StorageFailed:
        """Note a failed write or sync and return what to raise; a full disk heals by itself."""
        if error.errno in FULL:
            return StorageFailed("out of disk space", os.strerror(error.errno or 0))
        self._failure = error.strerror or "I/O error"
        return StorageFailed("storage failed", self._failure)

    def heal(self) -> None:
        """After a failed write or sync: raise StorageFailed unless a small file can be written and synced now."""
        if self._failure:
            self._probe()

    def _probe(self) -> None:
        """Write and sync a small file; the volume is healthy again when that works."""
        path = self.spool.new_path(".probe")
        try:
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, b"probe")
                os.fsync(fd)
            finally:
                os.close(fd)
                os.unlink(path)
            sync_folder(self.spool.path)
        except OSError as error:
            raise StorageFailed("storage failed", error.strerror or "") from error
        self._failure = ""

    # -- write --------------------------------------------------------------------------------

    def new_path(self) -> str:
        """A name relative to the root that was never used before; its folder exists, durably."""
        with self._lock:
            day = int(self._clock() // DAY)
            if self._batch is None or self._batch.exhausted or self._batch.day != day:
                try:
                    self._batch = Batch(self.root, day)
                except OSError as error:
                    raise self.failed(error) from error
            return self._batch.next()

    def part(self) -> Part:
        return Part(self.spool.new_path())

    def sync_part(self, part: Part) -> None:
        """Make the bytes of a finished part durable; an error is final for it."""
        try:
            os.fdatasync(part.fd)
        except OSError as error:
            part.discard()
            raise self.failed(error) from error

    def place(self, part: Part, path: str) -> None:
        """Give a synced part its final name; when this returns, bytes and name are durable.

        The bytes come first (`sync_part`), then the rename, then the fsync of the folder, so that a
        name never stands for less than the whole file.
        """
        try:
            os.rename(part.path, self.root / path)
            sync_folder((self.root / path).parent)
        except OSError as error:
            part.discard()
            raise self.failed(error) from error
        part.close()

    def create(self, path: str, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write a whole file at its final name, not synced: only for bytes that the journal holds."""
        fd = os.open(f"{self._prefix}{path}", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640)
        try:
            write_all(fd, pieces)
        finally:
            os.close(fd)

    def sync(self, paths: Sequence[str]) -> None:
        """Make files written by `create` durable, names included; raises OSError. Missing ones were removed since."""
        if len(paths) >= MANY and self._root_fd >= 0 and file_systems.can_sync():
            file_systems.sync(self._root_fd)
            return
        for path in paths:
            try:
                fd = os.open(self.root / path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
        for folder in {(self.root / path).parent for path in paths}:
            if folder.is_dir():
                sync_folder(folder)

    def remove(self, path: str) -> None:
        """Unlink a file that no row points to."""
        (self.root / path).unlink(missing_ok=True)

    def quarantine(self, path: str) -> str:
        """Move an unsynced file aside, durably; return its new name relative to the root."""
        aside = f"quarantine/{secrets.token_hex(12)}.dcm"
        try:
            self.sync([path])
            os.rename(self.root / path, self.root / aside)
            sync_folder(self.root / "quarantine")
        except OSError as error:
            raise self.failed(error) from error
        return aside

    # -- read ---------------------------------------------------------------------------------

    def open_file(self, path: str, expected_size: int) -> int:
        """A descriptor of the stored file at `path`; Damaged when it is missing or its length is wrong."""
        try:
            fd = os.open(f"{self._prefix}{path}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise Damaged("stored file is missing", f"{path}: {error.strerror}") from error
        if os.fstat(fd).st_size != expected_size:
            os.close(fd)
            raise Damaged("stored file is damaged", f"{path} is not {expected_size} bytes long")
        return fd


class Part:
    """A file that is being received, in the spool of the same file system as its final place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o640)

    def write(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        write_all(self.fd, pieces)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def discard(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


class Batch:
    """A folder of up to `BATCH` files, made by and for one process: its names need no coordination."""

    def __init__(self, root: Path, day: int) -> None:
        """`day` counts from 1970-01-01."""
        self.day = day
        self._count = 0
        objects = root / "objects"
        if not (root / SENTINEL).exists():
            raise StorageFailed("storage is not mounted", f"{root / SENTINEL} is gone")
        date = datetime.datetime.fromtimestamp(day * DAY, datetime.UTC).strftime("%Y%m%d")
        self._name = f"objects/{date}/{secrets.token_hex(4)}"
        (objects / date).mkdir(exist_ok=True)
        (root / self._name).mkdir()
        sync_folder(objects / date)
        sync_folder(objects)

    @property
    def exhausted(self) -> bool:
        return self._count >= BATCH

    def next(self) -> str:
        self._count += 1
        return f"{self._name}/{self._count:04d}.dcm"


def write_all(fd: int, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
    """writev until everything is written: a regular file may still take less than was offered."""
    if len(pieces) <= IOV_MAX:
        written = os.writev(fd, pieces)
        if written == sum(map(len, pieces)):
            return
    else:
        written = 0
    views = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
    while views:
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if views:
            views[0] = views[0][written:]
            written = os.writev(fd, views[:IOV_MAX])
