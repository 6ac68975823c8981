"""A volume on a real folder."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from archive.errors import ConfigurationError, Damaged, OutOfResources, StorageFailed
from archive.storage.batch import BATCH
from archive.storage.local import SENTINEL, Volume
from archive.storage.spool import Spool, sweep


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    volume = Volume(tmp_path / "files", reserve=0, clock=lambda: 1_700_000_000.0)
    volume.open(expected=False)
    return volume


def test_a_placed_part_has_its_bytes_and_leaves_the_spool(volume: Volume) -> None:
    part = volume.part()
    part.write([b"one", b"two"])
    volume.sync_part(part)
    path = volume.new_path()
    volume.place(part, path)
    assert (volume.root / path).read_bytes() == b"onetwo"
    assert volume.spool.size() == 0


def test_names_are_never_used_twice(volume: Volume) -> None:
    names = [volume.new_path() for _ in range(2 * BATCH + 1)]
    assert len(set(names)) == len(names)
    assert len({name.rsplit("/", 1)[0] for name in names}) == 3
    assert names[0].startswith("objects/20231114/")


def test_folders_lie_apart_where_the_file_system_takes_the_hint(volume: Volume) -> None:
    day = (volume.root / volume.new_path()).parent.parent
    said = subprocess.run(["lsattr", "-d", day], capture_output=True, text=True, check=False)
    kind = subprocess.run(["stat", "-f", "-c", "%T", day], capture_output=True, text=True, check=True).stdout.strip()
    assert ("T" in said.stdout.split(" ")[0]) is (kind == "ext2/ext3" and said.returncode == 0)


def test_a_missing_sentinel_is_an_unmounted_disk(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    volume = Volume(tmp_path / "files", reserve=0, clock=lambda: 0.0)
    with pytest.raises(ConfigurationError, match="mounted"):
        volume.open(expected=True)
    assert os.listdir(tmp_path / "files") == []


def test_nothing_is_written_when_the_sentinel_disappears(volume: Volume) -> None:
    (volume.root / SENTINEL).unlink()
    with pytest.raises(StorageFailed, match="not mounted"):
        volume.new_path()


def test_below_the_reserve_nothing_more_is_taken(tmp_path: Path) -> None:
    volume = Volume(tmp_path, reserve=1 << 60, clock=lambda: 0.0)
    with pytest.raises(OutOfResources, match="out of disk space"):
        volume.check()


def test_a_failed_sync_stops_the_volume_until_a_probe_works(volume: Volume) -> None:
    assert volume.failed(OSError(errno.EIO, "Input/output error")).comment == "storage failed"
    moved = volume.spool.path.rename(volume.root / "elsewhere")
    with pytest.raises(StorageFailed):
        volume.check()
    moved.rename(volume.spool.path)
    volume.check()


def test_a_full_disk_needs_no_probe(volume: Volume) -> None:
    assert volume.failed(OSError(errno.ENOSPC, "No space left on device")).comment == "out of disk space"
    volume.check()


def test_a_file_of_the_wrong_length_is_damaged(volume: Volume) -> None:
    path = volume.new_path()
    volume.create(path, [b"12345"])
    os.close(volume.open_file(path, 5))
    with pytest.raises(Damaged, match="damaged"):
        volume.open_file(path, 6)
    with pytest.raises(Damaged, match="missing"):
        volume.open_file("objects/none.dcm", 6)


def test_a_quarantined_file_leaves_the_objects(volume: Volume) -> None:
    path = volume.new_path()
    volume.create(path, [b"12345"])
    aside = volume.quarantine(path)
    assert (volume.root / aside).read_bytes() == b"12345" and not (volume.root / path).exists()


def test_only_the_spool_of_the_dead_is_swept(tmp_path: Path) -> None:
    alive, dead = Spool(tmp_path), Spool(tmp_path)
    for spool in (alive, dead):
        spool.new_path().write_bytes(b"x")
    os.close(dead._lock)
    assert sweep(tmp_path) == 1
    assert alive.size() == 1 and not dead.path.exists()
