"""`archive sync`: what is said of a comparison that was not made to its end."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from archive.cli import main
from archive.index import open_index
from archive.index.sync import SyncRows
from archive.services.comparing import Plan


def test_a_comparison_that_ended_early_is_not_called_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "archive.yaml"
    url = f"sqlite:///{tmp_path}/index.db"
    peers = "peers: {ARC2: {host: 127.0.0.1, port: 104}}\nsync: [{name: second, peer: ARC2}]\n"
    file.write_text(f"storage: {{path: files}}\nindex: {{url: '{url}'}}\n{peers}")
    index = open_index(url)
    rows = SyncRows(index.database)
    rows.end(rows.begin("second", "ARC2", "schedule", asdict(Plan()), 1000.0), "the configuration has changed", 2000.0)
    index.close()
    assert main(["sync", "report", "--config", str(file)]) == 1
    assert ": the configuration has changed\n" in capsys.readouterr().out
    assert main(["sync", "--config", str(file), "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["result"] == "ended early; 0 studies compared, 0 equal (the configuration has changed)"
