"""The index lost, and made again from the files alone: the same answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from archive.app.keeping import compressors
from archive.app.store import Archive, recover, settle_journals
from archive.cli import main
from archive.cli.reindex import reader
from archive.config import Config
from archive.dicom import compressed as ts
from archive.dicom.query import Root
from archive.errors import ConfigurationError, Conflict
from archive.index import Index, Outcome, open_index
from archive.services.corrections import by
from archive.services.deletion import Deletion, Unlinking
from archive.services.reindex import Reindex, Report, is_unfinished
from archive.storage.ledger import Ledger
from archive.storage.local import Volume
from archive.workers.reading import in_processes
from tests import builders
from tests.dicom.pictures import picture
from tests.index.made import query
from tests.services.keeping import checked, configured, known, objects, opened, path_of, put, stored_bytes

ROOT = Path(__file__).resolve().parents[2]

# Fifty questions at all levels, by every kind of key.
QUERIES = [
    (level, key, value)
    for level in ("PATIENT", "STUDY", "SERIES", "IMAGE")
    for key, value in (
        ("PatientID", "P*"), ("PatientName", "PHANTOM*"), ("PatientName", "Müller*"), ("PatientSex", "F"),
        ("StudyDate", "20240101-20240115"), ("AccessionNumber", "A0003"), ("StudyDescription", "*knee*"),
        ("ModalitiesInStudy", "MR"), ("StudyID", "S2"), ("ReferringPhysicianName", "REF*"), ("StudyTime", "10-12"),
        ("NumberOfStudyRelatedInstances", ""),
    )
] + [("IMAGE", "PhotometricInterpretation", "MONOCHROME2"), ("IMAGE", "InstanceNumber", "2")]  # fmt: skip
RETURNED = {
    "PATIENT": ["PatientID", "PatientName", "PatientBirthDate", "NumberOfPatientRelatedStudies"],
    "STUDY": ["StudyInstanceUID", "PatientName", "StudyDescription", "ModalitiesInStudy", "SOPClassesInStudy",
              "NumberOfStudyRelatedInstances", "NumberOfStudyRelatedSeries"],
    "SERIES": ["SeriesInstanceUID", "Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances"],
    "IMAGE": ["SOPInstanceUID", "InstanceNumber", "SOPClassUID", "PhotometricInterpretation"],
}  # fmt: skip


def answers(index: Index) -> list[list[tuple[object, ...]]]:
    return [
        sorted(
            index.find(query(level, root=Root.PATIENT, **dict.fromkeys(RETURNED[level], "") | {key: value})), key=repr
        )
        for level, key, value in QUERIES
    ]


def fill(archive: Archive) -> list[Dataset]:
    """Studies whose objects do not all say the same, in several encodings and character sets."""
    made: list[Dataset] = []
    for study in range(8):
        common = {
            "PatientID": f"P{study % 5}", "PatientName": "Müller^Änne" if study % 5 == 1 else "Phantom^Peter",
            "StudyInstanceUID": f"1.2.3.{study}", "StudyDate": f"202401{study * 3 + 1:02}", "StudyID": f"S{study}",
            "AccessionNumber": f"A{study:04}", "StudyTime": f"{8 + study:02}0000",
            "PatientSex": "F" if study % 2 else None, "SpecificCharacterSet": "ISO_IR 100",
        }  # fmt: skip
        for number in range(5):
            own = {"SeriesInstanceUID": f"1.2.3.{study}.{number % 2}", "InstanceNumber": number + 1}
            if number == 3:
                own["StudyDescription"] = "said by the fourth alone, about a knee"
            make = builders.mr if study % 3 == 0 and number % 2 else builders.ct
            made.append(make(**common | own))
    for data in made:
        put(archive, data)
    return made


def lose(folder: Path) -> None:
    for path in folder.glob("index.db*"):
        if path.is_file():
            path.unlink()


def rebuilt(config: Config, *, resume: bool = False, processes: int = 0, stop_after: int = 10**9) -> Report:
    """The same as the command does."""
    settle_journals(config)
    index = open_index(config.index.url)
    volume = Volume(config.storage.path, reserve=0, clock=time.time)
    volume.open(expected=False)

    def progress(done: int) -> None:
        if done >= stop_after:
            raise InterruptedError

    try:
        work = Reindex(index, volume, reader(config), in_processes(processes))
        work.begin(resume=resume)
        return work.run(progress)
    finally:
        volume.close()
        index.close()


@pytest.fixture
def other_url(request: pytest.FixtureRequest, index_url: str, tmp_path: Path) -> str:
    """An empty index of the same kind."""
    if index_url.startswith("sqlite"):
        return f"sqlite:///{tmp_path}/other.db"
    make: Callable[[], str] = request.getfixturevalue("postgresql")
    return make()


def test_a_rebuilt_index_gives_the_same_answers(tmp_path: Path, index_url: str, other_url: str) -> None:
    with opened(tmp_path, index_url) as archive:
        fill(archive)
        before, numbers = answers(archive.index), archive.index.statistics()
    config = configured(tmp_path, other_url)
    report = rebuilt(config)
    assert (report.stored, report.unreadable, report.refused) == (40, [], [])
    with opened(tmp_path, other_url) as archive:
        assert len(QUERIES) == 50 and sum(map(len, before)) > 200
        for question, old, new in zip(QUERIES, before, answers(archive.index), strict=True):
            assert old == new, question
        assert archive.index.statistics() == numbers
        assert checked(archive, digest=True) == []
        assert archive.index.tasks() == []  # nothing is sent on again


def test_broken_off_anywhere_it_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/index.db"
    with opened(tmp_path, url) as archive:
        fill(archive)
        before = answers(archive.index)
    lose(tmp_path)
    config = configured(tmp_path, url)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("archive.services.reindex.BATCH", 4)
        patched.setattr("archive.services.reindex.CHUNK", 4)
        for stop in (1, 12, 28):
            with pytest.raises(InterruptedError):
                rebuilt(config, resume=stop > 1, stop_after=stop)
            assert is_unfinished(open_index(url))
        with pytest.raises(ConfigurationError, match="--resume"):
            rebuilt(config)
        report = rebuilt(config, resume=True)
    assert 0 < report.stored < 40
    with opened(tmp_path, url) as archive:
        assert answers(archive.index) == before and checked(archive, digest=True) == []


def test_the_daemon_does_not_serve_half_an_index(tmp_path: Path) -> None:
    from archive.app.store import recover

    config = configured(tmp_path, f"sqlite:///{tmp_path}/index.db")
    with Archive(config) as archive:
        put(archive, builders.ct())
    lose(tmp_path)
    with pytest.raises(InterruptedError):
        rebuilt(config, stop_after=0)
    with pytest.raises(ConfigurationError, match="archive reindex --resume"):
        recover(config)


def test_an_index_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/index.db"
    with opened(tmp_path, url) as archive:
        put(archive, builders.ct())
    with pytest.raises(ConfigurationError, match="not empty"):
        rebuilt(configured(tmp_path, url))


def test_what_was_compressed_is_known_by_what_was_received(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/index.db"
    data = builders.ct(rows=64, columns=64)
    with opened(tmp_path, url, compress=[{"to": "jpeg-ls"}]) as archive:
        put(archive, data)
        before = archive.index.upkeep.received(known(archive, data))
        (worker,) = compressors(archive, archive.config)
        worker.step()
        worker.close()
        assert known(archive, data).transfer_syntax == ts.JPEG_LS
    lose(tmp_path)
    rebuilt(configured(tmp_path, url))
    with opened(tmp_path, url) as archive:
        assert archive.index.upkeep.received(known(archive, data)) == before
        assert put(archive, data) is Outcome.EQUAL


def test_the_later_of_two_files_is_current_and_the_other_an_earlier_version(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/index.db"
    first = builders.ct()
    second = builders.ct(
        SOPInstanceUID=first.SOPInstanceUID, StudyInstanceUID=first.StudyInstanceUID,
        SeriesInstanceUID=first.SeriesInstanceUID, InstanceNumber=2,
    )  # fmt: skip
    with opened(tmp_path, url, on_duplicate="version") as archive:
        put(archive, first)
        put(archive, second)
        current = known(archive, first).location.path
    lose(tmp_path)
    rebuilt(configured(tmp_path, url))
    with opened(tmp_path, url) as archive:
        assert known(archive, first).location.path == current and len(objects(archive)) == 2
        assert [each.location.path for each in archive.index.upkeep.versions(0, 9)] != [current]
        assert checked(archive, digest=True) == []


def test_what_waits_in_quarantine_waits_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/index.db"
    first = builders.ct()
    with opened(tmp_path, url) as archive:
        put(archive, first)
        with pytest.raises(Exception, match="other content"):
            put(archive, builders.ct(SOPInstanceUID=first.SOPInstanceUID, StudyInstanceUID=first.StudyInstanceUID,
                                     SeriesInstanceUID=first.SeriesInstanceUID, InstanceNumber=2))  # fmt: skip
        (before,) = archive.index.quarantined()
    lose(tmp_path)
    assert rebuilt(configured(tmp_path, url)).quarantined == 1
    with opened(tmp_path, url) as archive:
        (entry,) = archive.index.quarantined()
        assert entry.path == before.path and entry.new.header == before.new.header
        assert entry.new.sha256 == before.new.sha256


def test_files_that_cannot_be_read_are_named_and_the_others_taken(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/index.db"
    made = [picture_of(n) for n in range(4)]
    with opened(tmp_path, url) as archive:
        for data in made:
            put(archive, data)
        paths = [path_of(archive, data) for data in made]
    os.truncate(paths[0], 600)
    os.truncate(paths[1], 0)
    lose(tmp_path)
    report = rebuilt(configured(tmp_path, url), processes=1)
    assert report.stored == 2 and len(report.unreadable) == 2


def picture_of(number: int) -> Dataset:
    import numpy as np

    return picture(np.full((16, 16), number, "u2"))


def test_what_only_the_journal_holds_is_there_again(tmp_path: Path) -> None:
    """A power cut took the index and the files that were not synced."""
    url = f"sqlite:///{tmp_path}/index.db"
    config = configured(tmp_path, url)
    made = [builders.ct() for _ in range(3)]
    archive = Archive(config)
    for data in made:
        put(archive, data)
    paths = [path_of(archive, data) for data in made]
    archive.index.close()
    os.close(archive.journal._fd)  # as a crash does
    os.close(archive.volume.spool._lock)
    paths[0].unlink()
    os.truncate(paths[1], 200)
    lose(tmp_path)
    assert rebuilt(config).stored == 2
    recover(config)
    with Archive(config) as again:
        assert [again.index.known(str(data.SOPInstanceUID)) is not None for data in made] == [True] * 3
        assert checked(again, digest=True) == []


def crashed(archive: Archive) -> None:
    archive.index.close()
    os.close(archive.journal._fd)
    os.close(archive.volume.spool._lock)


def test_what_was_stored_after_a_deletion_stays_when_the_journal_holds_both(tmp_path: Path) -> None:
    """The journal alone would take the newer content for a conflict with the older one, which is gone."""
    config = configured(tmp_path, f"sqlite:///{tmp_path}/index.db")
    first = builders.ct()
    same = {name: first[name].value for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")}
    second = builders.ct(**same, InstanceNumber=9)
    archive = Archive(config)
    put(archive, first)
    gone = known(archive, first)
    archive.index.remove([gone.id])
    archive.volume.remove(gone.location.path)
    assert put(archive, second) is Outcome.STORED
    crashed(archive)
    lose(tmp_path)
    rebuilt(config)
    recover(config)
    with Archive(config) as again:
        assert stored_bytes(again, second) == builders.bytes_of(second)
        assert checked(again, digest=True) == []


def test_what_was_deleted_stays_so_when_the_journal_holds_it(tmp_path: Path) -> None:
    config = configured(tmp_path, f"sqlite:///{tmp_path}/index.db")
    gone, kept = builders.ct(), builders.ct()
    archive = Archive(config)
    put(archive, gone)
    put(archive, kept)
    path = path_of(archive, gone)
    deletion = Deletion(archive.index, archive.corrections, Ledger(config.storage.path / "deletions"), archive.volume)
    deletion.delete(str(gone.SOPInstanceUID), by("admin", "phantom"))
    crashed(archive)
    lose(tmp_path)
    assert main(["reindex", "--config", str(tmp_path / "archive.yaml"), "--processes", "0"]) == 0
    with Archive(config) as again:
        assert again.index.known(str(gone.SOPInstanceUID)) is None
        assert again.index.known(str(kept.SOPInstanceUID)) is not None
        Unlinking(again.index, {again.volume.name: again.volume}, time.time).all()
        assert not path.exists() and len(objects(again)) == 1
        assert checked(again, digest=True) == []


def test_what_was_refused_stays_out_when_the_journal_holds_it(tmp_path: Path) -> None:
    config = configured(tmp_path, f"sqlite:///{tmp_path}/index.db", on_conflict="reject")
    first = builders.ct(PatientID="RIGHT")
    wrong = builders.ct(PatientID="WRONG", StudyInstanceUID=first.StudyInstanceUID)
    with Archive(config) as archive:
        put(archive, first)
    archive = Archive(config)
    with pytest.raises(Conflict):
        put(archive, wrong)
    crashed(archive)
    lose(tmp_path)
    rebuilt(config)
    recover(config)
    with Archive(config) as again:
        assert again.index.known(str(wrong.SOPInstanceUID)) is None
        assert again.index.known(str(first.SOPInstanceUID)) is not None
        assert checked(again, digest=True) == []


def test_killed_at_any_moment_it_goes_on_and_leaves_no_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/index.db"
    with opened(tmp_path, url) as archive:
        fill(archive)
        before = answers(archive.index)
    lose(tmp_path)
    command = [sys.executable, "-m", "archive", "reindex", "--config", str(tmp_path / "archive.yaml"), "--resume"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for seconds in (0.4, 0.9):
        process = subprocess.Popen(
            [*command, "--processes", "1"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait(60)
        deadline = time.monotonic() + 60
        while group_lives(process.pid):
            assert time.monotonic() < deadline, "a reading process outlived its parent"
            time.sleep(0.02)
    done = subprocess.run(command, check=False, env=environment, capture_output=True, timeout=120)
    with opened(tmp_path, url) as archive:
        # It may have ended before it was killed.
        assert done.returncode == 0 or b"not empty" in done.stderr, done.stderr.decode()
        assert answers(archive.index) == before and checked(archive, digest=True) == []


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    command = ["ps", "-o", "stat=", "-g", str(group)]
    states = subprocess.run(command, check=False, capture_output=True, text=True).stdout.split()
    return any(not state.startswith("Z") for state in states)
