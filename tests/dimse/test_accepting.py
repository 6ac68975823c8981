"""Threads that wait for a connection, serve it, and wait for the next."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from queue import Queue

import pytest

from archive.dimse import accepting
from archive.dimse.accepting import Accepting
from archive.dimse.listener import bind

WAIT = 60.0


class Job:
    """Work that does as it is told, and says in which thread."""

    def __init__(self, sock: socket.socket, done: Queue[threading.Thread], do: Callable[[], object]) -> None:
        self.name = "served"
        self._sock, self._done, self._do = sock, done, do

    def run(self) -> None:
        self._do()
        self._sock.close()
        self._done.put(threading.current_thread())

    def forget(self) -> None:
        self._sock.close()


class Served:
    """A socket that is accepted on, and who served."""

    def __init__(self, **options: float) -> None:
        self.sock = bind("127.0.0.1", 0)
        self.done: Queue[threading.Thread] = Queue()
        self.do: Callable[[], object] = lambda: None
        self.made: Queue[weakref.ref[Job]] = Queue()
        self.accepting = Accepting(self.sock, self._begin, **options)  # type: ignore[arg-type]
        self.accepting.start()

    def _begin(self, sock: socket.socket, _peer: tuple[str, int]) -> Job:
        job = Job(sock, self.done, self.do)
        self.made.put(weakref.ref(job))
        return job

    def call(self) -> socket.socket:
        return socket.create_connection(self.sock.getsockname(), timeout=WAIT)

    def served_by(self) -> threading.Thread:
        with self.call():
            return self.done.get(timeout=WAIT)

    def wait_until_waiting(self, count: int) -> None:
        end = time.monotonic() + WAIT
        while self.accepting._waiting != count:
            assert time.monotonic() < end
            time.sleep(0.001)


@contextlib.contextmanager
def accepting_on(**options: float) -> Iterator[Served]:
    served = Served(**options)
    try:
        yield served
    finally:
        served.accepting.stop(WAIT)
        served.sock.close()


def test_callers_that_come_one_after_the_other_are_served_by_the_same_few() -> None:
    with accepting_on() as served:
        threads = set()
        for _ in range(50):
            threads.add(served.served_by())
            served.wait_until_waiting(2)
        assert len(threads) <= 2
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()


def test_nobody_waits_for_another() -> None:
    release, began = threading.Event(), threading.Semaphore(0)

    def stall() -> None:
        began.release()
        release.wait(WAIT)

    with accepting_on() as served, contextlib.ExitStack() as stack:
        served.do = stall
        for _ in range(20):
            stack.enter_context(served.call())
        for _ in range(20):
            assert began.acquire(timeout=WAIT)
        served.do = lambda: None
        served.served_by()
        release.set()


def test_fifty_callers_at_once_and_again_are_all_served() -> None:
    """No call may be lost between one who leaves and one who was not told."""
    with accepting_on(kept=3, stay=0.002) as served:
        for _ in range(20):
            with contextlib.ExitStack() as stack:
                for _ in range(50):
                    stack.enter_context(served.call())
                for _ in range(50):
                    served.done.get(timeout=WAIT)


def test_calls_at_the_moment_a_thread_leaves_are_served() -> None:
    with accepting_on(kept=2, stay=0.0005) as served:
        for _ in range(500):
            assert served.served_by()
            time.sleep(0.0005)


def test_no_more_than_a_few_stay_and_one_for_ever() -> None:
    release = threading.Event()
    with accepting_on(kept=3, stay=0.2) as served, contextlib.ExitStack() as stack:
        served.do = lambda: release.wait(WAIT)
        for _ in range(8):
            stack.enter_context(served.call())
        for _ in range(8):
            served.made.get(timeout=WAIT)
        release.set()
        threads = {served.done.get(timeout=WAIT) for _ in range(8)}
        served.wait_until_waiting(1)
        end = time.monotonic() + WAIT
        while sum(thread.is_alive() for thread in threads) > 1:
            assert time.monotonic() < end
            time.sleep(0.001)
        assert served.served_by()


def test_what_was_served_is_let_go() -> None:
    with accepting_on() as served:
        served.served_by()
        served.wait_until_waiting(2)
        gc.collect()
        assert served.made.get()() is None


def test_without_another_thread_a_connection_is_let_go_and_the_next_one_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with accepting_on() as served:

        def none_left(_self: Accepting) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(accepting.Accepting, "_start_thread", none_left)
            with served.call() as called:
                assert called.recv(1) == b""
        assert "cannot accept for now" in caplog.text
        assert served.served_by()


def test_a_fault_in_one_connection_does_not_end_accepting(caplog: pytest.LogCaptureFixture) -> None:
    with accepting_on() as served:
        begin = served._begin

        def mistaken(sock: socket.socket, peer: tuple[str, int]) -> Job:
            served.accepting._begin = begin
            sock.close()
            raise IndexError("a mistake")

        served.accepting._begin = mistaken
        with served.call() as called:
            assert called.recv(1) == b""
        assert served.served_by()
        assert "a fault of ours" in caplog.text


def test_stop_waits_for_those_who_wait_and_not_for_those_who_serve() -> None:
    release = threading.Event()
    served = Served()
    served.do = lambda: release.wait(WAIT)
    with served.call():
        served.made.get(timeout=WAIT)
        began = time.monotonic()
        served.accepting.stop(WAIT)
        assert time.monotonic() - began < WAIT / 2
        assert served.accepting._waiting == 0
        release.set()
        thread = served.done.get(timeout=WAIT)
        thread.join(WAIT)
        assert not thread.is_alive()
    served.sock.close()
