"""Migrations, models, copying and opening, on both databases."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from archive.errors import ConfigurationError, IndexUnavailable
from archive.index import Index, NewTask, open_index
from archive.index.copying import copy
from archive.index.database import Row, Session
from archive.index.index import open_database
from archive.index.migrations import MIGRATIONS, migrate, version
from archive.index.models import MODELS
from tests.faults.daemon import wait_until
from tests.index.made import arrival, found


def table_columns(session: Session, table: str) -> list[str]:
    if session.dialect.name == "sqlite":
        return [str(row[1]) for row in session.rows(f"PRAGMA table_info({table})")]
    sql = "SELECT column_name FROM information_schema.columns WHERE table_name = ? ORDER BY ordinal_position"
    return [str(row[0]) for row in session.rows(sql, (table,))]


def test_models_and_migrations_agree(index: Index) -> None:
    for model in MODELS:
        table = model._meta.table_name
        assert index.read(lambda session, table=table: table_columns(session, table)) == list(model._meta.columns)


def test_opening_again_changes_nothing(index: Index, index_url: str) -> None:
    index.add([arrival("1.1")])
    again = open_index(index_url)
    assert again.statistics() == index.statistics()
    assert migrate(again.database) == 0
    again.close()


def test_a_newer_schema_is_refused_and_left_alone(index: Index, index_url: str) -> None:
    index.database.transact(lambda session: session.run("INSERT INTO schema_version (version) VALUES (99)"))
    with pytest.raises(ConfigurationError, match=f"the index has schema 99, this program knows {len(MIGRATIONS)}"):
        open_index(index_url)


def test_a_migration_that_fails_leaves_the_old_schema(index: Index) -> None:
    def broken() -> Iterator[str]:
        yield "CREATE TABLE half (id {int})"
        yield "INSERT INTO nowhere VALUES (1)"

    with pytest.raises(Exception, match="nowhere"):
        migrate(index.database, (*MIGRATIONS, broken))
    assert index.read(version) == len(MIGRATIONS)
    assert index.read(lambda session: table_columns(session, "half")) == []

    def whole() -> Iterator[str]:
        yield "CREATE TABLE half (id {int})"

    assert migrate(index.database, (*MIGRATIONS, whole)) == 1
    assert index.read(lambda session: table_columns(session, "half")) == ["id"]


def test_two_processes_that_open_a_new_index_at_once_migrate_it_once(tmp_path: Path) -> None:
    code = f"from archive.index import open_index; open_index('sqlite:///{tmp_path}/new.db').close()"
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "sqlite:///", "", "index.db", "sqlite://host/file"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"index\.url"):
        open_index(url)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"):
        open_index(f"sqlite:///{tmp_path}/file/index.db")


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_text("no database " * 100)
    with pytest.raises(IndexUnavailable, match="not a database"):
        open_index(f"sqlite:///{tmp_path}/index.db")


def test_sqlite_commits_are_full_and_logged_ahead(tmp_path: Path) -> None:
    index = open_index(f"sqlite:///{tmp_path}/index.db")
    pragmas = ("journal_mode", "synchronous", "foreign_keys")
    values = index.database.transact(lambda session: [session.row(f"PRAGMA {pragma}") for pragma in pragmas])
    assert values == [("wal",), (2,), (1,)]
    relaxed = index.database.transact(lambda session: session.row("PRAGMA synchronous"), durable=False)
    assert relaxed == (1,)
    index.close()


def test_postgresql_commits_are_synchronous_whatever_the_default(postgresql: Callable[[], str]) -> None:
    url = postgresql()
    database = open_database(url)
    name = database.read(lambda session: session.row("SELECT current_database()"))
    assert name
    database.transact(lambda session: session.run(f"ALTER DATABASE {name[0]} SET synchronous_commit = off"))
    database.close()
    index = open_index(url)
    assert index.read(lambda session: session.row("SHOW synchronous_commit")) == ("on",)
    index.close()


# -- copying --------------------------------------------------------------------------------------


@pytest.fixture
def other_url(request: pytest.FixtureRequest, index_url: str, tmp_path: Path) -> str:
    if index_url.startswith("postgresql"):
        return f"sqlite:///{tmp_path}/copy.db"
    make: Callable[[], str] = request.getfixturevalue("postgresql")
    return make()


def test_a_copy_holds_everything_and_goes_on(index: Index, index_url: str, other_url: str) -> None:
    index.add([arrival("1.1", PatientName="Mü^ä=山"), arrival("1.1"), arrival("1.2", PatientID="P2")])
    index.add([arrival("1.2", PatientID="P2", tasks=(NewTask("route", {}),))], journal=(3, 8))
    index.put("x", "1")
    index.note_caller("CT9", "10.0.0.9", "ARCHIVE", "unknown", 1.0)
    key = index.quarantine(arrival("1.9"), "q/1", "because")
    seen: list[tuple[str, int, int]] = []
    counts = copy(index_url, other_url, lambda *step: seen.append(step))
    assert counts["instance"] == 4 and ("instance", 4, 4) in seen
    other = open_index(other_url)
    assert other.statistics() == index.statistics()
    assert other.tasks() == index.tasks() and other.callers() == index.callers()
    assert other.quarantine_entry(key) == index.quarantine_entry(key)
    assert (other.applied(3), other.get("x")) == (8, "1")
    assert found(other, "STUDY", "StudyInstanceUID", PatientName="山*") == ["1.1"]
    (added,) = other.add([arrival("1.1")])
    assert added.instance_id == 5
    other.close()
    with pytest.raises(ConfigurationError, match="not empty"):
        copy(index_url, other_url)


def test_a_copy_that_was_broken_off_can_be_begun_again(index: Index, index_url: str, other_url: str) -> None:
    index.add([arrival("1.1"), arrival("1.2")])

    def stop(table: str, done: int, total: int) -> None:
        if table == "study":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(index_url, other_url, stop)
    assert copy(index_url, other_url)["instance"] == 2


# -- a database in trouble ------------------------------------------------------------------------


def test_a_lock_from_outside_makes_the_index_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.index.sqlite._BOTH", ("PRAGMA foreign_keys = ON", "PRAGMA busy_timeout = 50"))
    index = open_index(f"sqlite:///{tmp_path}/index.db")
    index.add([arrival("1.1")])
    outside = sqlite3.connect(tmp_path / "index.db", isolation_level=None)
    outside.execute("BEGIN EXCLUSIVE")
    with pytest.raises(IndexUnavailable):
        index.add([arrival("1.1")])
    assert index.statistics().instances == 1
    outside.execute("ROLLBACK")
    index.add([arrival("1.1")])
    assert index.statistics().instances == 2
    outside.close()
    index.close()


def test_a_writer_that_stopped_in_another_process_does_not_hold_up_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = open_index(f"sqlite:///{tmp_path}/index.db")
    code = (
        "import fcntl, sys, time\n"
        f"file = open({str(tmp_path / 'index.db-writer')!r}, 'r+'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout and child.stdout.readline() == b"locked\n"
    monkeypatch.setattr("archive.index.sqlite.PATIENCE", 0.1)
    try:
        with pytest.raises(IndexUnavailable, match="another process"):
            index.add([arrival("1.1")])
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    monkeypatch.undo()
    index.add([arrival("1.1")])
    assert index.statistics().instances == 1
    index.close()


def test_a_lost_server_connection_comes_back_by_itself(postgresql: Callable[[], str]) -> None:
    url = postgresql()
    index, killer = open_index(url), open_index(url)
    index.add([arrival("1.1")])

    def kill(session: Session) -> None:
        session.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    killer.read(kill)
    index.add([arrival("1.1")])
    killer.read(kill)
    assert index.statistics().instances == 2
    index.close()
    killer.close()


def test_a_connection_cut_at_commit_ends_with_one_row(postgresql: Callable[[], str]) -> None:
    """The commit took effect, its answer was lost: the work is done again and finds its own row."""
    index = open_index(postgresql())
    cuts = 0

    def cut_after_commit(session: Session) -> None:
        nonlocal cuts
        run = session.run

        def cutting(sql: str, parameters: object = ()) -> int:
            nonlocal cuts
            result = run(sql, parameters)  # type: ignore[arg-type]
            if sql == "COMMIT" and cuts == 0:
                cuts += 1
                session.connection.close()  # type: ignore[attr-defined]
                run("SELECT 1")
            return result

        session.run = cutting  # type: ignore[method-assign]

    index.database.read(cut_after_commit)
    (added,) = index.add([arrival("1.1", tasks=(NewTask("route", {}),))])
    assert cuts == 1 and added.outcome.value == "stored"
    assert index.statistics().instances == 1 and len(index.tasks(kind="route")) == 1
    index.close()


def test_a_server_that_is_not_there_is_unavailable_soon(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(IndexUnavailable):
        open_index(f"postgresql://postgres@/archive?host={tmp_path}")
    assert time.monotonic() - started < 60


def test_a_statement_that_takes_too_long_is_ended(index_url: str) -> None:
    index = open_index(index_url, statement_timeout=0.2)
    endless = {
        "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*) FROM n",
        "postgresql": "SELECT pg_sleep(60)",
    }[index.database.dialect.name]
    with pytest.raises(IndexUnavailable):
        index.read(lambda session: session.rows(endless))
    with pytest.raises(IndexUnavailable):
        list(index.database.stream(endless))
    assert index.statistics().studies == 0
    index.close()


def test_a_server_process_that_stopped_answering_is_left_for_another(postgresql: Callable[[], str]) -> None:
    index = open_index(postgresql(), statement_timeout=0.3)
    row = index.read(lambda session: session.row("SELECT pg_backend_pid()"))
    pid = int(row[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        assert index.statistics().studies == 0
    finally:
        os.kill(pid, signal.SIGCONT)
    index.close()


def test_a_turn_is_waited_for_longer_than_any_statement(postgresql: Callable[[], str]) -> None:
    index = open_index(postgresql(), statement_timeout=0.3)
    held, over = threading.Event(), threading.Event()

    def hold(session: Session) -> None:
        session.take_turn(7)
        held.set()
        assert over.wait(60)

    def waiting() -> bool:
        sql = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return bool(index.database.read(lambda session: session.row(sql)))

    def turn(session: Session) -> list[Row]:
        session.take_turn(7)
        return session.rows("SHOW statement_timeout")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(index.database.transact, hold)
        assert held.wait(60)
        second = pool.submit(index.database.transact, turn)
        wait_until(waiting, 60)
        time.sleep(0.5)  # longer than a statement may take
        assert not second.done()
        over.set()
        first.result(60)
        assert second.result(60) == [("300ms",)]
    index.close()
