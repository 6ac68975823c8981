"""The threads of a listening socket: each waits for a connection, serves it, and waits for the next.

No thread only accepts: it would wake another one for each connection, and both would wait for the interpreter.

Rules that hold here: somebody always waits, which who takes a connection sees to before serving it; a few more stay
for a moment, so that callers that come one after the other find them; none of them keeps what it worked on; out of
descriptors or memory, connections stay in the backlog; out of threads, one at a time is closed; whoever waits looks
now and then by itself, for who was told of a connection may have died of it.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from archive.dimse.relay import Place

log = logging.getLogger(__name__)

KEPT = 4  # threads that wait for connections, at most
STAY = 2.0  # seconds that they wait for one; then all but one go, and that one looks by itself
PAUSE = 0.1  # seconds without accepting when descriptors, memory or threads ran out
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

Address = tuple[str, int]


class Work(Protocol):
    """A connection to be served; neither of its methods raises."""

    name: str

    def run(self) -> None: ...
    def forget(self) -> None: ...


class Accepting:
    """Accepts on a socket, which other processes may share; with a `place`, from them too."""

    def __init__(
        self,
        sock: socket.socket,
        begin: Callable[[socket.socket, Address], Work | None],
        *,
        place: Place | None = None,
        kept: int = KEPT,
        stay: float = STAY,
    ) -> None:
        """`begin` makes work of a connection, or closes it and returns None."""
        self._sock, self._begin, self._place = sock, begin, place
        self._kept, self._stay = kept, stay
        self._name = f"accept:{sock.getsockname()[1]}"
        self._arrivals = place.fileno() if place is not None else -1
        self._lock = threading.Lock()
        self._nobody_waits = threading.Condition(self._lock)
        self._waiting = 0
        self._stopping = False
        self._complained: dict[str, float] = {}
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        sock.setblocking(False)  # another process may be quicker after we were woken
        self._polls = [self._poll() for _ in range(kept)]

    def _poll(self) -> select.epoll:
        poll = select.epoll()
        # Exclusive: of all that wait, in all processes, the kernel wakes one per connection.
        for descriptor in (self._sock.fileno(), self._arrivals):
            if descriptor >= 0:
                poll.register(descriptor, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        poll.register(self._wake_reader, select.EPOLLIN)
        return poll

    def start(self) -> None:
        """Raises RuntimeError when there can be no thread."""
        with self._lock:
            self._start_thread()
            self._waiting = 1

    def stop(self, seconds: float) -> None:
        """Accept no more; those that serve go when they are done."""
        with self._nobody_waits:
            self._stopping = True
            os.write(self._wake_writer, b"x")
            self._nobody_waits.wait_for(lambda: not self._waiting, seconds)
        for poll in self._polls:
            poll.close()
        for descriptor in (self._wake_reader, self._wake_writer):
            os.close(descriptor)

    def complain(self, message: str, *arguments: object) -> None:
        """Each at most once a second: whoever floods us must not flood the log."""
        now = monotonic()
        if now - self._complained.get(message, 0.0) >= 1.0:
            self._complained[message] = now
            log.warning(message, *arguments)

    # -- the threads ---------------------------------------------------------------------------

    def _start_thread(self) -> None:
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        thread = threading.current_thread()
        work = self._next()
        while work is not None:
            thread.name = work.name
            work.run()
            work = None  # what was worked on must not wait with us
            thread.name = self._name
            if not self._stays():
                return
            work = self._next()

    def _next(self) -> Work | None:
        """What this thread, which counts as waiting, is to serve; None when it is not needed any more."""
        while True:
            try:
                arrived = self._wait()
                work = None if self._stopping else self._accept(handed=arrived == self._arrivals)
                if work is None:
                    if (arrived is None or self._stopping) and self._leaves():
                        return None
                elif self._lets_another_wait(work):
                    return work
            except Exception as error:  # whatever it is, somebody must go on waiting
                log.exception("a fault of ours while waiting for connections")
                self._pause(error)

    def _wait(self) -> int | None:
        """Where something arrived; None after a while without."""
        poll = self._polls.pop()
        try:
            ready = poll.poll(self._stay, 1)
        finally:
            self._polls.append(poll)
        return ready[0][0] if ready else None

    def _lets_another_wait(self, work: Work) -> bool:
        """Before this thread serves: somebody else waits, if need be a new thread in its place."""
        with self._lock:
            if self._waiting > 1:
                self._waiting -= 1
                return True
        try:
            self._start_thread()
            return True
        except (RuntimeError, MemoryError) as error:
            work.forget()
            self._pause(error)
            return False

    def _leaves(self) -> bool:
        """Nothing came; the last one stays, unless all are to go."""
        with self._nobody_waits:
            if self._waiting > 1 or self._stopping:
                self._waiting -= 1
                self._nobody_waits.notify_all()
                return True
            return False

    def _stays(self) -> bool:
        with self._lock:
            if self._stopping or self._waiting >= self._kept:
                return False
            self._waiting += 1
            return True

    # -- accepting -----------------------------------------------------------------------------

    def _accept(self, *, handed: bool) -> Work | None:
        try:
            sock, peer = self._handed() if handed else self._accepted()
            return self._begin(sock, peer) if sock is not None else None
        except (BlockingIOError, ConnectionError, InterruptedError):
            return None
        except (OSError, MemoryError) as error:
            self._pause(error)
            return None
        except Exception:
            log.exception("a connection was lost by a fault of ours")
            return None

    def _accepted(self) -> tuple[socket.socket | None, Address]:
        """The next connection; None when another process has it now."""
        sock, peer = self._sock.accept()
        if self._place is not None and self._place.hand_over(sock):
            return None, peer
        return sock, peer

    def _handed(self) -> tuple[socket.socket | None, Address]:
        """A connection that another process accepted."""
        assert self._place is not None
        os.close(os.dup(self._arrivals))  # without a descriptor to be had, what is handed over would be lost
        sock = self._place.take()
        if sock is None:
            return None, ("", 0)
        try:
            return sock, sock.getpeername()
        except OSError as error:
            sock.close()
            raise ConnectionAbortedError from error

    def _pause(self, error: Exception) -> None:
        """Most often out of descriptors, memory or threads: connections wait in the backlog meanwhile."""
        if isinstance(error, OSError) and error.errno not in _EXHAUSTED:
            if not self._stopping:
                log.error("cannot accept: %s", error)
        else:
            self.complain("cannot accept for now: %s", error)
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        poll.poll(PAUSE * 1000)
