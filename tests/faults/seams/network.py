"""What keeps one peer from harming another, and the log from harm.

Rules that hold here: those of the package.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from tests.faults.seams.registry import nothing, replace, seam


@seam("no deadlines")
def _no_deadlines() -> None:
    """A peer may take as long as it likes."""
    from archive.dimse.connection import Connection

    expect = Connection.expect
    replace(Connection, "expect", lambda self, seconds: expect(self, 3600.0))


@seam("no share of what has not said who it is")
def _no_pending_share() -> None:
    from archive.dimse import limits

    replace(limits.Limits, "admit", lambda self, address: True)
    replace(limits.Limits, "leave", nothing)


@seam("one after the other")
def _one_after_the_other() -> None:
    """Who takes a connection serves it, handshake and all, before anybody waits for the next."""
    from archive.dimse import accepting

    def alone(self: Any, work: object) -> bool:
        with self._lock:
            self._waiting -= 1
        return True

    replace(accepting.Accepting, "_lets_another_wait", alone)


@seam("a fault in the wire")
def _a_fault_in_the_wire() -> None:
    """Some PDUs hit a mistake: not one of the protocol's own errors."""
    from archive.dimse import association, incoming, wire

    def mistaken(old: Callable[..., Any]) -> Callable[..., Any]:
        def call(data: Any, *others: Any) -> Any:
            if len(data) % 11 == 5:
                raise IndexError("a mistake")
            return old(data, *others)

        return call

    replace(wire, "decode_command", mistaken(wire.decode_command))
    replace(incoming, "read_request", mistaken(incoming.read_request))
    if hasattr(association, "decode_command"):
        replace(association, "decode_command", wire.decode_command)


@seam("descriptors leak")
def _descriptors_leak() -> None:
    """Every connection leaves one behind."""
    from archive.dimse.incoming import Incoming

    forget = Incoming.forget

    def leave_one(self: Any) -> None:
        os.dup(2)
        forget(self)

    replace(Incoming, "forget", leave_one)


@seam("memory leaks")
def _memory_leaks() -> None:
    """Every connection leaves ten kilobytes behind."""
    from archive.dimse.incoming import Incoming

    kept: list[bytes] = []
    forget = Incoming.forget

    def leave_some(self: Any) -> None:
        kept.append(os.urandom(10_000))
        forget(self)

    replace(Incoming, "forget", leave_some)


@seam("no end of patience at the end")
def _no_end_of_patience() -> None:
    """SIGTERM waits for everybody."""
    from archive import supervisor
    from archive.dimse.listener import Listener

    replace(Listener, "_cut", nothing)
    replace(Listener, "stop", lambda self, seconds=0.0: time.sleep(60))
    replace(supervisor, "DRAIN", 600.0)
    replace(supervisor.Supervisor.__init__, "__defaults__", (600.0,))



@seam("raw log")
def _raw_log() -> None:
    """What peers sent is logged as it came."""
    from archive import log

    replace(log, "escape", lambda text: text)


@seam("talkative")
def _talkative() -> None:
    """Every object is logged with its patient."""
    import logging

    from archive.services.store import Reception

    check = Reception._check

    def say(self: Any, header: Any) -> None:
        logging.getLogger("archive.store").info("received %s", dict(header.values))
        check(self, header)

    replace(Reception, "_check", say)
