"""Threads that wait for the next connection."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from queue import Queue

from archive.dimse.threads import Threads

WAIT = 60.0


def ran_in(threads: Threads, name: str) -> threading.Thread:
    """The thread that did a piece of work."""
    found: Queue[threading.Thread] = Queue()
    threads.run(lambda: found.put(threading.current_thread()), name)
    return found.get(timeout=WAIT)


def wait_until_idle(threads: Threads, count: int) -> None:
    end = time.monotonic() + WAIT
    while threads._idle != count:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_the_next_work_is_done_by_the_same_thread_under_its_own_name() -> None:
    threads = Threads()
    first = ran_in(threads, "one")
    wait_until_idle(threads, 1)
    names: Queue[str] = Queue()
    threads.run(lambda: names.put(threading.current_thread().name), "two")
    assert names.get(timeout=WAIT) == "two"
    wait_until_idle(threads, 1)
    assert ran_in(threads, "three") is first
    threads.close()
    first.join(WAIT)
    assert not first.is_alive()


def test_nobody_waits_for_work_of_another() -> None:
    threads, release, began = Threads(), threading.Event(), threading.Semaphore(0)

    def stall() -> None:
        began.release()
        release.wait(WAIT)

    for number in range(10):
        threads.run(stall, f"stalled {number}")
    for _ in range(10):
        assert began.acquire(timeout=WAIT)
    assert not ran_in(threads, "prompt").name.startswith("stalled")
    release.set()
    threads.close()


def test_no_more_than_a_few_stay() -> None:
    threads, release = Threads(kept=2), threading.Event()
    seen: list[threading.Thread] = []
    all_there = threading.Barrier(7)

    def work() -> None:
        seen.append(threading.current_thread())
        all_there.wait(WAIT)
        release.wait(WAIT)

    for number in range(6):
        threads.run(work, str(number))
    all_there.wait(WAIT)
    release.set()
    wait_until_idle(threads, 2)
    threads.close()
    for thread in seen:
        thread.join(WAIT)
        assert not thread.is_alive()


def test_what_was_worked_on_is_let_go() -> None:
    class Thing:
        def run(self) -> None:
            done.set()

    threads, done, thing = Threads(), threading.Event(), Thing()
    kept = weakref.ref(thing)
    threads.run(thing.run, "once")
    assert done.wait(WAIT)
    del thing
    wait_until_idle(threads, 1)
    gc.collect()
    assert kept() is None
    threads.close()


def test_nobody_stays_for_long() -> None:
    threads = Threads(stay=0.01)
    first = ran_in(threads, "one")
    first.join(WAIT)
    assert not first.is_alive()
    assert ran_in(threads, "two") is not first


def test_work_that_comes_as_a_thread_leaves_is_done() -> None:
    threads = Threads(kept=2, stay=0.0005)
    for number in range(300):
        assert ran_in(threads, str(number))
        time.sleep(0.0005)
    threads.close()
