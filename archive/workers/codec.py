"""Transcoding in child processes: what a hostile picture breaks is a child, and only its own object fails.

Rules that hold here: a child has an address space, a file size and a time it may not exceed; one that crashes,
hangs or runs out of memory is replaced by the next request; a caller waits while all children are busy, so
nothing queues but threads; children are started fresh (never forked from this threaded process), talk over
pipes and die with it (see ``archive.workers.codec_child``).
"""

from __future__ import annotations

import json
import logging
import os
import queue
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import archive
from archive import errors
from archive.errors import NotTranscodable, OutOfResources

log = logging.getLogger(__name__)

MEMORY = 2 << 30  # address space: an object of 500 MB mapped, its frames compressed, and what codecs need for one
SECONDS = 30.0
LARGEST = 4 << 30  # a result: native pixel data ends at 4 GB anyway (PS3.5 7.1)
START_SECONDS = 30.0  # to import the codecs on a loaded machine; 0.5 s otherwise
NICENESS = 5  # pixels give way to the network
JOBS = 1000  # after so many a child is replaced, whatever its codecs leaked
_CHUNK = 1 << 16
_ERRORS = {
    kind.__name__: kind for kind in (NotTranscodable, OutOfResources, errors.Damaged, errors.StorageFailed)
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Transcoded:
    """A data set in a file of its own, which goes when this is closed."""

    transfer_syntax: str
    path: Path
    offset: int
    size: int
    sop_instance_uid: str | None = None  # a new one, only after loss

    def close(self) -> None:
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Transcoded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Compressed:
    """A Part-10 file that was written, read back and found to say the same as the one it was made from."""

    size: int  # of its data set
    sha256: bytes  # of its data set
    sha256_before: bytes  # of the data set it was made from
    photometric: str  # Photometric Interpretation, if it is another one now


class _Lost(Exception):
    """The child cannot answer any more; the text says why."""


class Codec:
    """A small pool of children; thread-safe. ``spool`` is swept at start by whoever owns it."""

    def __init__(
        self, spool: Path, *, workers: int = 2, memory: int = MEMORY, seconds: float = SECONDS, largest: int = LARGEST,
        niceness: int = NICENESS,
    ) -> None:  # fmt: skip
        self._spool = spool
        self._limits = (memory, largest, niceness)
        self._seconds = seconds
        self._lock = threading.Lock()
        self._closed = False
        self._children: set[_Child] = set()
        self._slots: queue.LifoQueue[_Child | None] = queue.LifoQueue()  # last in, first out: few stay warm
        for _ in range(workers):
            self._slots.put(None)

    def transcode(
        self, path: Path, accepted: Sequence[str], *, allow_lossy: bool = False, verify: bool = True
    ) -> Transcoded:
        """The Part-10 file at ``path`` as a data set in the best of ``accepted``; waits for a free child.

        Raises NotTranscodable when that cannot be or breaks its child, OutOfResources when there is no room
        for it, Damaged when there is no such file.
        """
        result = self._spool / f"{secrets.token_hex(12)}.transcoded"
        request = {
            "path": str(path), "accepted": list(accepted), "result": str(result),
            "allow_lossy": allow_lossy, "verify": verify,
        }  # fmt: skip
        try:
            reply = self._asked(request)
            if "error" in reply:
                raise _ERRORS.get(reply["error"], OutOfResources)(reply["comment"], reply["detail"])
            return Transcoded(reply["syntax"], result, 0, reply["size"], reply["uid"])
        except BaseException:
            result.unlink(missing_ok=True)
            raise

    def compress(self, path: Path, target: str, prefix: bytes, result: Path) -> Compressed:
        """Write ``prefix`` and the data set of ``path`` in the syntax ``target`` into the file ``result``.

        Raises as ``transcode`` does, and NotTranscodable when the pixels or anything else would not be the same.
        """
        request = {"path": str(path), "accepted": [target], "prefix": prefix.hex(), "result": str(result)}
        reply = self._asked(request)
        if "error" in reply:
            raise _ERRORS.get(reply["error"], OutOfResources)(reply["comment"], reply["detail"])
        digests = bytes.fromhex(reply["sha256"]), bytes.fromhex(reply["before"])
        return Compressed(reply["size"], *digests, reply["photometric"])

    def close(self) -> None:
        """End all children, busy ones too: who waits for them gets NotTranscodable, later callers OutOfResources."""
        with self._lock:
            self._closed = True
            children = list(self._children)
        for child in children:
            child.kill()
        for _ in range(self._slots.qsize()):
            try:
                self._forget(self._slots.get_nowait())
            except queue.Empty:
                return  # their users give the others back
            self._slots.put(None)

    def children(self) -> list[int]:
        """Process ids, for the status page."""
        with self._lock:
            return [child.pid for child in self._children]

    def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        child = self._slots.get()
        try:
            if child is None or not child.alive():
                self._forget(child)
                child = self._started()
            reply = child.ask(request, self._seconds)
            if reply.pop("last") or child.jobs >= JOBS:
                self._forget(child)
                child = None
            return reply
        except _Lost as lost:
            self._forget(child)
            child = None
            log.warning("codec child lost with %s: %s", request["path"], lost)
            raise NotTranscodable(str(lost), request["path"]) from lost
        except BaseException:
            self._forget(child)  # an answer nobody has read would be taken for the next one's
            child = None
            raise
        finally:
            self._slots.put(child)

    def _started(self) -> _Child:
        with self._lock:
            if self._closed:
                raise OutOfResources("Codec is closed")
        try:
            self._spool.mkdir(parents=True, exist_ok=True)
            child = _Child(*self._limits)
        except OSError as error:
            raise OutOfResources("No process for pixels", str(error)) from error
        with self._lock:
            self._children.add(child)
        try:
            child.wait_ready()
        except _Lost as lost:
            self._forget(child)
            raise OutOfResources("No process for pixels", str(lost)) from lost
        if self._closed:
            child.kill()
        return child

    def _forget(self, child: _Child | None) -> None:
        if child is not None:
            with self._lock:
                self._children.discard(child)
            child.discard()


class _Child:
    """One child process; used by one thread at a time."""

    def __init__(self, *limits: int) -> None:
        """``limits``: bytes of address space and of a file, and how far it gives way to others."""
        self.jobs = 0
        # The child holds the reading end, nobody writes: when this process is gone the kernel ends the child.
        life, self._life = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "archive.workers.codec_child", *map(str, (life, *limits))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                pass_fds=(life,), start_new_session=True, env=_environment(), cwd="/",
            )  # fmt: skip
        except BaseException:
            os.close(self._life)
            raise
        finally:
            os.close(life)
        self._pending = b""
        self._killing = threading.Lock()
        self._open = True

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._open and self._process.poll() is None

    def wait_ready(self) -> None:
        self._line(time.monotonic() + START_SECONDS, "Codec did not start in time")

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The child's answer; _Lost when there will be none."""
        self.jobs += 1
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
        except (OSError, ValueError) as error:
            raise _Lost(self._ending()) from error
        answer: dict[str, Any] = json.loads(
            self._line(time.monotonic() + seconds, f"Pixels took longer than {seconds:g} s")
        )
        return answer

    def _line(self, deadline: float, too_late: str) -> bytes:
        assert self._process.stdout is not None
        poll = select.poll()
        try:
            descriptor = self._process.stdout.fileno()
            poll.register(descriptor, select.POLLIN)
            while b"\n" not in self._pending:
                if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                    raise _Lost(too_late)
                chunk = os.read(descriptor, _CHUNK)
                if not chunk:
                    raise _Lost(self._ending())
                self._pending += chunk
        except (OSError, ValueError) as error:  # closed by another thread
            raise _Lost(self._ending()) from error
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _ending(self) -> str:
        self.kill()
        code = self._process.returncode
        if code is not None and code < 0:
            return f"Pixels broke their decoder ({signal.Signals(-code).name})"
        return f"Pixels broke their decoder (exit status {code})"

    def kill(self) -> None:
        """End the process at once, it has nothing to put in order; from any thread."""
        with self._killing:
            if not self._open:
                return
            self._open = False
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            os.close(self._life)

    def discard(self) -> None:
        """The same, and give back the pipes; only from the thread that uses the child."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _environment() -> dict[str, str]:
    """Ours, with this package on the path and one thread for each library: a child is one core's work."""
    here = str(Path(archive.__file__).parent.parent)
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return os.environ | single | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
