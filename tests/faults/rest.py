"""A daemon at rest: what it holds once each of its processes has done everything once and nothing is under way.

Rules that hold here: what is measured as the base of a test comes from here; nothing is taken for rest that has not
lasted some looks.
"""

from __future__ import annotations

from tests.faults.daemon import Daemon, Usage, wait_until
from tests.faults.objects import instance
from tests.faults.raw import CT, Connection, Request, role

AT_ONCE = 12  # associations while warming up, so that each process has made what it makes once
LOOKS = 6


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
    return rested(daemon)


def rested(daemon: Daemon) -> Usage:
    """The usage once no thread ends any more."""
    seen = [daemon.usage()]

    def same() -> bool:
        seen.append(daemon.usage())
        return len(seen) > LOOKS and len({(u.threads, u.descriptors) for u in seen[-LOOKS:]}) == 1

    wait_until(same, 10, "the daemon does not come to rest", pause=0.05)
    return seen[-1]
