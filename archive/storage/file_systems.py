"""What Linux can do with a file system and the standard library does not offer."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import struct

REPORTS_ERRORS = (5, 8)  # the Linux version from which syncfs tells of failed writes; before it would promise too much

# ioctl_iflags(2), with the numbers of most processors; on others nothing is changed.
_SIZE = struct.calcsize("@l") << 16
_GET_FLAGS, _SET_FLAGS = 0x80006601 | _SIZE, 0x40006602 | _SIZE
_FLAGS = struct.Struct("@i4x")  # read and written as int, whatever the number says
_TOP_OF_HIERARCHY = 0x20000


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


def spread(folder_fd: int) -> None:
    """Let the folders in this one lie apart on the disk (``chattr +T``), a hint that some file systems take.

    ext4 keeps folders beside their parent otherwise, and there passes over everything that was deleted in the last
    minutes whenever it makes a file: after some thousand deletions that takes longer than all the rest of a store.
    """
    with contextlib.suppress(OSError):
        (flags,) = _FLAGS.unpack(fcntl.ioctl(folder_fd, _GET_FLAGS, bytes(_FLAGS.size)))
        fcntl.ioctl(folder_fd, _SET_FLAGS, _FLAGS.pack(flags | _TOP_OF_HIERARCHY))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
