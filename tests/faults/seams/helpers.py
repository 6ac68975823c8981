"""Seams that help a test and take no protection away.

Rules that hold here: those of the package.
"""

from __future__ import annotations

import time

from tests.faults.seams.registry import replace, seam


@seam("quick restart")
def _quick_restart() -> None:
    """A process that is killed comes back at once, so that it can be killed again."""
    from archive import supervisor

    replace(supervisor, "PAUSE", 0.0)


@seam("clock from file")
def _clock_from_file() -> None:
    """The wall clock is off by as many seconds as the file `clock` beside the configuration says."""
    real = time.time

    def moved() -> float:
        try:
            with open("clock") as file:
                return real() + float(file.read() or 0)
        except OSError:
            return real()

    replace(time, "time", moved)


@seam("files before index")
def _files_before_index() -> None:
    """The order of a backup turned round: nothing of the archive itself changes."""
