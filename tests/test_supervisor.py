"""The supervisor with real processes: each test runs it in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from archive.supervisor import Supervisor

folder = Path(sys.argv[1])
how = sys.argv[2]

def child(ready):
    (folder / f"born-{os.getpid()}").touch()
    if how == "unable":
        return 1
    if how == "slow":
        time.sleep(60)
    if how == "uneven" and len(list(folder.glob("born-*"))) == 2:
        time.sleep(0.5)
    ready()
    (folder / f"up-{os.getpid()}").touch()
    while True:
        number = signal.sigwait({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
        (folder / f"{signal.Signals(number).name}-{os.getpid()}").touch()
        if number != signal.SIGHUP and how not in ("stubborn", "deaf"):
            return 0

def reload():
    (folder / "reload").touch()
    if how == "more":
        supervisor.add("three", child)
        supervisor.add("two", child)  # there is one
    return how != "bad"

supervisor = Supervisor(
    [("one", child), ("two", child)], reload, drain=3.0 if how == "stubborn" else 300.0,
    died=lambda name, why: (folder / f"died-{name}-{why.replace(' ', '-')}").touch(),
)
sys.exit(supervisor.run())
"""


class Run:
    def __init__(self, folder: Path, how: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), how], cwd=Path(__file__).parent.parent, start_new_session=True
        )

    def born(self, count: int) -> list[int]:
        self.until(lambda: len(list(self.folder.glob("born-*"))) >= count)
        return [int(path.name.split("-")[1]) for path in self.folder.glob("born-*")]

    def up(self, count: int) -> None:
        """They have said that they are ready; the supervisor hears of it in a moment."""
        self.until(lambda: self.count("up-*") >= count)
        time.sleep(0.5)

    def until(self, true: object) -> None:
        deadline = time.monotonic() + 60
        while not true():  # type: ignore[operator]
            assert time.monotonic() < deadline, sorted(path.name for path in self.folder.iterdir())
            time.sleep(0.02)

    def count(self, pattern: str) -> int:
        return len(list(self.folder.glob(pattern)))


@pytest.fixture
def start(tmp_path: Path) -> object:
    runs: list[Run] = []

    def begin(how: str = "good") -> Run:
        runs.append(Run(tmp_path, how))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait(60)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_sigterm_reaches_every_child_and_ends_with_status_zero(start) -> None:  # type: ignore[no-untyped-def]
    run = start()
    run.up(2)
    run.process.terminate()
    assert run.process.wait(60) == 0
    assert run.count("SIGTERM-*") == 2


def test_a_child_that_is_ready_later_than_another_is_waited_for(start) -> None:  # type: ignore[no-untyped-def]
    run = start("uneven")
    run.up(2)
    run.process.terminate()
    assert run.process.wait(60) == 0
    assert (run.count("born-*"), run.count("SIGTERM-*")) == (2, 2)


def test_a_killed_child_is_started_again(start) -> None:  # type: ignore[no-untyped-def]
    run = start()
    first = run.born(2)[0]
    os.kill(first, signal.SIGKILL)
    assert first in run.born(3)
    run.process.terminate()
    assert run.process.wait(60) == 0
    assert run.count("died-*-signal-SIGKILL") == 1 == run.count("died-*")


def test_a_child_that_a_reload_adds_is_started_and_ends_with_the_others(start) -> None:  # type: ignore[no-untyped-def]
    run = start("more")
    run.born(2)
    run.process.send_signal(signal.SIGHUP)
    run.born(3)
    run.process.terminate()
    assert run.process.wait(60) == 0
    assert (run.count("born-*"), run.count("SIGTERM-*"), run.count("died-*")) == (3, 3, 0)


def test_children_die_with_a_killed_supervisor(start) -> None:  # type: ignore[no-untyped-def]
    run = start()
    children = run.born(2)
    time.sleep(0.1)
    run.process.kill()
    run.until(lambda: not any(alive(child) for child in children))


def test_a_stubborn_child_is_killed_at_the_deadline(start) -> None:  # type: ignore[no-untyped-def]
    run = start("stubborn")
    run.up(2)
    run.process.terminate()
    assert run.process.wait(60) == 1


def test_a_second_sigterm_ends_at_once(start) -> None:  # type: ignore[no-untyped-def]
    run = start("deaf")
    run.up(2)
    run.process.terminate()
    run.until(lambda: run.count("SIGTERM-*") == 2)
    run.process.terminate()
    assert run.process.wait(60) == 1


def test_a_child_that_cannot_start_ends_the_whole(start) -> None:  # type: ignore[no-untyped-def]
    run = start("unable")
    assert run.process.wait(60) == 1


@pytest.mark.parametrize("how, reached", [("good", 2), ("bad", 0)])
def test_sighup_reaches_the_children_only_with_a_good_configuration(start, how: str, reached: int) -> None:  # type: ignore[no-untyped-def]
    run = start(how)
    run.up(2)
    run.process.send_signal(signal.SIGHUP)
    run.until(lambda: run.count("reload") == 1)
    time.sleep(0.2)
    assert run.count("SIGHUP-*") == reached


def test_sigterm_does_not_wait_for_children_that_are_starting(start) -> None:  # type: ignore[no-untyped-def]
    run = start("slow")
    run.born(2)
    run.process.terminate()
    assert run.process.wait(60) == 0


ALONE = """
import os, sys, time
from pathlib import Path
from archive.supervisor import run_alone

def work():
    Path(sys.argv[1], f"born-{os.getpid()}").touch()
    time.sleep(60)

run_alone(work)
"""


def test_work_done_alone_dies_with_who_wanted_it(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ALONE, str(tmp_path)], cwd=Path(__file__).parent.parent)
    deadline = time.monotonic() + 60
    while not (born := list(tmp_path.glob("born-*"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait(60)
    worker = int(born[0].name.split("-")[1])
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(worker)


HEAPS = """
import re, sys, threading
from archive.supervisor import _keep_one_heap
if sys.argv[1] == "one":
    _keep_one_heap()
there = threading.Barrier(9)
def work():
    kept = [bytearray(2000) for _ in range(1000)]
    there.wait(); there.wait()
for _ in range(8):
    threading.Thread(target=work).start()
there.wait()
maps = [[int(each, 16) for each in re.split("[- ]", line)[:2]] for line in open("/proc/self/maps") if " ---p " in line]
print(sum(32 << 20 < end - start < 64 << 20 for start, end in maps))  # what is reserved for heaps to grow
there.wait()
"""


def test_the_threads_of_a_child_share_a_heap() -> None:
    heaps = {
        how: int(subprocess.check_output([sys.executable, "-c", HEAPS, how], text=True)) for how in ("one", "as it was")
    }
    assert heaps["one"] == 0 and heaps["as it was"] > 0
