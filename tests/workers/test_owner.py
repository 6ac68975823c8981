"""Who holds a lease, and whether it still lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from archive.workers.owner import is_dead, this_process

SAY_WHO = "from archive.workers.owner import this_process; print(this_process(), flush=True); input()"


def test_a_process_lives_until_it_ends_though_nobody_has_waited_for_it() -> None:
    """In a container without an init nobody ever does, and its leases must not have to run out."""
    assert not is_dead(f"{this_process()}#1")
    child = subprocess.Popen([sys.executable, "-c", SAY_WHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None and child.stdout is not None
    with child.stdin, child.stdout:
        owner = child.stdout.readline().strip()
        assert not is_dead(f"{owner}#commit:CT1")
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays as it is
        assert is_dead(f"{owner}#commit:CT1")
        child.wait()
    assert is_dead(owner)


def test_a_number_used_again_is_another_process() -> None:
    host, pid, began = this_process().rsplit(":", 2)
    assert is_dead(f"{host}:{pid}:{int(began) - 1}")


def test_nothing_is_known_of_other_machines() -> None:
    assert not is_dead("elsewhere:1:1") and not is_dead("no owner at all")
