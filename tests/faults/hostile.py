"""A thousand sockets that mean no good, of twelve kinds, kept open from many loopback addresses.

Rules that hold here: whatever the archive closes is opened again; one thread does it all, and never waits for a
peer; nothing of the archive is imported.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType

from tests.faults import raw
from tests.faults.objects import instance, keys_of
from tests.faults.raw import CT, FIND, ONLY_ECHO, STORE_CT, Request, fragments, p_data, pdv

CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303")  # and then nothing
ADDRESSES = [f"127.0.{net}.{host}" for net in range(1, 9) for host in range(1, 33)]


class Hostile:
    """One socket: what it says at first, what each second after it."""

    def __init__(self, sock: socket.socket, begin: bytes, drip: bytes = b"") -> None:
        self.sock, self.drip = sock, drip
        self.opened = time.monotonic()
        with contextlib.suppress(OSError):
            sock.send(begin)

    def tick(self) -> bool:
        """False when it was closed."""
        try:
            if self.drip:
                piece, self.drip = self.drip[:1], self.drip[1:]
                self.sock.send(piece)
            if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 8192 and self.sock.recv(1 << 16) == b"":
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


def _begin_store() -> bytes:
    one = instance(size=2_000_000)
    pieces = [p_data(pdv(STORE_CT, *cut)) for cut in list(fragments(one.data, 16_000))[:6]]
    return Request(calling="OTHER").pdu() + p_data(pdv(STORE_CT, 3, raw.store_rq(CT, one.uid))) + b"".join(pieces)


def _never_reads() -> bytes:
    find = p_data(pdv(FIND, 3, raw.query_rq(raw.C_FIND, raw.STUDY_FIND))) + p_data(pdv(FIND, 2, keys_of("STUDY")))
    return Request(calling="OTHER").pdu() + find


def _no_transfer_syntax() -> bytes:
    return Request(items=raw.item(0x20, bytes([1, 0, 0, 0]) + raw.item(0x30, raw.VERIFICATION.encode()))).pdu()


RQ = Request(calling="STRANGER", contexts=ONLY_ECHO).pdu()
# Name -> what is said at first, and byte by byte after it; "tls" goes to the TLS port.
KINDS: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "silent": lambda: (b"", b""),
    "one byte": lambda: (RQ[:1], b""),
    "header only": lambda: (RQ[:6], b""),
    "half a request": lambda: (RQ[: len(RQ) // 2], b""),
    "drip": lambda: (RQ[:4], RQ[4:]),
    "tls silent": lambda: (b"", b""),
    "tls half a hello": lambda: (CLIENT_HELLO, b""),
    "idle association": lambda: (RQ, b""),
    "stalled store": lambda: (_begin_store(), b""),
    "never reads": lambda: (_never_reads(), b""),
    "no transfer syntax": lambda: (_no_transfer_syntax(), b""),
    "length of 4 GB": lambda: (struct.pack(">BxI", 1, 0xFFFFFFFF) + bytes(200), b""),
}


class Crowd:
    """`count` of them, a context manager."""

    def __init__(self, port: int, tls_port: int, count: int, seed: int = 1) -> None:
        self._ports = port, tls_port
        self._count = count
        self._random = random.Random(seed)
        self._enough = False
        self._open: list[tuple[str, Hostile]] = []
        self.opened: dict[str, int] = dict.fromkeys(KINDS, 0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough = True
        self._thread.join(60)
        for _, each in self._open:
            each.sock.close()

    @property
    def size(self) -> int:
        return len(self._open)

    def _run(self) -> None:
        kinds = list(KINDS)
        number = 0
        while not self._enough:
            began = time.monotonic()
            for _ in range(min(100, self._count - len(self._open))):
                number += 1
                self._add(kinds[number % len(kinds)])
            live = []
            for name, each in self._open:
                if each.tick():
                    live.append((name, each))
                else:
                    each.sock.close()
            self._open = live
            time.sleep(max(0.0, (0.2 if len(live) < self._count else 1.0) - (time.monotonic() - began)))

    def _add(self, name: str) -> None:
        sock = socket.socket()
        try:
            if name == "never reads":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            sock.bind((self._random.choice(ADDRESSES), 0))
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self._ports[name.startswith("tls")]))
        except OSError:
            sock.close()
            return
        self._open.append((name, Hostile(sock, *KINDS[name]())))
        self.opened[name] += 1
