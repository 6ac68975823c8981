"""One daemon for all tests that need nothing special; after each of them the oracle looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checker import check
from tests.faults.daemon import Daemon, Usage
from tests.faults.forks import ForkServer, shared
from tests.faults.objects import Instance
from tests.faults.rest import warm_up


@pytest.fixture(scope="session")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Usage]]:
    with Daemon(tmp_path_factory.mktemp("archive"), tls=True, as_command=True) as daemon:
        yield daemon, warm_up(daemon)
        assert daemon.stop() == 0


@pytest.fixture(scope="session")
def forks() -> ForkServer:
    return shared()


@pytest.fixture
def acknowledged() -> list[Instance]:
    """What the test was promised is kept; the oracle looks for it."""
    return []


@pytest.fixture
def archive(standard: tuple[Daemon, Usage], acknowledged: list[Instance]) -> Iterator[Daemon]:
    """The shared daemon, inspected afterwards."""
    daemon, base = standard
    said = len(daemon.log())
    yield daemon
    check(daemon, acknowledged, base=base, since=said)


@pytest.fixture
def own_archive(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons with a configuration of their own."""
    made: list[Daemon] = []

    def start(changes: dict[str, Any] | None = None, **options: Any) -> Daemon:
        daemon = Daemon(tmp_path / f"archive{len(made)}", changes, **options)
        made.append(daemon)
        return daemon.start()

    yield start
    for daemon in made:
        daemon.kill()
