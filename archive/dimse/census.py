"""How many associations there are, by AE title and address, counted over all acceptor processes.

Rules that hold here: made before the processes fork, it lives in memory they share; each process writes
only rows of its own, so one that is killed leaves rows that its successor clears by `join`; the
check of a limit and the taking of a row are one step under a lock that the kernel frees with its holder.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

KEY = 8  # bytes of a digest that stand for an AE title or an address
FREE = bytes(KEY)

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Counts:
    """Associations at this moment: in all, with one AE title, from one address; and room left in this process."""

    total: int
    of_aet: int
    of_address: int
    rows_left: int


class Census:
    """Room for `rows` associations in each of `processes` processes; thread-safe after `join`."""

    def __init__(self, processes: int, rows: int) -> None:
        self._rows = rows
        size = processes * rows * KEY
        # Two plain columns, so that counting is one bytes.count each.
        self._aets = mmap.mmap(-1, size)
        self._addresses = mmap.mmap(-1, size)
        self._totals = memoryview(mmap.mmap(-1, processes * KEY)).cast("Q")
        self._reach = memoryview(mmap.mmap(-1, processes * KEY)).cast("Q")  # rows of a process that were ever in use
        self._process = 0
        self._lock_file = os.memfd_create("census", os.MFD_CLOEXEC)
        self._lock = threading.Lock()
        self._free: list[int] = []

    def join(self, process: int) -> None:
        """Begin as process number `process`, forgetting what an earlier one of this number left."""
        first = process * self._rows
        span = slice(first * KEY, (first + self._rows) * KEY)
        self._aets[span] = self._addresses[span] = bytes(self._rows * KEY)
        self._process = process
        self._totals[process] = self._reach[process] = 0
        self._free = list(range(first + self._rows - 1, first - 1, -1))

    def enter(self, aet: str, address: str, refuse: Callable[[Counts], R | None]) -> int | R:
        """Take a row, whose number goes back to `leave`, or what `refuse` says against it.

        `refuse` must say something when no row is left.
        """
        aet_key, address_key = _key(aet.upper()), _key(address)
        with self._locked():
            refusal = refuse(self._count(aet_key, address_key))
            if refusal is not None:
                return refusal
            row = self._free.pop()
            self._reach[self._process] = max(self._reach[self._process], row + 1 - self._process * self._rows)
            self._write(row, aet_key, address_key)
            self._totals[self._process] += 1
            return row

    def leave(self, row: int) -> None:
        with self._lock:
            self._write(row, FREE, FREE)
            self._free.append(row)
            self._totals[self._process] -= 1

    def total(self) -> int:
        return sum(self._totals)

    def _count(self, aet_key: bytes, address_key: bytes) -> Counts:
        used = [(n * self._rows * KEY, (n * self._rows + reach) * KEY) for n, reach in enumerate(self._reach)]
        return Counts(
            self.total(),
            sum([_count(self._aets, aet_key, *span) for span in used]),
            sum([_count(self._addresses, address_key, *span) for span in used]),
            len(self._free),
        )

    def _write(self, row: int, aet_key: bytes, address_key: bytes) -> None:
        span = slice(row * KEY, (row + 1) * KEY)
        self._aets[span] = aet_key
        self._addresses[span] = address_key

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A POSIX record lock belongs to the process and dies with it; the threads of one share it, hence two locks.
        with self._lock:
            fcntl.lockf(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._lock_file, fcntl.LOCK_UN)


@lru_cache(maxsize=1024)
def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=KEY).digest()


def _count(column: mmap.mmap, key: bytes, start: int, end: int) -> int:
    """Rows from `start` to `end` that hold `key`; bytes that look like it across two rows do not count."""
    found, at = 0, column.find(key, start, end)
    while at >= 0:
        found += at % KEY == 0
        at = column.find(key, at + 1, end)
    return found
