"""N37, N38: what no one thought of, from fixed seeds, and walks through the states of PS3.8."""

from __future__ import annotations

import contextlib
import random
import time

import pytest

from archive.dimse import items, reasons, wire
from tests.faults import raw
from tests.faults.daemon import Daemon
from tests.faults.fuzz import STRATEGIES, cases, seeds
from tests.faults.objects import instance
from tests.faults.raw import Connection, Ended, Request, p_data, pdv

IN_PROCESS = 20_000
OVER_TCP = 500
WALKS = 150
SLOWEST = 5.0  # seconds for one PDU in process; a long one takes a thousandth of it


def test_n37_spoiled_requests_are_read_or_refused() -> None:
    slowest = 0.0
    for what, inside, data in cases(IN_PROCESS, 37):
        if inside:
            continue
        before = time.monotonic()
        with contextlib.suppress(reasons.ProtocolError):
            read = items.read_request(data[6:])
            assert read.contexts is not None, what
        slowest = max(slowest, time.monotonic() - before)
    assert slowest < SLOWEST


def test_n37_spoiled_commands_are_read_or_refused() -> None:
    commands = [raw.echo_rq(), raw.store_rq(raw.CT, "1.2.3"), raw.query_rq(raw.C_MOVE, raw.STUDY_MOVE, 1, "THERE")]
    rng = random.Random(37)
    slowest = 0.0
    for number in range(IN_PROCESS):
        data = STRATEGIES[number % len(STRATEGIES)](rng, commands[number // len(STRATEGIES) % len(commands)])
        before = time.monotonic()
        with contextlib.suppress(reasons.ProtocolError):
            command = wire.decode_command(data)
            str((command.sop_class, command.sop_instance, command.status, command.comment, command.priority))
        slowest = max(slowest, time.monotonic() - before)
    assert slowest < SLOWEST


def test_n37_spoiled_pdus_harm_nobody(archive: Daemon) -> None:
    request = Request()
    for number, (what, inside, data) in enumerate(cases(OVER_TCP, 73)):
        with Connection(archive.port) as connection:
            if inside:
                connection.associate(request)
            connection.try_send(data)
            if number % 5 == 0:  # the others leave without waiting, as a network does
                with contextlib.suppress(TimeoutError, AssertionError):
                    connection.ending(0.2)
        if number % 25 == 0:
            before = time.monotonic()
            assert archive.echo() == 0, what
            assert time.monotonic() - before < 10, what


@pytest.mark.parametrize("name", seeds())
def test_n37_the_seeds_themselves_are_right(archive: Daemon, name: str) -> None:
    """The twin: what is not spoiled is served."""
    inside, data = seeds()[name]
    with Connection(archive.port) as connection:
        if inside:
            connection.associate()
        connection.send(data)
        if name == "release":
            assert connection.ending(60) == ("released",)
            return
        answer = connection.read()
        assert answer and answer.kind == (raw.DATA if inside else raw.AC)


def steps() -> dict[str, bytes]:
    one = instance(uid="1.2.826.0.1.3680043.9.9999.38", size=300)
    request = Request()
    return {
        "request": request.pdu(),
        "acceptance": raw.accept(request.body()),
        "rejection": raw.pdu(raw.RJ, bytes([0, 1, 1, 1])),
        "echo": p_data(pdv(raw.ECHO, 3, raw.echo_rq())),
        "store command": p_data(pdv(raw.STORE_CT, 3, raw.store_rq(raw.CT, one.uid))),
        "data set": p_data(pdv(raw.STORE_CT, 2, one.data)),
        "half a data set": p_data(pdv(raw.STORE_CT, 0, one.data[:100])),
        "cancel": p_data(pdv(raw.FIND, 3, raw.cancel_rq(1))),
        "release": raw.release_rq(),
        "release reply": raw.release_rp(),
        "abort": raw.abort(),
        "type 9": raw.pdu(9, bytes(4)),
    }


def test_n38_a_walk_through_the_states_ends_as_ps3_8_says(archive: Daemon) -> None:
    rng = random.Random(38)
    known = steps()
    for _ in range(WALKS):
        walk = ["request"] * (rng.random() < 0.8) + rng.choices(list(known), k=rng.randint(1, 8))
        with Connection(archive.port, patience=60) as connection:
            for step in walk:
                if not connection.try_send(known[step]):
                    break
                if rng.random() < 0.1:
                    time.sleep(0.01)
            connection.try_send(raw.abort())
            with contextlib.suppress(Ended):
                how = connection.ending(60)
                assert _fits(walk, how), (walk, how)


def _fits(walk: list[str], how: tuple[object, ...]) -> bool:
    """Whether this end can follow from these PDUs (PS3.8 table 9-10), as seen by who sent them all at once."""
    if how == ("released",):
        return "release" in walk[1:] and walk[0] == "request"
    if how[0] == "rejected":
        return False
    if how == ("aborted", 2, 1):
        return "type 9" in walk
    return how[0] in ("closed", "aborted")
