"""Routes to a folder: whole files under names from a layout, durable, and never into an absent mount."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from archive.dicom.changes import Change
from archive.errors import Unreachable
from archive.index import Task
from archive.index.values import State
from archive.services.destination import Fate
from archive.services.folder import FolderChannel, FolderReach
from archive.services.outgoing import Outgoing, Subject
from archive.services.routing import facts_of
from tests.dimse.archives import Archive, fill, instance, parts


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with parts(tmp_path) as made:
        fill(made, instance(1, patient="P/1"), instance(2, patient="P/1"))
        yield made


def reach(archive: Archive, root: Path) -> FolderReach:
    def describe(uids: object) -> dict[str, object]:
        found = archive.index.queue.described(["PatientID", "SOPInstanceUID"], sop_instance_uids=uids)
        return {each.instance.sop_instance_uid: facts_of(each) for each in found}

    return FolderReach(root, archive.retrieve.open, describe, lambda task: "{PatientID}/{SOPInstanceUID}.dcm")  # type: ignore[arg-type]


def items(archive: Archive) -> list[tuple[Task, object]]:
    task = Task(1, "deliver", "folder:x", {}, State.LEASED, 0, 1, None, "", 0, None, "")
    return [(task, each.instance) for each in archive.index.queue.described(())]


def test_objects_become_files_under_their_names(archive: Archive, tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.mkdir()
    channel = reach(archive, root).open(lambda: None)
    channel.put(items(archive))  # type: ignore[arg-type]
    assert [each.fate for each in channel.results()] == [Fate.SENT, Fate.SENT]
    files = sorted(path for path in root.rglob("*") if path.is_file())
    assert [path.parent.name for path in files] == ["P_1", "P_1"]
    assert [path.stem for path in files] == [pydicom.dcmread(path).SOPInstanceUID for path in files]
    channel.put(items(archive))  # type: ignore[arg-type]
    assert sorted(path for path in root.rglob("*") if path.is_file()) == files


def test_what_is_changed_on_its_way_out_is_changed_in_the_folder_as_well(archive: Archive, tmp_path: Path) -> None:
    asked: list[str] = []

    def rename(subject: Subject) -> list[Change]:
        asked.append(subject.receiver.aet)
        return [Change((0x00100010,), "PN", "Right^Name")] if subject.instance.sop_instance_uid.endswith("1") else []

    root = tmp_path / "out"
    root.mkdir()
    plain = reach(archive, root)
    made = FolderReach(
        root, archive.retrieve.open, plain._describe, plain._layout,
        outgoing=Outgoing([rename], system="ARCHIVE", clock=lambda: 1_800_000_000.0),
    )  # fmt: skip
    channel = made.open(lambda: None)
    channel.put(items(archive))  # type: ignore[arg-type]
    assert [each.fate for each in channel.results()] == [Fate.SENT, Fate.SENT]
    read = {path.stem[-1]: pydicom.dcmread(path) for path in root.rglob("*.dcm")}
    assert (str(read["1"].PatientName), str(read["2"].PatientName)) == ("Right^Name", "Name^P/1")
    assert read["1"].PixelData and read["1"].file_meta.MediaStorageSOPInstanceUID == read["1"].SOPInstanceUID
    assert read["1"].OriginalAttributesSequence[0].ModifyingSystem == "ARCHIVE"
    assert asked == ["FOLDER", "FOLDER"] and not list(root.rglob("*.part"))


def test_a_folder_that_is_not_there_is_not_made(archive: Archive, tmp_path: Path) -> None:
    channel = reach(archive, tmp_path / "mount").open(lambda: None)
    channel.put(items(archive))  # type: ignore[arg-type]
    assert not channel.alive and "is it mounted?" in channel.reason and channel.results() == []
    assert not (tmp_path / "mount").exists()
    with pytest.raises(Unreachable):
        reach(archive, tmp_path / "mount").probe()


def test_what_cannot_be_written_is_tried_again_and_leaves_nothing(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "P_1").write_text("a file where a folder is wanted")
    channel = FolderChannel(reach(archive, tmp_path), lambda: None)
    channel.put(items(archive))  # type: ignore[arg-type]
    assert {(each.fate, each.reason) for each in channel.results()} == {
        (Fate.AGAIN, f"cannot be written: {os.strerror(errno.EEXIST)}")
    }
    assert channel.alive and not list(tmp_path.rglob("*.part"))


def test_a_stored_file_that_is_missing_fails_alone(archive: Archive, tmp_path: Path) -> None:
    first = next(iter(archive.index.queue.described(())))
    (tmp_path / "files" / first.instance.location.path).unlink()
    root = tmp_path / "out"
    root.mkdir()
    channel = FolderChannel(reach(archive, root), lambda: None)
    channel.put(items(archive))  # type: ignore[arg-type]
    assert [each.fate for each in channel.results()] == [Fate.REFUSED, Fate.SENT]
