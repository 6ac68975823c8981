"""Names for files that are used once: a folder for each process, and numbers in it.

Rules that hold here: a folder is durable before a name in it is given away; two processes never share one.
"""

from __future__ import annotations

import datetime
import os
import secrets

from archive.storage import file_systems
from archive.storage.files import make_folder, sync_below

BATCH = 1000  # files per folder: few enough for `ls` and backup tools, enough to make new folders rare
DAY = 86400  # seconds


class Batch:
    """A folder of up to `BATCH` files, made by and for one process: its names need no coordination."""

    def __init__(self, root_fd: int, day: int) -> None:
        """`day` counts from 1970-01-01."""
        self.day = day
        self._count = 0
        date = datetime.datetime.fromtimestamp(day * DAY, datetime.UTC).strftime("%Y%m%d")
        self._name = f"objects/{date}/{secrets.token_hex(4)}"
        make_folder(root_fd, "objects")
        make_folder(root_fd, f"objects/{date}")
        _spread(root_fd, f"objects/{date}")
        os.mkdir(self._name, dir_fd=root_fd)
        sync_below(root_fd, f"objects/{date}")
        sync_below(root_fd, "objects")
        os.fsync(root_fd)

    @property
    def exhausted(self) -> bool:
        return self._count >= BATCH

    def next(self) -> str:
        self._count += 1
        return f"{self._name}/{self._count:04d}.dcm"


def _spread(root_fd: int, name: str) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
    try:
        file_systems.spread(fd)
    finally:
        os.close(fd)
