"""Several volumes: a cache that takes what arrives, and long-term ones that keep it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from archive.app.store import Archive
from archive.app.volumes import move_files
from archive.config.volumes import Mark
from archive.errors import ConfigurationError, Damaged, OutOfResources, StorageFailed
from archive.index import State
from archive.index.copies import COPY, RECALL
from archive.services.deletion import Unlinking
from archive.services.eviction import Eviction, Marks
from archive.services.fsck import Kind
from archive.services.placing import Note, Noted
from archive.services.recall import Recall
from archive.services.tiering import Copying
from archive.storage.local import SENTINEL
from archive.storage.space import Space
from tests import builders
from tests.services.keeping import checked, configured, known, objects, opened, put

VOLUMES = [{"path": "files", "role": "cache"}, {"path": "long", "role": "long-term"}]


@contextmanager
def tiered(folder: Path, url: str, **storage: Any) -> Iterator[Archive]:
    with opened(folder, url, **{"volumes": VOLUMES} | storage) as archive:
        yield archive


@pytest.fixture
def archive(tmp_path: Path, index_url: str) -> Iterator[Archive]:
    with tiered(tmp_path, index_url) as archive:
        yield archive


def copying(archive: Archive) -> Copying:
    return Copying(archive.index, archive.volumes, ["long-term"], archive.integrity, time.time)


def eviction(archive: Archive, high: int = 0, low: int = 0) -> Eviction:
    marks = Marks(lambda total: high, lambda total: low)
    return Eviction(archive.index, archive.volumes, marks, Unlinking(archive.index, archive.volumes, time.time))


def copied(archive: Archive, dataset: Dataset) -> int:
    work, files = copying(archive), 0
    while (done := work.some(str(dataset.StudyInstanceUID))).more:
        files += done.files
    return files


def evicted(archive: Archive, dataset: Dataset) -> None:
    assert copied(archive, dataset) and eviction(archive).make_room().files


def study(uid: str = "1.2.3", count: int = 3) -> list[Dataset]:
    return [builders.ct(StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1") for _ in range(count)]


def read(archive: Archive, dataset: Dataset) -> bytes:
    with archive.retrieve.open(known(archive, dataset)) as file:
        return os.pread(file.fd, file.size, file.offset)


@contextmanager
def lost(folder: Path) -> Iterator[None]:
    """As if the mount were gone: an empty folder in its place, which must stay empty."""
    away = folder.with_name(f"{folder.name}.away")
    folder.rename(away)
    folder.mkdir()
    try:
        yield
        assert list(folder.rglob("*")) == []
    finally:
        shutil.rmtree(folder)
        away.rename(folder)


# -- the way there and back -----------------------------------------------------------------------


def test_a_study_is_copied_leaves_the_cache_and_is_read_where_it_is(archive: Archive, tmp_path: Path) -> None:
    images = study()
    for each in images:
        put(archive, each)
    before = [read(archive, each) for each in images]
    assert copied(archive, images[0]) == 3
    assert {known(archive, each).location.volume for each in images} == {"main"}
    assert len(objects(archive)) == 3 and len(list((tmp_path / "long/objects").rglob("*.dcm"))) == 3
    done = eviction(archive).make_room()
    assert (done.studies, done.files) == (1, 3)
    assert objects(archive) == [] and archive.index.deletion.waiting() == 0
    assert {known(archive, each).location.volume for each in images} == {"long-term"}
    assert [read(archive, each) for each in images] == before
    assert checked(archive, digest=True) == []
