"""A daemon in trouble, and who is told: a real hook, a real command, and receivers that are dead or hang."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from archive.cli import main
from tests.dimse import archives
from tests.endtoend.dcmtk import Client
from tests.faults.daemon import Daemon, free_port, wait_until
from tests.notices.hooks import Hook

KEEP = "import os, sys; open(sys.argv[1], 'a').write(sys.stdin.read())"


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.close()


def rule(name: str, to: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "to": to, "gather": "100ms", "limit": "1000/m", **more}


def store(daemon: Daemon, *numbers: int, good: Sequence[int] = (0,)) -> None:
    made = [archives.instance(number, study=1, size=8) for number in numbers]
    Client(daemon).call("storescu", rest=archives.write(daemon.folder / "in", *made), good=good)


def told(hook: Hook, on: str, words: str, state: str = "happened") -> bool:
    return any((each["on"], each["state"]) == (on, state) and words in each["text"] for each in hook.events())


def wait_for(hook: Hook, daemon: Daemon, on: str, words: str, state: str = "happened") -> None:
    wait_until(lambda: told(hook, on, words, state), 60, lambda: f"{hook.events()}\n{daemon.log()[-4000:]}")


def test_failing_destinations_disks_files_and_processes_are_told_to_all_who_can_be_reached(
    tmp_path: Path, hook: Hook, capsys: pytest.CaptureFixture[str]
) -> None:
    port, silent = free_port(), socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen(5)
    receivers = [
        rule("hook", {"http": hook.url}),
        rule("command", {"command": [sys.executable, "-c", KEEP, str(tmp_path / "kept")]}, on=["route"]),
        rule("hangs", {"command": ["sleep", "600"]}),
        rule("dead", {"mail": ["pacs@hospital.example"]}),
        rule("silent", {"http": f"http://127.0.0.1:{silent.getsockname()[1]}/"}),
    ]
    settings = {
        "processes": 1,
        "peers": {"WS_RAD": {"host": "127.0.0.1", "port": port}},
        "routes": [{"name": "all", "to": ["WS_RAD"], "retry": "100x500ms", "give_up": "7d"}],
        "queue": {"down_after": "1s"},
        "notify": receivers,
        "smtp": {"port": free_port()},
    }
    daemon = Daemon(tmp_path / "archive", settings)
    with silent, daemon:
        # A destination that is not there, and is.
        store(daemon, 1, 2)
        wait_for(hook, daemon, "route", "destination WS_RAD is not reached", "begins")
        with _storescp(tmp_path / "there", port):
            wait_for(hook, daemon, "route", "destination WS_RAD is reached again", "over")
        wait_until(lambda: "reached again" in (tmp_path / "kept").read_text(), 60)
        assert all(event["on"] == "route" for notice in _documents(tmp_path / "kept") for event in notice["events"])

        # A process that dies.
        os.kill(daemon.acceptors()[0], signal.SIGKILL)
        wait_for(hook, daemon, "process", "acceptor-0 ended by itself and was started again: signal SIGKILL")
        wait_until(daemon.answers, 60)

        # A disk that is full, and is not.
        daemon.configure({"storage": {"reserve": "100000TB"}})
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.log().count("configuration reloaded") == 1, 60)
        wait_until(lambda: _refused(daemon, 3), 60)
        wait_for(hook, daemon, "store", "of SENDER refused: out of disk space")
        wait_for(hook, daemon, "disk", "objects cannot be stored: out of disk space", "begins")
        daemon.configure({"storage": {"reserve": 0}})
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: not _refused(daemon, 4), 60)
        wait_for(hook, daemon, "disk", "objects can be stored again", "over")

        # A damaged file, found by a command of another process.
        path = next(path for path in daemon.objects() if path.suffix == ".dcm")
        path.write_bytes(path.read_bytes()[:-2] + b"!!")
        main(["fsck", "--config", str(daemon.config_file), "--digest"])
        wait_for(hook, daemon, "damage", "stored file found damaged or missing")
        capsys.readouterr()
        assert daemon.stop() == 0  # receivers that hang do not hold it up
    patient = archives.instance(1)
    everything = json.dumps(hook.notices)
    assert str(patient.PatientName) not in everything and str(patient.PatientID) not in everything


@contextlib.contextmanager
def _storescp(folder: Path, port: int) -> Iterator[None]:
    folder.mkdir()
    process = subprocess.Popen(["storescp", "-od", str(folder), str(port)])
    try:
        yield
    finally:
        process.kill()
        process.wait(60)


def _documents(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _refused(daemon: Daemon, number: int) -> bool:
    before = daemon.log().count("A700")
    store(daemon, number, good=range(256))
    return daemon.log().count("A700") > before


def test_who_is_named_at_a_reload_is_told_from_then_on_also_over_a_restart(tmp_path: Path, hook: Hook) -> None:
    with Daemon(tmp_path / "archive", {"processes": 1}) as daemon:
        assert len(daemon.pids()) == 3
        daemon.configure({"notify": [rule("hook", {"http": hook.url}, gather="1h")]})
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: len(daemon.pids()) == 4, 60)
        os.kill(daemon.acceptors()[0], signal.SIGKILL)
        kept = daemon.files / "notices.json"
        wait_until(lambda: kept.exists() and "acceptor-0" in kept.read_text(), 60)
        assert daemon.stop() == 0
        assert hook.notices == []
        daemon.configure({"notify": [rule("hook", {"http": hook.url})]})
        daemon.start()
        wait_for(hook, daemon, "process", "acceptor-0")


def test_a_test_says_what_happened(tmp_path: Path, hook: Hook, capsys: pytest.CaptureFixture[str]) -> None:
    receivers = [rule("good", {"http": hook.url}), rule("bad", {"command": ["false"]})]
    config = ["--config", str(Daemon(tmp_path, {"notify": receivers}).config_file)]
    assert main(["notify", "test", "good", "--json", *config]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["sent"], row["said"]) == ("yes", "answered 200")
    assert hook.notices[0]["test"] is True
    assert main(["notify", "test", *config]) == 1
    assert "command ended with exit status 1" in capsys.readouterr().out
    assert main(["notify", "test", "nobody", *config]) == 2
    assert "known: good, bad" in capsys.readouterr().err
