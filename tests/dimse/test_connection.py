from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from archive.dimse.connection import BUFFER, Connection, Timeouts
from archive.dimse.reasons import Aborted, TimedOut

SHORT = Timeouts(send=0.3)


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection and the socket at its other end."""
    listening = socket.create_server(("127.0.0.1", 0))
    other = socket.create_connection(listening.getsockname())
    sock, _ = listening.accept()
    listening.close()
    connection = Connection(sock, SHORT)
    yield connection, other
    connection.close()
    other.close()


Pair = tuple[Connection, socket.socket]


def test_bytes_come_in_order_whatever_their_pieces(pair: Pair) -> None:
    connection, other = pair
    data = bytes(range(256)) * 8000
    threading.Thread(target=other.sendall, args=(data,)).start()
    connection.expect(5)
    assert b"".join(connection.read(size) for size in (1, 10, 300_000, 1_747_989)) == data


def test_a_header_across_the_end_of_the_buffer_is_whole(pair: Pair) -> None:
    connection, other = pair
    threading.Thread(target=other.sendall, args=(bytes(BUFFER - 3) + b"header",)).start()
    connection.expect(5)
    while connection.end < BUFFER:
        connection.fill()
    connection.start = BUFFER - 3
    connection.need(6)
    assert bytes(connection.buffer[connection.start : connection.start + 6]) == b"header"


def test_a_deadline_is_absolute(pair: Pair) -> None:
    connection, other = pair
    dripping = threading.Event()

    def drip() -> None:
        while not dripping.wait(0.02):
            other.sendall(b".")

    thread = threading.Thread(target=drip)
    thread.start()
    connection.expect(0.4)
    started = monotonic()
    with pytest.raises(TimedOut):
        connection.need(10_000)
    dripping.set()
    thread.join()
    assert monotonic() - started < 2


def test_an_end_is_told_from_a_reset(pair: Pair) -> None:
    connection, other = pair
    connection.expect(5)
    other.close()
    with pytest.raises(Aborted, match="closed the connection"):
        connection.fill()


def test_looking_never_waits(pair: Pair) -> None:
    connection, other = pair
    assert connection.look() and connection.end == 0
    other.sendall(b"abc")
    while connection.end < 3:
        assert connection.look()
    other.close()
    while connection.look():
        pass
    assert bytes(connection.buffer[:3]) == b"abc"


def test_looking_at_a_full_buffer_leaves_the_rest_outside(pair: Pair) -> None:
    connection, other = pair
    threading.Thread(target=other.sendall, args=(bytes(BUFFER * 2),)).start()
    connection.expect(5)
    while connection.end < BUFFER:
        connection.fill()
    assert connection.look() and connection.end - connection.start == BUFFER
    assert len(connection.read(BUFFER * 2)) == BUFFER * 2


def test_a_peer_that_does_not_read_times_out(pair: Pair) -> None:
    connection, _ = pair
    with pytest.raises(TimedOut, match="sending"):
        while True:
            connection.send([bytes(100_000)])


def test_many_parts_are_sent_in_order(pair: Pair) -> None:
    connection, other = pair
    connection.send([bytes((number % 256,)) for number in range(5000)])
    received = b""
    while len(received) < 5000:
        received += other.recv(5000)
    assert received == bytes(number % 256 for number in range(5000))


def test_sending_to_nobody_is_an_abort(pair: Pair) -> None:
    connection, other = pair
    other.close()
    with pytest.raises(Aborted):
        for _ in range(1000):
            connection.send([bytes(1000)])


def test_another_thread_can_wake_a_reader_that_can_still_send(pair: Pair) -> None:
    connection, other = pair
    connection.expect(30)
    threading.Timer(0.05, connection.interrupt).start()
    with pytest.raises(Aborted):
        connection.fill()
    connection.send_now(b"last words")
    assert other.recv(100) == b"last words"


def test_last_words_are_read_although_the_peer_was_still_sending(pair: Pair) -> None:
    connection, other = pair
    other.sendall(bytes(100_000))
    connection.send_now(b"last words")
    connection.hang_up()
    threading.Timer(0.1, other.shutdown, (socket.SHUT_WR,)).start()
    connection.linger(5)
    connection.close()
    assert other.recv(100) == b"last words" and other.recv(100) == b""


def test_lingering_has_an_end(pair: Pair) -> None:
    connection, _ = pair
    started = monotonic()
    connection.linger(0.2)
    assert monotonic() - started < 2


def test_closing_and_interrupting_twice_does_no_harm(pair: Pair) -> None:
    connection, _ = pair
    connection.close()
    connection.close()
    connection.interrupt()
    connection.cut()
    connection.send_now(b"")
