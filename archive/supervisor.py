"""The process that keeps the others: forks them, restarts what dies, ends them in time.

Rules that hold here: it opens no database and starts no thread, so that forking stays safe at any
time; signals are waited for, not handled; a child dies with its supervisor (PR_SET_PDEATHSIG), so the
port is free again whatever kills it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from archive.errors import ArchiveError
from archive.notify import notify, watchdog_interval

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15  # prctl(2)
M_ARENA_MAX = -8  # mallopt(3)
CHILD_IS_READY = signal.SIGUSR1  # from a child, beside the byte it writes
END = (signal.SIGTERM, signal.SIGINT)
WATCHED = {signal.SIGCHLD, signal.SIGHUP, CHILD_IS_READY, *END}
DRAIN = 10.0  # seconds from SIGTERM to the end, stalled peers included
MARGIN = 1.5  # of these, what a child gets no part of: time to kill it and to say so
SHORT_LIFE = 5.0  # a child that dies younger is started again after a pause
PAUSE = 1.0

Main = Callable[["Ready"], int]
Ready = Callable[[], None]


@dataclass(slots=True)
class Child:
    name: str
    main: Main
    pid: int = 0
    started: float = 0.0
    restart_at: float = 0.0


class Supervisor:
    """Runs `children` until SIGTERM or SIGINT; `reload` is called on SIGHUP, before the children get it."""

    def __init__(
        self,
        children: list[tuple[str, Main]],
        reload: Callable[[], bool],
        drain: float = DRAIN,
        died: Callable[[str, str], None] = lambda name, how: None,
    ) -> None:
        """``died`` is told when a child ended by itself, and how; it must neither block nor fail."""
        self._died = died
        self._children = [Child(name, main) for name, main in children]
        self._reload = reload
        self._drain = drain
        self._stopping = 0.0
        self._reload_asked = False

    def run(self) -> int:
        """Return 0 after an orderly end, 1 when a child could not start or had to be killed."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        if not self._start_all():
            self._stop()
            self._wait_for_end()
            return 1
        if not self._stopping:
            notify("READY=1")
            if self._reload_asked:
                self._hang_up()
        while not self._stopping:
            self._wait_once()
        return self._wait_for_end()

    def add(self, name: str, main: Main) -> None:
        """One more child, from now on; unless there is one of this name."""
        if all(child.name != name for child in self._children):
            self._children.append(Child(name, main, restart_at=time.monotonic()))

    # -- start --------------------------------------------------------------------------------

    def _start_all(self) -> bool:
        """Fork every child and wait until each is serving, or until we are told to stop."""
        waiting = {self._fork(child): child for child in self._children}
        try:
            while waiting and not self._stopping:
                for reader, said in [(reader, _said(reader)) for reader in waiting]:
                    if said is None:
                        continue
                    child = waiting.pop(reader)
                    os.close(reader)
                    if said != b"+":
                        log.error("process %s did not start", child.name)
                        return False
                if waiting:
                    self._wait_for_start(list(waiting.values()))
            return True
        finally:
            for reader in waiting:
                os.close(reader)

    def _wait_for_start(self, starting: list[Child]) -> None:
        """Until a child is ready or dead; whoever is told to stop does not wait for those that serve nobody yet."""
        info = signal.sigwaitinfo(WATCHED)
        if info.si_signo == signal.SIGHUP:
            self._reload_asked = True
        elif info.si_signo in END:
            self._stop()
            for child in starting:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    def _fork(self, child: Child) -> int:
        """Start `child`; the descriptor that comes back gives one byte when it is ready, else its end."""
        reader, writer = os.pipe()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            child.pid = os.fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            raise
        if child.pid == 0:
            os.close(reader)
            self._be(child, writer, parent)
        os.close(writer)
        child.started, child.restart_at = time.monotonic(), 0.0
        return reader

    def _be(self, child: Child, writer: int, parent: int) -> None:
        """Life of a child; never returns."""
        status = 1
        try:
            _die_with(parent)
            _prctl()(PR_SET_NAME, child.name.encode()[:15])  # for ps and top
            _keep_one_heap()
            status = child.main(lambda: _say_ready(writer, parent))
        except ArchiveError as error:
            log.error("process %s: %s", child.name, error)
        except Exception:
            log.exception("process %s failed", child.name)
        finally:
            with contextlib.suppress(Exception):
                logging.shutdown()
            os._exit(status)

    # -- run ----------------------------------------------------------------------------------

    def _wait_once(self) -> None:
        info = signal.sigtimedwait(WATCHED, self._patience())
        notify("WATCHDOG=1")
        if info is None:
            self._restart_due()
        elif info.si_signo == signal.SIGHUP:
            self._hang_up()
        elif info.si_signo in END:
            self._stop()
        else:
            self._bury()

    def _patience(self) -> float:
        """Seconds until something is due without a signal; a day when nothing is."""
        now = time.monotonic()
        dues = [child.restart_at - now for child in self._children if child.restart_at]
        interval = watchdog_interval()
        return max(0.0, min([86400.0, *dues, *([interval] if interval else [])]))

    def _bury(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children:
                if child.pid == pid:
                    self._mourn(child, status)

    def _mourn(self, child: Child, status: int) -> None:
        child.pid = 0
        if self._stopping:
            return
        lived = time.monotonic() - child.started
        child.restart_at = time.monotonic() + (PAUSE if lived < SHORT_LIFE else 0.0)
        log.error("process %s ended (%s), starting it again", child.name, _ending(status))
        self._died(child.name, _ending(status))

    def _restart_due(self) -> None:
        for child in self._children:
            if child.restart_at and time.monotonic() >= child.restart_at:
                try:
                    os.close(self._fork(child))
                except OSError as error:  # no memory, no process left: the others go on meanwhile
                    log.error("process %s cannot be started: %s", child.name, error.strerror)
                    child.restart_at = time.monotonic() + PAUSE

    def _hang_up(self) -> None:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        if self._reload():
            self._signal(signal.SIGHUP)
        notify("READY=1")

    def _signal(self, number: int) -> None:
        for child in self._children:
            if child.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    # -- stop ---------------------------------------------------------------------------------

    def _stop(self) -> None:
        notify("STOPPING=1")
        self._stopping = time.monotonic()
        self._signal(signal.SIGTERM)

    def _wait_for_end(self) -> int:
        """Give the children until the deadline; a second SIGTERM or SIGINT ends them at once."""
        deadline = self._stopping + self._drain - MARGIN / 2
        self._bury()
        while any(child.pid for child in self._children):
            left = deadline - time.monotonic()
            info = signal.sigtimedwait(WATCHED, left) if left > 0 else None
            if info is None or info.si_signo in END:
                self._kill()
                return 1
            self._bury()
        return 0

    def _kill(self) -> None:
        names = [child.name for child in self._children if child.pid]
        log.error("killing what did not end in time: %s", ", ".join(names))
        self._signal(signal.SIGKILL)
        for child in self._children:
            if child.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(child.pid, 0)


def run_alone(work: Callable[[], None]) -> int:
    """Do `work` in a process of its own, so that what it opens and starts is gone before others are forked."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        status = 1
        try:
            _die_with(parent)
            work()
            status = 0
        except ArchiveError as error:
            log.error("%s", error)
        except Exception:
            log.exception("failed by a fault of the archive")
        finally:
            with contextlib.suppress(Exception):
                logging.shutdown()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _prctl() -> Callable[[int, object], int]:
    prctl: Callable[[int, object], int] = ctypes.CDLL(None, use_errno=True).prctl
    return prctl


def _keep_one_heap() -> None:
    """glibc gives threads heaps of their own, eight for each processor, and each keeps what a burst of calls left free
    in it. One is enough: the interpreter lets one thread allocate at a time. Other C libraries have one."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _die_with(parent: int) -> None:
    """Whatever ends the process that forked this one ends this one too."""
    _prctl()(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        os._exit(1)


def _said(reader: int) -> bytes | None:
    """What a starting child said: one byte when it is ready, none when it is dead, None as long as it says nothing."""
    os.set_blocking(reader, False)
    try:
        return os.read(reader, 1)
    except BlockingIOError:
        return None


def _say_ready(writer: int, supervisor: int) -> None:
    with contextlib.suppress(OSError):  # a supervisor that restarts a child does not wait for this
        os.write(writer, b"+")
    os.close(writer)
    if os.getppid() == supervisor:
        os.kill(supervisor, CHILD_IS_READY)


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"
