"""The daemon compresses while it is killed again and again, and is checked while it runs."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from archive.dicom.uids import EXPLICIT_LITTLE
from tests import builders
from tests.faults.daemon import ROOT, Daemon, wait_until
from tests.faults.raw import CT, association

KILLS = int(os.environ.get("KILLS", "2"))
IMAGES = 8  # sent between two kills


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "archive", {"processes": 1, "storage": {"compress": [{"to": "jpeg-ls"}]}})
    yield made
    made.kill()


def image(number: int, side: int = 128) -> Dataset:
    """Grey, a bit noisy."""
    noise = np.random.default_rng(number).integers(0, 16, side * side)
    pixels = (np.arange(side * side) % 4000 + noise).astype("<u2")
    return builders.ct(rows=side, columns=side, PixelData=pixels.tobytes())


def send(daemon: Daemon, images: list[Dataset]) -> None:
    with association(daemon.port) as peer:
        for each in images:
            assert peer.store(CT, str(each.SOPInstanceUID), builders.bytes_of(each)) == 0


def said(daemon: Daemon, *command: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "archive", *command, "--config", str(daemon.config_file), "--json"],
        check=False, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout)


def waiting(daemon: Daemon) -> int:
    open_ones = "select count(*) from task where kind = 'compress' and state in ('waiting', 'leased')"
    return int(daemon.select(open_ones)[0][0])


def test_killed_at_any_moment_one_whole_file_of_each_image_is_left(daemon: Daemon) -> None:
    number, sent = random.Random(KILLS), []
    for turn in range(KILLS):
        daemon.start()
        images = [image(turn * IMAGES + count) for count in range(IMAGES)]
        send(daemon, images)
        sent += images
        time.sleep(number.uniform(0.0, 1.2))  # somewhere in the middle of compressing
        daemon.kill()
    daemon.start()
    wait_until(lambda: waiting(daemon) == 0, 120, "the queue does not empty")
    assert said(daemon, "status")[1]["keeping"]["compression_tasks"].keys().isdisjoint({"waiting", "leased"})
    status, found = said(daemon, "fsck", "--digest")
    assert (status, found["problems"]) == (0, [])
    files = list((daemon.files / "objects").rglob("*.dcm"))
    stored = {str(each.SOPInstanceUID): each for each in map(pydicom.dcmread, files)}
    assert len(files) == len(stored) == len(sent)
    for each in sent:
        before = builders.read(builders.bytes_of(each), EXPLICIT_LITTLE)
        assert np.array_equal(stored[str(each.SOPInstanceUID)].pixel_array, before.pixel_array)
    (saved,) = said(daemon, "status")[1]["keeping"]["compression"]
    assert saved["objects"] == len(sent) and saved["ratio"] > 1.2


def test_a_check_beside_a_busy_daemon_finds_nothing_wrong(daemon: Daemon) -> None:
    daemon.start()
    for turn in range(2):
        send(daemon, [image(turn * 10 + count, 64) for count in range(10)])
        status, found = said(daemon, "fsck", "--digest")
        assert (status, found["problems"]) == (0, [])
