"""Two archives that are kept equal: under kills of either, and what a person sees and decides."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archive.cli import main
from archive.index import State, open_index
from tests.dimse import archives
from tests.endtoend import syncing
from tests.endtoend.dcmtk import Client
from tests.faults.daemon import EVERYTHING, Daemon, free_port, wait_until

WHOLE = {"name": "other", "peer": "ARCHIVE", "reconcile": "off", "within": 0, "retry": "20x1s"}


def test_two_archives_end_equal_whichever_is_killed(tmp_path: Path) -> None:
    """Clients store into both, and each is killed once; nothing is sent back to where it came from."""
    pair = syncing.Pair(tmp_path)
    try:
        folders = syncing.prepare(tmp_path / "in", 16, 2)
        assert syncing.run(pair, folders, 2)["kills"] == 2
        assert syncing.check(pair, folders) == []
        for daemon in pair.daemons:
            rows = daemon.select("select sop_instance_uid, source from instance")
            payloads = daemon.select("select payload from task where kind = 'deliver'")
            sent = {json.loads(text)["sop"] for (text,) in payloads}
            assert sent == {uid for uid, source in rows if source == "SENDER"}
    finally:
        pair.close()


class Site:
    """A daemon that is kept equal with an archive in this process, and the commands of its administrator."""

    def __init__(self, daemon: Daemon, there: archives.Archive, capsys: pytest.CaptureFixture[str]) -> None:
        self.daemon, self.there = daemon, there
        self._capsys = capsys

    def run(self, *arguments: object, status: int = 0, plain: bool = False) -> Any:
        """What a command says."""
        self._capsys.readouterr()
        options = ["--config", str(self.daemon.config_file), *([] if plain else ["--json"])]
        assert main([*map(str, arguments), *options]) == status, self._capsys.readouterr().err
        said = self._capsys.readouterr().out
        return said if plain else json.loads(said)

    def wait_until_ready(self, studies: int) -> None:
        """Until the studies here are ready: what is still arriving waits."""
        sql = "select count(*) from study where arrivals = 0"
        wait_until(lambda: self.daemon.select(sql)[0][0] == studies, 60)


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    here = Daemon(tmp_path / "here", {"ae": {"title": "HERE", "aliases": ["ARCHIVE"]}} | syncing.SOON)
    (tmp_path / "there").mkdir()
    with archives.serving(tmp_path / "there", [archives.peer("HERE", here.port)]) as there:
        peers = {"ARCHIVE": {"host": "127.0.0.1", "port": there.port, "allow": EVERYTHING, "local_aet": "HERE"}}
        here.configure({"peers": peers, "sync": [WHOLE | {"direction": "both"}]})
        with here:
            yield Site(here, there, capsys)


def test_what_differs_is_named_then_mended_both_ways_and_deletions_stay(site: Site) -> None:
    archives.fill(site.there, *(archives.instance(1, study=study, patient=f"P{study}", size=2) for study in (2, 3)))
    Client(site.daemon).call("storescu", rest=archives.write(site.daemon.folder / "in", archives.instance(1, size=2)))
    wait_until(lambda: site.there.index.statistics().instances == 3, 60)
    site.wait_until_ready(1)

    (said,) = site.run("sync", "run", "other", "--dry-run", "--wait")
    assert (said["compared"], said["equal"], said["would"], said["images"]["pull"]) == (3, 1, 2, 2)
    (said,) = site.run("sync", "run", "--since", "2026-01-03", "--wait")
    assert said["compared"] == 0
    (said,) = site.run("sync", "run", "--wait")
    assert (said["equal"], said["mended"], said["cannot"]) == (1, 2, 0)
    assert len(site.daemon.rows()) == 3
    (said,) = site.run("sync", "report")
    assert {each["state"]: each["words"] for each in said["studies"]} == {"mended": "1 missing here"}

    site.wait_until_ready(3)
    site.run("delete", f"{archives.ROOT}.3", "--yes")
    (said,) = site.run("sync", "run", "--wait", status=1)
    assert [(each["state"], each["words"]) for each in said["studies"]] == [("cannot", "1 deleted here")]
    assert len(site.daemon.rows()) == 2
    assert "1 cannot be mended" in site.run("status", plain=True)
    assert "1 deleted here" in site.run("sync", "report", plain=True, status=1)
    (said,) = site.run("sync", "run", "--pull-deleted", "--wait")
    assert said["mended"] == 1 and len(site.daemon.rows()) == 3
    (said,) = site.run("sync", plain=False)
    assert (said["sync"], said["peer"], said["direction"]) == ("other", "ARCHIVE", "both")


def test_a_comparison_waits_for_a_peer_that_is_away_and_survives_a_kill(site: Site) -> None:
    archives.fill(site.there, archives.instance(1, size=2))
    site.daemon.stop()
    site.daemon.configure({"peers": {"ARCHIVE": {"port": free_port()}}})
    site.daemon.start()
    site.run("sync", "run")
    wait_until(lambda: "ARCHIVE cannot be asked" in site.run("sync", "report")[0]["words"], 60)
    assert "cannot be asked" in site.run("status", plain=True)
    site.daemon.kill()
    site.daemon.configure({"peers": {"ARCHIVE": {"port": site.there.port}}})
    index = open_index(f"sqlite:///{site.daemon.folder}/index.db")
    index.requeue([task.id for task in index.tasks(kind="sync", state=State.WAITING)], time.time())
    index.close()
    site.daemon.start()
    wait_until(lambda: site.run("sync", "report")[0]["mended"] == 1, 60)
    assert len(site.daemon.rows()) == 1
