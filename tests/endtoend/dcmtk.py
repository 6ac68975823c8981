"""DCMTK's tools as independent peers: each call is bounded, and says what the tool printed when it fails."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults.daemon import Daemon, free_port

SECONDS = 300  # for a tool that usually takes a moment


def run(tool: str, *arguments: object, good: Sequence[int] = (0,)) -> str:
    """What a tool printed."""
    done = subprocess.run(
        [tool, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False
    )
    text = done.stdout.decode(errors="replace")
    assert done.returncode in good, f"{tool} ended with {done.returncode}:\n{text}"
    return text


class Client:
    """The tools, pointed at a daemon; `tls` are the options for a TLS listener.

    movescu and getscu 3.6.7 know no TLS; for them `relay` is the port of a `tls_relay`.
    """

    def __init__(self, daemon: Daemon, *, calling: str = "SENDER", tls: Sequence[object] = (), relay: int = 0) -> None:
        self._port = daemon.tls_port if tls else daemon.port
        self._relay = relay
        self._tls = tls
        self._names = ("-aet", calling, "-aec", "ARCHIVE")

    def call(self, tool: str, *options: object, rest: Sequence[object] = (), good: Sequence[int] = (0,)) -> str:
        """`options` stand before the address, `rest` behind it."""
        relayed = self._relay and tool in ("movescu", "getscu")
        port, tls = (self._relay, ()) if relayed else (self._port, self._tls)
        return run(tool, *options, *tls, *self._names, "127.0.0.1", port, *rest, good=good)


@contextlib.contextmanager
def tls_relay(port: int, certificate: Path, key: Path) -> Iterator[int]:
    """A plain port whose connections go on over TLS to `port`, showing a certificate."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_relay_all, args=(server, context, port), daemon=True).start()
        yield server.getsockname()[1]


def _relay_all(server: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with contextlib.suppress(OSError):  # the server was closed: the test is over
        while True:
            near = server.accept()[0]
            far = context.wrap_socket(socket.create_connection(("127.0.0.1", port)))
            threading.Thread(target=_relay_one, args=(near, far), daemon=True).start()


def _relay_one(near: socket.socket, far: ssl.SSLSocket) -> None:
    """One thread for both directions: a TLS socket is not for two."""
    with near, far, contextlib.suppress(OSError), selectors.DefaultSelector() as waiting:
        waiting.register(near, selectors.EVENT_READ, (near, far))
        waiting.register(far, selectors.EVENT_READ, (far, near))
        while all(_forward(*key.data) for key, _ in waiting.select()):
            pass


def _forward(source: socket.socket, target: socket.socket) -> bool:
    """Pass on all that is there; False at the end of the stream."""
    source.setblocking(False)
    try:
        while block := source.recv(1 << 16):
            target.setblocking(True)
            target.sendall(block)
        return False
    except (BlockingIOError, ssl.SSLWantReadError):  # nothing more now, or only what TLS says to itself
        return True


def query(level: str, **keys: str) -> list[object]:
    """The keys of a Study Root query as DCMTK wants them."""
    return [
        "-S",
        "-k",
        f"QueryRetrieveLevel={level}",
        *(part for key in keys.items() for part in ("-k", "=".join(key))),
    ]


@contextlib.contextmanager
def storescp(folder: Path, *options: object) -> Iterator[int]:
    """A storescp that writes what it gets into `folder`; gives its port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    process = subprocess.Popen(
        ["storescp", *map(str, options), "-od", str(folder), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    try:
        _wait_for(port)
        yield port
    finally:
        process.kill()
        process.wait(60)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done = subprocess.run(["echoscu", "127.0.0.1", str(port)], capture_output=True, timeout=300, check=False)
        if done.returncode == 0:
            return
        time.sleep(0.05)
    raise AssertionError("storescp does not answer")
