"""Notices by real commands."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from archive.errors import NotDelivered
from archive.notices import command


def run(*argv: str, body: bytes = b"{}", timeout: float = 120.0, **environment: str) -> str:
    return command.run(argv, body, environment, timeout=timeout, clock=time.monotonic)


def python(code: str, **more: object) -> str:
    return run(sys.executable, "-c", code, **more)  # type: ignore[arg-type]


def test_a_command_gets_the_message_as_input_and_words_in_its_environment(tmp_path: Path) -> None:
    code = "import os, sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read() + os.environb[b'NOTICE_LEVEL'])"
    path = f"{tmp_path}/got; $(x)"
    said = run(sys.executable, "-c", code, path, body=b"\xc3\xa4" * 50_000, NOTICE_LEVEL="error")
    assert said == "ended with exit status 0"
    assert (tmp_path / "got; $(x)").read_bytes() == b"\xc3\xa4" * 50_000 + b"error"


def test_a_command_that_reads_nothing_is_no_failure() -> None:
    assert run("true", body=b"x" * 1_000_000) == "ended with exit status 0"


def test_what_it_prints_is_kept_up_to_a_bound() -> None:
    said = python("import sys; print('done'); sys.stderr.write('y' * 1000000)")
    assert said.startswith("ended with exit status 0: ")
    assert len(said) < 600


def test_how_it_failed_is_told() -> None:
    with pytest.raises(NotDelivered, match="command ended with exit status 3: no modem"):
        python("import sys; print('no modem'); sys.exit(3)")
    with pytest.raises(NotDelivered, match="signal SIGKILL"):
        python("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(NotDelivered, match="cannot be run: /no/such: No such file"):
        run("/no/such")


def test_a_command_that_hangs_ends_at_the_deadline_with_all_it_started(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
        "while True: print('x' * 10000, flush=True)"
    )
    with pytest.raises(NotDelivered, match="did not end in time: x+"):
        run(sys.executable, "-c", code, str(tmp_path / "pid"), timeout=5.0)
    if (tmp_path / "pid").exists():  # a slow machine may not have come so far
        _gone(int((tmp_path / "pid").read_text()))


def _gone(pid: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]) == "Z":
                return
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")


def test_what_it_leaves_behind_is_not_waited_for() -> None:
    said = python("import subprocess; print(subprocess.Popen(['sleep', '600']).pid)")
    pid = int(said.rpartition(" ")[2])
    os.kill(pid, signal.SIGKILL)


def test_it_gets_the_usual_signals_though_this_process_holds_them_back() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with pytest.raises(NotDelivered, match="signal SIGTERM"):
            python("import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(600)")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
