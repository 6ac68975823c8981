"""Waking workers: whoever commits a task says so, and who waits for tasks hears it in any process.

Rules that hold here: nobody polls; what is heard is a hint and may come twice or for nothing, so a listener looks
for itself; a message nobody listens to costs next to nothing and holds nobody up. On SQLite a listener is a socket
in a folder beside the database, on PostgreSQL it is LISTEN on a connection of its own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import psycopg

from archive.errors import IndexUnavailable

log = logging.getLogger(__name__)

CHANNEL = "archive_tasks"  # of NOTIFY
_LONGEST = 4096  # bytes of one message: some dozen names of kinds


class Wakes(Protocol):
    """Hears what was committed since it was opened; belongs to one thread."""

    def fileno(self) -> int:
        """Readable when there is something to take."""
        ...

    def take(self) -> set[str]:
        """The kinds of tasks that came, never blocking. Raises IndexUnavailable when nothing will be heard any more."""
        ...

    def close(self) -> None: ...


class Sockets:
    """The folder of listeners beside a SQLite database; sends to all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sending = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def send(self, kinds: Collection[str]) -> None:
        """The transaction is committed: whatever fails here must not make it look as if it were not."""
        try:
            self._send(kinds)
        except FileNotFoundError:
            return  # nobody ever listened
        except OSError as error:  # no descriptor left, for example; the next commit wakes them
            log.warning("workers could not be woken: %s", error.strerror)

    def _send(self, kinds: Collection[str]) -> None:
        names = os.listdir(self.folder)
        message = ",".join(kinds).encode()
        with _opened(self.folder) as directory:
            for name in names:
                self._send_to(directory, name, message)

    def _send_to(self, directory: int, name: str, message: bytes) -> None:
        try:
            self._sending.sendto(message, _address(directory, name))
        except ConnectionRefusedError:  # its process is gone
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)
        except OSError:
            return  # full: what lies there unread will wake it as well; or gone

    def close(self) -> None:
        self._sending.close()


class SocketWakes:
    """One listener of a SQLite database."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / secrets.token_hex(8)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with _opened(folder) as directory:
            self._socket.bind(_address(directory, self._path.name))

    def fileno(self) -> int:
        return self._socket.fileno()

    def take(self) -> set[str]:
        kinds: set[str] = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                kinds |= set(self._socket.recv(_LONGEST).decode().split(","))
        return kinds

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._socket.close()


class NotifyWakes:
    """One listener of a PostgreSQL database, on a connection of its own."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """``connection`` is in autocommit mode and nobody else's."""
        self._connection = connection
        with _listening():
            connection.execute(f"LISTEN {CHANNEL}")

    def fileno(self) -> int:
        return self._connection.fileno()

    def take(self) -> set[str]:
        with _listening():
            return {found.payload for found in self._connection.notifies(timeout=0)}

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def _listening() -> Any:
    try:
        yield
    except psycopg.Error as error:
        raise IndexUnavailable("index is not available", str(error)) from error


@contextlib.contextmanager
def _opened(folder: Path) -> Any:
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield directory
    finally:
        os.close(directory)


def _address(directory: int, name: str) -> str:
    """Short, however long the folder's own name is: a socket's may have 107 bytes (unix(7))."""
    return f"/proc/self/fd/{directory}/{name}"
