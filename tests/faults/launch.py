"""Starts the `archive` command with protections switched off, and many daemons from one warm process.

Rules that hold here: this is a process of its own, the only part of these tests (beside seams) that imports
the archive; without seams it is the archive as it is; a fork server starts no thread and opens nothing, so that
each daemon begins like one started by hand, only without the second that importing takes.

    python -m tests.faults.launch --seams "no sync,no recovery" serve --config archive.yaml
    python -m tests.faults.launch --fork-server          (told on standard input what to start, see forks.py)
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from typing import Any

from tests.faults.seams import switch_off


def main(arguments: list[str]) -> int:
    faulthandler.enable()
    if arguments == ["--fork-server"]:
        return serve_forks()
    if arguments[0] == "--seams":
        switch_off([name for name in arguments[1].split(",") if name])
        arguments = arguments[2:]
    from archive.cli import main as archive

    return archive(arguments)


def serve_forks() -> int:
    """Start a daemon for each line of standard input and say its process number; tell on request how it ended."""
    from archive.cli import serve  # noqa: F401 - now, so that each daemon finds it imported

    for line in sys.stdin:
        wish: dict[str, Any] = json.loads(line)
        answer = _ending(wish["pid"]) if "pid" in wish else _start(wish)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


def _start(wish: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _become(wish)
        if wish.get("gate"):  # a FIFO: held until somebody opens its other end
            with open(wish["gate"], "rb") as gate:
                gate.read()
        switch_off(wish["seams"])
        from archive.cli import main as archive

        status = archive(wish["arguments"])
    finally:
        sys.stderr.flush()
        os._exit(status)


def _become(wish: dict[str, Any]) -> None:
    """What starting a command does: a session, a folder, an environment and descriptors of its own."""
    os.setsid()
    os.chdir(wish["folder"])
    os.environ.update(wish["environment"])
    log = os.open(wish["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)


def _ending(pid: int) -> int | None:
    """The exit status as subprocess says it; None while it runs."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return -1
    return os.waitstatus_to_exitcode(status) if found else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
