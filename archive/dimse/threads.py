"""Threads for connections, used again: starting one costs as much as reading and answering a request.

Rules that hold here: whoever is given work has a thread to itself until it is done, so nobody ever waits for
another's; a few threads stay for the next, for a moment; none of them keeps what it worked on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

KEPT = 4  # idle threads of one listener: callers that come one after the other find one
STAY = 2.0  # seconds an idle thread waits for them
IDLE = "idle"

Work = Callable[[], object]


class Threads:
    """The threads of one listener."""

    def __init__(self, kept: int = KEPT, stay: float = STAY) -> None:
        self._kept = kept
        self._stay = stay
        self._idle = 0
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[tuple[Work, str] | None] = SimpleQueue()

    def run(self, work: Work, name: str) -> None:
        """Run `work`, which must not raise, in a thread of this name. Raises RuntimeError when there can be no more."""
        with self._lock:
            found = self._idle > 0
            self._idle -= found
        if found:
            self._waiting.put((work, name))
        else:
            threading.Thread(target=self._serve, args=([(work, name)],), name=name, daemon=True).start()

    def _serve(self, first: list[tuple[Work, str]]) -> None:
        thread = threading.current_thread()
        call: tuple[Work, str] | None = first.pop()  # out of the list, which the thread keeps as its argument
        while call is not None:
            thread.name = call[1]
            call[0]()
            call = None  # what was worked on must not wait with us
            thread.name = IDLE
            if not self._stays():
                return
            call = self._next()

    def _stays(self) -> bool:
        with self._lock:
            stays = self._idle < self._kept
            self._idle += stays
        return stays

    def _next(self) -> tuple[Work, str] | None:
        """What came while this thread was idle; None when it has waited long enough."""
        try:
            return self._waiting.get(timeout=self._stay)
        except Empty:
            with self._lock:
                if self._idle:
                    self._idle -= 1
                    return None
        return self._waiting.get()  # whoever counted on us is about to put it there

    def close(self) -> None:
        """Let the idle ones go; those that work go when they are done."""
        with self._lock:
            idle, self._idle, self._kept = self._idle, 0, 0
        for _ in range(idle):
            self._waiting.put(None)
