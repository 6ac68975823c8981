"""A receiver of C-STORE that does whatever a test wants, on a port that the archive knows."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from tests.faults import raw
from tests.faults.raw import Connection, Ended

Behaviour = Callable[[Connection], None]


class Destination:
    """Listens from the start; each connection is treated by `behaviour` in a thread of its own."""

    def __init__(self, behaviour: Behaviour | None = None, port: int = 0) -> None:
        self.behaviour = behaviour or serve()
        self.received: dict[str, bytes] = {}
        self.connections = 0
        self._open: list[Connection] = []
        self._listening = socket.create_server(("127.0.0.1", port), backlog=16)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            connection = Connection.of(sock)
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._treat, args=(connection,), daemon=True).start()

    def _treat(self, connection: Connection) -> None:
        with contextlib.suppress(OSError, Ended, AssertionError):
            self.behaviour(connection)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._open:
            connection.close()

    def __enter__(self) -> Destination:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Dead:
    """A port that is taken by nobody who listens."""

    def __init__(self) -> None:
        self._sock = socket.socket()
        self._sock.bind(("127.0.0.1", 0))

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def close(self) -> None:
        self._sock.close()


class BlackHole(Dead):
    """A port where connections are neither taken nor refused: its backlog is full."""

    def __init__(self) -> None:
        super().__init__()
        self._sock.listen(0)
        self._fill = []
        for _ in range(8):
            sock = socket.socket()
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(("127.0.0.1", self.port))
            self._fill.append(sock)

    def close(self) -> None:
        super().close()
        for sock in self._fill:
            sock.close()


def serve(
    answer: Callable[[int], int] = lambda number: 0,
    *,
    max_pdu: int = 16384,
    keep: dict[str, bytes] | None = None,
    refuse: bool = False,
    stop_after: int | None = None,
    how: Callable[[Connection], None] = Connection.reset,
    pause: float = 0.0,
) -> Behaviour:
    """An orderly receiver: the n-th object (from 1) gets the status `answer(n)`.

    After `stop_after` objects it does what `how` says in place of an answer.
    """

    def behave(connection: Connection) -> None:
        request = connection.read()
        assert request is not None and request.kind == raw.RQ
        connection.send(raw.accept(request.body, max_pdu, refuse))
        number = 0
        while True:
            try:
                message = connection.message()
            except Ended as end:
                if end.how == ("PDU", raw.RELEASE_RQ):
                    connection.send(raw.release_rp())
                    connection.close()
                return
            number += 1
            if stop_after is not None and number > stop_after:
                how(connection)
                return
            if keep is not None:
                keep[message.text(raw.AFFECTED_INSTANCE)] = message.data
            time.sleep(pause)
            field = message.number(raw.FIELD)
            if field == raw.C_STORE:
                connection.write(message.context, raw.store_rsp(message.command, answer(number)))

    return behave


def silent(connection: Connection) -> None:
    connection.is_closed(30)


def one_byte(connection: Connection) -> None:
    connection.read()
    connection.send(b"\2")
    connection.is_closed(30)


def reject(result: int, source: int, reason: int) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.read()
        connection.send(raw.pdu(raw.RJ, bytes([0, result, source, reason])))
        connection.is_closed(5)

    return behave


def hang_up(connection: Connection) -> None:
    connection.read()
    connection.close()


def garbage(connection: Connection) -> None:
    connection.read()
    connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
    connection.is_closed(5)


def endless(connection: Connection) -> None:
    """An answer that says it has four gigabytes."""
    connection.read()
    connection.send(raw.pdu(raw.AC, bytes(100), 0xFFFFFFFF))
    for _ in range(1000):
        if not connection.try_send(bytes(1 << 16)):
            return


def never_releases(connection: Connection) -> None:
    request = connection.read()
    assert request is not None
    connection.send(raw.accept(request.body))
    while True:
        message = connection.message()
        connection.write(message.context, raw.store_rsp(message.command))
