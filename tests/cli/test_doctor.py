"""`archive doctor`, with peers that answer, refuse, are silent, are dead, and with a daemon that turns callers away."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from archive.cli import main
from archive.dimse.destinations import Destination
from archive.dimse.probe import AT_A_TIME
from archive.errors import Unreachable
from archive.index import Index, NewTask, Settled, State, open_index
from archive.services.routing import DELIVER
from tests.dimse.archives import QUICK, peer, serving
from tests.dimse.authority import Authority
from tests.dimse.test_secure import secure
from tests.faults.daemon import Daemon, free_port, wait_until

CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True)
class Site:
    """A configuration in a folder."""

    file: Path

    def peers(self, **peers: Any) -> Site:
        content = yaml.safe_load(self.file.read_text()) | {"peers": peers}
        self.file.write_text(yaml.safe_dump(content))
        return self

    def doctor(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        status = main(["doctor", *arguments, "--config", str(self.file), "--json"])
        return status, json.loads(capsys.readouterr().out)["findings"]

    def wrong(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
        status, findings = self.doctor(capsys, *arguments)
        found = [each for each in findings if each["state"] == "wrong"]
        assert status == (1 if found else 0)
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        (tmp_path / "files").mkdir()
        content = {
            "ae": {"title": "HERE"},
            "listeners": [{"port": listening.getsockname()[1]}],
            "storage": {"path": "files", "reserve": 0},
            "index": {"url": "sqlite:///index.db"},
            "timeouts": {"connect": "1s", "acse": "1s", "tls": "1s"},
        }
        file = tmp_path / "archive.yaml"
        file.write_text(yaml.safe_dump(content))
        yield Site(file)


def at(port: int, **more: Any) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, **more}


def test_a_peer_that_answers_is_well(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    with serving(tmp_path / "there", [peer("HERE")], title="THERE") as there:
        site.peers(THERE=at(there.port))
        status, findings = site.doctor(capsys, "there")
        assert status == 0
        assert any("answers C-ECHO" in each["says"] for each in findings)
        assert any("by case alone" in each["says"] for each in findings)
        assert site.wrong(capsys) == []
        assert main(["doctor", "--config", str(site.file)]) == 0
        assert capsys.readouterr().out.rstrip().endswith("nothing is wrong")


def test_each_peer_that_fails_is_named_with_its_reason_and_none_waits_for_another(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    with (
        serving(tmp_path / "there", [], open_to=(), title="STRICT") as strict,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        site.peers(STRICT=at(strict.port), DEAD=at(free_port()), SILENT=at(silent.getsockname()[1]))
        found = {each["about"]: each for each in site.wrong(capsys)}
    assert set(found) == {"STRICT", "DEAD", "SILENT"}
    assert "calling AE title not recognized" in found["STRICT"]["says"]
    assert "make HERE" in found["STRICT"]["remedy"]
    assert "Connection refused" in found["DEAD"]["says"]
    assert "peers.DEAD.port" in found["DEAD"]["remedy"]
    assert "timed out" in found["SILENT"]["says"]
    assert "TCP in" in found["SILENT"]["says"]


def test_whoever_has_not_answered_at_the_deadline_is_late_and_the_others_were_not_asked(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        site.peers(**{f"SILENT{number}": at(silent.getsockname()[1]) for number in range(AT_A_TIME + 3)})
        found = site.wrong(capsys, "--deadline", "0.2")
    assert sum("are over" in each["says"] for each in found) == AT_A_TIME
    assert sum("was not asked" in each["says"] for each in found) == 3
    assert all("--deadline" in each["remedy"] for each in found if "was not asked" in each["says"])


def test_certificates_are_judged_in_words(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ours", "others", "here"):
        (tmp_path / name).mkdir()
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    with secure(tmp_path / "there", ours, peer("HERE"), title="THERE") as there:
        cert, key = ours.issue("here")
        tls = {"cert": str(cert), "key": str(key), "incoming": "optional"}
        peers = {
            "GOOD": at(there.port, aet="THERE", tls={**tls, "ca": str(ours.certificate)}),
            "STRANGE": at(there.port, tls={**tls, "ca": str(others.certificate)}),
            "PLAIN": at(there.port),
        }
        site.peers(**peers)
        _, good = site.doctor(capsys, "THERE")
        strange = next(each for each in site.wrong(capsys, "STRANGE") if "certificate is not accepted" in each["says"])
        plain = next(each for each in site.wrong(capsys, "PLAIN") if each["about"] == "PLAIN")
    assert any("answers C-ECHO" in each["says"] and "TLSv1.3" in each["says"] for each in good)
    assert any("expires on" in each["says"] and each["about"] == "THERE" for each in good)  # those of tests last a day
    assert "peers.STRANGE.tls.ca" in strange["remedy"]
    assert "tls" in plain["remedy"], plain


def test_a_queue_that_stands_still_and_what_failed_are_told(
    site: Site, index: Index, index_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    site.peers(PACS={"host": "127.0.0.1"}, OTHER={"host": "127.0.0.1"})
    now = time.time()
    new = NewTask(DELIVER, {"sop": "1.2.3"}, lane="PACS")
    index.add_tasks([new, new], now)
    [leased] = index.lease(DELIVER, "me", now, seconds=60, limit=1, lane="PACS")
    index.queue.settle("me", now, [Settled(leased.id, State.FAILED, "no such class there")])
    index.queue.hold("PACS", paused=now, paused_why="new disk")
    for arguments in (["PACS"], []):
        said = [each["says"] for each in site.wrong(capsys, *arguments, "--set", f"index.url={index_url}")]
        assert any("1 tasks: paused since" in text and "new disk" in text for text in said)
        assert any("1 task has failed" in text and "no such class there" in text for text in said)
    assert site.wrong(capsys, "OTHER", "--set", f"index.url={index_url}") == []


def test_an_index_that_is_gone_and_a_daemon_that_does_not_run_are_findings(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    url, port = "index.url=postgresql://nobody@127.0.0.1:1/none", f"listeners.0.port={free_port()}"
    found = {each["about"] for each in site.wrong(capsys, "--set", url, "--set", port)}
    assert {"index", "listeners"} <= found


def test_too_little_room_and_what_the_configuration_warns_of_are_findings(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.peers(CT={"host": "127.0.0.1", "allow": ["move"]})
    found = {each["about"] for each in site.wrong(capsys, "--set", "storage.reserve=1000000TB")}
    assert {"disk", "peers.CT.allow"} <= found


def test_a_caller_that_is_turned_away_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Daemon(tmp_path / "here", {"processes": 1, "ae": {"title": "HERE"}})
    daemon.configure({"peers": {"CT_ONE": {"host": "127.0.0.1"}, "FAR": {"host": "127.0.0.99"}}})
    site = Site(daemon.config_file)
    with daemon:
        for calling, called in (("CT_0NE", "HERE"), ("FAR", "HERE"), ("CT_ONE", "HERA")):
            with contextlib.suppress(Unreachable):
                Destination(called, "127.0.0.1", daemon.port, calling, QUICK).connect([(CT, ("1.2.840.10008.1.2",))])
        index = open_index(f"sqlite:///{tmp_path}/here/index.db")
        wait_until(lambda: len(index.callers()) == 3, 5)
        index.close()
        near = {each["about"]: each for each in site.wrong(capsys, "CT_0NE")}
        assert "by one character" in near["CT_0NE"]["says"]
        assert "aliases" in near["CT_0NE"]["remedy"]
        [far] = [each for each in site.wrong(capsys, "FAR") if each["about"] == "refused"]
        assert "127.0.0.1 in the list peers.FAR.host" in far["remedy"]
        said = " ".join(each["says"] + each["remedy"] for each in site.wrong(capsys, "CT_ONE"))
        assert "CT_0NE called HERE" in said
        assert "called HERA" in said
        assert "ae.aliases: [HERA]" in said
        assert len([each for each in site.wrong(capsys) if each["about"] == "refused"]) == 3
        _, findings = site.doctor(capsys, "FAR", "--set", "peers.FAR.host=127.0.0.1")
        told = {each["says"].split()[0]: each for each in findings if each["about"] == "refused"}
        assert set(told) == {"FAR", "CT_0NE"}  # who has an entry of its own is no concern of another at its address
        assert "would let it in now" in told["FAR"]["says"]
        assert told["FAR"]["state"] == "note"


def test_a_certificate_of_the_hl7_port_that_soon_ends_is_told(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("orders")  # for a day
    content = yaml.safe_load(site.file.read_text())
    content["hl7"] = {"tls_port": free_port(), "cert": str(cert), "key": str(key), "ca": str(authority.certificate)}
    site.file.write_text(yaml.safe_dump(content))
    assert "hl7.cert" in {each["about"] for each in site.wrong(capsys)}
