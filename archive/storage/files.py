"""Files and folders by their descriptors: written whole, made durable, copied.

Rules that hold here: `root_fd` is a descriptor of a volume's root that the caller holds, and names are relative to
it, so that nothing is ever made below a mount point whose mount was lost; nothing is durable but where a docstring
says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

from archive.storage import file_systems

IOV_MAX = 1024  # buffers in one call (sysconf(_SC_IOV_MAX) on Linux)
CHUNK = 8 << 20  # bytes copied by one call
MANY = 8  # files from which one sync of the file system is cheaper than one for each: 20 ms against 170 for 480


def sync_folder(path: Path) -> None:
    """Make the names in `path` durable."""
    _sync(path, os.O_DIRECTORY, os.fsync)


def make_folder(root_fd: int, name: str) -> None:
    """A folder that may be there already."""
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=root_fd)


def sync_below(root_fd: int, name: str) -> None:
    """Make the names in a folder durable."""
    _sync(name, os.O_DIRECTORY, os.fsync, root_fd)


def _sync(path: Path | str, flags: int, sync: Callable[[int], None], root_fd: int | None = None) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=root_fd)
    try:
        sync(fd)
    finally:
        os.close(fd)


def copy_file(root_fd: int, name: str, source: int, size: int, when: int) -> None:
    """A new file with the first `size` bytes of an open one, not durable yet; `when` is its time of change
    in nanoseconds."""
    fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640, dir_fd=root_fd)
    try:
        position = 0
        while position < size:
            sent = os.sendfile(fd, source, position, min(CHUNK, size - position))
            if not sent:
                break  # the source became shorter: the digest will tell
            position += sent
        os.utime(fd, ns=(when, when))
    finally:
        os.close(fd)


def sync_files(root_fd: int, names: Collection[str], *, missing_ok: bool = False) -> None:
    """Make files written since `root_fd` was opened durable, their names included. Raises OSError; with `missing_ok`
    not for those that were removed since."""
    if len(names) >= MANY and file_systems.can_sync():
        file_systems.sync(root_fd)
        return
    harmless = (FileNotFoundError,) if missing_ok else ()
    for name in names:
        with suppress(*harmless):
            _sync(name, 0, os.fdatasync, root_fd)
    for folder in {os.path.dirname(name) for name in names}:
        with suppress(*harmless):
            sync_below(root_fd, folder)


def unlink_files(root_fd: int, names: Collection[str]) -> None:
    """Take names away that may be gone already; durable once their folders are synced."""
    for name in names:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=root_fd)


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
