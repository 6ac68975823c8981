"""The life of studies in the daemon: what makes them ready, what hangs on it, and what an administrator sees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pynetdicom.sop_class import CTImageStorage

from archive.cli import main
from tests.dimse.archives import ROOT, instance
from tests.endtoend.modality import Modality, store
from tests.faults.daemon import Daemon, wait_until
from tests.faults.destination import Destination, serve

STUDY = f"{ROOT}.1"


def archive(daemon: Daemon, *arguments: object) -> tuple[int, Any, str]:
    """Exit status, what was said in JSON, and what was complained about."""
    said, complained = StringIO(), StringIO()
    with redirect_stdout(said), redirect_stderr(complained):
        status = main([*map(str, arguments), "--json", "--config", str(daemon.config_file)])
    return status, json.loads(said.getvalue()) if said.getvalue() else None, complained.getvalue()


def send(daemon: Daemon, *numbers: int, study: int = 1, abort: bool = False) -> None:
    with Modality("SENDER").calling(daemon.port, contexts=[CTImageStorage]) as assoc:
        assert {store(assoc, instance(number, study=study, size=4)) for number in numbers} == {0}
        if abort:
            assoc.abort()


def states(daemon: Daemon, study: str = STUDY) -> list[str]:
    text = f"select state from study_history where study_instance_uid = '{study}' order by id"
    return [str(state) for (state,) in daemon.select(text)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, dict[str, bytes]]]:
    """Two acceptors, nobody waits for quiet, and ready studies go to a workstation."""
    received: dict[str, bytes] = {}
    with Destination(serve(keep=received)) as workstation:
        changes = {
            "peers": {"WS": {"host": "127.0.0.1", "port": workstation.port, "allow": ["echo"]}},
            "studies": {"ready_after": "1h", "on_association_close": "0s"},
            "routes": [{"name": "ready", "trigger": "study", "to": "WS"}],
        }
        with Daemon(tmp_path_factory.mktemp("studies"), changes) as daemon:
            yield daemon, received


def test_a_released_association_makes_its_study_ready_and_a_late_image_updates_it(
    site: tuple[Daemon, dict[str, bytes]],
) -> None:
    daemon, received = site
    send(daemon, 1, 2)
    wait_until(lambda: states(daemon) == ["received", "ready"], 10)
    wait_until(lambda: len(received) == 2, 10)
    send(daemon, 3)
    wait_until(lambda: states(daemon) == ["received", "ready", "updated", "ready"], 10)
    wait_until(lambda: len(received) == 3, 10)
    _, shown, _ = archive(daemon, "studies", "show", STUDY)
    assert (shown["state"], shown["instances"]) == ("ready", 3)
    causes = [each["cause"] for each in shown["history"]]
    assert causes == ["images came", "association released", "late images came", "association released"]


def test_an_aborted_association_says_nothing_and_somebody_may(site: tuple[Daemon, dict[str, bytes]]) -> None:
    daemon, received = site
    before = len(received)
    send(daemon, 1, study=2, abort=True)
    wait_until(lambda: states(daemon, f"{ROOT}.2") == ["received"], 10)
    _, listed, _ = archive(daemon, "studies", "--state", "received")
    assert [each["study_uid"] for each in listed] == [f"{ROOT}.2"]
    assert len(received) == before
    assert archive(daemon, "studies", "ready", f"{ROOT}.2")[:2] == (
        0, {"study_uid": f"{ROOT}.2", "state": "ready", "changed": True},
    )  # fmt: skip
    wait_until(lambda: len(received) == before + 1, 10)
    assert archive(daemon, "studies", "ready", f"{ROOT}.2")[1]["changed"] is False
    assert archive(daemon, "studies", "--state", "received")[1] == []


def test_wrong_usage_is_told_from_what_is_not_there(site: tuple[Daemon, dict[str, bytes]]) -> None:
    daemon, _ = site
    assert archive(daemon, "studies", "show")[0] == 2
    assert archive(daemon, "studies", "list", STUDY)[0] == 2
    assert archive(daemon, "studies", "show", "1.2.3")[0] == 1
    assert archive(daemon, "studies", "ready", "1.2.3")[0] == 1


def test_the_quiet_time_is_waited_for_across_kill_9(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, {"processes": 1, "studies": {"ready_after": "2s"}})
    with daemon:
        send(daemon, 1)
        wait_until(lambda: states(daemon) == ["received"], 10)
    with daemon:
        wait_until(lambda: states(daemon) == ["received", "ready"], 10)
