"""Reading many files in several processes, in order.

Rules that hold here: only some chunks are under way at a time, so that memory does not grow with their number; results
come in the order of the chunks; the processes end with this one, even when it is killed.
"""

from __future__ import annotations

import collections
import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

AHEAD = 4  # chunks under way for each process
_PR_SET_PDEATHSIG = 1  # prctl(2)


def in_processes(number: int) -> Callable[[Callable[[A], B], Iterable[A]], Iterator[B]]:
    """A map that runs in so many processes; 0 runs here."""

    def run(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        if not number:
            yield from map(work, items)
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(number, context, _begin, (os.getpid(),)) as pool:
            under_way: collections.deque[Future[B]] = collections.deque()
            for item in items:
                under_way.append(pool.submit(work, item))
                if len(under_way) > AHEAD * number:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()

    return run


def _begin(parent: int) -> None:
    """End with the parent: nobody else would tell a process that waits for work."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    if os.getppid() != parent:
        os._exit(1)
