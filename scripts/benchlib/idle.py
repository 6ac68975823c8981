"""Associations that are open and silent: opened all at once, answered as the server pleases, within a deadline."""

from __future__ import annotations

import selectors
import socket
import time

from benchlib import processes
from benchlib.client import A_ASSOCIATE_AC, VERIFICATION, Association, Failed, Offer, Target, associate_request

OPEN_SECONDS = 30.0
WATCH_SECONDS = 5.0
SETTLE_SECONDS = 1.0
QUIET_SECONDS = 20.0
ECHOES = 100
ECHO_TIMEOUT = 10.0
ECHO_PAUSE = 0.02
AT_A_TIME = 100  # a server's listen backlog is finite, and a dropped SYN costs a second


class Crowd:
    """While entered, `size` of the wanted associations are open and idle."""

    def __init__(self, target: Target, count: int) -> None:
        self._target, self._count = target, count
        self._sockets: list[socket.socket] = []
        self.size = 0

    def __enter__(self) -> Crowd:
        deadline = time.monotonic() + OPEN_SECONDS
        try:
            while self.size < self._count and time.monotonic() < deadline:
                opened = self._open(min(AT_A_TIME, self._count - self.size), deadline)
                if not opened:
                    break
                self.size += opened
        except OSError:
            pass  # refused from here on: size tells how far it came
        return self

    def __exit__(self, *_exception: object) -> None:
        for sock in self._sockets:
            sock.close()

    def _open(self, count: int, deadline: float) -> int:
        """Ask for so many; how many were accepted in time."""
        request = associate_request(self._target.ae, [Offer(VERIFICATION)])
        accepted = 0
        with selectors.DefaultSelector() as selector:
            for _ in range(count):
                sock = socket.create_connection(("127.0.0.1", self._target.port), self._target.timeout)
                self._sockets.append(sock)
                sock.sendall(request)
                selector.register(sock, selectors.EVENT_READ)
            while selector.get_map() and time.monotonic() < deadline:
                for key, _events in selector.select(timeout=1.0):
                    selector.unregister(key.fileobj)
                    assert isinstance(key.fileobj, socket.socket)
                    accepted += _is_accepted(key.fileobj)
        return accepted


def _is_accepted(sock: socket.socket) -> bool:
    try:
        return sock.recv(4096)[:1] == bytes([A_ASSOCIATE_AC])
    except OSError:
        return False  # reset: this one was refused, the others may still be welcome


def percent_of_core(pid: int) -> float:
    """What a server uses while nothing happens."""
    time.sleep(SETTLE_SECONDS)
    before, start = processes.cpu_seconds(pid), time.monotonic()
    time.sleep(WATCH_SECONDS)
    return 100 * (processes.cpu_seconds(pid) - before) / (time.monotonic() - start)


def wait_for_quiet(pid: int) -> None:
    """Let a server finish with a crowd that has gone, so that the next system does not pay for it."""
    deadline = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < deadline:
        before = processes.cpu_seconds(pid)
        time.sleep(SETTLE_SECONDS)
        if processes.cpu_seconds(pid) - before < 0.05 * SETTLE_SECONDS:
            return


def echo_beside(target: Target) -> str:
    """What an association with one C-ECHO takes meanwhile, in words."""
    times = []
    for _ in range(ECHOES):
        start = time.perf_counter()
        try:
            with Association(target, [Offer(VERIFICATION)]) as association:
                association.echo()
        except (OSError, Failed) as error:
            return f"C-ECHO beside them failed: {error}"
        times.append(time.perf_counter() - start)
        time.sleep(ECHO_PAUSE)
    return f"C-ECHO beside them p99 {1000 * sorted(times)[int(len(times) * 0.99) - 1]:.0f} ms"
