"""Leases of workers: a name for each holder, and back what a process that died without a word had leased.

Rules that hold here: no two workers ever share a name; only what was leased by a dead process of this very host is
taken back before its time; the try that it was stays counted, so that what kills a process is not tried for ever.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection

from archive.index import Index, State
from archive.workers.owner import is_dead, this_process

_numbers = itertools.count(1)


def owner_name() -> str:
    """A name for one worker of this process, used by nobody else ever."""
    return f"{this_process()}#{next(_numbers)}"


def take_back(index: Index, kinds: Collection[str], now: float) -> int:
    """Let what dead processes of this host had leased be leased again; return how many tasks that were."""
    leased = [task for kind in kinds for task in index.tasks(kind=kind, state=State.LEASED)]
    dead = [task for task in leased if is_dead(task.owner)]
    return sum(index.retry(task.id, task.owner, now, "its process ended without a word") for task in dead)
