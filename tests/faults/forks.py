"""The client of the fork server (launch.py): daemons that start in a quarter of a second.

Rules that hold here: nothing of the archive is imported; what was started looks like a subprocess.Popen; whoever says
nothing else shares one server with everybody else in this process.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]


class Forked:
    """A daemon that the fork server started."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server, self.pid = server, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ending(self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("archive serve", timeout)
            time.sleep(0.005)
        return status


class ForkServer:
    """A context manager; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.launch", "--fork-server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
            text=True,
            start_new_session=True,
        )

    def start(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
        seams: Sequence[str] = (),
        gate: Path | None = None,
    ) -> Forked:
        """With a ``gate``, a FIFO, it begins when somebody has opened and closed the other end."""
        wish = {
            "arguments": list(arguments), "folder": str(folder), "log": str(log),
            "environment": dict(environment or {}), "seams": list(seams), "gate": str(gate or ""),
        }  # fmt: skip
        pid = self._ask(wish)
        assert pid
        return Forked(self, pid)

    def ending(self, pid: int) -> int | None:
        return self._ask({"pid": pid})

    def _ask(self, wish: Mapping[str, object]) -> int | None:
        with self._lock:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write(json.dumps(wish) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise AssertionError("the fork server has ended")
        answer: int | None = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@functools.cache
def shared() -> ForkServer:
    """The server of this process, begun when it is first wanted."""
    server = ForkServer()
    atexit.register(server.close)
    return server
