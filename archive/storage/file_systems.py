"""syncfs(2), which the standard library does not have: everything of one file system onto stable storage."""

from __future__ import annotations

import ctypes
import functools
import os

REPORTS_ERRORS = (5, 8)  # the Linux version from which syncfs tells of failed writes; before it would promise too much


@functools.cache
def can_sync() -> bool:
    """Whether `sync` exists and can be believed here."""
    system = os.uname()
    version = tuple(int(part) for part in system.release.split("-")[0].split(".")[:2] if part.isdigit())
    return system.sysname == "Linux" and version >= REPORTS_ERRORS and hasattr(_libc(), "syncfs")


def sync(fd: int) -> None:
    """Return when all that was written to the file system of `fd` is durable; raises OSError if any of it failed."""
    if _libc().syncfs(fd) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
