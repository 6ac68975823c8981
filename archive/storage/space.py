"""How much room a file system has, measured in one place for everybody who decides by it.

Rules that hold here: bytes that only root may use count as used, as they do for `df`; a percentage is of what
an unprivileged writer can fill; nothing is remembered.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Space(NamedTuple):
    """Of one file system, in bytes: what an ordinary writer can fill in all, and what is left of it."""

    total: int
    free: int

    @property
    def used(self) -> int:
        return self.total - self.free

    @property
    def percent(self) -> float:
        """How full it is; one of no size is full."""
        return 100.0 * self.used / self.total if self.total else 100.0


def space_of(path: Path) -> Space:
    """The file system below a path. Raises OSError."""
    status = os.statvfs(path)
    used = status.f_blocks - status.f_bfree
    return Space((used + status.f_bavail) * status.f_frsize, status.f_bavail * status.f_frsize)
