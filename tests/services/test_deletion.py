"""Deletion in two phases: nothing is served, no file stays, nothing comes back, whenever it is broken off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from archive.dicom.attributes import HEADER_TAGS, Level
from archive.errors import Missing, NotThere, StorageFailed
from archive.index import Index, Outcome, open_index
from archive.index.person import Person
from archive.services.commit import Committer
from archive.services.corrected import corrections_of
from archive.services.corrections import Corrections, by
from archive.services.deletion import LATER, REST, Deletion, Unlinking
from archive.services.outgoing import Outgoing, Receiver
from archive.services.retrieve import Retrieve
from archive.services.store import Origin, Rules, Store
from archive.storage.journal import Journal
from archive.storage.ledger import Ledger
from archive.storage.local import DAY, Volume
from archive.workers.unlink import UnlinkDeleted
from tests import builders
from tests.services.keeping import fail_once_noted

EXPLICIT = "1.2.840.10008.1.2.1"
WHO = ("nurse", "bad images")


class Site:
    """An archive of files and rows, and what deletes from it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.now = time.time()
        self.volume = Volume(folder / "files", reserve=0, clock=lambda: self.now)
        self.volume.open(expected=False)
        self.journal = Journal(self.volume.root / "journal", 4 << 20)
        self.open(url)

    def open(self, url: str, *, group_syncs: bool = True) -> None:
        self.index: Index = open_index(url)
        self.committer = Committer(
            volume=self.volume, index=self.index, journal=self.journal, group_syncs=group_syncs
        )
        self.committer.recover()
        rules = Rules(max_instance_size=1 << 20, wanted=HEADER_TAGS)
        self.store = Store(
            volume=self.volume, index=self.index, committer=self.committer, rules=rules, clock=lambda: self.now
        )
        self.ledger = Ledger(self.volume.root / "deletions")
        corrections = Corrections(self.index, Ledger(self.volume.root / "corrections"), lambda: self.now)
        self.corrections = corrections
        self.deletion = Deletion(self.index, corrections, self.ledger, self.volume)
        self.unlinking = Unlinking(self.index, {"main": self.volume}, lambda: self.now)

    def put(self, sent: Dataset) -> Outcome:
        reception = self.store.receive(Origin("CT1"), sent.SOPClassUID, sent.SOPInstanceUID, EXPLICIT)
        reception.write(builders.bytes_of(sent))
        return reception.finish()

    def files(self) -> list[str]:
        root = self.volume.root
        return sorted(str(path.relative_to(root)) for path in (root / "objects").rglob("*.dcm"))

    def rows(self) -> list[str]:
        found = self.index.read(lambda session: session.rows("SELECT path FROM instance"))
        return sorted(path for (path,) in found)

    def patients(self) -> list[str]:
        """Of each study."""
        sql = "SELECT p.patient_id FROM study s JOIN patient p ON p.id = s.patient"
        return [patient_id for (patient_id,) in self.index.read(lambda session: session.rows(sql))]

    def close(self) -> None:
        self.committer.close()
        self.index.close()
        self.volume.close()


@pytest.fixture
def site(tmp_path: Path, index_url: str) -> Iterator[Site]:
    made = Site(tmp_path, index_url)
    yield made
    made.close()


def images(count: int, study: str = "1.2.3", series: str = "", **more: Any) -> list[Dataset]:
    return [
        builders.ct(StudyInstanceUID=study, SeriesInstanceUID=f"{study}.{series or number % 2 + 1}", **more)
        for number in range(count)
    ]


def test_what_is_deleted_while_it_is_sent_does_not_go_out_uncorrected(site: Site) -> None:
    """Its file is still open, its corrections are gone with its row."""
    (sent,) = images(1, PatientID="WRONG")
    site.put(sent)
    site.corrections.move_studies(["1.2.3"], Person("RIGHT"), by(*WHO), values={"PatientName": "Right^One"})
    selected = site.index.known(sent.SOPInstanceUID)
    assert selected is not None and selected.corrected
    outgoing = Outgoing([corrections_of(site.index)], system="ARCHIVE", clock=time.time)
    with Retrieve(site.index, {"main": site.volume}).open(selected) as file:
        assert outgoing.changes(selected, Receiver("WS1"), file)
        site.deletion.delete("1.2.3", by(*WHO))
        with pytest.raises(Missing):
            outgoing.changes(selected, Receiver("WS1"), file)


def test_a_study_is_gone_at_once_and_its_files_by_and_by(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.services.deletion.BATCH", 3)
    sent, other = images(7), images(2, study="1.2.4")
    for each in (*sent, *other):
        site.put(each)
    done = site.deletion.delete("1.2.3", by(*WHO))
    assert (done.level, done.instances, done.operation) == (Level.STUDY, 7, 1)
    assert site.index.known(sent[0].SOPInstanceUID) is None
    counted = site.index.statistics()
    assert (counted.studies, counted.series, counted.instances) == (1, 2, 2)
    assert len(site.files()) == 9
    worker = UnlinkDeleted(site.unlinking)
    assert [worker.step() for _ in range(4)] == [REST, REST, REST, None]
    assert site.files() == site.rows() and len(site.rows()) == 2
    (noted,) = site.corrections.operations()
    assert (noted.kind, noted.actor, noted.reason) == ("delete", *WHO)
    assert noted.draft.arguments["of"] == "1.2.3" and noted.draft.arguments["instances"] == 7


@pytest.mark.parametrize("level", ["series", "instance"])
def test_a_series_or_an_instance_goes_alone(site: Site, level: str) -> None:
    sent = images(4)
    for each in sent:
        site.put(each)
    uid = "1.2.3.1" if level == "series" else sent[0].SOPInstanceUID
    left = 2 if level == "series" else 3
    assert site.deletion.would_delete(uid).instances == 4 - left
    site.deletion.delete(uid, by(*WHO))
    assert site.unlinking.all() == 4 - left
    assert site.files() == site.rows() and len(site.rows()) == left
    with pytest.raises(NotThere, match="no such study, series or instance"):
        site.deletion.delete(uid, by(*WHO))


def test_the_same_object_that_comes_again_is_stored_anew(site: Site) -> None:
    (sent,) = images(1)
    site.put(sent)
    site.deletion.delete("1.2.3", by(*WHO))
    assert site.put(sent) is Outcome.STORED
    assert len(site.files()) == 2
    site.unlinking.all()
    assert site.files() == site.rows() and len(site.rows()) == 1


def test_a_large_study_goes_in_several_transactions(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.index.deletion.CHUNK", 2)
    for each in images(5):
        site.put(each)
    site.deletion.delete("1.2.3", by(*WHO))
    assert site.index.statistics().patients == 0
    assert sum("files" in entry for entry in site.ledger.entries()) == 3
    assert site.unlinking.all() == 5 and site.files() == []


def test_a_deletion_broken_off_before_its_commit_deletes_nothing_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sent,) = images(1)
    site.put(sent)
    fail_once_noted(monkeypatch)
    with pytest.raises(StorageFailed):
        site.deletion.delete("1.2.3", by(*WHO))
    monkeypatch.undo()
    assert site.put(sent) is Outcome.EQUAL  # its sender may delete its copy now
    site.index.close()
    site.open(site.url)
    assert site.deletion.settle() == 0
    assert site.unlinking.all() == 0 and site.files() == site.rows() and len(site.rows()) == 1
    site.deletion.delete("1.2.3", by(*WHO))
    assert site.unlinking.all() == 1 and site.files() == []


@pytest.mark.parametrize("unlinked", [0, 1, 3])
@pytest.mark.parametrize("in_journal", [True, False])
def test_deleted_objects_do_not_come_back_with_a_rebuilt_index(
    site: Site, unlinked: int, in_journal: bool, tmp_path: Path, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("archive.services.deletion.BATCH", 1)
    site.index.close()
    site.open(site.url, group_syncs=in_journal)
    for each in (*images(3), *images(1, study="1.2.4")):
        site.put(each)
    site.deletion.delete("1.2.3", by(*WHO))
    for _ in range(unlinked):
        site.unlinking.some()
    site.index.close()
    make: Callable[[], str] = lambda: f"sqlite:///{tmp_path}/again.db"  # noqa: E731
    if site.url.startswith("postgresql"):
        make = request.getfixturevalue("postgresql")
    site.open(make())
    left = 3 if in_journal else 3 - unlinked  # the journal brings files back to an index that knows none
    assert site.deletion.settle() == left
    assert site.unlinking.all() == left
    assert len(site.files()) == 1
    assert site.deletion.settle() == 0
    assert site.corrections.replay() == 1


def test_a_deleted_file_is_no_earlier_version_of_what_came_after_it(site: Site, tmp_path: Path) -> None:
    """Lost with the index before it was unlinked, and found by the rebuild beside its successor."""
    (first,) = images(1)
    site.put(first)
    (place,) = site.rows()
    site.deletion.delete("1.2.3", by(*WHO))
    first.InstanceNumber = 9
    site.put(first)
    site.index.close()
    site.open(f"sqlite:///{tmp_path}/again.db")
    known = site.index.known(first.SOPInstanceUID)
    assert known is not None
    sql = (
        "INSERT INTO version SELECT NULL, id, transfer_syntax, volume, ?, data_offset, data_size, sha256, NULL, source,"
        " address, received, received FROM instance"
    )
    site.index.database.transact(lambda session: session.run(sql, (place,)))
    assert len(site.index.versions(first.SOPInstanceUID)) == 1
    site.index.deletion.look_again()
    site.deletion.settle()
    site.unlinking.all()
    assert site.index.versions(first.SOPInstanceUID) == [] and site.files() == site.rows()


def test_a_disk_that_refuses_is_tried_again_and_other_volumes_wait(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in images(2):
        site.put(each)
    site.deletion.delete("1.2.3", by(*WHO))

    def refuse(root_fd: int, names: list[str]) -> None:
        raise PermissionError(13, "read-only")

    with monkeypatch.context() as broken:
        broken.setattr("archive.services.deletion.unlink_files", refuse)
        assert site.unlinking.some() == LATER
        with pytest.raises(StorageFailed):
            site.unlinking.all()
    elsewhere = Unlinking(site.index, {}, lambda: site.now)
    assert (elsewhere.some(), elsewhere.some()) == (0.0, LATER)
    assert site.index.deletion.waiting() == 2
    site.unlinking.all()
    assert site.files() == []


def test_folders_of_former_days_go_when_they_are_empty(site: Site) -> None:
    for each in images(2):
        site.put(each)
    folder = (site.volume.root / site.files()[0]).parent
    site.deletion.delete("1.2.3.1", by(*WHO))
    site.now += 10 * DAY
    site.unlinking.all()
    assert folder.is_dir()
    site.deletion.delete("1.2.3.2", by(*WHO))
    site.unlinking.all()
    assert not folder.exists()


def test_what_was_corrected_and_deleted_leaves_nobody_behind(site: Site) -> None:
    site.put(images(1, PatientID="A")[0])
    site.put(images(1, study="1.2.4", PatientID="B")[0])
    done = site.corrections.move_studies(["1.2.3"], Person("B"), by(*WHO))
    site.deletion.delete("1.2.3", by(*WHO))
    site.deletion.delete("1.2.4", by(*WHO))
    assert site.index.statistics().patients == 0
    assert site.put(images(1, PatientID="A")[0]) is Outcome.STORED  # still B's, as long as the operation holds
    assert site.corrections.survivor(Person("A")) == Person("A")
    assert site.patients() == ["B"]
    assert done
    site.corrections.undo(done.number, by(*WHO))
    assert site.patients() == ["A"]
