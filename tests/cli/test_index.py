"""`archive index copy` moves an index to the other database, or says why it does not."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.cli import main
from archive.dicom.extra import ExtraKeys
from archive.index import open_index
from tests.index.made import arrival

EXTRA = ExtraKeys.of(["image.KVP"])


@pytest.fixture
def source(tmp_path: Path) -> str:
    """An index of two studies, with a value of an extra key."""
    index = open_index(f"sqlite:///{tmp_path}/source.db", extra=EXTRA)
    index.add([arrival("1.1", KVP="120"), arrival("1.1"), arrival("1.2")])
    index.close()
    return f"sqlite:///{tmp_path}/source.db"


def test_an_index_goes_to_postgresql_and_back(
    source: str, tmp_path: Path, postgresql: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    away, back = postgresql(), f"sqlite:///{tmp_path}/new/back.db"
    assert main(["index", "copy", source, away]) == 0
    assert "3 instances of 2 studies copied" in capsys.readouterr().out
    assert main(["index", "copy", "--json", away, back]) == 0
    assert json.loads(capsys.readouterr().out)["extra_term"] == 1
    first, last = open_index(source), open_index(back)
    assert first.statistics() == last.statistics()
    assert [row.id for row in first.studies()] == [row.id for row in last.studies()]
    first.close()
    last.close()


def test_a_relative_path_is_one_of_this_folder(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["index", "copy", "sqlite:///source.db", "sqlite:///other.db"]) == 0
    assert (tmp_path / "other.db").is_file()


def test_what_is_not_possible_is_said(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full, empty = f"sqlite:///{tmp_path}/full.db", f"sqlite:///{tmp_path}/empty.db"
    assert main(["index", "copy", source, full]) == 0
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE x (y)")
    for arguments, words in (
        ((source, full), "the target index is not empty"),
        ((source, source), "source and target are the same"),
        ((f"sqlite:///{tmp_path}/none.db", empty), "there is no such file"),
        ((f"sqlite:///{tmp_path}/other.db", empty), "the source is no index"),
        ((source, "mysql://user:secret@host/name"), "mysql://user@host/name: not the address of a database"),
    ):
        assert main(["index", "copy", *arguments]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists() and not (tmp_path / "empty.db").exists()
    assert main(["index", "copy", source, "postgresql://nobody@127.0.0.1:1/none"]) == 1
    assert "index is not available" in capsys.readouterr().err


def test_an_index_whose_copy_was_broken_off_serves_nobody(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"sqlite:///{tmp_path}/target.db"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("archive.cli.index._Bar.show", interrupted)
    assert main(["index", "copy", source, target]) == 130
    monkeypatch.undo()
    assert main(["status", "--set", f"index.url={target}"]) == 2
    assert "broken off" in capsys.readouterr().err
    assert main(["index", "copy", target, f"sqlite:///{tmp_path}/third.db"]) == 2
    assert "broken off itself" in capsys.readouterr().err
    assert main(["index", "copy", source, target]) == 0
    assert main(["index", "copy", target, f"sqlite:///{tmp_path}/third.db"]) == 0


def test_a_source_that_is_written_to_meanwhile_makes_no_copy(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = open_index(source)
    monkeypatch.setattr("archive.cli.index._Bar.show", lambda *_: busy.add([arrival("1.3")]))
    assert main(["index", "copy", source, f"sqlite:///{tmp_path}/target.db"]) == 2
    assert "written to meanwhile" in capsys.readouterr().err
    busy.close()
