"""Several volumes: a cache that takes what arrives, and long-term ones that keep it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from archive.app.store import Archive
from archive.app.volumes import move_files
from archive.cli import main
from archive.config.volumes import Mark
from archive.dicom.attributes import Level
from archive.dicom.compressed import JPEG_LS
from archive.dicom.references import Reference
from archive.errors import ConfigurationError, OutOfResources, StorageFailed
from archive.index import State
from archive.index.copies import COPY, RECALL
from archive.services.commitment import Commitment
from archive.services.compression import Compression
from archive.services.deletion import Unlinking
from archive.services.eviction import Eviction, Marks
from archive.services.fsck import Kind
from archive.services.placing import Note, Noted
from archive.services.recall import Recall
from archive.services.retrieve import Retrieve, Tiers
from archive.services.schedule import Schedule
from archive.services.scrub import Scrub, progress
from archive.services.tiering import Copying
from archive.storage.ledger import Ledger
from archive.storage.local import SENTINEL
from archive.storage.space import Space
from archive.workers.codec import Codec
from archive.workers.patience import Patience
from tests import builders
from tests.services.keeping import checked, configured, known, objects, opened, put

VOLUMES = [{"path": "files", "role": "cache"}, {"path": "long", "role": "long-term"}]


@contextmanager
def tiered(folder: Path, url: str, **storage: Any) -> Iterator[Archive]:
    with opened(folder, url, **{"volumes": VOLUMES} | storage) as archive:
        yield archive


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with tiered(tmp_path, f"sqlite:///{tmp_path}/index.db") as archive:
        yield archive


@pytest.fixture
def on_either(tmp_path: Path, index_url: str) -> Iterator[Archive]:
    with tiered(tmp_path, index_url) as archive:
        yield archive


def copying(archive: Archive) -> Copying:
    return Copying(archive.index, archive.volumes, ["long-term"], archive.integrity, time.time)


def eviction(archive: Archive, high: int = 0, low: int = 0) -> Eviction:
    marks = Marks(lambda total: high, lambda total: low)
    unlinking = Unlinking(archive.index, archive.volumes, time.time)
    return Eviction(archive.index, archive.volumes, marks, unlinking, archive.integrity)


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


def long_files(archive: Archive) -> list[Path]:
    return sorted((archive.volumes["long-term"].root / "objects").rglob("*.dcm"))


def recalled(archive: Archive, dataset: Dataset) -> int:
    work, files, after = Recall(archive.index, archive.volumes, archive.integrity, time.time), 0, 0
    while True:
        progress, after = work.some(str(dataset.StudyInstanceUID), after)
        files += progress.files
        if not progress.more:
            return files


def waiting(archive: Archive, kind: str) -> list[str]:
    return [each.study_uid for each in archive.index.tasks(kind=kind, state=State.WAITING)]


# -- the way there and back -----------------------------------------------------------------------


def test_a_study_is_copied_leaves_the_cache_and_is_read_where_it_is(on_either: Archive) -> None:
    archive = on_either
    images = study()
    for each in images:
        put(archive, each)
    before = [read(archive, each) for each in images]
    assert copied(archive, images[0]) == 3
    assert {known(archive, each).location.volume for each in images} == {"main"}
    assert len(objects(archive)) == 3 and len(long_files(archive)) == 3
    done = eviction(archive).make_room()
    assert (done.studies, done.files) == (1, 3)
    assert objects(archive) == [] and archive.index.deletion.waiting() == 0
    assert {known(archive, each).location.volume for each in images} == {"long-term"}
    assert [read(archive, each) for each in images] == before
    assert checked(archive, digest=True) == []


def test_what_was_evicted_comes_back_and_can_leave_again_without_another_copy(on_either: Archive) -> None:
    archive = on_either
    images = study()
    for each in images:
        put(archive, each)
    evicted(archive, images[0])
    there = long_files(archive)
    assert recalled(archive, images[0]) == 3 and recalled(archive, images[0]) == 0
    assert {known(archive, each).location.volume for each in images} == {"main"}
    assert checked(archive, digest=True) == []
    assert copied(archive, images[0]) == 0
    assert eviction(archive).make_room().files == 3
    assert long_files(archive) == there and objects(archive) == []


def test_more_files_than_one_group_are_copied_group_by_group(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.services.tiering.GROUP", 2)
    images = study(count=5)
    for each in images:
        put(archive, each)
    assert copied(archive, images[0]) == 5
    assert checked(archive, digest=True) == []


def test_the_longest_unused_study_goes_first_and_no_more_than_needed(on_either: Archive) -> None:
    archive = on_either
    names = ["1.2.1", "1.2.2", "1.2.3"]
    images = {name: study(name, 1)[0] for name in names}
    for each in images.values():
        put(archive, each)
        copied(archive, each)
    archive.index.copies.touch("1.2.1", time.time() + 100)
    size = known(archive, images["1.2.2"]).location.size
    assert eviction(archive).evict(1).studies == 1
    kept = {name for name, each in images.items() if known(archive, each).location.volume == "main"}
    assert kept == {"1.2.1", "1.2.3"}
    assert [uid for _, uid in archive.index.copies.oldest(9)] == ["1.2.3", "1.2.1"]
    assert eviction(archive).evict(10 * size).studies == 2


def test_above_the_high_mark_room_is_made_down_to_the_low_one() -> None:
    marks = Marks(Mark(90.0).bytes_of, Mark(None, 700).bytes_of)
    assert [marks.excess(Space(1000, free)) for free in (200, 100, 99)] == [0, 0, 201]


def test_what_has_no_verified_copy_stays(archive: Archive) -> None:
    images = study()
    for each in images:
        put(archive, each)
    assert eviction(archive).make_room().files == 0
    copied(archive, images[0])
    late = study(count=1)[0]
    put(archive, late)
    os.truncate(long_files(archive)[0], 10)
    assert eviction(archive).make_room().files == 2
    assert len(objects(archive)) == 2 and known(archive, late).location.volume == "main"


def test_a_retrieval_that_holds_a_file_open_reads_it_to_its_end(archive: Archive) -> None:
    image = study(count=1)[0]
    put(archive, image)
    row = known(archive, image)
    with archive.retrieve.open(row) as file:
        evicted(archive, image)
        assert len(os.pread(file.fd, file.size, file.offset)) == file.size
    with archive.retrieve.open(row) as file:  # by a row that was read before
        assert len(os.pread(file.fd, file.size, file.offset)) == file.size


def test_bytes_that_do_not_arrive_whole_are_no_copy(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    images = study()
    for each in images:
        put(archive, each)

    def lie(root_fd: int, names: list[str]) -> None:
        with open(archive.volumes["long-term"].root / names[0], "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x7f")

    with monkeypatch.context() as broken:
        broken.setattr("archive.services.tiering.sync_files", lie)
        with pytest.raises(StorageFailed, match="not what was written"):
            copied(archive, images[0])
    assert len(long_files(archive)) == 2 and checked(archive, digest=True) == []
    assert copied(archive, images[0]) == 1


def test_a_damaged_original_is_marked_and_not_copied(archive: Archive) -> None:
    images = study()
    for each in images:
        put(archive, each)
    os.truncate(objects(archive)[0], 10)
    assert copied(archive, images[0]) == 2
    assert archive.index.upkeep.count_damaged() == 1 and len(long_files(archive)) == 2


def test_studies_that_were_there_before_are_looked_for(tmp_path: Path, index_url: str) -> None:
    with opened(tmp_path, index_url) as archive:
        for name in ("1.2.1", "1.2.2"):
            put(archive, study(name, 1)[0])
    with tiered(tmp_path, index_url) as archive:
        worker, _ = move_files(archive, archive.config)
        while archive.index.copies.evictable()[0] < 2:
            assert worker.step() == 0.0
        assert waiting(archive, COPY) == []


# -- volumes that are lost ------------------------------------------------------------------------


def test_while_the_long_term_volume_is_lost_nothing_is_written_there(archive: Archive, tmp_path: Path) -> None:
    images, other = study("1.2.1"), study("1.2.2")
    for each in images:
        put(archive, each)
    evicted(archive, images[0])
    with lost(tmp_path / "long"):
        for each in other:
            put(archive, each)
        with pytest.raises(StorageFailed, match="not mounted"):
            copied(archive, other[0])
        with pytest.raises(StorageFailed, match="not mounted"):
            read(archive, images[0])
        with pytest.raises(StorageFailed):
            archive.integrity.verify(known(archive, images[0]))
        with pytest.raises(StorageFailed):
            recalled(archive, images[0])
        put(archive, images[0])  # it is known, and nothing is wrong with it
        assert [each.kind for each in checked(archive)] == [Kind.VOLUME]
        assert archive.index.upkeep.count_damaged() == 0
    assert read(archive, images[0])
    assert copied(archive, other[0]) == 3
    assert checked(archive, digest=True) == []


def test_nothing_leaves_the_cache_while_its_copy_cannot_be_seen(archive: Archive, tmp_path: Path) -> None:
    image = study(count=1)[0]
    put(archive, image)
    copied(archive, image)
    with lost(tmp_path / "long"):
        assert eviction(archive).make_room().files == 0
    assert eviction(archive).make_room().files == 1


def test_while_the_cache_is_lost_stores_are_refused_and_it_is_used_again_by_itself(
    archive: Archive, tmp_path: Path
) -> None:
    image = study(count=1)[0]
    put(archive, image)
    with lost(tmp_path / "files"):
        for _ in range(2):
            with pytest.raises(OutOfResources):
                put(archive, study(count=1)[0])
        with pytest.raises(StorageFailed, match="not mounted"):
            read(archive, image)
    put(archive, study("1.2.9", 1)[0])
    assert read(archive, image)
    assert checked(archive, digest=True) == []


def test_another_volume_in_its_place_is_not_touched(archive: Archive, tmp_path: Path) -> None:
    image = study(count=1)[0]
    put(archive, image)
    (tmp_path / "long" / SENTINEL).write_text("0" * 32 + "\n")
    before = sorted((tmp_path / "long").rglob("*"))
    with pytest.raises(StorageFailed, match="not mounted"):
        copied(archive, image)
    assert sorted((tmp_path / "long").rglob("*")) == before


def test_the_archive_starts_without_its_long_term_volume_but_not_without_its_cache(tmp_path: Path) -> None:
    url, image = f"sqlite:///{tmp_path}/index.db", study(count=1)[0]
    with tiered(tmp_path, url) as archive:
        put(archive, image)
        evicted(archive, image)
    with lost(tmp_path / "long"), tiered(tmp_path, url) as archive:
        put(archive, study("1.2.9", 1)[0])
        with pytest.raises(StorageFailed):
            read(archive, image)
    with lost(tmp_path / "files"), pytest.raises(ConfigurationError, match="mounted"), tiered(tmp_path, url):
        pass
    (tmp_path / "files" / SENTINEL).write_text("other\n")
    with pytest.raises(ConfigurationError, match="another volume"), tiered(tmp_path, url):
        pass


def test_a_folder_with_other_things_in_it_does_not_become_a_volume(tmp_path: Path) -> None:
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / "photos").mkdir()
    with pytest.raises(ConfigurationError, match="not empty"), tiered(tmp_path, f"sqlite:///{tmp_path}/index.db"):
        pass


def test_what_was_deleted_on_a_lost_volume_is_unlinked_when_it_is_back(archive: Archive, tmp_path: Path) -> None:
    image = study(count=1)[0]
    put(archive, image)
    evicted(archive, image)
    unlinking = Unlinking(archive.index, archive.volumes, time.time)
    with lost(tmp_path / "long"):
        archive.index.deletion.bury(
            Ledger(tmp_path / "files/deletions"), Level.STUDY, "1.2.3", {"operation": "1", "uid": "1.2.3"}
        )
        with pytest.raises(StorageFailed):
            unlinking.all()
    assert len(long_files(archive)) == 1
    unlinking.all()
    assert long_files(archive) == [] and archive.index.deletion.waiting() == 0


# -- killed, damaged, exchanged -------------------------------------------------------------------

STEPS = {
    "nothing is written": "archive.services.tiering.Copying._write",
    "nothing is synced": "archive.services.tiering.sync_files",
    "nothing is verified": "archive.services.tiering.Copying._is_good",
    "no row": "archive.index.copies.Copies.add",
    "the note stays": "archive.services.placing.Note.forget",
}


class Killed(BaseException):
    """As far as a process gets that is killed here."""


@pytest.mark.parametrize("where", STEPS)
def test_killed_while_it_copies_it_leaves_no_orphan(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, images = f"sqlite:///{tmp_path}/index.db", study()

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with tiered(tmp_path, url) as archive:
        for each in images:
            put(archive, each)
        with monkeypatch.context() as patched:
            patched.setattr(STEPS[where], kill)
            patched.setattr("archive.services.tiering.Copying.settle_doubts", lambda self: None)
            with pytest.raises(Killed):
                copied(archive, images[0])
    with lost(tmp_path / "long"), tiered(tmp_path, url):
        pass  # what was noted waits for its volume
    with tiered(tmp_path, url) as archive:
        assert checked(archive, digest=True) == []
        assert len(long_files(archive)) == (3 if where == "the note stays" else 0)
        copied(archive, images[0])
        assert len(long_files(archive)) == 3 and checked(archive, digest=True) == []


def test_what_a_dead_process_noted_is_no_lost_file_before_it_is_settled(tmp_path: Path) -> None:
    with tiered(tmp_path, f"sqlite:///{tmp_path}/index.db") as archive:
        image = study(count=1)[0]
        put(archive, image)
        stray = archive.volumes["long-term"].new_path()
        shutil.copyfile(objects(archive)[0], tmp_path / "long" / stray)
        assert [each.kind for each in checked(archive)] == [Kind.STRAY]
        Note(archive.volumes, [Noted(str(image.SOPInstanceUID), "long-term", stray)])
        dead = tmp_path / "files/spool/0123456789abcdef"
        archive.volume.spool.path.rename(dead)
        (dead / ".lock").unlink()
        assert {each.kind for each in checked(archive)} == {Kind.LEFTOVER}


@pytest.mark.parametrize("where", ["archive.storage.local.Volume.place", "archive.index.copies.Copies.recall"])
def test_killed_while_it_is_brought_back_it_stays_where_it_was(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, image = f"sqlite:///{tmp_path}/index.db", study(count=1)[0]

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with tiered(tmp_path, url) as archive:
        put(archive, image)
        evicted(archive, image)
        with monkeypatch.context() as patched:
            patched.setattr(where, kill)
            patched.setattr("archive.services.recall.Recall.settle_doubts", lambda self: None)
            with pytest.raises(Killed):
                recalled(archive, image)
    with tiered(tmp_path, url) as archive:
        assert objects(archive) == [] and checked(archive, digest=True) == []
        assert recalled(archive, image) == 1


def test_a_damaged_file_is_read_from_its_copy_and_comes_back(on_either: Archive) -> None:
    archive = on_either
    images = study()
    for each in images:
        put(archive, each)
    before = [read(archive, each) for each in images]
    copied(archive, images[0])
    objects(archive)[0].unlink()
    os.truncate(objects(archive)[0], 10)
    assert [read(archive, each) for each in images] == before
    assert checked(archive, digest=True) == []
    assert sorted(known(archive, each).location.volume for each in images) == ["long-term", "long-term", "main"]
    assert archive.index.upkeep.count_damaged() == 0 and waiting(archive, RECALL) == ["1.2.3"]
    assert recalled(archive, images[0]) == 2 and checked(archive, digest=True) == []


def test_a_damaged_copy_is_made_again(on_either: Archive) -> None:
    archive = on_either
    image = study(count=1)[0]
    put(archive, image)
    copied(archive, image)
    os.truncate(long_files(archive)[0], 10)
    assert [each.kind for each in checked(archive)] == [Kind.COPY]
    (problem,) = checked(archive, repair="adopt")
    assert problem.done == "copied again" and waiting(archive, COPY) == ["1.2.3"]
    Unlinking(archive.index, archive.volumes, time.time).all()
    assert copied(archive, image) == 1 and checked(archive, digest=True) == []


def test_scrubbing_reads_copies_too(archive: Archive) -> None:
    images = study()
    for each in images:
        put(archive, each)
    copied(archive, images[0])
    os.truncate(long_files(archive)[0], 10)
    scrub = Scrub(
        archive.index, archive.volumes, archive.integrity, every=1e9, rate=0, hours=Schedule([]), clock=time.time,
        timer=time.monotonic,
    )  # fmt: skip
    while not progress(archive.index).ended:
        scrub.step()
    assert (progress(archive.index).files, progress(archive.index).damaged) == (6, 1)
    assert waiting(archive, COPY) == ["1.2.3"]


@pytest.mark.parametrize("policy", ["replace", "version"])
def test_a_newer_object_takes_the_place_of_an_evicted_one(tmp_path: Path, index_url: str, policy: str) -> None:
    with tiered(tmp_path, index_url, on_duplicate=policy) as archive:
        old = study(count=1)[0]
        new = builders.ct(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.1", SOPInstanceUID=old.SOPInstanceUID,
                          InstanceNumber=99)  # fmt: skip
        put(archive, old)
        evicted(archive, old)
        put(archive, new)
        Unlinking(archive.index, archive.volumes, time.time).all()
        assert known(archive, new).location.volume == "main"
        assert len(long_files(archive)) == (policy == "version")
        assert checked(archive, digest=True) == []
        evicted(archive, new)
        assert checked(archive, digest=True) == []


def test_earlier_versions_leave_the_cache_when_their_study_is_copied(tmp_path: Path) -> None:
    with tiered(tmp_path, f"sqlite:///{tmp_path}/index.db", on_duplicate="version") as archive:
        old = study(count=1)[0]
        new = builders.ct(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.1", SOPInstanceUID=old.SOPInstanceUID,
                          InstanceNumber=99)  # fmt: skip
        for each in (old, new):
            put(archive, each)
        evicted(archive, new)
        Unlinking(archive.index, archive.volumes, time.time).all()
        (version,) = archive.index.versions(str(old.SOPInstanceUID))
        assert version.location.volume == "long-term" and objects(archive) == []
        assert checked(archive, digest=True) == []


def test_an_object_that_comes_again_while_its_file_is_damaged_comes_to_the_cache(archive: Archive) -> None:
    image = study(count=1)[0]
    put(archive, image)
    evicted(archive, image)
    os.truncate(long_files(archive)[0], 10)
    put(archive, image)
    assert known(archive, image).location.volume == "main" and waiting(archive, COPY) == ["1.2.3"]
    assert copied(archive, image) == 1 and checked(archive, digest=True) == []


def test_compressing_what_has_left_the_cache_brings_the_new_form_there(archive: Archive) -> None:
    grey = (np.arange(128 * 128) % 4000).astype("<u2").tobytes()
    image = builders.ct(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.1", rows=128, columns=128, PixelData=grey)
    put(archive, image)
    evicted(archive, image)
    codec = Codec(archive.volume.spool.path)
    work = Compression(archive.index, archive.volumes, codec, archive.integrity, time.monotonic)
    try:
        done = work.compress(str(image.SOPInstanceUID), JPEG_LS)
    finally:
        codec.close()
    assert done.after < done.before and known(archive, image).location.volume == "main"
    assert long_files(archive) == [] and waiting(archive, COPY) == ["1.2.3"]
    assert copied(archive, image) == 1 and checked(archive, digest=True) == []


def test_commitment_promises_what_is_on_another_volume_and_waits_for_one_that_is_lost(
    archive: Archive, tmp_path: Path
) -> None:
    image = study(count=1)[0]
    put(archive, image)
    evicted(archive, image)
    asked = [Reference(str(image.SOPClassUID), str(image.SOPInstanceUID))]
    commitment = Commitment(archive.index, archive.integrity.verify, clock=time.time, max_pending=10)
    assert commitment.examine(asked) == []
    with lost(tmp_path / "long"), pytest.raises(StorageFailed):
        commitment.examine(asked)


def test_a_reload_takes_effect_on_what_is_retrieved(tmp_path: Path) -> None:
    with tiered(tmp_path, f"sqlite:///{tmp_path}/index.db") as archive:
        image = study(count=1)[0]
        put(archive, image)
        evicted(archive, image)
        read(archive, image)
        assert waiting(archive, RECALL) == []
        archive.change(configured(tmp_path, archive.config.index.url, volumes=VOLUMES, recall="on"))
        read(archive, image)
        assert waiting(archive, RECALL) == ["1.2.3"]


# -- lost with the index --------------------------------------------------------------------------


def test_an_index_is_made_anew_from_all_volumes(tmp_path: Path) -> None:
    images, others = study("1.2.1"), study("1.2.2")
    with tiered(tmp_path, f"sqlite:///{tmp_path}/index.db") as archive:
        for each in (*images, *others):
            put(archive, each)
        evicted(archive, images[0])
        copied(archive, others[0])
        before = {str(each.SOPInstanceUID): known(archive, each).location for each in (*images, *others)}
        copies = archive.index.copies.held()
    config = configured(tmp_path, f"sqlite:///{tmp_path}/new.db", volumes=VOLUMES)
    said = ["reindex", "--config", str(config.file), "--processes", "0", "--json"]
    with lost(tmp_path / "long"):
        assert main(said) != 0
    assert main(said) == 0
    with tiered(tmp_path, f"sqlite:///{tmp_path}/new.db") as archive:
        assert {uid: archive.index.known(uid).location for uid in before} == before  # type: ignore[union-attr]
        assert archive.index.copies.held() == copies
        assert checked(archive, digest=True) == []


# -- slow ------------------------------------------------------------------------------------------


def test_a_volume_that_does_not_answer_is_given_up_and_the_one_who_waits_can_speak_meanwhile(
    archive: Archive, tmp_path: Path
) -> None:
    image = study(count=1)[0]
    put(archive, image)
    evicted(archive, image)
    (path,) = long_files(archive)
    path.rename(tmp_path / "kept")
    os.mkfifo(path)  # opening it waits until somebody writes
    said: list[int] = []
    retrieve = Retrieve(archive.index, archive.volumes, Tiers(time.time, Patience(2.5), recall=False))
    with pytest.raises(StorageFailed, match="does not answer"):
        retrieve.open(known(archive, image), meanwhile=lambda: said.append(1))
    assert said
    os.close(os.open(path, os.O_WRONLY))  # the one who was left behind goes on, and ends
    path.unlink()
    (tmp_path / "kept").rename(path)
    with retrieve.open(known(archive, image)) as file:
        assert file.size


def test_what_is_retrieved_from_a_long_term_volume_is_wanted_back_once(tmp_path: Path) -> None:
    with tiered(tmp_path, f"sqlite:///{tmp_path}/index.db", recall="on") as archive:
        images = study()
        for each in images:
            put(archive, each)
        evicted(archive, images[0])
        for each in images:
            read(archive, each)
        assert waiting(archive, RECALL) == ["1.2.3"]
        _, worker = move_files(archive, archive.config)
        while waiting(archive, RECALL) or archive.index.tasks(kind=RECALL):
            worker.step()
        assert {known(archive, each).location.volume for each in images} == {"main"}
