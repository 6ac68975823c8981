"""N01-N06, N10, N15-N19: what happens before there is an association."""

from __future__ import annotations

import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.faults import raw
from tests.faults.daemon import SLACK, TIMEOUTS, Daemon, many, wait_until
from tests.faults.raw import IMPLICIT, ONLY_ECHO, VERIFICATION, Connection, Request

DEADLINE = max(TIMEOUTS["acse"], TIMEOUTS["tls"], TIMEOUTS["pdu"]) + SLACK
PROMPT = 1.0  # seconds, less than any of the deadlines: who is held up by another waits for that
Archives = Callable[..., Daemon]

CLIENT_HELLO = (
    b"\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03" + bytes(32) + b"\x00\x00\x02\x13\x01\x01\x00\x00\x51"
)  # a record that says 128 bytes and brings fewer


def tls_client(daemon: Daemon) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(daemon.folder / "server.pem"))


def wait_closed(connections: list[Connection], within: float) -> list[float]:
    """Seconds until each was closed by the other side; all of them must be."""
    began = time.monotonic()
    taken = []
    for connection in connections:
        assert connection.is_closed(max(0.1, began + within - time.monotonic())), f"still open after {within} s"
        taken.append(time.monotonic() - began)
    return taken


@contextmanager
def dripping(connections: dict[Connection, bytes], every: float = 0.1) -> Iterator[None]:
    """One byte after the other is sent on each, until the end or until nobody takes them."""
    stop = threading.Event()

    def drip() -> None:
        for at in range(10_000):
            for connection, data in connections.items():
                connection.try_send(data[at : at + 1])
            if stop.wait(every):
                return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# -- silence ------------------------------------------------------------------------------------------


def test_n01_a_silent_tls_client_holds_up_nobody(archive: Daemon) -> None:
    context = tls_client(archive)
    with ExitStack() as stack:
        silent, half, drip = (stack.enter_context(Connection(archive.tls_port)) for _ in range(3))
        half.send(CLIENT_HELLO)
        stack.enter_context(dripping({drip: CLIENT_HELLO * 10}))
        taken = []
        for _ in range(3):
            before = time.monotonic()
            with raw.association(archive.tls_port, Request(contexts=ONLY_ECHO), tls=context) as other:
                assert other.echo() == 0
            taken.append(time.monotonic() - before)
        assert min(taken) < PROMPT
        wait_closed([silent, half, drip], DEADLINE)
        port = silent.sock.getsockname()[0]
    assert port in archive.log()


def test_n01_plain_bytes_on_the_tls_port_end_at_once(archive: Daemon) -> None:
    for words in (Request().pdu(), b"GET / HTTP/1.0\r\n\r\n", bytes(100)):
        with Connection(archive.tls_port) as lost:
            lost.send(words)
            wait_closed([lost], DEADLINE)


def test_n02_a_silent_client_is_closed_at_the_deadline_without_a_slot(own_archive: Archives) -> None:
    archive = own_archive({"limits": {"max_associations": 3, "reserved_for_peers": 0}})
    with many(archive.port, 10) as silent:
        assert archive.echo_seconds(calling="SENDER") < PROMPT
        taken = wait_closed(silent, DEADLINE)
    assert min(taken) > TIMEOUTS["acse"] - 1.0


def test_n03_the_beginning_of_a_request_then_silence(archive: Daemon) -> None:
    request = Request().pdu()
    beginnings = [request[:1], request[:6], request[: len(request) // 2], request[:-1]]
    with many(archive.port, len(beginnings)) as halves:
        for half, beginning in zip(halves, beginnings, strict=True):
            half.send(beginning)
        assert archive.echo_seconds() < PROMPT
        wait_closed(halves, DEADLINE)


def test_n04_dripping_is_not_progress(archive: Daemon) -> None:
    with Connection(archive.port) as before, Connection(archive.port) as within:
        within.associate(Request(contexts=ONLY_ECHO))
        echo = raw.p_data(raw.pdv(raw.ECHO, 3, raw.echo_rq()))
        with dripping({before: Request().pdu(), within: echo[:-10] + bytes(10_000)}):
            wait_closed([before], TIMEOUTS["acse"] + SLACK)
            within_ended = within.ending(TIMEOUTS["pdu"] + SLACK)
        assert within_ended[0] in ("aborted", "closed")


def test_n04_a_request_that_drips_in_time_is_served(archive: Daemon) -> None:
    """The twin: slow is not the same as too slow."""
    request = Request(contexts=ONLY_ECHO).pdu()
    with Connection(archive.port) as slow:
        for start in range(0, len(request), 40):
            slow.send(request[start : start + 40])
            time.sleep(0.05)
        answer = slow.read()
        assert answer and answer.kind == raw.AC


# -- many ---------------------------------------------------------------------------------------------


def test_n05_a_thousand_probes_refuse_nobody(archive: Daemon) -> None:
    before = archive.usage()
    with raw.association(archive.port, Request(contexts=ONLY_ECHO)) as open_one:
        for number in range(1000):
            with Connection(archive.port) as probe:
                if number % 2:
                    probe.reset()
            if number % 50 == 0:
                assert archive.echo() == 0
                assert open_one.echo(1 + number % 100) == 0
    assert archive.usage().resident - before.resident < 8 * 2**20


def test_n06_silent_connections_of_one_address_are_capped(own_archive: Archives) -> None:
    archive = own_archive({"timeouts": {"acse": "10s"}})
    base = archive.usage()
    with many(archive.port, 1000, source="127.0.0.5") as silent:
        closed = 0

        def are_closed() -> bool:
            nonlocal closed
            closed = sum(_is_gone(connection) for connection in silent)
            return closed > 800

        wait_until(are_closed, 6, lambda: f"only {closed} of {len(silent)} are closed")
        assert archive.usage().threads - base.threads <= len(silent) - closed + 2
        assert archive.echo_seconds("127.0.0.2") < PROMPT
    complaints = archive.log().count("have not said who they are")
    assert 1 <= complaints <= 30


def _is_gone(connection: Connection) -> bool:
    connection.sock.setblocking(False)
    try:
        return connection.sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


# -- lies about lengths ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [300 * 2**20, 0xFFFFFFFF, 2**31])
def test_n10_the_length_of_a_request_is_not_believed(archive: Daemon, length: int) -> None:
    before = archive.usage().resident
    body = Request().body()
    with Connection(archive.port) as liar:
        liar.send(raw.pdu(raw.RQ, body, length))
        sent = len(body)
        while sent < 8 * 2**20 and liar.try_send(bytes(65536)):
            sent += 65536
        assert liar.ending(DEADLINE) in [("aborted", 2, 6), ("closed",)]
    assert archive.usage().resident - before < 4 * 2**20


# -- the wrong PDU ---------------------------------------------------------------------------------------

REQUEST_BODY = Request().body()
WRONG_FIRST = {
    "data": (raw.p_data(raw.pdv(1, 3, raw.echo_rq())), ("aborted", 2, 2)),
    "release": (raw.release_rq(), ("aborted", 2, 2)),
    "release reply": (raw.release_rp(), ("aborted", 2, 2)),
    "abort": (raw.abort(), ("closed",)),
    "acceptance": (raw.accept(REQUEST_BODY), ("aborted", 2, 2)),
    "rejection": (raw.pdu(raw.RJ, bytes([0, 1, 1, 1])), ("aborted", 2, 2)),
    "type 8": (raw.pdu(8, bytes(4)), ("aborted", 2, 1)),
    "type 0": (raw.pdu(0, bytes(4)), ("aborted", 2, 1)),
    "type 255": (raw.pdu(255, bytes(4)), ("aborted", 2, 1)),
}


@pytest.mark.parametrize("what", WRONG_FIRST)
def test_n15_a_wrong_first_pdu_is_answered_as_state_2_says(archive: Daemon, what: str) -> None:
    data, expected = WRONG_FIRST[what]
    with Connection(archive.port) as confused:
        confused.send(data)
        assert confused.ending(DEADLINE) == expected
        assert confused.is_closed(DEADLINE)


WRONG_LATER = {
    "second request": (Request().pdu(), ("aborted", 2, 2)),
    "acceptance": (raw.accept(REQUEST_BODY), ("aborted", 2, 2)),
    "rejection": (raw.pdu(raw.RJ, bytes([0, 1, 1, 1])), ("aborted", 2, 2)),
    "release reply": (raw.release_rp(), ("aborted", 2, 2)),
    "abort": (raw.abort(), ("closed",)),
    "type 8": (raw.pdu(8, bytes(4)), ("aborted", 2, 1)),
    "type 0": (raw.pdu(0, bytes(4)), ("aborted", 2, 1)),
}


@pytest.mark.parametrize("what", WRONG_LATER)
def test_n15_a_wrong_pdu_within_an_association_is_answered_as_state_6_says(archive: Daemon, what: str) -> None:
    data, expected = WRONG_LATER[what]
    with Connection(archive.port) as confused:
        confused.associate()
        confused.send(data)
        assert confused.ending(DEADLINE) == expected
        assert confused.is_closed(DEADLINE)


# -- requests that are wrong -------------------------------------------------------------------------------

NAMES = raw.item(0x30, VERIFICATION.encode()) + raw.item(0x40, IMPLICIT.encode())


def contexts(*numbers: int) -> bytes:
    return b"".join(raw.context_rq(number, VERIFICATION, [IMPLICIT]) for number in numbers)


ABORTED: set[tuple[object, ...]] = {("aborted", 2, reason) for reason in (4, 5, 6)}
BAD_REQUESTS: dict[str, tuple[bytes, set[tuple[object, ...]]]] = {
    "wrong application context": (Request(application="1.2.3.4").pdu(), {("rejected", 1, 1, 2)}),
    "protocol version 2": (Request(version=2).pdu(), {("rejected", 1, 2, 2)}),
    "no contexts": (Request(items=b"").pdu(), ABORTED),
    "150 contexts": (Request(items=contexts(*(2 * n + 1 & 0xFF for n in range(150)))).pdu(), ABORTED),
    "even id": (Request(items=contexts(2)).pdu(), ABORTED),
    "id 0": (Request(items=contexts(0)).pdu(), ABORTED),
    "duplicate id": (Request(items=contexts(1, 1)).pdu(), ABORTED),
    "item past the end": (
        Request(items=raw.item(0x20, b"\1\0\0\0" + raw.item(0x30, VERIFICATION.encode(), 500))).pdu(),
        ABORTED,
    ),
    "context past the end": (Request(items=raw.item(0x20, b"\1\0\0\0" + NAMES, 60_000)).pdu(), ABORTED),
    "no abstract syntax": (
        Request(items=raw.item(0x20, b"\1\0\0\0" + raw.item(0x40, IMPLICIT.encode()))).pdu(),
        ABORTED,
    ),
    "empty context": (Request(items=raw.item(0x20, b"")).pdu(), ABORTED),
    "fixed part only": (raw.pdu(raw.RQ, Request().body()[:68]), ABORTED),
    "shorter than the fixed part": (raw.pdu(raw.RQ, bytes(20)), ABORTED),
    "empty": (raw.pdu(raw.RQ, b""), ABORTED),
    "maximum length of two bytes": (raw.pdu(raw.RQ, Request().body()[:-40] + raw.item(0x51, b"\0\1")), ABORTED),
    "half a role": (Request(contexts=ONLY_ECHO, user=raw.item(0x54, b"\0\x40")).pdu(), ABORTED),
    "half a window": (Request(contexts=ONLY_ECHO, user=raw.item(0x53, b"\0")).pdu(), ABORTED),
}


@pytest.mark.parametrize("what", BAD_REQUESTS)
def test_n16_a_wrong_request_is_refused_with_the_right_reason(archive: Daemon, what: str) -> None:
    data, expected = BAD_REQUESTS[what]
    with Connection(archive.port) as wrong:
        wrong.send(data)
        assert wrong.ending(DEADLINE) in expected
        assert wrong.is_closed(DEADLINE)


NO_TRANSFER = raw.item(0x20, b"\3\0\0\0" + raw.item(0x30, raw.CT.encode()))


def test_n16_a_context_without_transfer_syntax_leaves_no_thread(archive: Daemon) -> None:
    for _ in range(50):
        with Connection(archive.port) as wrong:
            answer = wrong.request(Request(items=contexts(1) + NO_TRANSFER))
            if answer and answer.kind == raw.AC:
                assert raw.results(answer.body)[3] != 0
            else:
                assert answer is None or answer.kind == raw.ABORT


def test_n16_what_is_unknown_is_refused_context_by_context(archive: Daemon) -> None:
    proposed = {1: (VERIFICATION, (IMPLICIT,)), 3: ("1.2.3.4.5", (IMPLICIT,)), 5: (raw.CT, ("1.2.3.4.6",))}
    with Connection(archive.port) as asking:
        asking.associate(Request(contexts=proposed))
        assert asking.accepted == {1: 0, 3: 3, 5: 4}
        assert asking.echo() == 0
        asking.release()


@pytest.mark.parametrize(
    "calling", [b" " * 16, b"\0" * 16, b"EVIL\nforged INFO", b"A\\B\x1b[31mRED", b"\xff\xfe\xe4\xf6", b"%s%n%d{0}"]
)
def test_n17_a_strange_ae_title_is_refused_and_logged_on_one_line(archive: Daemon, calling: bytes) -> None:
    lines = len(archive.log().splitlines())
    with Connection(archive.port) as stranger:
        stranger.send(Request(calling=calling).pdu())
        assert stranger.ending(DEADLINE) in [("rejected", 1, 1, 3), ("aborted", 2, 6)]
    with Connection(archive.port) as stranger:
        stranger.send(Request(calling="SENDER", called=calling).pdu())
        assert stranger.ending(DEADLINE) in [("rejected", 1, 1, 7), ("aborted", 2, 6)]
    new = archive.log().splitlines()[lines:]
    assert new and all(line[:2] == "20" for line in new), new


@pytest.mark.parametrize(
    ("calling", "source", "called", "expected"),
    [
        ("NOBODY", "127.0.0.1", "ARCHIVE", ("rejected", 1, 1, 3)),
        ("ELSEWHERE", "127.0.0.1", "ARCHIVE", ("rejected", 1, 1, 3)),
        ("SENDER", "127.0.0.1", "NOTUS", ("rejected", 1, 1, 7)),
    ],
)
def test_n18_who_may_not_come_in_is_told_why(
    archive: Daemon, calling: str, source: str, called: str, expected: tuple[object, ...]
) -> None:
    with Connection(archive.port, source=source) as stranger:
        stranger.send(Request(calling=calling, called=called).pdu())
        assert stranger.ending(DEADLINE) == expected
    assert calling in archive.log()


def test_n18_who_may_come_in_does(archive: Daemon) -> None:
    """The twin: the same titles, from the right place."""
    with raw.association(archive.port, Request(calling="ELSEWHERE"), source="127.0.0.99") as known:
        assert known.echo() == 0
    assert archive.echo(calling="NOBODY") == 0


@pytest.mark.parametrize(
    "identity",
    [
        b"\x01\x00" + struct.pack(">H", 500) + b"short",
        b"\x02\x01" + struct.pack(">H", 4) + b"user" + struct.pack(">H", 9) + b"SECRETPWD",
        b"\x63\x01" + struct.pack(">H", 0) + struct.pack(">H", 0),
        b"\x04\x01" + struct.pack(">H", 60_000) + b"<saml>" * 10_000 + struct.pack(">H", 0),
    ],
    ids=["cut off", "name and passcode", "unknown type", "large"],
)
def test_n19_a_user_identity_is_refused_or_ignored_and_never_logged(archive: Daemon, identity: bytes) -> None:
    with Connection(archive.port) as user:
        answer = user.request(Request(contexts=ONLY_ECHO, user=raw.item(0x58, identity)))
        assert answer and answer.kind in (raw.AC, raw.RJ, raw.ABORT)
        if answer.kind == raw.AC:
            assert user.echo() == 0
            user.release()
    assert "SECRETPWD" not in archive.log()


# -- asynchronous window and PDU sizes, as far as they are settled here ------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 12])
def test_n11_a_tiny_maximum_pdu_is_served_or_refused(archive: Daemon, size: int) -> None:
    before = archive.cpu_seconds()
    with Connection(archive.port) as tiny:
        answer = tiny.request(Request(max_pdu=size))
        assert answer is not None
        if answer.kind == raw.AC:
            tiny.max_pdu = 16384
            assert tiny.echo() == 0
            tiny.release()
            assert size > 6
        else:
            assert answer.kind in (raw.RJ, raw.ABORT)
    assert archive.cpu_seconds() - before < 2


def test_n11_no_maximum_at_all_is_served_in_our_size(archive: Daemon) -> None:
    with raw.association(archive.port, Request(max_pdu=0)) as generous:
        assert generous.echo() == 0


def test_n11_the_maximum_of_the_peer_is_kept(archive: Daemon) -> None:
    with raw.association(archive.port, Request(max_pdu=64)) as small:
        small.write(raw.ECHO, raw.echo_rq())
        answer = small.read()
        assert answer and len(answer.body) <= 64
        while not raw.pdvs(answer.body).__next__()[1] & raw.LAST:
            answer = small.read()
            assert answer and len(answer.body) <= 64
