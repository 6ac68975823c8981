"""Whether a destination can be called: name, connection, TLS and C-ECHO, step by step where it cannot.

Rules that hold here: every step has a deadline, the whole has one too, and nobody waits behind a silent peer; a good
plain destination costs it one association; what comes back are words, seconds and dates.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from archive.dimse import scu
from archive.dimse.destinations import Destination
from archive.dimse.requestor import said
from archive.errors import ArchiveError

AT_A_TIME = 64  # destinations; a dead one costs nothing but time
PATIENCE = 10.0  # seconds for one answer: no device takes longer to answer an echo that is of any use
WAITS = ("tls", "acse", "pdu", "dimse", "send", "connect")
UNREACHED = "The remote AE could not be reached: "


@dataclass(frozen=True, slots=True)
class Probed:
    """How it went: what failed in words, how long the echo took, the steps, and when the certificate shown ends."""

    failed: str = ""
    seconds: float = 0.0
    steps: tuple[str, ...] = ()
    expires: float | None = None


def probe_all(destinations: Sequence[Destination], deadline: float) -> list[Probed]:
    """All of them, several at a time, in the order given; who has not answered after ``deadline`` seconds is late."""
    waiting: queue.SimpleQueue[tuple[int, Destination]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Probed]] = queue.SimpleQueue()
    for each in enumerate(destinations):
        waiting.put(each)
    for _ in range(min(AT_A_TIME, len(destinations))):
        threading.Thread(target=_work, args=(waiting, done), name="probe", daemon=True).start()
    found = dict(_until(done, len(destinations), time.monotonic() + deadline))
    unasked = {number for number, _ in _taken(waiting)}
    late = Probed(f"no answer in time: the {deadline:g} s for all are over")
    never = Probed(f"was not asked: the {deadline:g} s for all were over before its turn")
    return [found.get(number, never if number in unasked else late) for number in range(len(destinations))]


def _work(waiting: queue.SimpleQueue[tuple[int, Destination]], done: queue.SimpleQueue[tuple[int, Probed]]) -> None:
    for number, destination in _taken(waiting):
        done.put((number, probe(destination)))


def _taken(waiting: queue.SimpleQueue[tuple[int, Destination]]) -> Iterator[tuple[int, Destination]]:
    """What nobody else took, one by one."""
    while True:
        try:
            yield waiting.get_nowait()
        except queue.Empty:
            return


def _until(done: queue.SimpleQueue[tuple[int, Probed]], count: int, end: float) -> Iterator[tuple[int, Probed]]:
    for _ in range(count):
        try:
            yield done.get(timeout=max(end - time.monotonic(), 0))
        except queue.Empty:
            return


def probe(destination: Destination, clock: Callable[[], float] = time.monotonic) -> Probed:
    """C-ECHO; when that fails, and for TLS, the steps before it one by one."""
    destination = _impatient(destination)
    began = clock()
    try:
        scu.echo(destination)
        failed = ""
    except ArchiveError as error:
        failed = str(error)
    seconds = clock() - began
    if destination.tls is None and (not failed or failed.startswith(UNREACHED + _place(destination))):
        return Probed(_short(failed, destination), seconds)  # all is known: it answered, or nobody is there
    steps, expires = _steps(destination, clock)
    return Probed(_short(failed, destination), seconds, steps, expires)


def _impatient(destination: Destination) -> Destination:
    times = destination.timeouts
    shorter = {name: min(getattr(times, name), PATIENCE) for name in WAITS}
    return replace(destination, timeouts=replace(times, **shorter))


def listens(host: str, port: int) -> bool:
    """Whether somebody listens there; for an address that means all, on this machine."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        socket.create_connection((here, port), timeout=2).close()
    except OSError:
        return False
    return True


def _short(text: str, destination: Destination) -> str:
    """Without who and where, which whoever asked knows."""
    place = _place(destination)
    return text.removeprefix(UNREACHED).removeprefix(f"{destination.aet} at {place}").removeprefix(place)


def _place(destination: Destination) -> str:
    return f"{destination.host}:{destination.port}: "


def _steps(destination: Destination, clock: Callable[[], float]) -> tuple[tuple[str, ...], float | None]:
    """What worked and what did not on the way to the association, and when the certificate shown ends."""
    steps: list[str] = []
    name, sock = "name", None
    began = clock()
    try:
        found = socket.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM)
        address = found[0][4][0]
        if address != destination.host:
            steps.append(f"{destination.host} is {address}")
        name, began = "TCP", clock()
        sock = socket.create_connection((destination.host, destination.port), destination.timeouts.connect)
        steps.append(f"TCP in {_ms(clock() - began)}")
        if destination.tls is None:
            return tuple(steps), None
        name, began = "TLS", clock()
        sock.settimeout(destination.timeouts.tls)
        sock = secured = destination.tls.wrap(sock, destination.host)
        secured.do_handshake()
        steps.append(f"{secured.version()} in {_ms(clock() - began)}")
        return tuple(steps), _expiry(secured)
    except (OSError, ValueError) as error:
        return (*steps, f"{name}: {said(error)}"), None
    finally:
        if sock is not None:
            sock.close()


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _expiry(secured: ssl.SSLSocket) -> float | None:
    """Verified before it is read: certificates of servers always are."""
    end = (secured.getpeercert() or {}).get("notAfter")
    return ssl.cert_time_to_seconds(end) if isinstance(end, str) else None
