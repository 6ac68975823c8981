"""Workers: called at the start, when their tasks come, and when they asked for it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from archive.index import Index, NewTask, open_index
from archive.workers.worker import Worker, Workers


class Counting:
    """Counts its steps and can be waited for."""

    def __init__(self, name: str, *kinds: str, again: float | None = None, fails: bool = False) -> None:
        self.name, self.kinds, self.again, self.fails = name, frozenset(kinds), again, fails
        self.steps = 0
        self.closed = False
        self._changed = threading.Condition()

    def step(self) -> float | None:
        with self._changed:
            self.steps += 1
            self._changed.notify_all()
        if self.fails:
            raise RuntimeError("broken")
        return self.again

    def close(self) -> None:
        self.closed = True

    def reaches(self, steps: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.steps >= steps, 10)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return open_index(f"sqlite:///{tmp_path}/index.db")


def started(index: Index, *workers: Worker) -> Workers:
    found = Workers(workers, index.listen)
    found.start()
    return found


def test_a_worker_steps_at_the_start_and_for_its_own_tasks(index: Index) -> None:
    routes, others = Counting("routes", "route"), Counting("others", "other")
    workers = started(index, routes, others)
    assert routes.reaches(1) and others.reaches(1)
    for number in range(3):
        index.add_tasks([NewTask("route", {})], 1.0)
        assert routes.reaches(2 + number)
    workers.stop()
    assert others.steps == 1
    assert routes.closed and others.closed


def test_a_worker_is_called_again_when_it_asked_for_it(index: Index) -> None:
    worker = Counting("timer", again=0.01)
    workers = started(index, worker)
    assert worker.reaches(5)
    workers.stop()


def test_a_broken_worker_harms_no_other(index: Index) -> None:
    broken, sound = Counting("broken", "route", fails=True), Counting("sound", "route")
    workers = started(index, broken, sound)
    assert broken.reaches(1) and sound.reaches(1)
    index.add_tasks([NewTask("route", {})], 1.0)
    assert sound.reaches(2) and broken.reaches(2)
    workers.stop()


def test_a_stopped_worker_steps_no_more(index: Index) -> None:
    worker = Counting("routes", "route")
    workers = started(index, worker)
    assert worker.reaches(1)
    workers.stop()
    index.add_tasks([NewTask("route", {})], 1.0)
    assert worker.steps == 1
    assert list(Path(index.database.path.with_name("index.db-wakes")).iterdir()) == []  # type: ignore[attr-defined]


def test_a_lost_index_is_listened_to_again(postgresql: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.workers.worker.PAUSE", 0.05)
    index = open_index(postgresql())  # type: ignore[operator]
    worker = Counting("routes", "route")
    workers = started(index, worker)
    assert worker.reaches(1)
    index.read(
        lambda session: session.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        )
    )
    assert worker.reaches(2), "what may have been missed is looked for"
    index.add_tasks([NewTask("route", {})], 1.0)
    assert worker.reaches(3)
    workers.stop()
    index.close()
