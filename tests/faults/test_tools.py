"""The tools of these tests: the client against another archive, and an oracle that can say no."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import raw
from tests.faults.campaign.__main__ import main
from tests.faults.checker import violations
from tests.faults.daemon import Daemon, Usage, free_port, wait_until
from tests.faults.objects import MARKER, Instance, instance, study
from tests.faults.raw import CT, Connection, Request


def test_the_client_is_understood_by_dcmtk(tmp_path: Path) -> None:
    port = free_port()
    command = ["storescp", "--bit-preserving", "--output-directory", str(tmp_path), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as receiver:
        try:
            wait_until(lambda: _connects(port), 10)
            one = instance(size=100_000)
            contexts = {number: raw.CONTEXTS[number] for number in (raw.ECHO, raw.STORE_CT)}
            with raw.association(port, Request(contexts=contexts)) as sending:
                assert sending.accepted == dict.fromkeys(contexts, 0)
                assert sending.echo() == 0
                assert sending.store(CT, one.uid, one.data, message_id=2) == 0
            (file,) = tmp_path.iterdir()
            assert file.read_bytes().endswith(one.data)
        finally:
            receiver.terminate()


def _connects(port: int) -> bool:
    try:
        Connection(port).close()
    except OSError:
        return False
    return True


class Kept:
    """An archive that was stopped with three objects in it."""

    def __init__(self, daemon: Daemon, images: list[Instance]) -> None:
        self.daemon, self.images = daemon, images

    @property
    def file(self) -> Path:
        return self.daemon.objects()[0]

    def sql(self, text: str) -> None:
        with sqlite3.connect(self.daemon.folder / "index.db") as database:
            database.execute(text)

    def say(self, text: str) -> None:
        with self.daemon.log_file.open("a") as log:
            log.write(text + "\n")


@pytest.fixture
def kept(own_archive: Callable[..., Daemon]) -> Iterator[Kept]:
    archive, images = own_archive(), study(3)
    with raw.association(archive.port) as sending:
        assert {sending.store(CT, one.uid, one.data) for one in images} == {0}
    assert archive.stop() == 0
    assert violations(archive, images, alive=False) == []
    yield Kept(archive, images)


DAMAGE: dict[str, tuple[Callable[[Kept], object], str]] = {
    "a file is gone": (lambda kept: kept.file.unlink(), "row without file"),
    "a file is cut": (lambda kept: kept.file.write_bytes(kept.file.read_bytes()[:-1]), "other bytes"),
    "a bit is flipped": (
        lambda kept: kept.file.write_bytes(kept.file.read_bytes()[:-1] + bytes([kept.file.read_bytes()[-1] ^ 1])),
        "other bytes",
    ),
    "a file too many": (lambda kept: (kept.file.parent / "9.dcm").touch(), "file without row"),
    "a row of other bytes": (lambda kept: kept.sql("update instance set sha256 = x'00'"), "the row is of other bytes"),
    "a row is gone": (lambda kept: kept.sql("delete from instance"), "has 0 rows"),
    "half a file": (lambda kept: (kept.daemon.files / "spool" / "1.part").touch(), "spool"),
    "quarantined unsaid": (lambda kept: (kept.daemon.files / "quarantine" / "1.dcm").touch(), "quarantine"),
    "a traceback": (lambda kept: kept.say("Traceback (most recent call last):"), "in the log"),
    "a name in the log": (lambda kept: kept.say(f"{MARKER}^Patient"), "patient data"),
    "an escape in the log": (lambda kept: kept.say("\x1b[31m"), "control character"),
}


def test_the_oracle_sees_what_is_wrong(kept: Kept) -> None:
    """One after the other: each is found, whatever was found before."""
    for what, (damage, words) in DAMAGE.items():
        damage(kept)
        found = violations(kept.daemon, kept.images, alive=False)
        assert any(words in violation for violation in found), (what, found)


def test_the_oracle_sees_what_is_held(own_archive: Callable[..., Daemon]) -> None:
    archive = own_archive({"timeouts": {"idle": "60s"}})
    usage = archive.usage()
    nothing = Usage(usage.processes, 1, 1, 1)
    found = "\n".join(violations(archive, [instance()], base=nothing, patience=1.0))
    for words in ("threads", "descriptors", "has 0 rows", "C-FIND", "C-GET"):
        assert words in found


def test_the_oracle_is_a_command_for_any_archive(
    kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "acknowledged"
    listed.write_text("".join(f"{one.uid} {one.sha256.hex()}\n" for one in kept.images))
    command = [str(kept.daemon.config_file), "--acknowledged", str(listed), "--log", str(kept.daemon.log_file)]
    assert main(["--check", *command, "--marker", MARKER]) == 0
    assert "3 instances, 3 acknowledged" in capsys.readouterr().out
    kept.say(f"{MARKER}^Patient")
    kept.file.unlink()
    assert main(["--check", *command, "--marker", MARKER]) == 1
    said = capsys.readouterr().out
    assert "row without file" in said and "patient data" in said
