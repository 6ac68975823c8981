"""Who holds a lease, and what a process that died without a word left leased.

Rules that hold here: an owner is named by host, process and the moment the process began, so that a name is never
somebody else's; only what was leased by a dead process of this very host is taken back before its time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Collection
from pathlib import Path

from archive.index import Index, State

_numbers = itertools.count(1)


def owner_name() -> str:
    """A name for one worker of this process, used by nobody else ever."""
    pid = os.getpid()
    return f"{socket.gethostname()}/{pid}/{_began(pid)}/{next(_numbers)}"


def is_dead(owner: str) -> bool:
    """Whether the process of this name ran on this host and is gone."""
    host, _, rest = owner.rpartition("/")[0].partition("/")
    pid, _, began = rest.partition("/")
    return host == socket.gethostname() and pid.isdigit() and _began(int(pid)) != began


def take_back(index: Index, kinds: Collection[str], now: float) -> int:
    """Let what dead processes of this host had leased be leased again; return how many tasks that were."""
    dead = [
        task
        for kind in kinds
        for task in index.tasks(kind=kind, state=State.LEASED)
        if is_dead(task.owner)
    ]
    return sum(index.retry(task.id, task.owner, now, "its process ended without a word") for task in dead)


def _began(pid: int) -> str:
    """When a process began, in ticks since the machine did (proc(5), field 22); empty for one that is not there."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""
