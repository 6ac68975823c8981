"""The option storage.volumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from archive.config import Complaints, load
from archive.config.volumes import Mark

CACHE, LONG = {"path": "files", "role": "cache"}, {"path": "long", "role": "long-term"}


def written(folder: Path, **storage: object) -> Path:
    file = folder / "archive.yaml"
    file.write_text(yaml.safe_dump({"storage": storage}))
    return file


def test_a_path_alone_is_one_volume(tmp_path: Path) -> None:
    found = load(written(tmp_path, path="files")).storage
    assert (found.path, found.volumes) == (tmp_path / "files", ())


def test_the_cache_is_the_path_and_volumes_have_names(tmp_path: Path) -> None:
    found = load(written(tmp_path, volumes=[LONG, CACHE | {"high": "70%", "low": "500GB"}])).storage
    assert found.path == tmp_path / "files"
    assert [each.name for each in found.volumes] == ["long-term", "main"]
    assert (found.volumes[1].high, found.volumes[1].low) == (Mark(70.0), Mark(None, 500 << 30))


@pytest.mark.parametrize(
    ("volumes", "words"),
    [
        ([LONG], "none of them has the role cache"),
        ([CACHE, CACHE | {"path": "other"}], "2 of them have the role cache"),
        ([CACHE, LONG, LONG | {"path": "other"}], "'long-term' is the name of another volume"),
        ([CACHE, LONG | {"name": "main"}], "main is the name of the cache"),
        ([CACHE | {"name": "ssd"}, LONG], "'ssd' is the cache"),
        ([CACHE, LONG | {"path": "files/long"}], "are not apart"),
        ([CACHE | {"low": "95%"}, LONG], "above high"),
        ([CACHE | {"high": "101%"}, LONG], "out of range"),
        ([CACHE, LONG | {"role": "tape"}], "not a known word"),
        ([CACHE, LONG | {"name": "a/b"}], "not a name"),
    ],
)
def test_what_cannot_be_meant_is_complained_about(tmp_path: Path, volumes: list[object], words: str) -> None:
    with pytest.raises(Complaints, match=words):
        load(written(tmp_path, volumes=volumes))


def test_a_path_that_is_not_the_cache_is_complained_about(tmp_path: Path) -> None:
    assert load(written(tmp_path, path="files", volumes=[CACHE, LONG])).storage.path == tmp_path / "files"
    with pytest.raises(Complaints, match="not the path of the cache"):
        load(written(tmp_path, path="elsewhere", volumes=[CACHE, LONG]))
