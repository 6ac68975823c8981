"""What follows from performed steps: peers are told of them, and studies are ready that are whole.

Rules that hold here: a study whose images are still missing is looked at a few times more, and then time decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from archive.index import Index, Task

FORWARD = "mpps"
PAUSES = (5.0, 30.0, 120.0, 600.0, 1800.0, *[3600.0] * 48)  # between tries to reach a peer; then it has failed
LOOKS = (2.0, 5.0, 15.0, 60.0)  # between looks for images that a completed step has named


class Completing:
    """The job of looking whether a completed step's images are here."""

    def __init__(self, index: Index, make_ready: Callable[[str], object], clock: Callable[[], float]) -> None:
        """``make_ready`` says that nothing more is expected for a study."""
        self._index, self._make_ready, self._clock = index, make_ready, clock

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        for task in tasks:
            if all(self._index.known(uid) is not None for uid in task.payload["instances"]):
                self._make_ready(str(task.payload["study"]))
                self._index.finish(task.id, owner, self._clock(), keep=False)
            elif task.attempts <= len(LOOKS):
                pause = LOOKS[task.attempts - 1]
                self._index.retry(task.id, owner, self._clock() + pause, "images are still missing")
            else:
                self._index.finish(task.id, owner, self._clock(), reason="images are missing: time decides")
