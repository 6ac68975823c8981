"""Who holds a lease: a process of a machine, known again after it has died.

Rules that hold here: a process is named by machine, number and the moment it began, since numbers are used again;
whether it lives is only asked on its own machine.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def this_process() -> str:
    """The owner of what this process leases."""
    return f"{socket.gethostname()}:{os.getpid()}:{_began(os.getpid())}"


def is_dead(owner: str) -> bool:
    """Whether a process of this machine is gone for certain; what follows a ``#`` is not looked at."""
    host, _, rest = owner.partition("#")[0].rpartition(":")[0].rpartition(":")
    began = owner.partition("#")[0].rpartition(":")[2]
    if host != socket.gethostname() or not rest.isdigit():
        return False
    return _began(int(rest)) != began


def _began(pid: int) -> str:
    """Clock ticks between the start of the machine and of the process (proc(5)); empty when there is none.

    A process that has ended but that nobody has waited for is none: in a container without an init it stays for ever.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else fields[18]
