"""Between the archive and PostgreSQL: passes everything on, until a COMMIT comes and the line is cut.

Rules that hold here: the protocol is only followed as far as needed to know a COMMIT, whether it comes as text or
as a prepared statement (protocol 3.0, messages Q, P, B); each connection has a thread that ends with it.
"""

from __future__ import annotations

import contextlib
import random
import select
import shutil
import socket
import struct
import tempfile
import threading
from pathlib import Path
from types import TracebackType

BEFORE, AFTER, SILENT = "before", "after", "silent"  # the COMMIT is not sent on; its answer is not; nothing is any more


class Proxy:
    """A context manager; `cuts` counts what was done. `share` of the commits are cut, in ways of `ways`."""

    def __init__(
        self, server_folder: Path, seed: int, share: float = 0.3, ways: tuple[str, ...] = (BEFORE, AFTER)
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="px"))
        self.cuts: dict[str, int] = dict.fromkeys((BEFORE, AFTER, SILENT), 0)
        self.active = True
        self._server = str(server_folder / ".s.PGSQL.5432")
        self._random = random.Random(seed)
        self._share, self._ways = share, ways
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.folder / ".s.PGSQL.5432"))
        self._listening.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.active = False
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        with client, server, contextlib.suppress(OSError):
            server.connect(self._server)
            _Line(self, client, server).run()

    def decide(self) -> str:
        """What happens to this COMMIT; nothing when empty."""
        if not self.active or self._random.random() >= self._share:
            return ""
        way = self._random.choice(self._ways)
        self.cuts[way] += 1
        return way


class _Line:
    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._buffer = bytearray()
        self._begun = False
        self._commits: set[bytes] = set()  # names of prepared statements that are COMMIT

    def run(self) -> None:
        while True:
            readable, _, _ = select.select([self._client, self._server], [], [], 120)
            if self._server in readable:
                data = self._server.recv(1 << 16)
                if not data:
                    return
                self._client.sendall(data)
            if self._client in readable:
                data = self._client.recv(1 << 16)
                if not data:
                    return
                way = self._proxy.decide() if self._has_commit(data) else ""
                if way != BEFORE:
                    self._server.sendall(data)
                if way:
                    self._cut(way)
                    return

    def _cut(self, way: str) -> None:
        if way == AFTER:
            self._server.recv(1 << 16)  # it is done, and nobody is told
        elif way == SILENT:
            select.select([self._client], [], [], 30)  # until the client gives up

    def _has_commit(self, data: bytes) -> bool:
        self._buffer += data
        found = False
        while len(self._buffer) >= 5:
            start = 1 if self._begun else 0
            (length,) = struct.unpack_from(">I", self._buffer, start)
            if len(self._buffer) < start + length:
                break
            message = bytes(self._buffer[: start + length])
            del self._buffer[: start + length]
            found |= self._begun and self._is_commit(message[:1], message[5:])
            self._begun = True
        return found

    def _is_commit(self, kind: bytes, body: bytes) -> bool:
        if kind == b"Q":
            return body.startswith(b"COMMIT")
        if kind == b"P":
            name, query = body.split(b"\0")[:2]
            (self._commits.add if query == b"COMMIT" else self._commits.discard)(name)
            return False
        if kind == b"B":
            return body.split(b"\0")[1] in self._commits
        return False
