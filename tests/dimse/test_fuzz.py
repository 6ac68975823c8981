"""Spoilt bytes in every reader: only the endings that are meant to come out may come out."""

from __future__ import annotations

import contextlib
import random
import time

import pytest

from archive.dimse import contexts, wire
from archive.dimse.associate import Context
from archive.dimse.connection import BUFFER
from archive.dimse.fragments import Fragments
from archive.dimse.items import read_accept, read_request
from archive.dimse.messages import MessageReader
from archive.dimse.negotiation import Accepted, answer, refusal
from archive.dimse.reasons import Ended, ProtocolError
from archive.dimse.wire import decode_command, encode_response, holds_message

from .fuzz import CONVERSATIONS, REQUESTS, STRATEGIES, Canned, Strategy
from .raw import CT, EXPLICIT, FIND, MR, QUICK, VERIFICATION, Kept, Raw, data_pdu, echo, find, serving, store

ROUNDS = 150  # for each seed and strategy; ten times as many have been run without other results
CONTEXTS = {
    number: Context(number, name, EXPLICIT, scu=False, scp=True)
    for number, name in ((1, VERIFICATION), (3, CT), (5, MR), (7, FIND))
}
TABLE = contexts.table()


def acceptance_of(request: bytes) -> bytes:
    return answer(read_request(request[6:]), Accepted(TABLE), 0).pdu


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("seed", REQUESTS)
def test_a_spoilt_request_is_answered_rejected_or_aborted(seed: str, strategy: Strategy) -> None:
    dice = random.Random(f"{seed} {strategy.__name__}")
    for _ in range(ROUNDS):
        body = strategy(REQUESTS[seed], dice)[6:]
        try:
            request = read_request(body)
        except ProtocolError as error:
            assert error.source == 2 and error.reason in (4, 5, 6)
            continue
        if refusal(request) is None:
            found = answer(request, Accepted(TABLE), 0)
            assert set(read_accept(found.pdu[6:]).results) == {each.id for each in request.contexts}


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda each: each.__name__)
def test_a_spoilt_acceptance_is_read_or_refused(strategy: Strategy) -> None:
    dice = random.Random(strategy.__name__)
    good = acceptance_of(REQUESTS["full"])
    for _ in range(ROUNDS * 3):
        with contextlib.suppress(ProtocolError):
            read_accept(strategy(good, dice)[6:])


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda each: each.__name__)
def test_a_spoilt_command_is_read_and_answered_or_refused(strategy: Strategy) -> None:
    dice = random.Random(strategy.__name__)
    for seed in (echo(), store(), find()):
        for _ in range(ROUNDS):
            try:
                command = decode_command(strategy(seed, dice))
            except ProtocolError as error:
                assert (error.source, error.reason) == (2, 6)
                continue
            assert (command.sop_class, command.sop_instance, command.status) is not None
            decode_command(encode_response(command, 0))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("seed", CONVERSATIONS)
def test_a_spoilt_conversation_ends_and_leaves_no_half_object(seed: str, strategy: Strategy) -> None:
    dice = random.Random(f"{seed} {strategy.__name__}")
    buffer = bytearray(BUFFER)
    for _ in range(ROUNDS):
        data = strategy(CONVERSATIONS[seed], dice)
        assert holds_message(memoryview(data), 0, len(data), 0) in (True, False)
        converse(Canned(data, dice, buffer))


def converse(connection: Canned) -> None:
    sinks: list[Kept] = []
    whole = 0

    def sink(command: object, context: object) -> Kept:
        sinks.append(Kept())
        return sinks[-1]

    reader = MessageReader(Fragments(connection, 16384), CONTEXTS, 1000)
    with contextlib.suppress(Ended):
        while (message := reader.read(sink)) is not None:
            whole += message.sink is not None and not message.astray
    assert sum(not each.discarded for each in sinks) == whole


@pytest.mark.parametrize("seed", CONVERSATIONS)
def test_unspoilt_conversations_are_understood(seed: str) -> None:
    dice = random.Random(seed)
    for _ in range(20):
        connection = Canned(CONVERSATIONS[seed], dice, bytearray(BUFFER))
        reader = MessageReader(Fragments(connection, 0), CONTEXTS, 1000)
        message = reader.read(None)
        assert message is not None and message.command.message_id == 1


STEPS = (
    REQUESTS["small"],
    acceptance_of(REQUESTS["small"]),
    wire.reject_pdu(1, 1, 1),
    data_pdu((1, 3, echo())),
    data_pdu((3, 3, store())),
    data_pdu((3, 2, b"data")),
    data_pdu((9, 3, echo())),
    wire.RELEASE_REQUEST,
    wire.RELEASE_REPLY,
    wire.abort_pdu(0, 0),
    bytes.fromhex("09000000000400000000"),
    b"",
)


def test_whatever_the_order_of_pdus_the_slot_is_given_back() -> None:
    dice = random.Random(38)
    with serving(timeouts=QUICK) as served:
        for _ in range(150):
            with contextlib.suppress(OSError), Raw(served.port) as raw:
                for _ in range(dice.randint(1, 6)):
                    raw.send(dice.choice(STEPS))
                    if dice.random() < 0.3:
                        raw.sock.settimeout(0.005)
                        raw.sock.recv(1000)
        assert served.listener.wait_until_empty(time.monotonic() + 10)
        assert served.limits.associations == 0 and not served.limits._pending


def test_a_listener_outlives_spoilt_conversations() -> None:
    dice = random.Random(7)
    seeds = [REQUESTS["small"] + each for each in CONVERSATIONS.values()]
    with serving(timeouts=QUICK) as served:
        for number in range(270):
            with contextlib.suppress(OSError), Raw(served.port) as raw:
                raw.send(STRATEGIES[number % len(STRATEGIES)](seeds[number % len(seeds)], dice))
                raw.sock.settimeout(0.002)
                raw.sock.recv(100)
        started = time.monotonic()
        with Raw(served.port) as raw:
            raw.associate()
            raw.send(data_pdu((1, 3, echo())))
            assert raw.command().status == 0
            assert time.monotonic() - started < 30
            raw.release()
        assert served.listener.wait_until_empty(time.monotonic() + 10)
        assert served.limits.associations == 0 and not served.limits._pending
        assert sum(not each.discarded for each in served.sinks) <= len(served.commands)
