"""Connections spread over processes; the processes are listeners in one, as far as the kernel lets them be."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from archive.dimse.limits import Limits
from archive.dimse.listener import Listener, bind
from archive.dimse.relay import Relay

from .raw import Everyone, Raw, Served

WAIT = 60.0


@pytest.fixture
def two() -> Iterator[tuple[int, list[Listener]]]:
    """A port that two listeners share."""
    sock, relay = bind("127.0.0.1", 0), Relay(2, 1)
    listeners = [Listener(sock.dup(), place=relay.join(number, 0)) for number in range(2)]
    for listener in listeners:
        listener.start(Served(listener, Limits()).answer_all, Everyone())
    port = sock.getsockname()[1]
    sock.close()
    yield port, listeners
    for listener in listeners:
        listener.stop(2)


def counts(listeners: list[Listener]) -> list[int]:
    return [len(listener.associations()) for listener in listeners]


def wait_for(listeners: list[Listener], wanted: list[int]) -> None:
    end = time.monotonic() + WAIT
    while sorted(counts(listeners)) != wanted:
        assert time.monotonic() < end, counts(listeners)
        time.sleep(0.01)


def test_associations_are_spread_evenly(two: tuple[int, list[Listener]]) -> None:
    port, listeners = two
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(Raw(port)).associate()
        wait_for(listeners, [4, 4])


def test_a_connection_that_was_handed_over_keeps_its_address(two: tuple[int, list[Listener]]) -> None:
    port, listeners = two
    with ExitStack() as stack:
        raws = [stack.enter_context(Raw(port)) for _ in range(4)]
        for each in raws:
            each.associate()
        wait_for(listeners, [2, 2])
        known = {(a.address, a.port) for listener in listeners for a in listener.associations()}
        assert known == {each.sock.getsockname() for each in raws}


def test_who_stops_is_given_nothing(two: tuple[int, list[Listener]]) -> None:
    port, listeners = two
    with ExitStack() as stack:
        stack.enter_context(Raw(port)).associate()
        wait_for(listeners, [0, 1])
        idle = min(listeners, key=lambda listener: len(listener.associations()))
        idle.stop(2)
        for _ in range(4):
            stack.enter_context(Raw(port)).associate()
        wait_for(listeners, [0, 5])


def dead_process() -> int:
    """The number of a process that is no more."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def connected() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def test_a_process_that_died_is_given_nothing_until_another_serves_in_its_place() -> None:
    relay = Relay(2, 1)
    here, there = relay.join(0, 0), relay.join(1, 0)
    here.count(3)
    assert relay.idlest(0) == 1
    relay._pids[1] = dead_process()
    ours, _theirs = connected()
    assert not here.hand_over(ours)
    there = relay.join(1, 0)
    assert here.hand_over(ours) and ours.fileno() == -1
    taken = there.take()
    assert taken is not None
    taken.close()
    assert there.take() is None


def test_what_is_on_its_way_counts_already() -> None:
    relay = Relay(2, 1)
    here = relay.join(0, 0)
    relay.join(1, 0)
    here.count(2)
    pairs = [connected() for _ in range(4)]
    assert [here.hand_over(ours) for ours, _ in pairs] == [True, True, False, False]


def test_nothing_is_lost_when_the_other_side_takes_no_more() -> None:
    relay = Relay(2, 1)
    here = relay.join(0, 0)
    relay.join(1, 0)
    here.count(100_000)
    handed = 0
    pairs = []
    while True:
        pairs.append(connected())
        if not here.hand_over(pairs[-1][0]):
            break
        handed += 1
    assert 0 < handed < 2000 and pairs[-1][0].fileno() >= 0


def test_the_successor_takes_what_its_predecessor_left() -> None:
    relay = Relay(2, 1)
    here = relay.join(0, 0)
    relay.join(1, 0).count(5)
    here.count(10)
    ours, _theirs = connected()
    assert here.hand_over(ours)
    relay._pids[1] = dead_process()
    successor = relay.join(1, 0)
    assert relay.load(1) == 1  # what the dead one worked on is over, what waits is not
    taken = successor.take()
    assert taken is not None and not taken.get_inheritable()
    taken.close()
