"""The listener over real sockets: the numbers H01 to H08, and that nothing one sender does ends another's work."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from archive.dimse.listener import bind
from archive.dimse.tls import ServerTLS
from archive.errors import IndexUnavailable
from archive.hl7.framing import framed
from archive.hl7.inbound import Inbound
from archive.hl7.listener import Listener, Patience
from archive.hl7.mapping import FieldMap
from archive.index import Index
from archive.services.orders import Orders
from tests.dimse.authority import Authority
from tests.hl7.made import PATIENT, message, order

Start = Callable[..., "Served"]
HASTY = Patience(tls=0.5, message=0.5, send=2, idle=0.5)


class Served:
    """A listener with an index behind it."""

    def __init__(self, index: Index, listener: Listener) -> None:
        self.index, self.listener = index, listener

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.listener.port), timeout=60)

    def send(self, data: bytes) -> str:
        with self.connect() as sock:
            return ask(sock, framed(data))


def ask(sock: socket.socket, data: bytes) -> str:
    """The acknowledgement code that comes back, empty when the connection ends."""
    sock.sendall(data)
    return answer(sock)


def answer(sock: socket.socket) -> str:
    received = b""
    while not received.endswith(b"\x1c\r"):
        try:
            piece = sock.recv(4096)
        except ConnectionResetError:
            return ""
        if not piece:
            return ""
        received += piece
    return received.split(b"MSA|")[1][:2].decode()


def ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(100) == b""
    except ConnectionResetError:
        return True


@pytest.fixture
def start(index: Index) -> Iterator[Start]:
    listeners: list[Listener] = []

    def begin(
        *, senders: tuple[str, ...] = (), admits: Callable[[str], bool] = lambda _: True, **options: object
    ) -> Served:
        inbound = Inbound(
            Orders(index), clock=lambda: 1_800_000_000.0, fields=FieldMap(), charset="UNICODE UTF-8",
            application="ARCHIVE", senders=senders,
        )  # fmt: skip
        listener = Listener(bind("127.0.0.1", 0), inbound.receive, admits, **options)  # type: ignore[arg-type]
        listener.start()
        listeners.append(listener)
        return Served(index, listener)

    yield begin
    for listener in listeners:
        listener.stop()


def test_an_acknowledged_order_is_there(start: Start) -> None:
    served = start()
    assert served.send(order()) == "AA"
    assert [found.accession_number for found in served.index.orders.latest()] == ["ACC1"]
    assert [kept.code for kept in served.index.orders.messages()] == ["AA"]


@pytest.mark.parametrize("size", [1, 13])
def test_h01_a_message_may_come_in_pieces(start: Start, size: int) -> None:
    served, data = start(), framed(order())
    with served.connect() as sock:
        for begin in range(0, len(data), size):
            sock.sendall(data[begin : begin + size])
        assert answer(sock) == "AA"


def test_h01_two_messages_in_one_piece_are_answered_in_order(start: Start) -> None:
    served = start()
    with served.connect() as sock:
        sock.sendall(framed(order("M1")) + framed(message("ADT^A99", ("PID", PATIENT), control="M2")))
        received = b""
        while received.count(b"\x1c\r") < 2:
            received += sock.recv(4096)
    assert received.index(b"MSA|AA|M1") < received.index(b"MSA|AR|M2")


@pytest.mark.parametrize("rubbish", [b"MSH|no frame", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\xff", b"\x00" * 99])
def test_h01_rubbish_ends_its_own_connection_only(start: Start, rubbish: bytes) -> None:
    served = start()
    with served.connect() as other, served.connect() as sock:
        sock.sendall(rubbish)
        assert ended(sock)
        assert ask(other, framed(order())) == "AA"
    assert served.send(order("M2")) == "AA"


def test_a_bad_message_is_answered_and_the_connection_goes_on(start: Start) -> None:
    served = start()
    with served.connect() as sock:
        for data in (b"", b"hello", b"MSH|", b"PID|1", b"MSH|^~\\&|" + b"\xff" * 1000):
            assert ask(sock, framed(data)) in ("AR", "AE")
        assert ask(sock, framed(order())) == "AA"


def test_h02_a_message_without_end_is_closed_at_its_limit(start: Start) -> None:
    served = start()
    with served.connect() as sock:
        sock.sendall(b"\x0b")
        with pytest.raises(OSError):
            for _ in range(100):
                sock.sendall(b"x" * 65536)
    assert served.send(order()) == "AA"


@pytest.mark.parametrize("beginning", [b"", b"\x0bMSH|"])
def test_h02_who_is_silent_is_closed(start: Start, beginning: bytes) -> None:
    served = start(patience=HASTY)
    with served.connect() as sock:
        sock.sendall(beginning)
        assert ended(sock)


def test_h02_an_address_has_so_many_connections(start: Start) -> None:
    served = start(per_ip=3)
    socks = [served.connect() for _ in range(3)]
    assert ask(socks[0], framed(order())) == "AA"
    with served.connect() as refused:
        assert ended(refused)
    for sock in socks:
        sock.close()
    for number in range(50):  # the places come back as their threads end
        try:
            if served.send(order(f"N{number}")) == "AA":
                return
        except ConnectionError:
            continue
    raise AssertionError("no place came back")


def test_h03_a_repeated_message_is_acknowledged_without_effect(start: Start) -> None:
    served = start()
    assert [served.send(order()) for _ in range(3)] == ["AA", "AA", "AA"]
    assert len(served.index.orders.latest()) == len(served.index.orders.messages()) == 1


def test_h04_other_content_under_the_same_id_is_refused(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    served = start()
    served.send(order())
    assert served.send(order(patient={5: "Other^Name"})) == "AE"
    assert served.index.orders.latest()[0].attributes["PatientName"] == "Doe^Jane^^Dr"
    assert "RIS|HOSP sent other content" in caplog.text
    assert "Other" not in caplog.text


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (message("ADT^A99", ("PID", PATIENT)), "AR"),
        (message("ORM^O01"), "AR"),
        (message("ADT^A08", ("PID", PATIENT), header={18: "KLINGON"}), "AR"),
        (message("ADT^A08", ("PID", {3: "P1", 5: "a\\X0D\\b"})), "AA"),
        (message("ADT^A08", ("PID", {**PATIENT, 11: "x" * 100_000})), "AA"),
        (message("ADT^A08", ("PID", PATIENT), *[("NTE", {1: "1"})] * 6000), "AR"),
        (message("ADT^A08", ("PID", PATIENT), control=""), "AE"),
    ],
)
def test_h05_odd_messages_are_answered(start: Start, data: bytes, code: str) -> None:
    served = start()
    assert served.send(data) == code
    (kept,) = served.index.orders.messages()
    assert kept.code == code


def test_h06_a_merge_while_orders_come_reaches_them_all(start: Start) -> None:
    served = start()
    served.send(order("first", patient={3: "P0^^^HOSP"}))
    merge = message("ADT^A40", ("PID", PATIENT), ("MRG", {1: "P0^^^HOSP"}), control="merge")
    codes: list[str] = []

    def send(data: bytes) -> None:
        codes.append(served.send(data))

    threads = [threading.Thread(target=send, args=(order(f"M{n}"),)) for n in range(5)]
    threads += [threading.Thread(target=send, args=(merge,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(codes) == {"AA"}
    assert {found.patient_id for found in served.index.orders.latest()} == {"P1"}


def test_h07_without_an_index_the_sender_is_told_and_nothing_is_lost(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = start()

    def gone(*_: object, **__: object) -> None:
        raise IndexUnavailable("index is not available")

    with monkeypatch.context() as broken:
        broken.setattr(served.index.database, "transact", gone)
        assert served.send(order()) == "AE"
    assert served.send(order()) == "AA"
    assert len(served.index.orders.latest()) == 1


def test_h08_a_sender_that_is_not_listed_is_closed(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    served = start(senders=("OTHER", "RIS|CLINIC"))
    assert served.send(order()) == ""
    assert "may not send" in caplog.text
    assert start(senders=("RIS",)).send(order()) == "AA"


def test_h08_an_address_that_is_not_listed_is_closed(start: Start) -> None:
    served = start(admits=lambda _: False)
    with served.connect() as sock:
        assert ended(sock)
    assert served.index.orders.messages() == []


def test_stopping_answers_what_is_under_way_and_closes_who_waits(start: Start) -> None:
    served = start()
    with served.connect() as sock:
        assert ask(sock, framed(order())) == "AA"
        served.listener.stop()
        assert ended(sock)
    with pytest.raises(OSError):
        served.connect()


def test_what_is_under_way_over_tls_is_never_answered_in_clear(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("archive")
    server = ServerTLS(cert=cert, key=key, ca=authority.certificate, client_cert="ignore")
    served = start(tls=lambda: server.context)
    index, begun, go_on = served.index.orders, threading.Event(), threading.Event()
    apply = index.apply

    def slow(*given: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return apply(*given)

    index.apply = slow  # type: ignore[method-assign]
    client = ssl.create_default_context(cafile=str(authority.certificate))
    with client.wrap_socket(served.connect(), server_hostname="localhost") as sock:
        sock.sendall(framed(order()))
        assert begun.wait(60)
        stopping = threading.Thread(target=served.listener.stop)
        stopping.start()
        threading.Timer(0.2, go_on.set).start()
        assert answer(sock) == "AA"
        stopping.join(60)


def test_a_message_before_rubbish_is_answered(start: Start) -> None:
    served = start()
    with served.connect() as sock:
        assert ask(sock, framed(order()) + b"rubbish") == "AA"
        assert ended(sock)


def test_messages_over_tls(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("archive")
    server = ServerTLS(cert=cert, key=key, ca=authority.certificate)
    served = start(tls=lambda: server.context)
    client = ssl.create_default_context(cafile=str(authority.certificate))
    with served.connect() as plain:
        plain.sendall(framed(order("plain")))
        assert answer(plain) == ""
    with client.wrap_socket(served.connect(), server_hostname="localhost") as nobody, pytest.raises(OSError):
        ask(nobody, framed(order("nobody")))
        raise ConnectionError  # an end without an alert
    client.load_cert_chain(*authority.issue("ris"))
    with client.wrap_socket(served.connect(), server_hostname="localhost") as sock:
        assert ask(sock, framed(order())) == "AA"
    assert [kept.control_id for kept in served.index.orders.messages()] == ["M1"]
