"""The check both ways, and what repair makes of it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from archive.app.store import Archive
from archive.errors import Damaged
from archive.index import Outcome
from archive.index.database import Session
from archive.services.corrections import by
from archive.services.deletion import Deletion
from archive.services.fsck import POSITION, Kind
from archive.services.pace import Throttle
from archive.services.sources import Sources
from archive.services.strays import Files, Strays
from archive.storage.ledger import Ledger
from tests import builders
from tests.services.keeping import ORIGIN, checked, known, objects, opened, path_of, put, stored_bytes


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with opened(tmp_path, f"sqlite:///{tmp_path}/index.db") as found:
        yield found


def exchange(one: Path, other: Path) -> None:
    aside = one.with_suffix(".aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def flip(path: Path, offset: int, number: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[number.randrange(offset, len(data))] ^= 1 << number.randrange(8)
    path.write_bytes(data)


def test_where_all_is_well_nothing_is_said(archive: Archive) -> None:
    for _ in range(3):
        put(archive, builders.ct())
    assert checked(archive, digest=True) == []


def test_every_planted_corruption_is_found_and_none_is_sent_or_promised(archive: Archive) -> None:
    number = random.Random(5)
    made = [builders.ct(StudyInstanceUID=f"1.2.{n // 10}", SeriesInstanceUID=f"1.2.{n // 10}.1") for n in range(60)]
    for data in made:
        put(archive, data)
    victims = number.sample(made, 40)
    for count, data in enumerate(victims):
        path, location = path_of(archive, data), known(archive, data).location
        kinds: list[Callable[[], object]] = [
            lambda path=path, location=location: flip(path, location.offset, number),  # type: ignore[misc]
            lambda path=path: os.truncate(path, number.randrange(path.stat().st_size)),  # type: ignore[misc]
            lambda path=path: path.unlink(),  # type: ignore[misc]
        ]
        if count < 30:
            kinds[count % 3]()
    for one, other in zip(victims[30::2], victims[31::2], strict=True):
        exchange(path_of(archive, one), path_of(archive, other))
    found = checked(archive, digest=True)
    assert sorted(problem.uid for problem in found) == sorted(data.SOPInstanceUID for data in victims)
    assert {problem.kind for problem in found} == {Kind.MISSING, Kind.SIZE, Kind.CONTENT}
    for data in victims:
        with pytest.raises(Damaged):
            archive.retrieve.open(known(archive, data))
        with pytest.raises(Damaged):
            archive.integrity.verify(known(archive, data))


def test_files_that_changed_places_are_put_right(archive: Archive) -> None:
    made = [builders.ct() for _ in range(5)]
    for data in made:
        put(archive, data)
    exchange(path_of(archive, made[0]), path_of(archive, made[1]))
    exchange(path_of(archive, made[1]), path_of(archive, made[2]))
    found = checked(archive, digest=True, repair="adopt")
    assert len(found) == 3 and all(problem.done for problem in found)
    assert checked(archive, digest=True) == []
    assert all(stored_bytes(archive, data) == builders.bytes_of(data) for data in made)
    assert list((archive.volume.root / "lost+found").iterdir()) == []


def test_without_reading_only_names_and_lengths_are_compared(archive: Archive) -> None:
    first, second = builders.ct(), builders.ct()
    put(archive, first)
    put(archive, second)
    flip(path_of(archive, first), 400, random.Random(1))
    assert checked(archive) == []
    os.truncate(path_of(archive, second), 10)
    (problem,) = checked(archive)
    assert (problem.kind, problem.uid) == (Kind.SIZE, second.SOPInstanceUID)


def test_one_study_is_checked_alone(archive: Archive) -> None:
    first, second = builders.ct(), builders.ct()
    put(archive, first)
    put(archive, second)
    for data in (first, second):
        path_of(archive, data).unlink()
    (problem,) = checked(archive, study_uid=str(first.StudyInstanceUID))
    assert problem.uid == first.SOPInstanceUID


# -- files without rows --------------------------------------------------------------------------------


def plant(archive: Archive, content: bytes, name: str = "0999.dcm") -> Path:
    path = archive.volume.root / "objects" / "20200101" / "00c0ffee" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_without_row_is_taken_in(archive: Archive) -> None:
    data = builders.ct()
    path = plant(archive, builders.part10(data))
    (problem,) = checked(archive)
    assert (problem.kind, problem.uid, problem.done) == (Kind.STRAY, data.SOPInstanceUID, "")
    assert path.exists()
    (problem,) = checked(archive, repair="adopt")
    assert problem.done == "taken in" and not path.exists()
    assert stored_bytes(archive, data) == builders.bytes_of(data)
    received = archive.index.upkeep.received(known(archive, data))
    assert received is not None and received.source == "TEST"
    assert checked(archive, digest=True) == []


def test_a_file_without_row_is_put_aside_if_that_is_wanted(archive: Archive) -> None:
    path = plant(archive, builders.part10(builders.ct()))
    (problem,) = checked(archive, repair="aside")
    assert problem.done.startswith("moved to lost+found/") and not path.exists()
    assert len(list((archive.volume.root / "lost+found").iterdir())) == 1
    assert checked(archive) == []


def test_a_stray_copy_goes_when_what_is_stored_is_whole(archive: Archive) -> None:
    data = builders.ct()
    put(archive, data)
    before = path_of(archive, data)
    plant(archive, before.read_bytes())
    (problem,) = checked(archive, repair="adopt")
    assert problem.detail == "a copy of what is stored" and objects(archive) == [before]


def test_a_stray_copy_mends_what_is_damaged(archive: Archive) -> None:
    data = builders.ct()
    put(archive, data)
    path = path_of(archive, data)
    plant(archive, path.read_bytes())
    flip(path, 400, random.Random(1))
    found = checked(archive, repair="adopt")
    assert all(problem.done for problem in found)
    assert stored_bytes(archive, data) == builders.bytes_of(data) and len(objects(archive)) == 1


@pytest.mark.parametrize("content", [b"", b"no DICOM", bytes(1000)])
def test_what_is_no_object_goes_to_lost_and_found(archive: Archive, content: bytes) -> None:
    plant(archive, content)
    (problem,) = checked(archive, repair="adopt")
    assert problem.detail == "no DICOM object that can be read" and problem.done.startswith("moved to lost+found/")
    assert checked(archive) == []


def test_other_content_under_a_stored_uid_goes_to_lost_and_found(archive: Archive) -> None:
    data = builders.ct()
    put(archive, data)
    plant(archive, builders.part10(builders.ct(SOPInstanceUID=data.SOPInstanceUID)))
    (problem,) = checked(archive, repair="adopt")
    assert problem.detail == "other content than what is stored" and problem.done.startswith("moved to lost+found/")
    assert archive.index.quarantined() == []


def test_a_young_file_is_not_judged(archive: Archive) -> None:
    path = plant(archive, builders.part10(builders.ct()))
    assert checked(archive, grace=60.0, repair="adopt") == [] and path.exists()


def test_earlier_versions_are_no_strays_and_are_checked(tmp_path: Path) -> None:
    with opened(tmp_path, f"sqlite:///{tmp_path}/index.db", on_duplicate="version") as archive:
        first = builders.ct()
        second = builders.ct(
            SOPInstanceUID=first.SOPInstanceUID, StudyInstanceUID=first.StudyInstanceUID,
            SeriesInstanceUID=first.SeriesInstanceUID, InstanceNumber=2,
        )  # fmt: skip
        put(archive, first)
        before = path_of(archive, first)
        assert put(archive, second) is Outcome.STORED
        assert checked(archive, digest=True) == []
        os.truncate(before, 500)
        (problem,) = checked(archive, digest=True)
        assert problem.kind is Kind.SIZE and problem.path == str(before.relative_to(archive.volume.root))


def test_a_file_that_became_a_version_or_was_deleted_meanwhile_is_no_stray(tmp_path: Path) -> None:
    """The list of files is read at the beginning of a check that may take hours."""
    with opened(tmp_path, f"sqlite:///{tmp_path}/index.db", on_duplicate="version") as archive:
        first = builders.ct()
        put(archive, first)
        strays = Strays(archive.index, archive.volume, archive.integrity, archive.store, time.time, 0.0)
        path = known(archive, first).location.path
        second = builders.ct(SOPInstanceUID=first.SOPInstanceUID, SeriesInstanceUID=first.SeriesInstanceUID,
                             StudyInstanceUID=first.StudyInstanceUID, InstanceNumber=9)  # fmt: skip
        put(archive, second)
        assert strays.look(path) is None
        deletion = Deletion(archive.index, archive.corrections, Ledger(tmp_path / "files/deletions"), archive.volume)
        deletion.delete(str(first.SOPInstanceUID), by("admin", "phantom"))
        assert strays.look(path) is None


def test_what_is_taken_in_belongs_to_the_issuer_of_its_source(archive: Archive) -> None:
    data = builders.ct()
    put(archive, data, origin=replace(ORIGIN, default_issuer="H2"))
    stored = known(archive, data)
    archive.index.remove([stored.id])
    strays = Strays(
        archive.index, archive.volume, archive.integrity, archive.store, time.time, 0.0,
        Sources(issuers={ORIGIN.calling: "H2"}),
    )  # fmt: skip
    (stray,) = strays.find()
    assert strays.adopt(stray) == "taken in"
    assert archive.index.patient(str(data.PatientID), "H2") and not archive.index.patient(str(data.PatientID), "")


def test_a_set_of_files_holds_what_it_was_given() -> None:
    paths = [f"objects/20240101/0000000{n % 3}/{n:04d}.dcm" for n in range(1, 3000)] + ["objects/other"]
    files = Files(paths)
    assert all(path in files for path in paths)
    assert "objects/20240101/00000009/0001.dcm" not in files and "objects/20240101/00000001/3001.dcm" not in files


# -- the quarantine, and numbers -----------------------------------------------------------------------


def test_the_quarantine_is_checked_both_ways(archive: Archive) -> None:
    first = builders.ct()
    put(archive, first)
    for number in (1, 2):
        other = builders.ct(
            SOPInstanceUID=first.SOPInstanceUID, StudyInstanceUID=first.StudyInstanceUID,
            SeriesInstanceUID=first.SeriesInstanceUID, InstanceNumber=10 + number,
        )  # fmt: skip
        with pytest.raises(Exception, match="other content"):
            put(archive, other)
    assert checked(archive) == []
    entry = archive.index.quarantined()[0]
    (archive.volume.root / entry.path).unlink()
    (archive.volume.root / "quarantine" / "unknown.dcm").write_bytes(b"x")
    assert [problem.kind for problem in checked(archive)] == [Kind.QUARANTINE] * 2
    assert all(problem.done for problem in checked(archive, repair="adopt"))
    assert checked(archive) == [] and len(archive.index.quarantined()) == 1


def test_wrong_numbers_are_found_and_counted_again(tmp_path: Path, index_url: str) -> None:
    with opened(tmp_path / "archive", index_url) as archive:
        data = builders.ct()
        put(archive, data)
        put(archive, builders.mr(StudyInstanceUID=data.StudyInstanceUID))
        put(archive, builders.ct())
        before = archive.index.statistics()
        assert checked(archive) == []

        def spoil(session: Session) -> None:
            session.run("UPDATE study SET number_of_instances = 7, total_size = 1, modalities_in_study = 'US'")
            session.run("UPDATE study SET number_of_series = 5, sop_classes_in_study = ''")
            session.run("UPDATE series SET number_of_instances = 9")
            session.run("UPDATE patient SET number_of_studies = 9")

        archive.index.database.transact(spoil)
        found = checked(archive)
        assert {problem.kind for problem in found} == {Kind.COUNTERS} and len(found) == 3
        checked(archive, repair="adopt")
        assert checked(archive) == [] and archive.index.statistics() == before


def test_an_interrupted_check_goes_on_where_it_stopped(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.services.fsck.PAGE", 2)
    made = [builders.ct() for _ in range(6)]
    for data in made:
        put(archive, data)
    archive.index.put(POSITION, str(known(archive, made[3]).id))
    for data in made:
        flip(path_of(archive, data), 400, random.Random(1))
    found = checked(archive, digest=True, resume=True)
    assert [problem.uid for problem in found] == [data.SOPInstanceUID for data in made[4:]]
    assert archive.index.get(POSITION) == "0"


def test_reading_is_no_faster_than_told() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Throttle(1000.0, lambda: now[0], sleep)
    for _ in range(5):
        pace(500)
    assert sum(slept) == pytest.approx(2.5, abs=0.6)
    now[0] += 100  # time that was not used is not saved up
    slept.clear()
    pace(500)
    pace(500)
    assert sum(slept) > 0
    Throttle(0, time.monotonic, sleep)(10**9)
