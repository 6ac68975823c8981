"""The worker of the lanes: woken by tasks, ended in time, and after a process that died."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.dimse.delivery import PeerReach
from archive.dimse.destinations import Destination
from archive.index import Index, NewTask, State
from archive.services.destination import Conditions, Reach, Terms
from archive.services.retrieve import OpenFile
from archive.services.routing import DELIVER, ROUTE, Route, Routing, delivery
from archive.workers.delivery import Deliveries
from archive.workers.owner import is_dead, this_process
from archive.workers.routing import Pruner, Router
from archive.workers.worker import Workers
from tests.dimse.archives import QUICK, Archive, fill, instance, parts
from tests.dimse.receivers import receiving
from tests.faults.daemon import wait_until
from tests.index.made import arrival


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with parts(tmp_path) as made:
        fill(made, *(instance(number) for number in range(1, 6)))
        yield made


class Running:
    """The worker with its threads."""

    def __init__(self, archive: Archive, ports: dict[str, int], conditions: Conditions | None = None) -> None:
        self._archive, self._ports = archive, ports
        self._conditions = conditions or Conditions(usual=Terms(delays=(0.2, 0.2), give_up=60.0))
        made = Deliveries(archive.index, self._reach, lambda lane: self._conditions, clock=time.time)
        self.workers = Workers([made], archive.index.listen)

    def _reach(self, lane: str) -> Reach:
        called = Destination(lane, "127.0.0.1", self._ports[lane], "ARCHIVE", QUICK)
        return PeerReach(called, self._open, None)

    def _open(self, stored: object) -> OpenFile:
        return self._archive.retrieve.open(stored)  # type: ignore[arg-type]

    def __enter__(self) -> Running:
        self.workers.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.workers.stop()


def queue(archive: Archive, *lanes: str) -> list[str]:
    uids = [each.instance.sop_instance_uid for each in archive.index.queue.described(())]
    archive.index.add_tasks([delivery(uid, "", lane, 1.0) for uid in uids for lane in lanes], time.time())
    return uids


def count(index: Index, lane: str, state: State) -> int:
    return index.task_counts().get((DELIVER, lane, state), 0)


def test_what_is_committed_is_sent_and_settled(archive: Archive) -> None:
    with receiving() as receiver, Running(archive, {"WS1": receiver.port}):
        uids = queue(archive, "WS1")
        wait_until(lambda: count(archive.index, "WS1", State.DONE) == 5, 10)
        assert receiver.uids() == uids
        assert len(receiver.requests) == 1  # one association for all of them


def test_a_dead_destination_holds_nobody_up_and_is_asked_again_when_somebody_wants_so(archive: Archive) -> None:
    with socket.socket() as dead, receiving() as receiver:
        dead.bind(("127.0.0.1", 0))
        ports = {"WS1": receiver.port, "DEAD": dead.getsockname()[1]}
        slow = Conditions(usual=Terms(delays=(600.0,), give_up=1e6))
        with Running(archive, ports, slow):
            queue(archive, "DEAD", "WS1")
            wait_until(lambda: count(archive.index, "WS1", State.DONE) == 5, 10)
            wait_until(lambda: archive.index.queue.lane("DEAD").down_until is not None, 10)
            assert "refused" in archive.index.queue.lane("DEAD").down_why
            ports["DEAD"] = receiver.port
            archive.index.queue.hold("DEAD", [DELIVER], down_until=0.0)
            wait_until(lambda: archive.index.queue.lane("DEAD").down_tries == 2, 10)  # asked, and still dead
            assert count(archive.index, "DEAD", State.WAITING) == 5


def test_a_pause_counts_at_once_and_a_resume_too(archive: Archive) -> None:
    with receiving() as receiver, Running(archive, {"WS1": receiver.port}):
        archive.index.queue.hold("WS1", [DELIVER], paused=time.time())
        queue(archive, "WS1")
        archive.index.queue.hold("WS1", [DELIVER], paused=None)
        wait_until(lambda: count(archive.index, "WS1", State.DONE) == 5, 10)


def test_a_silent_destination_does_not_keep_the_worker_from_ending_and_loses_nothing(archive: Archive) -> None:
    asked = threading.Event()
    with receiving(lambda message: asked.set()) as receiver:
        running = Running(archive, {"WS1": receiver.port}).__enter__()
        queue(archive, "WS1")
        assert asked.wait(60)
        before = time.monotonic()
        running.workers.stop()
        assert time.monotonic() - before < 25
    assert count(archive.index, "WS1", State.WAITING) == 5


def test_what_a_dead_process_has_leased_is_sent_at_once(archive: Archive) -> None:
    queue(archive, "WS1")
    code = (
        "import sys; from archive.index import open_index; from archive.workers.owner import this_process;"
        " open_index(sys.argv[1]).lease('deliver', this_process() + '#x', 1e10, seconds=1e6, limit=99)"
    )
    url = f"sqlite:///{archive.folder}/index.db"
    subprocess.run([sys.executable, "-c", code, url], check=True, timeout=300, cwd=Path(__file__).parents[2])
    assert count(archive.index, "WS1", State.LEASED) == 5
    with receiving() as receiver, Running(archive, {"WS1": receiver.port}):
        wait_until(lambda: count(archive.index, "WS1", State.DONE) == 5, 10)


def test_a_process_knows_itself_alive_and_leaves_those_of_other_machines_alone() -> None:
    mine = this_process()
    host, pid, began = mine.rsplit(":", 2)
    assert not is_dead(mine) and not is_dead(f"{mine}#deliver:WS:1")
    assert is_dead(f"{host}:{pid}:{int(began) - 1}")
    assert not is_dead(f"elsewhere:{pid}:1") and not is_dead("nonsense") and not is_dead("")


# -- studies and series that are whole, and history -----------------------------------------------------------


def router(index: Index, *routes: Route, now: float = 2000.0) -> Router:
    return Router(index, Routing(routes, series_after=30.0), clock=lambda: now)


def routed(index: Index) -> list[tuple[str, str]]:
    return [(task.lane, task.payload["sop"]) for task in index.tasks(kind=DELIVER)]


def route_task(index: Index, trigger: str, **payload: str) -> None:
    index.add_tasks([NewTask(ROUTE, {"trigger": trigger, "study": "1.1"} | payload, 1.0, "x", "1.1")], 1.0)


def test_a_study_that_is_ready_is_queued_once_and_later_images_alone(index: Index) -> None:
    index.add([arrival("1.1", sop="a"), arrival("1.1", "1.1.2", sop="b", Modality="SR", source="WS1")])
    routes = router(index, Route("all", None, "study", ("WS1", "WS2")))
    route_task(index, "study")
    assert routes.step() == 0.0
    assert routed(index) == [("WS1", "a"), ("WS2", "a"), ("WS2", "b")]  # b came from WS1
    index.add([arrival("1.1", sop="c")])
    route_task(index, "study")
    routes.step()
    assert routed(index)[3:] == [("WS1", "c"), ("WS2", "c")]


def test_a_series_waits_while_images_still_come(index: Index) -> None:
    index.add([arrival("1.1", "1.1.1", sop="a", received=1990.0), arrival("1.1", "1.1.2", sop="b", received=1000.0)])
    route = Route("series", None, "series", ("WS1",))
    route_task(index, "series", series="1.1.1")
    route_task(index, "series", series="1.1.2")
    routes = router(index, route)
    routes.step()
    routes.step()
    assert routed(index) == [("WS1", "b")]
    assert routes.step() == 20.0
    router(index, route, now=2021.0).step()
    assert routed(index) == [("WS1", "b"), ("WS1", "a")]


def test_history_is_kept_for_its_time(index: Index) -> None:
    first, _ = index.add_tasks([NewTask(DELIVER, {}), NewTask(DELIVER, {})], 1.0)
    index.lease(DELIVER, "me", 2.0, seconds=5, limit=2)
    index.finish(first, "me", 100.0)
    pruner = Pruner(index, 50.0, clock=lambda: 140.0)
    pruner.step()
    assert len(index.tasks(kind=DELIVER)) == 2
    later = Pruner(index, 50.0, clock=lambda: 160.0)
    assert later.step() == 0.05 and len(index.tasks(kind=DELIVER)) == 1
    wait = later.step()
    assert wait is not None and wait > 60
