"""A volume: a folder on a local or mounted file system that holds stored objects.

Rules that hold here: bytes reach a final name only by rename or by an exclusive create that the
journal covers; ``write = durable`` only where a docstring says so; an error of fsync is final for its
file (the kernel may have dropped the pages), so it marks the volume failed until a probe write works; no folder
is made below a root whose sentinel was not seen through the very descriptor that it is made by.

    root/.volume            the sentinel: an absent one, or that of another volume, means an unmounted disk
    root/objects/20260131/4be0c1d2/0001.dcm
    root/spool/ root/journal/ root/quarantine/
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from archive.errors import ConfigurationError, Damaged, OutOfResources, StorageFailed
from archive.storage.batch import DAY, Batch
from archive.storage.files import sync_files, sync_folder, write_all
from archive.storage.space import Space, space_of
from archive.storage.spool import Spool

SENTINEL = ".volume"
LONGEST = 4096  # bytes that are read of it
LOOK = 0.25  # seconds for which what is free is taken to be known
FULL = {errno.ENOSPC, errno.EDQUOT}


class Volume:
    """One root folder; thread-safe. `clock` gives seconds since the epoch."""

    def __init__(
        self, root: Path, *, reserve: int, clock: Callable[[], float], name: str = "main", option: str = "storage.path"
    ) -> None:
        """`option` is where the configuration names it, for complaints."""
        self.root = root
        self.name = name
        self.identity = ""  # what its sentinel says; empty before it was ever seen
        self._option = option
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

    def open(self, *, expected: bool, identity: str = "") -> None:
        """Take the volume into use; `expected` says that the index already points into it, `identity` what its
        sentinel says as far as is known.

        Raises ConfigurationError when objects are expected but the sentinel is missing, or is that of another volume:
        writing then would fill the disk under an empty mount point.
        """
        self.identity = identity
        found = self.read_sentinel()
        if identity and found and found != identity:
            raise ConfigurationError(f"{self.root} is another volume: its {SENTINEL} file says {found}, not {identity}")
        if not found:
            if expected or identity:
                raise ConfigurationError(self._missing())
            found = self.initialise()
        self.identity = found
        self._make_folders()
        self._spool = Spool(self.root / "spool")
        # Open from now on: a sync through it reports every write error since, whoever saw it first.
        self._root_fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _missing(self) -> str:
        line = f" with the line {self.identity}" if self.identity else ""
        return (
            f"{self.root} has no {SENTINEL} file: is the disk mounted? "
            f"If this really is the volume, create the file {self.root / SENTINEL}{line} by hand"
        )

    def read_sentinel(self) -> str:
        """What the sentinel says; nothing when it is not there. One made by hand may be empty: that says something."""
        try:
            fd = os.open(f"{self._prefix}{SENTINEL}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            return os.read(fd, LONGEST).decode("ascii", "replace").strip() or "unnamed"
        except OSError:
            return ""
        finally:
            os.close(fd)

    def _make_folders(self) -> None:
        """A folder whose name a power cut takes away would take along what is in it."""
        missing = [self.root / name for name in ("objects", "quarantine", "journal") if not (self.root / name).is_dir()]
        for folder in missing:
            folder.mkdir(exist_ok=True)
        if missing:
            sync_folder(self.root)

    def initialise(self) -> str:
        """Make a folder a volume, durably; what its sentinel says from now on. Raises ConfigurationError."""
        identity = secrets.token_hex(16)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.root / SENTINEL, os.O_CREAT | os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                os.write(fd, f"{identity}\n".encode("ascii"))
                os.fsync(fd)
            finally:
                os.close(fd)
            sync_folder(self.root)
            sync_folder(self.root.parent)
        except OSError as error:
            raise ConfigurationError(f"{self._option} {self.root} cannot be written: {error.strerror}") from error
        return identity

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

    def is_there(self) -> bool:
        """Whether the root has the sentinel of this volume: not when its mount was lost, or is another one's."""
        found = self.read_sentinel()
        return found == self.identity if self.identity else bool(found)

    def require(self) -> None:
        """Raise StorageFailed unless it is there."""
        if not self.is_there():
            raise self.lost()

    def lost(self) -> StorageFailed:
        return StorageFailed("storage is not mounted", f"{self.root / SENTINEL} is gone, or that of another volume")

    @contextmanager
    def standing(self) -> Iterator[int]:
        """A descriptor of the root, held: what is made by it is made on this volume, whatever is mounted meanwhile.

        Raises StorageFailed when it is not there.
        """
        try:
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self.lost() from error
        try:
            self._require_by(fd)
            yield fd
        finally:
            os.close(fd)

    def _require_by(self, root_fd: int) -> None:
        try:
            fd = os.open(SENTINEL, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root_fd)
        except OSError as error:
            raise self.lost() from error
        try:
            found = os.read(fd, LONGEST).decode("ascii", "replace").strip() or "unnamed"
        finally:
            os.close(fd)
        if self.identity and found != self.identity:
            raise self.lost()

    def space(self) -> Space:
        """Of its file system. Raises OSError."""
        return space_of(self.root)

    def free(self) -> int:
        """Bytes that an unprivileged writer may still use."""
        return self.space().free

    def check(self, size: int = 0) -> None:
        """Raise OutOfResources unless `size` more bytes may be stored now."""
        self.heal()
        now = self._clock()
        if not 0 <= now - self._looked < LOOK:
            if self.identity:
                self.require()
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
        path = self._spool.new_path(".probe") if self._spool else self.root / f".{secrets.token_hex(8)}.probe"
        try:
            with self.standing():
                _try_out(path)
        except OSError as error:
            raise StorageFailed("storage failed", error.strerror or "") from error
        self._failure = ""

    # -- write --------------------------------------------------------------------------------

    def new_path(self) -> str:
        """A name relative to the root that was never used before; its folder exists, durably."""
        with self._lock:
            day = int(self._clock() // DAY)
            if self._batch is None or self._batch.exhausted or self._batch.day != day:
                self._batch = self._new_batch(day)
            return self._batch.next()

    def _new_batch(self, day: int) -> Batch:
        with self.standing() as root_fd:
            try:
                return Batch(root_fd, day)
            except OSError as error:
                raise self.failed(error) from error

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
        sync_files(self._root_fd, paths, missing_ok=True)  # not by path: below a lost mount all would seem removed

    def remove(self, path: str) -> None:
        """Unlink a file that no row points to."""
        (self.root / path).unlink(missing_ok=True)

    def quarantine(self, path: str) -> str:
        """Move an unsynced file aside, durably; return its new name relative to the root."""
        self.require()
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
        """A descriptor of the stored file at `path`; Damaged when it is missing or its length is wrong, StorageFailed
        when the whole volume is not there."""
        try:
            fd = os.open(f"{self._prefix}{path}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            self.require()
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


def _try_out(path: Path) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, b"probe")
        os.fsync(fd)
    finally:
        os.close(fd)
        os.unlink(path)
    sync_folder(path.parent)
