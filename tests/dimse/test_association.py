"""An acceptor's association against raw bytes (PS3.8 table 9-10), and the messages it reads and sends."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Sequence
from time import monotonic

import pytest

from archive.dimse import wire
from archive.dimse.associate import UserInformation
from archive.dimse.association import Association
from archive.dimse.connection import Bytes, Connection
from archive.dimse.limits import Limits
from archive.dimse.reasons import Aborted, Ended, TimedOut
from archive.dimse.wire import HAS_DATA, Field, encode_response

from .raw import PATIENT, QUICK, Raw, Served, association_request, cancel, data_pdu, echo, find, serving, store

COMMAND, LAST = 1, 2
WHOLE = COMMAND | LAST


def test_an_echo_is_answered_and_the_release_too() -> None:
    with serving() as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((1, WHOLE, echo(5))))
        answer = raw.command()
        assert (answer.field, answer.message_id, answer.status) == (Field.C_ECHO_RSP, 5, 0)
        raw.release()
        assert raw.closed()
        assert served.associations[0].ending == "released"


@pytest.mark.parametrize(
    "parts",
    [
        [data_pdu((3, WHOLE, store())) + data_pdu((3, LAST, b"pixels"))],
        [data_pdu((3, WHOLE, store()), (3, LAST, b"pixels"))],
        [data_pdu((3, COMMAND, store()[:10]), (3, WHOLE, store()[10:])), data_pdu((3, 0, b"pix"), (3, LAST, b"els"))],
        [data_pdu((3, WHOLE, store())), data_pdu((3, 0, b"pixels")), data_pdu((3, LAST, b""))],
        [bytes((each,)) for each in data_pdu((3, WHOLE, store())) + data_pdu((3, LAST, b"pixels"))],
    ],
)
def test_a_data_set_arrives_whole_however_it_is_cut(parts: list[bytes]) -> None:
    with serving() as served, Raw(served.port) as raw:
        raw.associate()
        for part in parts:
            raw.send(part)
        assert raw.command().status == 0
        assert served.sinks[0].data == b"pixels" and not served.sinks[0].discarded


def test_two_messages_in_one_pdu_are_both_served() -> None:
    with serving() as served, Raw(served.port) as raw:
        raw.associate()
        one = [(3, WHOLE, store(1)), (3, LAST, b"one"), (3, WHOLE, store(2)), (3, LAST, b"two")]
        raw.send(data_pdu(*one))
        assert [raw.command().message_id, raw.command().message_id] == [1, 2]
        assert [sink.data for sink in served.sinks] == [b"one", b"two"]


def test_a_pdu_larger_than_every_buffer_streams_through() -> None:
    pixels = os.urandom(3_000_000)
    with serving() as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((3, WHOLE, store())) + data_pdu((3, LAST, pixels)))
        assert raw.command().status == 0
        assert served.sinks[0].data == pixels


@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        (bytes.fromhex("01000000000400000000"), (2, 2)),  # A-ASSOCIATE-RQ again
        (bytes.fromhex("02000000000400000000"), (2, 2)),
        (bytes.fromhex("03000000000400000000"), (2, 2)),
        (wire.RELEASE_REPLY, (2, 2)),
        (bytes.fromhex("08000000000400000000"), (2, 1)),
        (bytes.fromhex("ff00ffffffff"), (2, 1)),
        (b"GET / HTTP/1.1\r\n\r\n", (2, 1)),
        (wire.PDU_HEADER.pack(wire.RELEASE_RQ, 5), (2, 6)),
        (wire.PDU_HEADER.pack(wire.ABORT, 0xFFFFFFFF), (2, 6)),
        (wire.PDU_HEADER.pack(wire.P_DATA, 0), (2, 6)),
        (wire.PDU_HEADER.pack(wire.P_DATA, 3) + b"abc", (2, 6)),
        (wire.PDU_HEADER.pack(wire.P_DATA, 6) + struct.pack(">IBB", 0, 1, 3), (2, 6)),
        (wire.PDU_HEADER.pack(wire.P_DATA, 6) + struct.pack(">IBB", 1, 1, 3), (2, 6)),
        (wire.PDU_HEADER.pack(wire.P_DATA, 6) + struct.pack(">IBB", 3, 1, 3), (2, 6)),
        (wire.PDU_HEADER.pack(wire.P_DATA, 20) + struct.pack(">IBB", 0xFFFFFFFF, 1, 3), (2, 6)),
        (data_pdu((99, WHOLE, echo())), (2, 6)),  # a context that was not accepted
        (data_pdu((1, COMMAND, echo()[:20]), (3, WHOLE, echo()[20:])), (2, 6)),
        (data_pdu((3, LAST, b"data")), (2, 5)),  # data before its command
        (data_pdu((3, WHOLE, store()), (3, WHOLE, echo())), (2, 5)),  # a command inside a data set
        (data_pdu((3, WHOLE, store()), (99, LAST, b"data")), (2, 6)),
        (data_pdu((1, WHOLE, b"\0\0\2\0\xf0\xff\xff\xff")), (2, 6)),
        (data_pdu((1, WHOLE, b"")), (2, 6)),
        (data_pdu((1, COMMAND, bytes(40_000)), (1, COMMAND, bytes(40_000))), (2, 6)),
    ],
)
def test_what_breaks_the_protocol_is_aborted_with_its_reason(sent: bytes, codes: tuple[int, int]) -> None:
    with serving() as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(sent)
        assert raw.abort() == codes
        assert raw.closed()
        assert served.over.acquire(timeout=60)
        assert f"({codes[0]},{codes[1]})" in served.associations[0].ending
        assert all(sink.discarded for sink in served.sinks)


def test_a_pdu_above_our_maximum_is_refused_before_it_is_read() -> None:
    with serving(limits=Limits(max_pdu=16384)) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(wire.PDU_HEADER.pack(wire.P_DATA, 64 * 1024 * 1024))
        assert raw.abort() == (2, 6)


def test_a_little_more_than_our_maximum_is_let_pass() -> None:
    with serving(limits=Limits(max_pdu=16384)) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((3, WHOLE, store())) + data_pdu((3, LAST, bytes(16384))))
        assert raw.command().status == 0


def test_a_data_set_on_another_context_is_answered_and_not_kept() -> None:
    with serving() as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((3, WHOLE, store(9)), (5, LAST, b"data")))
        answer = raw.command()
        assert (answer.status, answer.message_id) == (0xC000, 9)
        assert served.sinks[0].discarded
        raw.send(data_pdu((1, WHOLE, echo())))
        assert raw.command().status == 0


@pytest.mark.parametrize("how", ["abort", "fin", "reset", "release"])
def test_a_sink_is_told_when_its_data_set_breaks_off(how: str) -> None:
    with serving() as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((3, WHOLE, store()), (3, 0, b"half")))
        if how == "reset":
            raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how in ("fin", "reset"):
            raw.sock.close()
        else:
            raw.send(wire.abort_pdu(0, 0) if how == "abort" else wire.RELEASE_REQUEST)
        assert served.over.acquire(timeout=60)
        assert served.sinks[0].discarded


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\4",
        wire.PDU_HEADER.pack(wire.P_DATA, 100),
        data_pdu((3, WHOLE, store())),  # the data set never comes
        data_pdu((3, WHOLE, store())) + wire.PDU_HEADER.pack(wire.P_DATA, 100) + struct.pack(">IBB", 96, 3, 2),
    ],
)
def test_silence_is_aborted_at_its_deadline(sent: bytes) -> None:
    with serving(timeouts=QUICK) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(sent)
        assert raw.abort() == (0, 0)
        assert served.over.acquire(timeout=60)
        assert "timed out" in served.associations[0].ending


def test_a_peer_that_drips_falls_at_the_same_deadline() -> None:
    with serving(timeouts=QUICK) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(wire.PDU_HEADER.pack(wire.P_DATA, 1000) + struct.pack(">IBB", 996, 1, WHOLE))
        dripped = 0
        while not served.over.acquire(timeout=0.05):
            raw.send(b"\0")
            dripped += 1
            assert dripped < 200
        assert "timed out" in served.associations[0].ending


def test_a_collected_data_set_is_bounded() -> None:
    with serving(limits=Limits(largest_collected=1000)) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((7, WHOLE, find())) + data_pdu((7, LAST, bytes(1001))))
        assert raw.abort() == (2, 0)


def test_a_peer_that_never_reads_is_aborted() -> None:
    failed: list[Ended] = []

    def flood(served: Served, association: Association) -> None:
        message = association.read_message()
        assert message is not None
        try:
            while True:
                association.send_message(message.context, encode_response(message.command, 0xFF00), bytes(60_000))
        except Ended as ending:
            failed.append(ending)
            served.over.release()

    with serving(flood, timeouts=QUICK) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((1, WHOLE, echo())))
        assert served.over.acquire(timeout=60)
        assert isinstance(failed[0], TimedOut)


@pytest.mark.parametrize("peer_max", [0, 16384])
def test_a_peer_that_never_reads_a_file_is_aborted(peer_max: int) -> None:
    failed: list[Ended] = []

    def flood(served: Served, association: Association) -> None:
        message = association.read_message()
        assert message is not None
        with tempfile.TemporaryFile() as file:
            file.truncate(100_000_000)
            try:
                response = encode_response(message.command, 0)
                association.send_file(message.context, response, file.fileno(), 0, 100_000_000)
            except Ended as ending:
                failed.append(ending)
        served.over.release()

    with serving(flood, timeouts=QUICK) as served, Raw(served.port) as raw:
        raw.associate(association_request(user=UserInformation(peer_max)))
        raw.send(data_pdu((1, WHOLE, echo())))
        assert served.over.acquire(timeout=60)
        assert isinstance(failed[0], TimedOut)


# -- cancelling -----------------------------------------------------------------------------------------------


def searching(served: Served, association: Association) -> None:
    """Answers a C-FIND until it is cancelled, everything else with success."""
    while (message := association.read_message()) is not None:
        served.commands.append(message.command)
        while message.command.field == Field.C_FIND_RQ and not association.cancelled(message.command.message_id):
            served.over.release()
            pending = encode_response(message.command, 0xFF00, has_data=True)
            association.send_message(message.context, pending, b"answer")
        status = 0xFE00 if message.command.field == Field.C_FIND_RQ else 0
        association.send_message(message.context, encode_response(message.command, status))


def statuses_until(raw: Raw, last: int) -> set[int]:
    seen: set[int] = set()
    while last not in seen:
        found = raw.pdu()
        assert found is not None
        if found[1][5] & COMMAND:
            seen.add(wire.decode_command(found[1][6:]).status)
    return seen


def test_a_cancel_is_seen_during_the_operation() -> None:
    with serving(searching) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((7, WHOLE, find(4)), (7, LAST, b"keys")))
        assert served.over.acquire(timeout=60)
        raw.send(data_pdu((7, WHOLE, cancel(4))))
        assert statuses_until(raw, 0xFE00) == {0xFF00, 0xFE00}


def test_cancels_late_or_of_others_change_nothing() -> None:
    with serving(searching) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(b"".join(data_pdu((1, WHOLE, cancel(n))) for n in range(11)))
        raw.send(data_pdu((1, WHOLE, echo(4))))
        assert raw.command().message_id == 4
        raw.send(data_pdu((7, WHOLE, find(4)), (7, LAST, b"keys")))
        assert served.over.acquire(timeout=60)
        raw.send(data_pdu((7, WHOLE, cancel(5))) + data_pdu((7, WHOLE, cancel(4))))
        statuses_until(raw, 0xFE00)


def test_requests_that_come_during_an_operation_keep_their_order() -> None:
    with serving(searching) as served, Raw(served.port) as raw:
        raw.associate(association_request(user=UserInformation(16384, window=(4, 1))))
        raw.send(data_pdu((7, WHOLE, find(1)), (7, LAST, b"keys")))
        assert served.over.acquire(timeout=60)
        raw.send(data_pdu((1, WHOLE, echo(2))) + data_pdu((1, WHOLE, echo(3))) + data_pdu((7, WHOLE, cancel(1))))
        statuses_until(raw, 0xFE00)
        assert [raw.command().message_id, raw.command().message_id] == [2, 3]
        assert [command.message_id for command in served.commands] == [1, 2, 3]


@pytest.mark.parametrize("leave", [lambda raw: raw.send(wire.abort_pdu(0, 0)), lambda raw: raw.sock.close()])
def test_an_operation_learns_that_its_peer_is_gone(leave: Callable[[Raw], None]) -> None:
    gone = threading.Event()

    def search(served: Served, association: Association) -> None:
        message = association.read_message()
        assert message is not None
        served.over.release()
        try:
            while not association.cancelled(message.command.message_id):
                pass
        except Aborted:
            gone.set()

    with serving(search) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((7, WHOLE, find(1)), (7, LAST, b"keys")))
        assert served.over.acquire(timeout=60)
        leave(raw)
        assert gone.wait(60)


# -- sending --------------------------------------------------------------------------------------------------


def received(raw: Raw, peer_max: int) -> tuple[wire.Command, bytes]:
    """One message, each PDU of it within what we said we bear."""
    parts = {True: b"", False: b""}
    while True:
        found = raw.pdu()
        assert found is not None and found[0] == wire.P_DATA
        body = found[1]
        assert not peer_max or len(body) <= peer_max
        while body:
            (length,) = struct.unpack_from(">I", body)
            parts[bool(body[5] & COMMAND)] += body[6 : 4 + length]
            control, body = body[5], body[4 + length :]
            if control == LAST:
                return wire.decode_command(parts[True]), parts[False]


@pytest.mark.parametrize("peer_max", [0, 7, 8, 128, 4096, 16384, 1_000_000])
@pytest.mark.parametrize("size", [0, 1, 9_000])
def test_a_file_arrives_as_it_is_whatever_the_peer_bears(peer_max: int, size: int) -> None:
    check_file(peer_max, size, offset=11)


@pytest.mark.parametrize(("peer_max", "size"), [(0, 262_138), (0, 262_139), (0, 3_000_000), (16384, 3_000_000)])
def test_files_of_every_size_arrive(peer_max: int, size: int) -> None:
    check_file(peer_max, size, offset=0)


def check_file(peer_max: int, size: int, offset: int) -> None:
    data = os.urandom(size)
    with tempfile.TemporaryFile() as file:
        file.write(bytes(offset) + data)
        file.flush()

        def send(served: Served, association: Association) -> None:
            message = association.read_message()
            assert message is not None
            for _ in range(2):
                response = encode_response(message.command, 0, has_data=True)
                association.send_file(message.context, response, file.fileno(), offset, size)
            association.read_message()

        with serving(send) as served, Raw(served.port) as raw:
            raw.associate(association_request(user=UserInformation(peer_max)))
            raw.send(data_pdu((1, WHOLE, echo(3))))
            for _ in range(2):
                command, found = received(raw, peer_max)
                assert command.message_id == 3 and found == data
            raw.release()


@pytest.mark.parametrize("peer_max", [0, 16384])
def test_a_file_that_is_too_short_aborts_the_association(peer_max: int) -> None:
    failed: list[Exception] = []

    def send(served: Served, association: Association) -> None:
        message = association.read_message()
        assert message is not None
        with tempfile.TemporaryFile() as file:
            try:
                association.send_file(message.context, encode_response(message.command, 0), file.fileno(), 0, 10)
            except OSError as error:
                failed.append(error)
        served.over.release()

    with serving(send) as served, Raw(served.port) as raw:
        raw.associate(association_request(user=UserInformation(peer_max)))
        raw.send(data_pdu((1, WHOLE, echo(3))))
        assert served.over.acquire(timeout=60) and failed


@pytest.mark.parametrize("chunks", [[], [b""], [b"abc"], [b"ab", b"", b"c" * 50_000], [bytes(300_000)] * 3])
@pytest.mark.parametrize("peer_max", [0, 16384])
def test_a_stream_of_chunks_arrives_as_one_data_set(chunks: list[bytes], peer_max: int) -> None:
    def send(served: Served, association: Association) -> None:
        message = association.read_message()
        assert message is not None
        association.send_stream(message.context, encode_response(message.command, 0, has_data=True), iter(chunks))
        association.read_message()

    with serving(send) as served, Raw(served.port) as raw:
        raw.associate(association_request(user=UserInformation(peer_max)))
        raw.send(data_pdu((1, WHOLE, echo())))
        assert received(raw, peer_max)[1] == b"".join(chunks)
        raw.release()


def test_queued_messages_go_out_with_the_next_read() -> None:
    def answer(served: Served, association: Association) -> None:
        message = association.read_message()
        assert message is not None
        for number in range(3000):
            response = wire.encode_command(
                {"CommandField": 0x8020, "MessageIDBeingRespondedTo": number, "CommandDataSetType": HAS_DATA}
            )
            association.queue_message(message.context, response, b"row")
        association.read_message()

    with serving(answer) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((1, WHOLE, echo())))
        assert [received(raw, 16384)[0].message_id for _ in range(3000)] == list(range(3000))
        raw.release()


# -- endings --------------------------------------------------------------------------------------------------


def test_a_peer_that_does_not_close_after_the_release_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    with serving(timeouts=QUICK) as served, Raw(served.port) as raw:
        raw.associate()
        raw.release()
        assert raw.sock.recv(1) == b""
        assert served.listener.wait_until_empty(monotonic() + 5)
        assert served.limits.associations == 0


def test_a_peer_with_one_slot_may_call_again_as_soon_as_it_is_released() -> None:
    with serving(limits=Limits(per_ae=1)) as served:
        for _ in range(100):
            with Raw(served.port) as raw:
                raw.associate()
                raw.release()


def test_the_slot_of_an_association_that_was_aborted_is_kept_until_its_handler_is_done() -> None:
    ending, may_end = threading.Event(), threading.Event()

    def unwinding(served: Served, association: Association) -> None:
        try:
            served.answer_all(association)
        finally:
            ending.set()
            may_end.wait(60)

    with serving(unwinding) as served:
        with Raw(served.port) as raw:
            raw.associate()
            raw.send(wire.abort_pdu(0, 0))
        assert ending.wait(60)
        assert served.limits.associations == 1
        may_end.set()
        assert served.listener.wait_until_empty(monotonic() + 60)
        assert served.limits.associations == 0


def test_a_peer_that_resets_once_it_has_asked_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: Connection, parts: Sequence[Bytes]) -> None:
        raise Aborted("the connection broke")

    with serving() as served:
        with Raw(served.port) as raw:
            raw.associate()
            monkeypatch.setattr(Connection, "send", broken)
            raw.send(wire.RELEASE_REQUEST)
            assert served.over.acquire(timeout=60)
            assert raw.closed()
        assert served.associations[0].ending == "released"
        assert served.listener.wait_until_empty(monotonic() + 60)
        assert served.limits.associations == 0


def test_a_release_that_is_being_answered_is_answered_when_we_stop() -> None:
    def stopping(served: Served, association: Association) -> None:
        def stop_first() -> None:
            for live in served.listener._live.values():
                live.stop()

        association.when_released = stop_first
        served.answer_all(association)

    with serving(stopping) as served, Raw(served.port) as raw:
        raw.associate()
        raw.release()
        assert raw.closed()


def test_we_can_ask_for_the_release_and_collide_with_the_peer() -> None:
    def release(served: Served, association: Association) -> None:
        association.read_message()
        association.release()
        served.associations.append(association)
        served.over.release()

    with serving(release) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((1, WHOLE, echo())))
        assert raw.pdu() == (wire.RELEASE_RQ, bytes(4))
        raw.send(wire.RELEASE_REQUEST)  # both asked: the requestor of the association answers first
        raw.send(wire.RELEASE_REPLY)
        assert raw.pdu() == (wire.RELEASE_RP, bytes(4))
        assert served.over.acquire(timeout=60) and served.associations[0].ending == "released"


def test_data_on_its_way_does_not_hinder_our_release() -> None:
    def release(served: Served, association: Association) -> None:
        association.read_message()
        association.release()
        served.associations.append(association)
        served.over.release()

    with serving(release) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((1, WHOLE, echo())))
        raw.send(data_pdu((1, WHOLE, echo())) + wire.RELEASE_REPLY)
        assert served.over.acquire(timeout=60) and served.associations[0].ending == "released"


def test_a_fault_of_ours_aborts_and_says_so_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def broken(served: Served, association: Association) -> None:
        raise RuntimeError("a fault")

    with serving(broken) as served, Raw(served.port) as raw:
        raw.associate()
        assert raw.abort() == (0, 0)
    assert "a fault of ours" in caplog.text


def test_one_line_tells_how_an_association_ended(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "archive.dimse.association")
    with serving(timeouts=PATIENT) as served, Raw(served.port) as raw:
        raw.associate()
        raw.send(data_pdu((1, WHOLE, echo())))
        raw.command()
        raw.release()
        assert served.over.acquire(timeout=60)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and "RAW -> ARCHIVE from 127.0.0.1" in lines[0] and "released; 2 messages" in lines[0]
