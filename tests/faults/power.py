"""A disk whose power can be cut: ext4 in a file in memory, copied while everything that writes is stopped.

Rules that hold here: what was synced is in the file, what was only written is in the kernel's memory and not in
the copy; ext4 commits its own journal only when somebody syncs (commit=300), not every five seconds. Needs root
and loop devices.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType

from tests.faults.daemon import wait_until

SIZE = 768  # MB, of which only what is used takes memory


@cache
def can_cut() -> bool:
    """Whether this machine lets us mount a file."""
    if os.geteuid() != 0 or not (shutil.which("mkfs.ext4") and os.path.exists("/dev/loop-control")):
        return False
    try:
        with Disk():
            return True
    except (OSError, subprocess.SubprocessError):
        return False


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, timeout=300, text=True).stdout


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    _run("mount", "-o", "loop,commit=300", str(image), str(folder))
    try:
        yield folder
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    """What still runs there is about to end; if not, the mount goes when it does."""
    for _ in range(20):
        if subprocess.run(["umount", str(folder)], check=False, capture_output=True, timeout=300).returncode == 0:
            return
        time.sleep(0.1)
    _run("umount", "--lazy", str(folder))


class Disk:
    """A mounted file system in a folder of its own in memory; a context manager."""

    def __enter__(self) -> Disk:
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self.base = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory, ignore_cleanup_errors=True)))
            self.base.chmod(0o755)
            self.image = self.base / "image"
            with self.image.open("wb") as file:
                file.truncate(SIZE << 20)
            _run("mkfs.ext4", "-q", "-F", "-J", "size=16", "-E", "lazy_itable_init=0", str(self.image))
            self.folder = stack.enter_context(mounted(self.image, self.base / "disk"))
            self._stack = stack.pop_all()
        device = _run("findmnt", "-n", "-o", "SOURCE", str(self.folder)).strip()
        self._inflight = Path("/sys/block") / Path(device).name / "inflight"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def stopped(self, pids: Sequence[int]) -> Iterator[None]:
        """These processes do nothing meanwhile, and what they had asked of the disk is done."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: all(_is_stopped(pid) for pid in pids) and self._is_idle(), 10, "it does not stop")
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _is_idle(self) -> bool:
        return not any(int(count) for count in self._inflight.read_text().split())

    def copy(self) -> Path:
        """What a power cut at this moment would leave."""
        target = self.base / "copy"
        _run("cp", "--sparse=always", str(self.image), str(target))
        return target

    def sync(self) -> None:
        """Put everything on the disk that is not."""
        _run("sync", "--file-system", str(self.folder))

    def used(self) -> int:
        """Bytes."""
        return shutil.disk_usage(self.folder).used


def _is_stopped(pid: int) -> bool:
    """Every thread: one that is still in a system call is not."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return True
    return all(stat.rpartition(")")[2].split()[0] in "TtZX" for stat in stats)
