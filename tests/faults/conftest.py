"""One daemon for all tests that need nothing special; after each of them the oracle looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checker import check
from tests.faults.daemon import Daemon, Usage, wait_until
from tests.faults.objects import Instance, instance
from tests.faults.raw import CT, Connection, Request, role

AT_ONCE = 12  # associations while warming up, so that each process has made what it makes once


def warm_up(daemon: Daemon) -> Usage:
    """Let each process do everything once; what is held then is the base."""
    request = Request(user=role(CT, True, True))
    open_ones = [Connection(daemon.port).associate(request) for _ in range(AT_ONCE)]
    for each in open_ones:
        one = instance()
        assert each.store(CT, one.uid, one.data) == 0
    for each in open_ones:
        each.release()
    assert daemon.echo() == 0
    return _rested(daemon)


def _rested(daemon: Daemon) -> Usage:
    """The usage once no thread ends any more."""
    seen = [daemon.usage()]

    def same() -> bool:
        seen.append(daemon.usage())
        return len(seen) > 6 and len({(u.threads, u.descriptors) for u in seen[-6:]}) == 1

    wait_until(same, 10, "the daemon does not come to rest", pause=0.05)
    return seen[-1]


@pytest.fixture(scope="session")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Usage]]:
    with Daemon(tmp_path_factory.mktemp("archive"), tls=True) as daemon:
        yield daemon, warm_up(daemon)
        assert daemon.stop() == 0


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
