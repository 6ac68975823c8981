"""A private folder for files that are not stored yet, empty again after any crash.

Every process takes a folder of its own below ``spool`` and holds a lock on it; a folder whose lock
can be taken belongs to nobody alive, so `sweep` may remove it at any time, once what its notes say is settled.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

LOCK = ".lock"
NOTE = ".placing"  # ending of notes about files elsewhere, see archive.services.placing


class Spool:
    """This process's own folder for unfinished files; gone with the process."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        name = secrets.token_hex(8)
        self.path, new = root / name, root / f".{name}"  # under a name that is not swept until it is locked
        new.mkdir(mode=0o700)
        self._lock = os.open(new / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        new.rename(self.path)

    def new_path(self, suffix: str = ".part") -> Path:
        return self.path / (secrets.token_hex(12) + suffix)

    def size(self) -> int:
        """Bytes that wait here, for the status page."""
        return sum(entry.stat().st_size for entry in os.scandir(self.path))

    def close(self) -> None:
        if not any(self.path.glob(f"*{NOTE}")):  # else whoever sweeps next has to settle them
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def sweep(root: Path, settle: Callable[[Path], bool] = lambda folder: True) -> int:
    """Remove what dead processes left below `root`; return how many files that were.

    `settle` is called with each folder before; when it raises, or returns False, the folder stays.
    """
    removed = 0
    for entry in os.scandir(root) if root.is_dir() else ():
        if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
            continue
        with contextlib.suppress(FileNotFoundError):  # another process sweeps as well
            if _abandoned(Path(entry.path)) and settle(Path(entry.path)):
                removed += sum(1 for name in os.listdir(entry.path) if name != LOCK)
                shutil.rmtree(entry.path, ignore_errors=True)
    return removed


def leftovers(root: Path) -> list[Path]:
    """The files that dead processes left below `root`."""
    folders = [entry for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)] if root.is_dir() else []
    found: list[Path] = []
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            if not folder.name.startswith(".") and _abandoned(Path(folder.path)):
                found += [Path(folder.path, name) for name in os.listdir(folder.path) if name != LOCK]
    return found


def _abandoned(folder: Path) -> bool:
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # Its owner is between mkdir and open, or died there: an empty folder costs nothing, so it stays
        # for the next sweep unless it holds files, which only a finished owner could have written.
        return bool(os.listdir(folder))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
