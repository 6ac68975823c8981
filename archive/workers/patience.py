"""Calls that a slow or dead volume may never answer: in threads of their own, waited for with a limit.

Rules that hold here: whoever waits goes on in time, whatever the call does; what comes too late is thrown away; the
limit is on silence, so that what is slow and goes on is waited for; threads that hang are counted, and when there are
many nobody begins another one, so that a dead volume costs a bounded number of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from archive.errors import StorageFailed

T = TypeVar("T")

BEAT = 1.0  # seconds between two calls of what is done meanwhile
AT_ONCE = 64  # calls at a time: more than associations read from one slow volume with profit

Alive = Callable[[], None]


class Patience:
    """Waits for calls; thread-safe."""

    def __init__(self, seconds: float, at_once: int = AT_ONCE) -> None:
        """``seconds`` without a sign of life are too long."""
        self._seconds = seconds
        self._room = threading.BoundedSemaphore(at_once)

    def __call__(
        self,
        work: Callable[[Alive], T],
        discard: Callable[[T], object] = lambda result: None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> T:
        """What ``work`` gives or raises; it calls what it is given as a sign of life.

        Raises StorageFailed when it is silent for too long; what it gives then goes to ``discard``.
        """
        self._enter(meanwhile)
        call = _Call(work, discard, self._room)
        threading.Thread(target=call.run, name="slow volume", daemon=True).start()
        return call.wait(self._seconds, meanwhile)

    def _enter(self, meanwhile: Callable[[], object]) -> None:
        waited = 0.0
        while not self._room.acquire(timeout=min(BEAT, self._seconds)):
            waited += BEAT
            if waited >= self._seconds:
                raise StorageFailed("storage does not answer")
            meanwhile()


class _Call(Generic[T]):
    """One of them."""

    def __init__(
        self, work: Callable[[Alive], T], discard: Callable[[T], object], room: threading.BoundedSemaphore
    ) -> None:
        self._work = work
        self._discard = discard
        self._room = room
        self._changed = threading.Condition()
        self._signs = 0
        self._ended = self._given_up = False
        self._result: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            result = [self._work(self._alive)]
            error: BaseException | None = None
        except BaseException as raised:  # noqa: BLE001 - raised where it is waited for
            result, error = [], raised
        self._room.release()
        with self._changed:
            self._ended, self._result, self._error = True, result, error
            late = self._given_up
            self._changed.notify_all()
        if late:
            for each in result:
                self._discard(each)

    def _alive(self) -> None:
        self._signs += 1

    def wait(self, seconds: float, meanwhile: Callable[[], object]) -> T:
        silent, signs = 0.0, 0
        try:
            while not self._wait(min(BEAT, seconds)):
                silent, signs = (silent + min(BEAT, seconds), signs) if self._signs == signs else (0.0, self._signs)
                if silent >= seconds:
                    raise StorageFailed("storage does not answer", f"for {seconds:g} s")
                meanwhile()
        except BaseException:
            self._give_up()
            raise
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _wait(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, seconds)

    def _give_up(self) -> None:
        with self._changed:
            self._given_up = True
            late = self._result if self._ended else []
        for each in late:
            self._discard(each)
