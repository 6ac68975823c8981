"""`archive retention` and `archive studies hold`: what they say, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from archive.app.retention import standing, trouble
from archive.cli import main
from archive.index import open_index
from archive.services.steadyclock import NAME
from archive.services.watermarks import NAME as WATERMARKS
from tests.services.keeping import configured

Said = pytest.CaptureFixture[str]


@pytest.fixture
def config(tmp_path: Path) -> list[str]:
    configured(tmp_path / "site", f"sqlite:///{tmp_path}/index.db")
    return ["--json", "--config", str(tmp_path / "site" / "archive.yaml")]


def answer(capsys: Said) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_doubtful_clock_is_told_and_can_be_believed(config: list[str], tmp_path: Path, capsys: Said) -> None:
    index = open_index(f"sqlite:///{tmp_path}/index.db")
    index.put(NAME, json.dumps({"seen": 1_000_000.0}))
    assert main(["retention", "clock", *config]) == 1
    assert "days ahead" in answer(capsys)["why"]
    assert main(["retention", "run", *config]) == 1
    assert "days ahead" in capsys.readouterr().err
    assert main(["retention", "run", "--dry-run", *config]) == 0
    assert "nothing of it would be deleted: the clock is" in capsys.readouterr().err
    assert [each.about for each in trouble(index)] == ["retention"]
    assert main(["retention", "clock", "--right", *config]) == 0
    assert answer(capsys) == {"believed": True, "why": ""}
    assert list(trouble(index)) == []
    index.close()


def test_a_mark_that_is_crossed_is_shown(config: list[str], tmp_path: Path, capsys: Said) -> None:
    index = open_index(f"sqlite:///{tmp_path}/index.db")
    index.put(WATERMARKS, json.dumps({"since": {"warn": 1.0, "refuse": 2.0}, "times": {}, "purging": False}))
    assert main(["retention", *config]) == 0
    assert answer(capsys)["watermarks"]["crossed_since"] == {"warn": 1.0, "refuse": 2.0}
    assert standing(index)["watermarks"] == {"warn": 1.0, "refuse": 2.0}
    assert [each.about for each in trouble(index)] == ["storage.watermarks.warn", "storage.watermarks.refuse"]
    index.close()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["retention", "test"], 2),
        (["retention", "test", "1.2.3"], 1),
        (["retention", "run", "1.2.3"], 2),
        (["studies", "hold", "1.2.3"], 2),
        (["studies", "hold", "--why", "case"], 2),
        (["studies", "hold", "1.2.3", "--why", "case"], 1),
        (["studies", "release", "--number", "7", "--why", "case"], 1),
    ],
)
def test_what_is_not_meant_is_refused(config: list[str], arguments: list[str], status: int, capsys: Said) -> None:
    assert main([*arguments, *config]) == status
    assert capsys.readouterr().err
