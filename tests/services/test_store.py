"""The way in, on a real volume, journal and index; no sockets."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from archive.dicom.attributes import HEADER_TAGS
from archive.errors import (
    ClassMismatch,
    Conflict,
    IndexUnavailable,
    InvalidUID,
    NotUnderstood,
    OutOfResources,
    StorageFailed,
    TooLarge,
)
from archive.index import Index, Outcome, open_index
from archive.services.commit import Committer
from archive.services.store import Origin, Rules, Store
from archive.storage.journal import Journal, Record, slots
from archive.storage.local import Volume
from tests import builders

EXPLICIT = "1.2.840.10008.1.2.1"
ORIGIN = Origin("CT1", "ARCHIVE", "10.0.0.1")
LARGE = 3 << 20  # above what the journal takes whole


class Site:
    """Everything one process holds; `crash` drops it the way kill -9 does."""

    def __init__(self, folder: Path, url: str, **rules: object) -> None:
        self.folder, self.url = folder, url
        self.index: Index = open_index(url)
        self.volume = Volume(folder / "files", reserve=0, clock=lambda: 1_700_000_000.0)
        self.volume.open(expected=self.index.statistics().instances > 0)
        self.journal = Journal(self.volume.root / "journal", 16 << 20)
        self.committer = Committer(volume=self.volume, index=self.index, journal=self.journal)
        self.completed = self.committer.recover()
        settings = {"max_instance_size": 100 << 20, "wanted": HEADER_TAGS, **rules}
        self.store = Store(
            volume=self.volume,
            index=self.index,
            committer=self.committer,
            rules=Rules(**settings),  # type: ignore[arg-type]
            clock=lambda: 1_700_000_000.0,
        )

    def put(self, data: Dataset, syntax: str = EXPLICIT, **names: str) -> Outcome:
        return self.put_bytes(builders.bytes_of(data, syntax), data, syntax, **names)

    def put_bytes(self, content: bytes, data: Dataset, syntax: str = EXPLICIT, **names: str) -> Outcome:
        sop_class = names.get("sop_class", str(data.SOPClassUID))
        sop_instance = names.get("sop_instance", str(data.SOPInstanceUID))
        reception = self.store.receive(ORIGIN, sop_class, sop_instance, syntax)
        for start in range(0, len(content), 100_000):
            reception.write(content[start : start + 100_000])
        return reception.finish()

    def objects(self) -> list[Path]:
        return sorted((self.volume.root / "objects").rglob("*.dcm"))

    def holds(self, data: Dataset, syntax: str = EXPLICIT) -> bool:
        """Whether the row, the file and every byte are there."""
        known = self.index.known(str(data.SOPInstanceUID))
        if known is None:
            return False
        content = (self.volume.root / known.location.path).read_bytes()[known.location.offset :]
        return content == builders.bytes_of(data, syntax) and hashlib.sha256(content).digest() == known.sha256

    def crash(self) -> None:
        os.close(self.journal._fd)
        self.index.close()


@pytest.fixture
def begin(tmp_path: Path, index_url: str) -> Callable[..., Site]:
    return lambda **rules: Site(tmp_path, index_url, **rules)


@pytest.fixture
def site(begin: Callable[..., Site]) -> Site:
    return begin()


@pytest.mark.parametrize("size", [0, LARGE])
def test_a_stored_object_is_bit_for_bit_what_came(site: Site, size: int) -> None:
    data = builders.ct()
    if size:
        data.add_new(0x00091010, "OB", bytes(size))
    assert site.put(data) is Outcome.STORED
    assert site.holds(data)
    assert site.volume.spool.size() == 0


def test_the_same_bytes_again_cost_no_second_file(site: Site) -> None:
    data = builders.ct()
    assert [site.put(data), site.put(data)] == [Outcome.STORED, Outcome.EQUAL]
    assert len(site.objects()) == 1 and site.index.statistics().instances == 1


def test_other_content_under_a_known_uid_goes_to_quarantine(site: Site) -> None:
    first = builders.ct()
    second = builders.ct(SOPInstanceUID=first.SOPInstanceUID, StudyInstanceUID=first.StudyInstanceUID,
                         SeriesInstanceUID=first.SeriesInstanceUID, InstanceNumber=99)  # fmt: skip
    site.put(first)
    with pytest.raises(Conflict):
        site.put(second)
    assert site.holds(first) and len(site.objects()) == 1
    (entry,) = site.index.quarantined()
    assert (site.volume.root / entry.path).exists()


def test_what_is_refused_again_is_found_among_all_that_was_refused_under_its_uid(site: Site) -> None:
    """Without reading the others: a sender that errs for days has thousands of them."""
    first = builders.ct()
    site.put(first)
    names = {name: first[name].value for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")}
    others = [builders.ct(**names, InstanceNumber=number) for number in (7, 8, 9)]
    for other in [*others, others[1]]:
        with pytest.raises(Conflict):
            site.put(other)
    assert len(site.index.quarantined()) == 3
    digest = hashlib.sha256(builders.bytes_of(others[1], EXPLICIT)).digest()
    uid = str(first.SOPInstanceUID)
    (found,) = site.index.quarantined_instances(uid, digest)
    assert found.new.sha256 == digest and len(site.index.quarantined_instances(uid)) == 3


def test_a_study_never_moves_to_another_patient(begin: Callable[..., Site]) -> None:
    site = begin(on_conflict="reject")
    first = builders.ct(PatientID="A")
    site.put(first)
    with pytest.raises(Conflict) as caught:
        site.put(builders.ct(PatientID="B", StudyInstanceUID=first.StudyInstanceUID))
    assert "B" not in caught.value.comment.split() and len(site.objects()) == 1 and not site.index.quarantined()


@pytest.mark.parametrize(
    "names, error",
    [
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.4"}, ClassMismatch),
        ({"sop_instance": "1.2.3.4"}, ClassMismatch),
    ],
)
def test_command_and_data_set_must_name_the_same_object(
    site: Site, names: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        site.put(builders.ct(), **names)
    assert site.objects() == []


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2.a", "1" * 65])
def test_a_uid_that_is_none_is_refused(site: Site, uid: str) -> None:
    data = builders.ct()
    content = builders.bytes_of(data).replace(str(data.StudyInstanceUID).encode(), uid.encode())
    with pytest.raises((InvalidUID, NotUnderstood)):
        site.put_bytes(content, data)
    assert site.objects() == []


@pytest.mark.parametrize("content", [b"", b"hello world, this is no data set at all", bytes(1000)])
def test_what_is_no_data_set_is_not_understood(site: Site, content: bytes) -> None:
    with pytest.raises(NotUnderstood):
        site.put_bytes(content, builders.ct())
    assert site.objects() == [] and site.volume.spool.size() == 0


def test_an_object_that_is_too_large_is_refused_and_nothing_kept(begin: Callable[..., Site]) -> None:
    site = begin(max_instance_size=1 << 20)
    data = builders.ct()
    data.add_new(0x00091010, "OB", bytes(2 << 20))
    with pytest.raises(TooLarge):
        site.put(data)
    assert site.objects() == [] and site.volume.spool.size() == 0


def test_below_the_reserve_nothing_is_received(site: Site) -> None:
    site.volume.reserve = 1 << 60
    site.volume._looked = -1.0
    with pytest.raises(OutOfResources, match="disk space"):
        site.put(builders.ct())


def test_a_discarded_reception_leaves_nothing(site: Site) -> None:
    data = builders.ct()
    reception = site.store.receive(ORIGIN, str(data.SOPClassUID), str(data.SOPInstanceUID), EXPLICIT)
    reception.write(bytes(LARGE))
    reception.discard()
    assert site.objects() == [] and site.volume.spool.size() == 0


def test_sixteen_senders_of_one_new_patient_make_one_patient(site: Site) -> None:
    made = [builders.ct(PatientID="NEW") for _ in range(16)]
    threads = [threading.Thread(target=site.put, args=(data,)) for data in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(site.holds(data) for data in made)
    assert site.index.statistics().patients == 1


# -- after a crash --------------------------------------------------------------------------------------


def test_what_was_acknowledged_is_there_after_a_crash(site: Site, begin: Callable[..., Site]) -> None:
    made = [builders.ct() for _ in range(5)]
    for data in made:
        site.put(data)
    site.crash()
    again = begin()
    assert all(again.holds(data) for data in made) and again.completed == 0


def test_files_lost_in_a_power_cut_come_back_from_the_journal(site: Site, begin: Callable[..., Site]) -> None:
    made = [builders.ct() for _ in range(5)]
    for data in made:
        site.put(data)
    # What was not synced may be gone: a file, half a file, a name without bytes.
    lost = [site.index.known(str(data.SOPInstanceUID)) for data in made]
    paths = [site.volume.root / each.location.path for each in lost if each]
    paths[1].unlink()
    os.truncate(paths[2], 100)
    paths[3].write_bytes(b"")
    site.crash()
    again = begin()
    assert all(again.holds(data) for data in made) and again.completed == 3


def test_rows_lost_in_a_power_cut_come_back_from_the_journal(tmp_path: Path) -> None:
    site = Site(tmp_path, f"sqlite:///{tmp_path}/index.db")
    made = [builders.ct() for _ in range(5)]
    for data in made[:2]:
        site.put(data)
    with sqlite3.connect(tmp_path / "index.db") as now, sqlite3.connect(tmp_path / "before.db") as before:
        now.backup(before)
    for data in made[2:]:
        site.put(data)
    site.crash()
    for path in tmp_path.glob("index.db*"):
        path.unlink()
    (tmp_path / "before.db").rename(tmp_path / "index.db")
    again = Site(tmp_path, site.url)
    assert all(again.holds(data) for data in made) and again.completed == 3
    assert again.index.statistics().instances == 5 and len(again.objects()) == 5


def test_a_record_that_the_crash_tore_becomes_no_object(site: Site, begin: Callable[..., Site]) -> None:
    data = builders.ct()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(site.committer, "_place", lambda arrival: False)  # killed before the file was written
        site.journal.append = _torn(site.journal)  # type: ignore[method-assign]
        with pytest.raises(OutOfResources):
            site.put(data)
    site.crash()
    again = begin()
    assert again.objects() == [] and again.index.known(str(data.SOPInstanceUID)) is None
    assert again.put(data) is Outcome.STORED and again.holds(data)


def _torn(journal: Journal) -> Callable[..., int]:
    """`append` whose last bytes never reached the disk."""
    append = journal.append

    def torn(records: list[Record]) -> int:
        append(records)
        end = journal._halves[0].position
        os.pwrite(journal._fd, bytes(50), end - 50)
        raise TypeError("killed here")

    return torn


def test_what_was_replayed_is_synced_before_the_journal_is_overwritten(site: Site, tmp_path: Path) -> None:
    data = builders.ct()
    site.put(data)
    site.crash()
    synced: list[str] = []
    original = Volume.sync
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Volume, "sync", lambda self, paths: (synced.extend(paths), original(self, paths)))
        again = Site(tmp_path, site.url)
    known = again.index.known(str(data.SOPInstanceUID))
    assert known is not None and known.location.path in synced


def test_a_fault_in_the_leader_frees_those_who_wait(site: Site) -> None:
    made = [builders.ct() for _ in range(4)]
    errors: list[Exception] = []

    def put(data: Dataset) -> None:
        try:
            site.put(data)
        except OutOfResources as error:
            errors.append(error)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(site.index, "add", lambda *_, **__: 1 / 0)
        threads = [threading.Thread(target=put, args=(data,), daemon=True) for data in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(errors) == 4 and not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("size", [0, LARGE])
def test_what_was_received_before_a_failed_sync_is_not_acknowledged_without_a_probe(site: Site, size: int) -> None:
    data = builders.ct(PixelData=bytes(size)) if size else builders.ct()
    content = builders.bytes_of(data)
    reception = site.store.receive(ORIGIN, str(data.SOPClassUID), str(data.SOPInstanceUID), EXPLICIT)
    reception.write(content)
    site.volume.failed(OSError(errno.EIO, "Input/output error"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(site.volume, "_probe", _refuse)
        with pytest.raises(OutOfResources):
            reception.finish()
    assert site.index.statistics().instances == 0 and site.objects() == []
    assert site.put(data) is Outcome.STORED


def _refuse(*_: object) -> None:
    raise StorageFailed("storage failed", "Input/output error")


def test_a_large_object_that_is_refused_leaves_no_part_behind(site: Site) -> None:
    data = builders.ct()
    data.add_new(0x00091010, "OB", bytes(LARGE))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(site.journal, "append", lambda records: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OutOfResources, match="disk space"):
            site.put(data)
    assert site.volume.spool.size() == 0 and site.objects() == []


def test_an_object_that_was_removed_is_not_brought_back(site: Site, begin: Callable[..., Site]) -> None:
    data = builders.ct()
    site.put(data)
    known = site.index.known(str(data.SOPInstanceUID))
    assert known is not None
    for location in site.index.remove([known.id]).files:
        site.volume.remove(location.path)
    site.crash()
    again = begin()
    assert again.index.known(str(data.SOPInstanceUID)) is None and again.objects() == []


def test_an_index_that_fails_leaves_no_file_and_no_row(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    data, other = builders.ct(), builders.ct()

    def unavailable(*_: object, **__: object) -> None:
        raise IndexUnavailable("index is not available")

    with monkeypatch.context() as patched:
        patched.setattr(site.index, "add", unavailable)
        with pytest.raises(IndexUnavailable):
            site.put(data)
    site.put(other)  # the index answers again: what became of the first is looked up
    assert len(site.objects()) == 1 and not site.holds(data) and site.holds(other)
    assert site.put(data) is Outcome.STORED


def test_what_was_in_doubt_is_settled_at_the_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.services.commit.DOUBTS", 7)

    def unavailable(*_: object, **__: object) -> None:
        raise IndexUnavailable("index is not available")

    with monkeypatch.context() as patched:
        patched.setattr(site.index, "add", unavailable)
        for _ in range(12):
            with pytest.raises(IndexUnavailable):
                site.put(builders.ct())
    assert len(site.objects()) == 12, "nobody can tell"
    last = builders.ct()
    site.put(last)
    assert len(site.objects()) == 5 + 1, "some with each group"
    site.committer.close()
    assert len(site.objects()) == 1 and site.holds(last)


def test_a_full_journal_is_checkpointed_and_goes_on(site: Site) -> None:
    made = [builders.ct() for _ in range(3)]
    for data in made:
        site.put(data)
    site.committer.checkpoint(everything=True)
    assert site.put(builders.ct()) is Outcome.STORED
    assert slots(site.volume.root / "journal") == [0]


def test_what_comes_after_the_end_is_refused(site: Site) -> None:
    site.put(builders.ct())
    site.committer.close()
    with pytest.raises(OutOfResources, match="shutting down"):
        site.put(builders.ct())
    assert len(site.objects()) == 1


def test_an_orderly_end_leaves_nothing_to_replay(site: Site, begin: Callable[..., Site]) -> None:
    site.put(builders.ct())
    site.committer.close()
    site.index.close()
    assert [record for half in begin().journal.replay() for record in half] == []
