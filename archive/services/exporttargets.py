"""Where an export goes: a folder, or a ZIP.

Rules that hold here: bytes go to a hidden part file, are synced and renamed; what an interrupted export has left of it
is used again; one export at a time writes to a folder or to a ZIP; a ZIP is one stream with an object of its own size
beside it, so that an object that fails half-way leaves nothing in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import zipfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from archive.errors import NotPossible, StorageFailed
from archive.services.export import CHUNK, Look, Pieces
from archive.storage.local import sync_folder

FASTEST = 1  # pixels get hardly smaller by more effort
FROM_HERE_64 = 1 << 31  # bytes of a member that need ZIP64


class Folder:
    """Files below one folder, which is made if only it is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: set[Path] = set()
        self._lock = -1

    def __enter__(self) -> Self:
        if not self.root.is_dir():
            self.root.mkdir()
            sync_folder(self.root.parent)
        self._lock = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _lock(self._lock, self.root)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def moment(self, name: str) -> float | None:
        try:
            return (self.root / name).lstat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, name: str) -> BinaryIO | None:
        fd = os.open(self.root / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        file = os.fdopen(fd, "rb")
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return file
        file.close()
        return None

    def same(self, name: str, pieces: Pieces) -> bool:
        try:
            file = self.read(name)
        except OSError:
            return False
        if file is None:
            return False
        with file:
            return all(file.read(len(piece)) == piece for piece in pieces) and not file.read(1)

    def write(self, name: str, pieces: Pieces, moment: float, *, packed: bool, look: Look | None) -> None:
        path = self.root / name
        self._make(path.parent)
        part = path.parent / f".{path.name}.part"
        try:
            _fill(part, pieces, moment, look)
            part.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise

    def _make(self, folder: Path) -> None:
        for missing in (folder, *folder.parents):
            if missing == self.root or missing.is_dir():
                break
            self._folders.add(missing.parent)
        folder.mkdir(parents=True, exist_ok=True)
        self._folders.add(folder)

    def sync(self) -> None:
        while self._folders:
            sync_folder(next(iter(self._folders)))
            self._folders.pop()


def _fill(part: Path, pieces: Pieces, moment: float, look: Look | None) -> None:
    fd = os.open(part, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(fd, "w+b") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        if look is not None:
            file.seek(0)
            look(file)
        os.utime(fd, (moment, moment))
        os.fsync(fd)


class Zip:
    """One new ZIP file; it has its name when all is in it."""

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self._force = force
        self._part = path.parent / f".{path.name}.part"
        self._whole = True

    def __enter__(self) -> Self:
        self._refuse_existing()
        fd = os.open(self._part, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        self._file = os.fdopen(fd, "w+b")
        try:
            _lock(fd, self.path)
        except BaseException:
            self._file.close()
            raise
        os.ftruncate(fd, 0)
        self._zip = zipfile.ZipFile(self._file, "w", compresslevel=FASTEST, allowZip64=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._whole:
                raise StorageFailed("ZIP could not be written", str(self.path))
            if kind is None and self._zip.infolist():
                self._zip.close()
                self._file.flush()
                os.fsync(self._file.fileno())
                self._refuse_existing()
                self._part.rename(self.path)
                sync_folder(self.path.parent)
        finally:
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)
            self._zip.fp = None  # nothing is to be written into what was given up
            self._file.close()

    def _refuse_existing(self) -> None:
        if not self._force and os.path.lexists(self.path):
            raise NotPossible("this file is there already", str(self.path))

    def moment(self, name: str) -> float | None:
        return None

    def read(self, name: str) -> BinaryIO | None:
        return None

    def same(self, name: str, pieces: Pieces) -> bool:
        return False

    def write(self, name: str, pieces: Pieces, moment: float, *, packed: bool, look: Look | None) -> None:
        with tempfile.TemporaryFile(dir=self.path.parent) as whole:
            for piece in pieces:
                whole.write(piece)
            size = whole.tell()
            if look is not None:
                whole.seek(0)
                look(whole)
            whole.seek(0)
            self._zip.compression = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            self._whole = False  # half a member cannot be taken back
            with self._zip.open(name, "w", force_zip64=size >= FROM_HERE_64) as member:
                while block := whole.read(CHUNK):
                    member.write(block)
            self._whole = True

    def sync(self) -> None:
        """All at once, in the end."""


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise NotPossible("another export writes there", str(path)) from error
