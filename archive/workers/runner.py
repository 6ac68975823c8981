"""Threads that run workers: a worker is one step, only the Runner waits and wakes.

Rules that hold here: nobody polls, a Runner sleeps until its event is set or until the moment the
last step asked for; a step that fails is logged and tried again after a growing pause.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from archive.errors import ArchiveError

log = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0

Step = Callable[[], float | None]  # what to do; returns seconds until it wants to be called again, None = when woken


class Runner:
    """One daemon thread that runs `step` whenever `wake` is set."""

    def __init__(self, name: str, step: Step, wake: threading.Event) -> None:
        self._step = step
        self._wake = wake
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        """No step begins any more."""
        self._stopping = True
        self._wake.set()

    def stop(self, timeout: float = 5.0) -> None:
        """Let the step that runs now end, then the thread."""
        self.ask_to_stop()
        self._thread.join(timeout)

    def _run(self) -> None:
        pause = FIRST_PAUSE
        wait: float | None = None
        while True:
            self._wake.wait(wait)
            if self._stopping:
                return
            self._wake.clear()
            try:
                wait = self._step()
                pause = FIRST_PAUSE
            except Exception as error:
                known = isinstance(error, ArchiveError)  # a database that is away is no fault of ours
                log.error(
                    "worker %s failed, next try in %.0f s: %s", self._thread.name, pause, error, exc_info=not known
                )
                wait, pause = pause, min(2 * pause, LONGEST_PAUSE)
