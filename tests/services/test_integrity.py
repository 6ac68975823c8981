"""Damage is found by reading, marked, never sent, and mended by a copy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.app.store import Archive
from archive.errors import Damaged, Missing, OutOfResources, StorageFailed, WrongContent, WrongSize
from archive.index import NewTask, Outcome
from archive.services.causes import DAMAGE, Causes
from archive.services.integrity import Integrity
from archive.storage.local import SENTINEL
from tests import builders
from tests.services.keeping import known, objects, opened, path_of, put, stored_bytes


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with opened(tmp_path, f"sqlite:///{tmp_path}/index.db") as found:
        yield found


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DAMAGE_OF = {
    "flipped": (flip, WrongContent),
    "its head flipped": (lambda path: flip(path, 129), WrongContent),
    "truncated": (lambda path: os.truncate(path, 900), WrongSize),
    "grown": (lambda path: path.write_bytes(path.read_bytes() + b"x"), WrongSize),
    "emptied": (lambda path: os.truncate(path, 0), WrongSize),
    "deleted": (lambda path: path.unlink(), Missing),
    "a link": (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), Missing),
}


@pytest.mark.parametrize("how", DAMAGE_OF)
def test_damage_is_found_marked_and_never_sent_until_a_copy_comes(archive: Archive, how: str) -> None:
    data, other = builders.ct(), builders.ct()
    put(archive, data)
    put(archive, other)
    damage, error = DAMAGE_OF[how]
    before = path_of(archive, data)
    damage(before)
    with pytest.raises(error):
        archive.integrity.verify(known(archive, data))
    archive.integrity.verify(known(archive, other))
    (marked,) = archive.index.upkeep.damaged()
    assert marked.sop_instance_uid == data.SOPInstanceUID and marked.damage
    with pytest.raises(Damaged):
        archive.retrieve.open(marked)
    # The sender still has it, and sends it again.
    assert put(archive, data) is Outcome.EQUAL
    assert known(archive, data).damage == "" and archive.index.upkeep.count_damaged() == 0
    archive.integrity.verify(known(archive, data))
    with archive.retrieve.open(known(archive, data)) as file:
        assert os.pread(file.fd, file.size, file.offset) == builders.bytes_of(data)
    assert len(objects(archive)) == 2 and not before.exists()
    assert archive.index.statistics().size == sum(len(builders.bytes_of(each)) for each in (data, other))


def test_a_missing_file_that_nobody_noticed_is_mended_by_a_copy_too(archive: Archive) -> None:
    data = builders.ct()
    put(archive, data)
    path_of(archive, data).unlink()
    assert put(archive, data) is Outcome.EQUAL
    assert stored_bytes(archive, data) == builders.bytes_of(data)


def test_what_was_damaged_is_put_aside_and_not_thrown_away(archive: Archive) -> None:
    data = builders.ct()
    put(archive, data)
    os.truncate(path_of(archive, data), 500)
    put(archive, data)
    (lost,) = (archive.volume.root / "lost+found").iterdir()
    assert lost.stat().st_size == 500


def test_a_copy_of_what_is_whole_costs_no_file(archive: Archive) -> None:
    data = builders.ct()
    put(archive, data)
    before = path_of(archive, data)
    assert put(archive, data) is Outcome.EQUAL
    assert objects(archive) == [before]


def test_a_file_that_was_restored_by_hand_is_no_longer_damaged(archive: Archive) -> None:
    data = builders.ct()
    put(archive, data)
    path = path_of(archive, data)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(Missing):
        archive.integrity.look(known(archive, data))
    path.write_bytes(content)
    with pytest.raises(Damaged):
        archive.integrity.look(known(archive, data))  # its mark counts until it was read
    archive.integrity.verify(known(archive, data))
    archive.integrity.look(known(archive, data))
    assert known(archive, data).damage == ""


def test_a_disk_that_is_not_mounted_damages_nothing(archive: Archive) -> None:
    data = builders.ct()
    put(archive, data)
    root = archive.volume.root
    (root / SENTINEL).rename(root / "elsewhere")
    (root / "objects").rename(root / "other")
    with pytest.raises(StorageFailed):
        archive.integrity.verify(known(archive, data))
    (root / "elsewhere").rename(root / SENTINEL)
    (root / "other").rename(root / "objects")
    assert archive.index.upkeep.count_damaged() == 0


def test_a_process_out_of_descriptors_damages_nothing(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    data = builders.ct()
    put(archive, data)
    instance = known(archive, data)

    def none_left(*_: object, **__: object) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("archive.services.integrity.os.open", none_left)
        with pytest.raises(OutOfResources):
            archive.integrity.verify(instance)
    assert archive.index.upkeep.count_damaged() == 0


def test_an_instance_that_was_removed_is_missing_and_marks_nothing(archive: Archive) -> None:
    data = builders.ct()
    put(archive, data)
    instance = known(archive, data)
    for location in archive.index.remove([instance.id]).files:
        archive.volume.remove(location.path)
    with pytest.raises(Missing, match="no such instance"):
        archive.integrity.verify(instance)


def test_damage_is_told_once(archive: Archive) -> None:
    causes = Causes()
    causes.on(DAMAGE, lambda event: [NewTask("tell", {"uid": event.sop_instance_uid, **event.details})])
    volumes = {archive.volume.name: archive.volume}
    integrity = Integrity(archive.index, volumes, lambda: 1000.0, causes)
    data = builders.ct()
    put(archive, data)
    flip(path_of(archive, data))
    for _ in range(3):
        with pytest.raises(Damaged):
            integrity.verify(known(archive, data))
    (task,) = archive.index.tasks(kind="tell")
    assert task.payload["uid"] == data.SOPInstanceUID and "other content" in task.payload["reason"]
