"""Calling remote AEs: ones that behave, and ones that do not."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, Verification

from archive.dimse import contexts, wire
from archive.dimse.associate import AssociateRequest, Context, UserIdentity, UserInformation
from archive.dimse.association import Association
from archive.dimse.items import read_request, write_accept
from archive.dimse.negotiation import Accepted, Rejected
from archive.dimse.reasons import Ended
from archive.dimse.requestor import connect
from archive.errors import Unreachable

from .raw import CT, EXPLICIT, FIND, IMPLICIT, QUICK, VERIFICATION, Everyone, data_pdu, echo, serving, store

ECHO = [(VERIFICATION, (IMPLICIT,))]


def call(port: int, **options: Any) -> Association:
    values: dict[str, Any] = {"calling": "US", "called": "THEM", "contexts": ECHO, "timeouts": QUICK} | options
    return connect("127.0.0.1", port, **values)


@contextmanager
def remote(*answers: bytes | Callable[[socket.socket], object]) -> Iterator[int]:
    """A listening socket that plays `answers` to one caller, one for each thing it receives; then is silent."""
    listening = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def play() -> None:
        sock, _ = listening.accept()
        with sock:
            for each in answers:
                sock.recv(65536)
                each(sock) if callable(each) else sock.sendall(each)
            done.wait(60)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        done.set()
        listening.close()
        thread.join(60)


def acceptance(*results: tuple[int, int, str], user: UserInformation | None = None) -> bytes:
    return write_accept(bytes(64), results or ((1, 0, IMPLICIT),), user or UserInformation(16384))


# -- peers that mean well ----------------------------------------------------------------------------------------


def test_an_echo_to_ourselves() -> None:
    with serving() as served, connect("127.0.0.1", served.port, calling="US", called="THEM", contexts=ECHO) as found:
        context = found.context_for(VERIFICATION)
        assert context is not None
        found.send_message(context, echo(found.next_message_id()))
        answer = found.read_message()
        assert answer is not None and (answer.command.status, answer.command.message_id) == (0, 1)
    assert found.ending == "released"


def test_pynetdicom_answers_us() -> None:
    ae = AE("THEM")
    ae.add_supported_context(Verification)
    ae.add_supported_context(CTImageStorage, EXPLICIT)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0xB000)])
    try:
        wanted = [*ECHO, (CT, (EXPLICIT,)), (FIND, (IMPLICIT,))]
        with connect("127.0.0.1", server.server_address[1], calling="US", called="THEM", contexts=wanted) as found:
            assert (sorted(found.contexts), found.refused) == ([1, 3], {5: 3})
            found.send_message(found.contexts[3], store(7), bytes(40_000))
            answer = found.read_message()
            assert answer is not None and answer.command.status == 0xB000
        assert found.ending == "released"
    finally:
        server.shutdown()


def test_dcmtk_stores_what_we_send(tmp_path: Path) -> None:
    port = socket.create_server(("127.0.0.1", 0))
    number = port.getsockname()[1]
    port.close()
    server = subprocess.Popen(["/usr/bin/storescp", "-od", str(tmp_path), str(number)])
    try:
        data = tmp_path / "data"
        data.write_bytes(b"\x08\0\x16\0UI\x1a\0" + CT.encode() + b"\0" + b"\x08\0\x18\0UI\x06\x001.2.3\0")
        wanted = [(CT, (EXPLICIT,))]
        deadline = time.monotonic() + 120
        while True:
            try:
                found = connect("127.0.0.1", number, calling="US", called="THEM", contexts=wanted)
                break
            except Unreachable:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with found, data.open("rb") as file:
            size = data.stat().st_size
            found.send_file(found.contexts[1], store(7), file.fileno(), 0, size)
            answer = found.read_message()
            assert answer is not None and answer.command.status == 0
        assert [path.name for path in tmp_path.iterdir() if path.name != "data"]
    finally:
        server.terminate()
        server.wait(60)


def test_everything_that_can_be_negotiated_is() -> None:
    seen: list[AssociateRequest] = []

    def decide(request: AssociateRequest) -> Accepted:
        seen.append(request)
        return Accepted(contexts.table(), window=3, identity_response=b"ok")

    identity = UserIdentity(2, b"me", b"secret", True)
    with serving(policy=Everyone(decide)) as served:
        found = connect(
            "127.0.0.1", served.port, calling="US", called="THEM", contexts=[(CT, (EXPLICIT,)), (FIND, (IMPLICIT,))],
            roles={CT: (False, True)}, window=(5, 0), extended={FIND: b"\1"}, identity=identity, max_pdu=32768,
        )  # fmt: skip
        with found:
            assert found.contexts[1] == Context(1, CT, EXPLICIT, scu=False, scp=True)
            assert found.contexts[3] == Context(3, FIND, IMPLICIT, scu=True, scp=False)
            assert (found.window, dict(found.extended), found.identity_response) == ((3, 3), {FIND: b"\1"}, b"ok")
            assert (seen[0].identity, seen[0].max_pdu) == (identity, 32768)
        assert served.over.acquire(timeout=60)
        assert served.associations[0].contexts[1].scu


# -- peers that do not --------------------------------------------------------------------------------------------


def test_nobody_there_is_said_in_words() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="Connection refused"):
            call(unused.getsockname()[1])


def test_a_name_that_cannot_be_looked_up_is_said_in_words() -> None:
    for host in ("no.such.host.invalid", "a..b", ""):
        with pytest.raises(Unreachable):
            connect(host, 104, calling="US", called="THEM", contexts=ECHO, timeouts=QUICK)


def test_a_rejection_is_said_in_words() -> None:
    policy = Everyone(lambda request: Rejected.of((1, 1, 7)))
    with serving(policy=policy) as served, pytest.raises(Unreachable, match=r"called AE title not .*\(1,1,7\)"):
        call(served.port)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "timed out"),
        (b"\2", "timed out"),
        (acceptance()[:40], "timed out"),
        (lambda sock: sock.close(), "closed the connection"),
        (wire.abort_pdu(2, 1), "unrecognized PDU"),
        (wire.abort_pdu(0, 0), "aborted by the application"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "PDU type 48"),
        (wire.RELEASE_REPLY, "PDU type 06"),
        (data_pdu((1, 3, echo())), "PDU type 04"),
        (wire.PDU_HEADER.pack(wire.ASSOCIATE_AC, 0xFFFFFFFF), "of 4294967295 bytes"),
        (wire.PDU_HEADER.pack(wire.ASSOCIATE_RJ, 9999), "of 9999 bytes"),
        (wire.PDU_HEADER.pack(wire.ASSOCIATE_AC, 20) + bytes(20), "ends before its items"),
        (acceptance((3, 0, IMPLICIT)), "not proposed"),
        (acceptance((1, 0, EXPLICIT)), "transfer syntax not proposed"),
        (acceptance((1, 0, IMPLICIT), (1, 0, IMPLICIT)), "twice"),
        (acceptance(user=UserInformation(3)), "maximum PDU length of 3"),
    ],
)
def test_an_answer_that_is_none_is_said_in_words(answer: bytes, words: str) -> None:
    with remote(answer) as port, pytest.raises(Unreachable, match=words) as raised:
        call(port)
    assert raised.value.temporary and len(raised.value.comment) <= 64


def test_a_window_larger_than_proposed_is_refused() -> None:
    answer = acceptance(user=UserInformation(0, window=(0, 1)))
    with remote(answer) as port, pytest.raises(Unreachable, match="window"):
        call(port, window=(2, 1))


def test_a_window_that_was_not_proposed_is_not_taken() -> None:
    with remote(acceptance(user=UserInformation(0, window=(9, 9))), wire.RELEASE_REPLY) as port:
        with call(port) as found:
            assert found.window == (1, 1)


def test_contexts_that_were_not_answered_count_as_refused() -> None:
    with remote(acceptance((1, 0, IMPLICIT)), wire.RELEASE_REPLY) as port:
        with call(port, contexts=[*ECHO, (CT, (EXPLICIT,))]) as found:
            assert found.refused == {3: 2}


def test_no_contexts_or_too_many_are_a_fault_of_the_caller() -> None:
    for wanted in ([], ECHO * 129):
        with pytest.raises(ValueError, match="presentation contexts"):
            call(1, contexts=wanted)


@pytest.mark.parametrize("answer", [b"", b"\4", data_pdu((1, 3, echo()))[:20], wire.abort_pdu(0, 0)])
def test_a_peer_that_falls_silent_within_an_operation_ends_it(answer: bytes) -> None:
    with remote(acceptance(), answer) as port:
        found = call(port)
        found.send_message(found.contexts[1], echo())
        with pytest.raises(Ended):
            found.read_message()
        assert found.closed


def test_a_peer_that_never_answers_the_release_is_aborted() -> None:
    received: list[bytes] = []
    with remote(acceptance(), lambda sock: received.append(sock.recv(100))) as port:
        found = call(port)
        found.release()
        assert found.closed and "timed out" in found.ending
    assert received == [wire.abort_pdu(0, 0)]


def test_a_release_collision_is_answered_by_us_first() -> None:
    order: list[bytes] = []

    def collide(sock: socket.socket) -> None:
        sock.sendall(wire.RELEASE_REQUEST)
        order.append(sock.recv(100))
        sock.sendall(wire.RELEASE_REPLY)

    with remote(acceptance(), collide) as port:
        found = call(port)
        found.release()
        assert found.ending == "released"
    assert order == [wire.RELEASE_REPLY]


def test_an_exception_aborts_the_association() -> None:
    with serving() as served:
        with pytest.raises(KeyError), call(served.port):
            raise KeyError
        assert served.over.acquire(timeout=60)
        assert "by the peer" in served.associations[0].ending


def test_a_request_written_by_us_is_read_by_us() -> None:
    captured: list[bytes] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def capture() -> None:
        sock, _ = listening.accept()
        captured.append(sock.recv(65536))
        sock.close()

    thread = threading.Thread(target=capture)
    thread.start()
    with pytest.raises(Unreachable):
        call(listening.getsockname()[1])
    thread.join(60)
    listening.close()
    assert read_request(captured[0][6:]).called == "THEM"
