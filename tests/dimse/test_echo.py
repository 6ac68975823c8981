"""Anybody can ask whether the archive is there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .archives import peer, serving


@pytest.mark.parametrize(("calling", "called"), [("TEST", "ARCHIVE"), ("NOBODY", "ARCHIVE"), ("NOBODY", "WRONG")])
def test_dcmtk_gets_an_answer_whoever_it_says_it_is(tmp_path: Path, calling: str, called: str) -> None:
    with serving(tmp_path, [peer("TEST")]) as archive:
        command = ["echoscu", "-aet", calling, "-aec", called, "127.0.0.1", str(archive.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
