"""`archive prefetch`, and what the configuration makes of rules."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from archive.app.prefetch import recalls
from archive.app.prefetchcauses import prefetch_rules
from archive.cli import main
from archive.config import load
from archive.index import Location, open_index
from archive.index.copies import MAIN, RECALL
from tests.index.made import arrival

CONFIG = """
peers: {PACS: {host: 127.0.0.1, port: 104, aliases: [PACS2]}}
storage: {path: cache, volumes: [{path: cache, role: cache}, {path: slow, role: long-term, name: slow}]}
index: {url: "sqlite:///index.db"}
prefetch: [{name: heads, from: PACS, priority: high, window: "22:00-06:00", priors: {max: 2, within: 1y}}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "archive.yaml"
    found.write_text(CONFIG)
    return found


def test_a_rule_knows_the_titles_of_its_sources(file: Path) -> None:
    (rule,) = prefetch_rules(load(file, insecure=True))
    assert rule.titles == {"PACS", "PACS2"} and rule.priority == 1 and rule.wish.most == 2


def test_only_what_lies_on_a_slow_volume_is_brought_back(file: Path) -> None:
    config = load(file, insecure=True)
    index = open_index(config.index.url)
    places = {"9.1": "slow", "9.2": MAIN}
    index.add([replace(arrival(uid), location=Location(name, uid, 0, 10)) for uid, name in places.items()])
    assert [task.kind for task in recalls(index, config, "9.1")] == [RECALL]
    assert recalls(index, config, "9.2") == recalls(index, config, "9.3") == []


def test_the_rules_are_listed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prefetch", "--config", str(file), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["from"], row["max"]) == ("heads", ["PACS"], 2)
    assert main(["prefetch", "--config", str(file)]) == 0
    assert "heads" in capsys.readouterr().out


def test_what_is_not_there_or_not_named_is_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prefetch", "test", "ACC1", "--config", str(file)]) == 1
    assert main(["prefetch", "test", "--config", str(file)]) == 2
    assert "no such order or study" in capsys.readouterr().err
