"""Waking: who waits for tasks hears of each that is committed, in any process, and of none that is not."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.errors import IndexUnavailable
from archive.index import Index, NewTask, State, Wakes, open_index

SOON = 10_000  # milliseconds


@pytest.fixture
def wakes(index: Index) -> Iterator[Wakes]:
    found = index.listen()
    yield found
    found.close()


def heard(wakes: Wakes, within: int = SOON) -> set[str]:
    poll = select.poll()
    poll.register(wakes.fileno(), select.POLLIN)
    return wakes.take() if poll.poll(within) else set()


def test_an_added_task_is_heard_of_by_its_kind(index: Index, wakes: Wakes) -> None:
    index.add_tasks([NewTask("route", {}), NewTask("route", {}), NewTask("compress", {})], 1.0)
    assert heard(wakes) | heard(wakes, 50) == {"route", "compress"}
    assert heard(wakes, 50) == set()


def test_a_task_that_is_due_again_is_heard_of(index: Index, wakes: Wakes) -> None:
    (key,) = index.add_tasks([NewTask("route", {})], 1.0)
    heard(wakes)
    assert index.lease("route", "me", 2.0, seconds=5)
    assert index.fail(key, "me", 3.0, "no")
    assert index.requeue([key], 4.0) == 1
    assert heard(wakes) == {"route"}
    assert index.tasks(state=State.WAITING)


def test_every_listener_hears(index: Index, wakes: Wakes) -> None:
    other = index.listen()
    index.add_tasks([NewTask("route", {})], 1.0)
    assert heard(wakes) == heard(other) == {"route"}
    other.close()


def test_another_process_is_heard(index_url: str) -> None:
    index = open_index(index_url)
    wakes = index.listen()
    program = (
        "import sys; from archive.index import NewTask, open_index;"
        " open_index(sys.argv[1]).add_tasks([NewTask('route', {})], 1.0)"
    )
    subprocess.run([sys.executable, "-c", program, index_url], check=True, timeout=300)
    assert heard(wakes) == {"route"}
    wakes.close()
    index.close()


def test_a_failed_transaction_wakes_nobody(index: Index, wakes: Wakes) -> None:
    def work(session: object) -> None:
        session.wake("route")  # type: ignore[attr-defined]
        raise KeyError("no")

    with pytest.raises(KeyError):
        index.database.transact(work)
    index.add_tasks([NewTask("other", {})], 1.0)
    assert heard(wakes) == {"other"}


def test_a_listener_that_died_is_forgotten(tmp_path: os.PathLike[str]) -> None:
    url = f"sqlite:///{tmp_path}/index.db"
    program = "import os, sys; from archive.index import open_index; open_index(sys.argv[1]).listen(); os._exit(0)"
    subprocess.run([sys.executable, "-c", program, url], check=True, timeout=300)
    folder = f"{tmp_path}/index.db-wakes"
    assert len(os.listdir(folder)) == 1
    index = open_index(url)
    index.add_tasks([NewTask("route", {})], 1.0)
    assert os.listdir(folder) == []
    index.close()


def test_a_lost_server_is_said(postgresql: object) -> None:
    index = open_index(postgresql())  # type: ignore[operator]
    wakes = index.listen()
    index.read(
        lambda session: session.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        )
    )
    with pytest.raises(IndexUnavailable):
        while True:
            heard(wakes)
    wakes.close()
    index.close()


def test_a_commit_stays_one_when_nobody_can_be_woken(tmp_path: Path) -> None:
    index = open_index(f"sqlite:///{tmp_path}/index.db")
    (tmp_path / "index.db-wakes").write_text("no folder")
    assert len(index.add_tasks([NewTask("route", {})], 1.0)) == 1
    assert len(index.tasks()) == 1
    index.close()
