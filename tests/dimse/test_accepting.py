"""Threads that wait for a connection, serve it, and wait for the next."""

from __future__ import annotations

import contextlib
import gc
import resource
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest

from archive.dimse import accepting
from archive.dimse.accepting import Accepting
from archive.dimse.listener import bind
from archive.dimse.relay import Relay

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

    def __init__(self, sock: socket.socket | None = None, **options: Any) -> None:
        self.sock = sock or bind("127.0.0.1", 0)
        self.done: Queue[threading.Thread] = Queue()
        self.do: Callable[[], object] = lambda: None
        self.made: Queue[weakref.ref[Job]] = Queue()
        self.accepting = Accepting(self.sock, self._begin, **options)
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
def accepting_on(sock: socket.socket | None = None, **options: Any) -> Iterator[Served]:
    served = Served(sock, **options)
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
        assert served.served_by()
        assert "cannot accept for now" in caplog.text


def test_without_another_thread_a_connection_is_served_while_somebody_else_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with accepting_on() as served:
        served.served_by()
        served.wait_until_waiting(2)

        def none_left(_self: Accepting) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(accepting.Accepting, "_start_thread", none_left)
        for _ in range(20):
            assert served.served_by()
            served.wait_until_waiting(2)


def test_a_fault_while_waiting_ends_nobody(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with accepting_on(stay=0.01) as served:
        wait, mistakes = served.accepting._wait, threading.Semaphore(0)

        def mistaken() -> int | None:
            monkeypatch.setattr(served.accepting, "_wait", wait)
            mistakes.release()
            raise MemoryError

        monkeypatch.setattr(served.accepting, "_wait", mistaken)
        assert mistakes.acquire(timeout=WAIT)
        assert served.served_by()
    assert "a fault of ours while waiting" in caplog.text


def test_a_thread_that_leaves_has_given_back_what_it_waited_with(monkeypatch: pytest.MonkeyPatch) -> None:
    with accepting_on(kept=2, stay=0.01) as served:
        leaves, there = served.accepting._leaves, Queue[int]()

        def watched() -> bool:
            there.put(len(served.accepting._polls))
            return leaves()

        monkeypatch.setattr(served.accepting, "_leaves", watched)
        served.served_by()
        assert there.get(timeout=WAIT) >= 1


def test_a_connection_of_which_somebody_was_told_who_never_takes_it_is_served() -> None:
    """The kernel tells one of all that wait, in all processes; that one may have been killed, or be stopping."""
    sock, told = bind("127.0.0.1", 0), Queue[object]()
    with select.epoll() as deaf:
        deaf.register(sock, select.EPOLLIN | select.EPOLLEXCLUSIVE)  # the first in the kernel's list
        waiting = threading.Thread(target=lambda: told.put(deaf.poll(WAIT)))
        waiting.start()
        time.sleep(0.05)
        with accepting_on(sock, stay=0.1) as served:
            assert served.served_by()
        assert told.get(timeout=WAIT)
        waiting.join(WAIT)


def test_who_stops_leaves_all_connections_to_who_shares_the_socket() -> None:
    with accepting_on(stay=0.1) as first, contextlib.ExitStack() as stack:
        second = Served(first.sock, stay=0.1)
        for number in range(60):
            stack.enter_context(first.call())
            if number == 30:
                second.accepting.stop(WAIT)
        end = time.monotonic() + WAIT
        while first.done.qsize() + second.done.qsize() < 60:
            assert time.monotonic() < end
            time.sleep(0.005)


def test_out_of_descriptors_what_another_process_handed_over_waits() -> None:
    relay = Relay(2, 1)
    giver, taker = relay.join(1, 0), relay.join(0, 0)
    with accepting_on(place=taker, stay=0.1) as served, socket.socket() as sock, bind("127.0.0.1", 0) as other:
        sock.connect(other.getsockname())
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        relay._held[1] = 1
        assert relay.idlest(1) == 0
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # there are as many without those of the tests
        try:
            assert giver.hand_over(sock)
            time.sleep(0.3)
            assert served.done.empty() and served.made.empty()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert served.done.get(timeout=WAIT)


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
