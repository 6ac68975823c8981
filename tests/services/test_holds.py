"""Legal holds: nobody deletes what is held, whatever is corrected, and a rebuilt index knows of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.errors import NotThere, OnHold
from archive.index import open_index
from archive.index.held import ACCESSION, PATIENT, STUDY
from archive.index.person import Person
from archive.services.corrections import Corrections, by
from archive.services.holds import Holds, of_accession, of_patient, of_study
from archive.services.retention import DAY
from archive.storage.ledger import Ledger
from tests.services.retiring import OLD, Site, ct


@pytest.fixture
def site(tmp_path: Path, index_url: str) -> Iterator[Site]:
    made = Site(tmp_path, index_url)
    yield made
    made.close()


@pytest.mark.parametrize("scope", [STUDY, PATIENT, ACCESSION])
def test_what_is_held_is_deleted_by_nobody(site: Site, scope: str) -> None:
    image = ct(AccessionNumber="A1", PatientID="P1")
    uid = site.put(image)
    name = {STUDY: of_study(uid), PATIENT: of_patient("P1"), ACCESSION: of_accession("A1")}[scope]
    site.hold(name)
    assert site.run(OLD) == []
    assert "case 12" in site.rows.due(limit=1)[0].why
    for target in (uid, str(image.SeriesInstanceUID), str(image.SOPInstanceUID)):
        with pytest.raises(OnHold, match="hold 1 by lawyer: case 12"):
            site.deletion.delete(target, by("nurse", "bad"))
        with pytest.raises(OnHold):
            site.deletion.would_delete(target)
    assert site.studies() == {uid}
    site.holds().release(name, by("lawyer", "case closed"))
    assert site.holds().holds() == []
    site.deletion.delete(uid, by("nurse", "bad"))
    assert site.studies() == set()


def test_a_hold_on_a_patient_holds_what_comes_later_and_what_is_moved_away(site: Site) -> None:
    first = site.put(ct(PatientID="P1"))
    site.hold(of_patient("P1"))
    later = site.put(ct(PatientID="P1"))
    site.put(ct(PatientID="P2"))
    site.corrections.move_studies([first], Person("P2"), by("clerk", "wrong patient"))
    for uid in (first, later):
        with pytest.raises(OnHold):
            site.deletion.delete(uid, by("nurse", "bad"))


def test_a_held_object_is_kept_beside_what_takes_its_place(site: Site) -> None:
    image = ct()
    uid = site.put(image)
    site.hold(of_study(uid))
    image.PatientComments = "another content"
    site.put(image, policy="replace")
    assert len(site.index.versions(str(image.SOPInstanceUID))) == 1
    assert site.files() == 2
    site.now += 3 * DAY
    site.run(versions=DAY)
    assert len(site.index.versions(str(image.SOPInstanceUID))) == 1
    site.holds().release(of_study(uid), by("lawyer", "case closed"))
    site.run(versions=DAY)
    assert site.index.versions(str(image.SOPInstanceUID)) == []


def test_a_rebuilt_index_knows_of_holds(site: Site, tmp_path: Path) -> None:
    uid = site.put(ct())
    site.hold(of_study(uid))
    other = site.put(ct(PatientID="P9"))
    site.hold(of_patient("P9"))
    site.holds().release_number(2, by("lawyer", "mistake"))
    site.corrections.undo(3, by("lawyer", "no mistake"))
    fresh = open_index(f"sqlite:///{tmp_path}/new.db")
    Corrections(fresh, Ledger(site.volume.root / "corrections"), lambda: site.now).start()
    found = Holds(fresh, Ledger(site.volume.root / "corrections"), lambda: site.now).holds()
    assert [(each.number, each.studies) for each in found] == [(1, (uid,)), (2, (other,))]
    fresh.close()


def test_releasing_what_is_held_otherwise_names_that(site: Site) -> None:
    uid = site.put(ct(PatientID="P1"))
    with pytest.raises(NotThere):
        site.holds().release(of_study(uid), by("lawyer", "x"))
    site.hold(of_patient("P1"))
    with pytest.raises(Exception, match="release it by its number 1"):
        site.holds().release(of_study(uid), by("lawyer", "x"))
    with pytest.raises(NotThere):
        site.hold(of_patient("P7"))
