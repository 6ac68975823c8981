"""SQLite's log moves into the database beside the transactions, and is never taken for synced when that failed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.errors import IndexUnavailable
from archive.index import Index, open_index
from archive.index import sqlite as module
from archive.index.sqlite import SqliteDatabase

from .made import arrival


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    found = open_index(f"sqlite:///{tmp_path}/index.db")
    yield found
    found.close()


def stored_in_file(tmp_path: Path) -> int:
    """Instances that the database file alone has, without its log."""
    copy = tmp_path / "copy.db"
    copy.write_bytes((tmp_path / "index.db").read_bytes())
    with sqlite3.connect(copy) as alone:
        try:
            return int(alone.execute("SELECT COUNT(*) FROM instance").fetchone()[0])
        except sqlite3.OperationalError:  # no table yet
            return 0


def test_transactions_ask_for_the_log_to_be_moved_now_and_then(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIM", 3)
    index.trim_log()
    for number in range(2):
        index.add([arrival(sop=f"1.{number}")])
    assert not index.log_full.is_set()
    index.add([arrival(sop="1.9")])
    assert index.log_full.is_set()


def test_the_log_is_moved_while_a_transaction_is_open(index: Index, tmp_path: Path) -> None:
    index.add([arrival(sop=f"1.{number}") for number in range(20)])
    assert stored_in_file(tmp_path) == 0
    database = index.database
    assert isinstance(database, SqliteDatabase)

    def meanwhile(session: object) -> None:
        index.trim_log()

    database.transact(meanwhile)
    assert stored_in_file(tmp_path) == 20


def test_a_log_that_goes_on_growing_is_ended_between_two_transactions(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONG", 0)
    index.add([arrival(sop="1.1")])
    with sqlite3.connect(tmp_path / "index.db") as reader:  # as long as it reads, later pages cannot all be moved
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM instance").fetchone()
        index.add([arrival(sop="1.2")])
        index.trim_log()
    index.trim_log()
    assert stored_in_file(tmp_path) == 2


def test_after_a_failed_move_the_next_sync_does_not_trust_the_log(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = index.database
    assert isinstance(database, SqliteDatabase)
    index.sync()
    emptied: list[bool] = []
    empty_log = database._empty_log
    monkeypatch.setattr(database, "_empty_log", lambda: (emptied.append(True), empty_log())[1])

    def broken() -> object:
        raise IndexUnavailable("index is not available", "disk I/O error")

    monkeypatch.setattr(database, "_open", broken)
    with pytest.raises(IndexUnavailable):
        index.trim_log()
    index.sync()
    assert emptied == [True]
    index.sync()
    assert emptied == [True]
