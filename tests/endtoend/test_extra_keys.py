"""A site's own keys, with a daemon and DCMTK: matched from the first store on, and filled in for what was there."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.dimse.archives import ROOT, instance, write
from tests.endtoend.dcmtk import Client, query, run
from tests.faults.daemon import Daemon, wait_until

KEYS = ["study.InstitutionAddress", "series.ScanningSequence", "series.AnatomicRegionSequence", "image.KVP"]
OBJECTS = 120  # more than two pages of the worker


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    found = Daemon(tmp_path / "archive", {"processes": 1})
    store(found, tmp_path / "before", *range(1, OBJECTS + 1))
    return found


def store(daemon: Daemon, folder: Path, *numbers: int) -> None:
    """Objects in series of ten; a daemon that does not run is started for it, and stopped."""
    objects = []
    for number in numbers:
        made = instance(number, study=number // 40 + 1, series=number // 10, patient=f"P{number // 40}", size=4)
        made.InstitutionAddress, made.ScanningSequence = "HIGH", ["SE", "IR"] if number % 20 < 10 else "GR"
        made.KVP = str(80 + number)
        item = type(made)()
        item.CodeValue, item.CodeMeaning = f"T-{number // 10}", "Brain"
        made.AnatomicRegionSequence = [item]
        objects.append(made)
    write(folder, *objects)
    started = daemon.is_running or daemon.start()
    Client(daemon).call("storescu", "+sd", rest=[folder])
    if started is daemon:
        assert daemon.stop() == 0


def answers(daemon: Daemon, level: str, *keys: str) -> int:
    """The number of matches of a relational query, which this peer may ask; a warning counts for none."""
    arguments = [part for key in (f"QueryRetrieveLevel={level}", *keys) for part in ("-k", key)]
    text = Client(daemon).call("findscu", "-v", "-S", rest=arguments)
    return len(re.findall(r"Find Response: \d+ \(Pending\)", text))


def test_keys_that_were_configured_later_are_filled_in_and_found(daemon: Daemon, tmp_path: Path) -> None:
    relational = {"SENDER": {"host": "127.0.0.0/8", "relational": True}}
    daemon.configure({"index": {"extra_keys": KEYS}, "peers": relational})
    with daemon:
        wait_until(lambda: "extra keys are filled in" in daemon.log(), 20)
        status = run(sys.executable, "-m", "archive", "status", "--json", "--config", daemon.config_file)
        assert json.loads(status)["extra_keys"] == {
            "keys": sorted(KEYS), "filling": [], "dropping": [], "after": 0,
        }  # fmt: skip
        assert answers(daemon, "IMAGE", "KVP=90", "SOPInstanceUID") == 1
        assert answers(daemon, "IMAGE", "KVP", "SOPInstanceUID") == OBJECTS
        assert answers(daemon, "SERIES", "ScanningSequence=S*", "SeriesInstanceUID") == 7
        assert answers(daemon, "SERIES", "AnatomicRegionSequence[0].CodeValue=T-3", "SeriesInstanceUID") == 1
        assert answers(daemon, "STUDY", "InstitutionAddress=HIGH", "StudyInstanceUID") == 4
        assert answers(daemon, "STUDY", "InstitutionAddress=LOW", "StudyInstanceUID") == 0
        store(daemon, tmp_path / "after", 300)
        assert answers(daemon, "IMAGE", "KVP=380") == 1
        text = Client(daemon).call("findscu", rest=query("SERIES", StudyInstanceUID=f"{ROOT}.1", ScanningSequence=""))
        assert "[SE\\IR" in text
        assert "FF01" not in text and "Warning" not in text


def test_a_killed_daemon_goes_on_filling_in_where_it_was(daemon: Daemon) -> None:
    daemon.configure({"index": {"extra_keys": KEYS}, "peers": {"SENDER": {"host": "127.0.0.0/8", "relational": True}}})
    daemon.start()
    daemon.kill()
    with daemon:
        wait_until(lambda: answers(daemon, "IMAGE", f"KVP={80 + OBJECTS}") == 1, 20)


def test_an_object_with_an_unreadable_value_is_stored_all_the_same(tmp_path: Path) -> None:
    with Daemon(tmp_path, {"processes": 1, "index": {"extra_keys": KEYS}}) as daemon:
        made = instance(1, size=4)
        made.add_new("KVP", "FD", 1.5)
        write(tmp_path / "odd", made)
        assert "(Success)" in Client(daemon).call("storescu", "-v", "+sd", rest=[tmp_path / "odd"])
