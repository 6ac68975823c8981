"""What was acknowledged stays: whatever is deleted, broken off, damaged or goes by a wrong clock meanwhile."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from archive.app.store import Archive, recover
from archive.cli import main
from archive.errors import Conflict, OutOfResources, StorageFailed
from archive.index import Location, NewTask, Outcome, held
from archive.index.held import STUDY, Name
from archive.index.retention import RetentionRows
from archive.services.corrections import FOLDER, by
from archive.services.deletion import Deletion
from archive.services.fsck import Kind
from archive.services.holds import Holds
from archive.services.retention import DAY, Need, Rule
from archive.services.strays import Stray, Strays, read_content
from archive.storage.ledger import Ledger
from archive.storage.local import Volume
from tests import builders
from tests.services.keeping import (
    checked,
    configured,
    fail_once_noted,
    known,
    objects,
    opened,
    path_of,
    put,
    stored_bytes,
)
from tests.services.retiring import Site, ct, moment
from tests.services.test_volumes import VOLUMES, copied, eviction, long_files, read, study, tiered

WHO = by("nurse", "bad images")


@pytest.fixture
def archive(tmp_path: Path, index_url: str) -> Iterator[Archive]:
    with opened(tmp_path, index_url) as made:
        yield made


@pytest.fixture
def on_postgresql(tmp_path: Path, postgresql: Callable[[], str]) -> Iterator[Archive]:
    """Where transactions run beside each other."""
    with tiered(tmp_path, postgresql(), on_duplicate="version") as made:
        yield made


def again(first: Dataset, **changes: Any) -> Dataset:
    names = ("PatientID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    same = {name: first[name].value for name in names}
    return builders.ct(**same | changes)


def crash(archive: Archive) -> None:
    archive.index.close()
    archive.journal.leave()
    os.close(archive.volume.spool._lock)


def deletion(archive: Archive) -> Deletion:
    return Deletion(archive.index, archive.corrections, Ledger(archive.volume.root / "deletions"), archive.volume)


def in_between(work: Callable[[], object]) -> threading.Thread:
    """Begins it beside a transaction that is under way, and gives it the time that it would take."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(0.5)
    return thread


# -- deleted meanwhile ----------------------------------------------------------------------------


def test_a_deletion_that_failed_is_not_made_up_for_when_the_index_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, image = configured(tmp_path, f"sqlite:///{tmp_path}/index.db"), builders.ct()
    with Archive(config) as archive:
        put(archive, image)
        with monkeypatch.context() as broken, pytest.raises(StorageFailed):
            fail_once_noted(broken)
            deletion(archive).delete(str(image.StudyInstanceUID), WHO)
    for _ in range(3):
        recover(config)
    for path in tmp_path.glob("index.db*"):
        path.unlink()
    assert main(["reindex", "--config", str(config.file), "--processes", "0"]) == 0
    with Archive(config) as archive:
        assert stored_bytes(archive, image) == builders.bytes_of(image)
        assert archive.index.deletion.waiting() == 0


def test_what_comes_while_its_study_is_deleted_stays(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.index.deletion.CHUNK", 2)
    uid = "1.2.3"
    for _ in range(3):
        put(archive, builders.ct(StudyInstanceUID=uid))
    late: list[Dataset] = []

    def receive(count: int) -> None:
        if len(late) < 2:
            late.append(builders.ct(StudyInstanceUID=uid))
            put(archive, late[-1])

    deletion(archive).delete(uid, WHO, rest=receive)
    assert len(late) == 2 and archive.index.statistics().instances == 2
    assert [stored_bytes(archive, each) for each in late] == [builders.bytes_of(each) for each in late]


def test_what_is_deleted_while_it_comes_again_is_not_acknowledged(archive: Archive) -> None:
    image = builders.ct()
    put(archive, image)
    mend = archive.store.mend

    def deleted(new: Any) -> bool:
        deletion(archive).delete(str(image.StudyInstanceUID), WHO)
        return mend(new)

    archive.store.mend = deleted
    with pytest.raises(OutOfResources, match="deleted at this moment") as refused:
        put(archive, image)
    assert refused.value.temporary
    archive.store.mend = mend
    assert put(archive, image) is Outcome.STORED


@pytest.mark.parametrize("how", ["an earlier version goes", "it is replaced"])
def test_who_holds_a_study_hears_so_when_nothing_of_it_can_go_any_more(
    on_postgresql: Archive, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, image = on_postgresql, builders.ct()
    for number in (1, 2):
        put(archive, again(image, InstanceNumber=number))
    holds = Holds(archive.index, Ledger(archive.volume.root / FOLDER), time.time)
    waits: list[threading.Thread] = []
    name = "among" if how == "an earlier version goes" else "of_row"
    ask: Any = getattr(held, name)

    def hold(*asked: Any) -> Any:
        found = ask(*asked)
        waits.append(in_between(lambda: holds.hold(Name(STUDY, str(image.StudyInstanceUID)), WHO)))
        assert waits[0].is_alive()
        return found

    with monkeypatch.context() as slow:
        slow.setattr(held, name, hold)
        if name == "among":
            assert RetentionRows(archive.index.database).drop_versions(time.time() + 1, 0, 10)[0] == 1
        else:
            archive.store.rules = replace(archive.store.rules, on_duplicate="replace")
            assert put(archive, again(image, InstanceNumber=3)) is Outcome.STORED
    waits[0].join(60)
    assert holds.holding(str(image.StudyInstanceUID))


def test_who_settles_what_was_moved_waits_for_the_one_who_moves_it(
    on_postgresql: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, image = on_postgresql, builders.ct()
    for number in (1, 2):
        put(archive, again(image, InstanceNumber=number))
    uid = str(image.SOPInstanceUID)
    (version,) = archive.index.versions(uid)
    found: list[set[tuple[str, str]]] = []
    waits: list[threading.Thread] = []

    def settle(*_: object) -> None:
        waits.append(in_between(lambda: found.append(archive.index.upkeep.settled(uid))))

    monkeypatch.setattr("archive.index.copies.lay_tombstones", settle)
    place = version.location
    archive.index.copies.move_version(version, Location("long-term", "new", place.offset, place.size))
    waits[0].join(60)
    assert ("long-term", "new") in found[0]


# -- a crash, and other journals ------------------------------------------------------------------


@pytest.mark.parametrize("behind", [0.0, 100.0])
def test_of_two_that_contradict_each_other_none_is_lost_with_the_rows(tmp_path: Path, behind: float) -> None:
    """A power cut takes the rows of both; the journal that is replayed first is that of the one who was refused."""
    config = configured(tmp_path, f"sqlite:///{tmp_path}/index.db")
    first = builders.ct()
    second = again(first, InstanceNumber=9)
    other = Archive(config, clock=lambda: time.time() - behind)
    one = Archive(config)
    assert (other.journal.slot, one.journal.slot) == (0, 1)
    assert put(one, first) is Outcome.STORED
    with pytest.raises(Conflict):
        put(other, second)
    crash(one)
    crash(other)
    for path in tmp_path.glob("index.db*"):
        path.unlink()
    recover(config)
    with Archive(config) as archive:
        stands, aside = (second, first) if behind else (first, second)
        assert stored_bytes(archive, stands) == builders.bytes_of(stands)
        entries = archive.index.quarantined()
        content = [(archive.volume.root / each.path).read_bytes()[each.new.location.offset :] for each in entries]
        assert builders.bytes_of(aside) in content and len(content) == (2 if behind else 1)
        assert checked(archive, digest=True) == []


def test_what_comes_back_from_the_journal_has_the_time_at_which_it_came(tmp_path: Path) -> None:
    config, image = configured(tmp_path, f"sqlite:///{tmp_path}/index.db"), builders.ct()
    archive = Archive(config, clock=lambda: 1_600_000_000.0)
    put(archive, image)
    path = path_of(archive, image)
    crash(archive)
    path.unlink()
    recover(config)
    assert path.stat().st_mtime == 1_600_000_000.0


def test_files_are_synced_on_their_volume_though_its_mount_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = Volume(tmp_path / "files", reserve=0, clock=time.time)
    volume.open(expected=False)
    path = volume.new_path()
    volume.create(path, [b"image"])
    number = (volume.root / path).stat().st_ino
    volume.root.rename(tmp_path / "away")
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_ino))
    volume.sync([path])
    assert synced == [number]


# -- damage ---------------------------------------------------------------------------------------


def rot(path: Path) -> None:
    """Other bytes, as long as before, by which nobody notices."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(times.st_mtime_ns, times.st_mtime_ns))


def test_what_is_whole_in_the_cache_alone_does_not_leave_it(tmp_path: Path, index_url: str) -> None:
    with tiered(tmp_path, index_url) as archive:
        images = study()
        for each in images:
            put(archive, each)
        copied(archive, images[0])
        rot(long_files(archive)[0])
        assert eviction(archive).make_room().files == 2
        assert all(read(archive, each) == builders.bytes_of(each) for each in images)
        (kept,) = objects(archive)
        assert copied(archive, images[0]) == 1 and eviction(archive).make_room().files == 1
        assert not kept.exists() and checked(archive, digest=True) == []


def test_room_is_made_piece_by_piece_down_to_the_low_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.services.eviction.PIECE", 1)
    with tiered(tmp_path, f"sqlite:///{tmp_path}/index.db") as archive:
        for name in ("1.2.1", "1.2.2"):
            image = study(name, 1)[0]
            put(archive, image)
            copied(archive, image)
        room = eviction(archive)
        assert [(done.studies, done.more) for done in (room.make_room() for _ in range(3))] == [
            (1, True), (1, True), (0, False),
        ]  # fmt: skip


def test_a_damaged_copy_does_not_take_the_place_of_the_file_when_the_index_is_lost(tmp_path: Path) -> None:
    with tiered(tmp_path, f"sqlite:///{tmp_path}/index.db") as archive:
        images = study()
        for each in images:
            put(archive, each)
        copied(archive, images[0])
        rot(long_files(archive)[0])
    config = configured(tmp_path, f"sqlite:///{tmp_path}/new.db", volumes=VOLUMES)
    assert main(["reindex", "--config", str(config.file), "--processes", "0"]) == 1
    with tiered(tmp_path, f"sqlite:///{tmp_path}/new.db") as archive:
        assert all(read(archive, each) == builders.bytes_of(each) for each in images)
        assert not any(archive.index.versions(str(each.SOPInstanceUID)) for each in images)
        (problem,) = checked(archive, digest=True)
        assert problem.kind is Kind.STRAY


def test_a_check_does_not_judge_what_came_since_it_began(archive: Archive) -> None:
    """The daemon may have been started since, and a row comes after its file."""
    now = [time.time() - 5]
    strays = Strays(archive.index, archive.volume, archive.integrity, archive.store, lambda: now[0], 0.0)
    now[0] += 10
    path = archive.volume.new_path()
    archive.volume.create(path, [builders.part10(builders.ct())])
    assert list(strays.find()) == [] and (archive.volume.root / path).exists()


def test_a_file_that_got_its_row_since_it_was_found_stays(archive: Archive) -> None:
    image = builders.ct()
    put(archive, image)
    path = known(archive, image).location.path
    strays = Strays(archive.index, archive.volume, archive.integrity, archive.store, time.time, 0.0)
    strays.adopt(Stray(path, read_content(archive.volume.root / path)))
    assert stored_bytes(archive, image) == builders.bytes_of(image)


# -- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["replace", "version"])
def test_what_comes_after_the_clock_was_put_back_is_what_is_found(
    tmp_path: Path, index_url: str, policy: str
) -> None:
    now = [time.time() + 3650 * DAY]
    config = configured(tmp_path, index_url, on_duplicate=policy)
    first = builders.ct()
    second = again(first, InstanceNumber=9)
    with Archive(config, clock=lambda: now[0]) as archive:
        put(archive, first)
        now[0] = time.time()
        assert put(archive, second) is Outcome.STORED
        assert stored_bytes(archive, second) == builders.bytes_of(second)
        assert len(archive.index.versions(str(first.SOPInstanceUID))) == (policy == "version")


def test_what_came_before_the_clock_was_put_back_is_kept_beside_what_a_journal_brings(tmp_path: Path) -> None:
    """Which of the two was acknowledged last is not known any more."""
    now = [time.time() + 3650 * DAY]
    config = configured(tmp_path, f"sqlite:///{tmp_path}/index.db", on_duplicate="replace")
    first = builders.ct()
    second = again(first, InstanceNumber=9)
    with Archive(config, clock=lambda: now[0]) as archive:
        put(archive, first)
    shutil.copy(tmp_path / "index.db", tmp_path / "before.db")
    kept = {path: path.read_bytes() for path in (tmp_path / "files/objects").rglob("*.dcm")}
    now[0] = time.time()
    archive = Archive(config, clock=lambda: now[0])
    put(archive, second)
    crash(archive)
    for path in tmp_path.glob("index.db*"):
        path.unlink()
    (tmp_path / "before.db").rename(tmp_path / "index.db")
    for path, content in kept.items():
        path.write_bytes(content)
    recover(config)
    with Archive(config) as archive:
        (version,) = archive.index.versions(str(first.SOPInstanceUID))
        content = (archive.volume.root / version.location.path).read_bytes()[version.location.offset :]
        assert {content, stored_bytes(archive, first)} == {builders.bytes_of(first), builders.bytes_of(second)}


@pytest.fixture
def site(tmp_path: Path, index_url: str) -> Iterator[Site]:
    made = Site(tmp_path, index_url)
    yield made
    made.close()


@pytest.mark.parametrize("by_date", [False, True])
def test_what_came_while_the_clock_was_behind_is_kept_from_now_on(site: Site, by_date: bool) -> None:
    rule = Rule("short", None, seconds=90 * DAY, by_date=by_date)
    right = site.now
    site.put(builders.ct(StudyDate="20260228"))
    site.run(rule)
    site.now = moment("20060101")
    late = site.put(ct(StudyDate=None), policy="version")
    site.now = right + 2 * DAY
    site.run(rule)
    assert late in site.studies()
    for _ in range(19):
        site.now += 5 * DAY
        site.run(rule)
    assert site.studies() == set()


def test_a_version_that_a_wrong_clock_superseded_stays(site: Site) -> None:
    image = ct()
    site.put(image)
    site.run()
    right, site.now = site.now, moment("20060101")
    site.put(again(image, StudyDate="20100301", InstanceNumber=9), policy="version")
    site.now = right + DAY
    site.run(versions=90 * DAY)
    assert len(site.index.versions(str(image.SOPInstanceUID))) == 1


def test_what_was_sent_deidentified_is_asked_for(site: Site) -> None:
    image = ct()
    uid = site.put(image)
    payload = {"sop": str(image.SOPInstanceUID), "at": site.now, "deidentify": True}
    site.index.add_tasks([NewTask("deliver", payload, study_uid=uid, lane="RESEARCH")], site.now)
    (task,) = site.index.lease("deliver", "me", site.now, seconds=9)
    site.index.finish(task.id, "me", site.now, reason="0000 (success)")
    (reason,) = site.run(Rule("old", None, years=7, needs=(Need("sent", "RESEARCH"),)))
    assert reason.startswith("not deleted: sent:RESEARCH: 1 of 1") and site.studies() == {uid}
