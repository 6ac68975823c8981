"""Receive policies by DCMTK clients: what the sender is told, and what the administrator sees and does."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from archive.cli import main
from tests import builders
from tests.endtoend.dcmtk import Client, storescp
from tests.faults.daemon import Daemon

STATUS = re.compile(r"\(0000,0900\) US (\d+)|DIMSE Status\s*: 0x([0-9a-f]{4})")
COMMENT = re.compile(r"\(0000,0902\) LO \[(.*?)\]")


class Site:
    """A daemon, its clients and its administrator."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.daemon = Daemon(folder / "daemon", {"processes": 1, **settings})

    def store(self, data: Dataset, calling: str = "SENDER", name: str = "image.dcm") -> tuple[int, str]:
        """Status and Error Comment of one C-STORE by storescu."""
        path = builders.write(self.folder / name, data)
        client = Client(self.daemon, calling=calling)
        text = client.call("storescu", "-d", rest=[path], good=range(256))
        answer = text[text.index("C-STORE RSP") :]
        status, comment = STATUS.search(answer), COMMENT.search(answer)
        assert status, answer
        return int(status[1] or status[2], 10 if status[1] else 16), comment[1] if comment else ""

    def archive(self, *arguments: str, good: tuple[int, ...] = (0,)) -> str:
        """What the command prints, warnings first."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([*arguments, "--config", str(self.daemon.config_file)])
        assert status in good, err.getvalue() + out.getvalue()
        return err.getvalue() + out.getvalue()

    def patients(self, patient_id: str) -> int:
        """How many patients have this ID."""
        keys = ("--root", "patient", "--level", "patient", "-k", f"PatientID={patient_id}")
        return len(json.loads(self.archive("find", *keys, "--json")))

    def aside(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.archive("quarantine", "list", "--json"))
        return found

    def fetched(self, data: Dataset) -> Dataset:
        """The object as getscu gets it."""
        folder = self.folder / "fetched"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        keys = [f"StudyInstanceUID={data.StudyInstanceUID}", f"SOPInstanceUID={data.SOPInstanceUID}",
                f"SeriesInstanceUID={data.SeriesInstanceUID}", "QueryRetrieveLevel=IMAGE"]  # fmt: skip
        pairs = [part for key in keys for part in ("-k", key)]
        Client(self.daemon).call("getscu", "-S", "-od", folder, rest=pairs)
        (path,) = folder.iterdir()
        return pydicom.dcmread(path)


def like(first: Dataset, **overrides: Any) -> Dataset:
    same = {name: first[name].value for name in ("StudyInstanceUID", "SeriesInstanceUID")}
    return builders.ct(**(same | overrides))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("receiving")
    with storescp(folder / "moved", "+xa", "+B") as port:
        peers = {
            "UPPER": {"host": "127.0.0.1", "allow": ["echo", "store"]},
            "HOSPITAL2": {"host": "127.0.0.1", "allow": ["echo", "store"], "default_issuer": "H2"},
            "RECEIVER": {"host": "127.0.0.1", "port": port, "allow": ["echo"]},
        }
        coerce = [
            {"on": "receive", "from": ["UPPER"], "upper": ["PatientName", "PatientID"]},
            {"on": "send", "to": ["RECEIVER"], "set": {"InstitutionName": "for {CalledAETitle}"}},
        ]
        made = Site(folder, {"peers": peers, "coerce": coerce, "limits": {"max_instance_size": "1MB"}})
        with made.daemon:
            yield made


@pytest.mark.parametrize(
    ("overrides", "comment"),
    [
        ({"PatientID": "OTHER"}, "Study Instance UID belongs to another patient"),
        ({"PatientName": "Some^Body^Else"}, "patient name mismatch"),
        ({"StudyInstanceUID": "1.2.3.4.5"}, "Series Instance UID is in another study"),
        ({"SeriesInstanceUID": "1.2.3.4.6", "SOPInstanceUID": "first"}, "SOP Instance UID is in another series"),
        ({"SOPInstanceUID": "first", "InstanceNumber": 7}, "same SOP Instance UID, other content"),
    ],
)
def test_a_conflict_is_answered_with_c000_and_seen_by_the_administrator(
    site: Site, overrides: dict[str, str], comment: str
) -> None:
    first = builders.ct(PatientID=builders.uid()[-16:])
    assert site.store(first) == (0x0000, "")
    values = {"PatientID": first.PatientID, **overrides}
    if values.get("SOPInstanceUID") == "first":
        values["SOPInstanceUID"] = first.SOPInstanceUID
    second = like(first, **values)
    assert site.store(second) == (0xC000, comment)
    entry = site.aside()[-1]
    assert (entry["reason"], entry["sop_instance_uid"], entry["source"]) == (comment, second.SOPInstanceUID, "SENDER")
    assert "in quarantine: archive quarantine" in site.archive("status")
    shown = site.archive("quarantine", "show", str(entry["id"]))
    assert comment in shown and str(first.PatientID) in shown
    released = site.archive("quarantine", "release", str(entry["id"]), good=(1,))
    assert "--accept" in released
    (settled,) = json.loads(site.archive("quarantine", "release", str(entry["id"]), "--accept", "--json"))
    assert settled["outcome"] == "released"
    got = site.fetched(like(first, SOPInstanceUID=second.SOPInstanceUID))
    assert (got.PatientID, got.PatientName) == (first.PatientID, first.PatientName)
    assert site.store(second) == (0x0000, ""), "the sender may try again: it is there"


def test_other_refusals_say_what_is_wrong(site: Site) -> None:
    large = builders.ct()
    large.add_new(0x00091010, "OB", bytes(1 << 20))
    assert site.store(large) == (0xA700, "instance is too large")


def test_one_id_of_two_hospitals_is_two_patients(site: Site) -> None:
    one, other = builders.ct(PatientID="SHARED"), builders.ct(PatientID="SHARED", PatientName="Else^Somebody")
    assert [site.store(one), site.store(other, "HOSPITAL2")] == [(0, ""), (0, "")]
    assert site.patients("SHARED") == 2


def test_discarding_asks_first(site: Site) -> None:
    first = builders.ct(PatientID="DISCARD")
    site.store(first)
    site.store(like(first, PatientID="OTHER"))
    entry = site.aside()[-1]
    number = str(entry["id"])
    assert "--yes" in site.archive("quarantine", "discard", number, good=(1,))
    assert (site.daemon.files / entry["path"]).exists()
    assert "1 discarded" in site.archive("quarantine", "discard", "--study", str(first.StudyInstanceUID), "--yes")
    assert not (site.daemon.files / entry["path"]).exists()
    assert "no entry" in site.archive("quarantine", "discard", number, "--yes", good=(1,))
    assert "what?" in site.archive("quarantine", "release", good=(2,))


def test_a_rule_for_one_sender_changes_what_it_sends(site: Site) -> None:
    data = builders.ct(PatientID="abc", PatientName="Lower^Case")
    assert site.store(data, "UPPER") == (0, "")
    got = site.fetched(data)
    assert (got.PatientID, got.PatientName) == ("ABC", "LOWER^CASE")
    assert got.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].PatientID == "abc"
    assert site.store(data, "UPPER") == (0, "")
    path = builders.write(site.folder / "dry.dcm", data)
    rows = json.loads(site.archive("coerce", "--dry-run", str(path), "--from", "UPPER", "--json"))
    assert [(row["attribute"], row["old"], row["new"]) for row in rows] == [
        ("PatientName", "Lower^Case", "LOWER^CASE"), ("PatientID", "abc", "ABC"),
    ]  # fmt: skip
    assert "nothing would change" in site.archive("coerce", "--dry-run", str(path), "--from", "SENDER")
    assert "for RECEIVER" in site.archive("coerce", "--dry-run", str(path), "--to", "RECEIVER")


def test_a_rule_for_one_receiver_changes_what_it_gets(site: Site) -> None:
    data = builders.ct(PatientID="MOVED")
    site.store(data)
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={data.StudyInstanceUID}"]
    Client(site.daemon).call("movescu", "-S", "-aem", "RECEIVER", rest=keys)
    moved = [pydicom.dcmread(path) for path in (site.folder / "moved").iterdir()]
    (got,) = [each for each in moved if each.SOPInstanceUID == data.SOPInstanceUID]
    assert got.InstitutionName == "for RECEIVER"
    assert got.PixelData == data.PixelData
    assert "InstitutionName" not in site.fetched(data)


@pytest.mark.parametrize(
    ("policy", "status", "number"), [("replace", 0, 9), ("same_source", 0, 9), ("version", 0, 9), ("keep", 0xC000, 1)]
)
def test_each_duplicate_policy(site: Site, policy: str, status: int, number: int) -> None:
    site.daemon.configure({"storage": {"on_duplicate": policy}})
    assert "configuration reloaded" in reload(site.daemon)
    first = builders.ct(PatientID=f"DUP{policy}", InstanceNumber=1)
    assert site.store(first) == (0, "")
    assert site.store(first) == (0, "")
    second = like(first, PatientID=f"DUP{policy}", SOPInstanceUID=first.SOPInstanceUID, InstanceNumber=9)
    assert site.store(second)[0] == status
    assert site.fetched(first).InstanceNumber == number


def reload(daemon: Daemon) -> str:
    """What the log says of a SIGHUP."""
    before = len(daemon.log())
    daemon.signal(signal.SIGHUP)
    until = time.monotonic() + 120
    while "reloaded" not in daemon.log()[before:]:
        assert time.monotonic() < until, daemon.log()[before:]
        time.sleep(0.02)
    return daemon.log()[before:]


# -- sixteen at once --------------------------------------------------------------------------


def test_first_images_on_sixteen_associations_make_one_patient(tmp_path: Path, index_url: str) -> None:
    site = Site(tmp_path, {"processes": 2, "index": {"url": index_url}})
    images = [builders.write(tmp_path / f"{n}.dcm", builders.ct(PatientID="NEW")) for n in range(16)]
    with site.daemon as daemon:
        call = ["storescu", "-aet", "SENDER", "-aec", "ARCHIVE", "127.0.0.1", str(daemon.port)]
        running = [subprocess.Popen([*call, str(path)]) for path in images]
        assert [each.wait(60) for each in running] == [0] * 16
        assert site.patients("NEW") == 1
        assert len(json.loads(site.archive("studies", "--json"))) == 16


# -- kill -9 ----------------------------------------------------------------------------------


def test_what_is_refused_is_in_quarantine_whole_whenever_it_is_killed(tmp_path: Path) -> None:
    site = Site(tmp_path, {"storage": {"journal": "1MB"}})
    first = builders.ct(PatientID="RIGHT")
    chance = random.Random(7)
    told: list[str] = []
    with site.daemon:
        assert site.store(first) == (0, "")
    for number in range(3):
        site.daemon.start()
        sending = threading.Thread(target=_send_wrong_ones, args=(site, first, told, number))
        sending.start()
        until = time.monotonic() + 120
        seen = len(told)
        while len(told) < seen + 2 and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        site.daemon.kill()
        sending.join(60)
    with site.daemon:
        entries = site.aside()
    files = {f"quarantine/{path.name}" for path in (site.daemon.files / "quarantine").iterdir()}
    assert {entry["path"] for entry in entries} == files
    assert set(told) <= {entry["sop_instance_uid"] for entry in entries}
    assert len(site.daemon.objects()) == 1
    assert len(told) >= 6


def _send_wrong_ones(site: Site, first: Dataset, told: list[str], number: int) -> None:
    for turn in range(40):
        wrong = like(first, PatientID="WRONG")
        try:
            status, _ = site.store(wrong, name=f"wrong{number}.{turn}.dcm")
        except (AssertionError, ValueError, subprocess.TimeoutExpired):
            return  # the daemon is gone
        assert status == 0xC000
        told.append(str(wrong.SOPInstanceUID))
