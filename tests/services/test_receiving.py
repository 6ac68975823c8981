"""Conflicts, duplicates, coercion, provenance and quarantine on a real volume, journal and index; no sockets."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from archive.dicom.coercion import Action, CoerceRule
from archive.dicom.part10 import read_file_meta
from archive.dicom.paths import parse_path
from archive.dicom.provenance import System
from archive.dicom.uids import DEFLATED, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from archive.errors import Conflict, Damaged, IndexUnavailable, TooLarge
from archive.index import Outcome
from archive.services.changing import Changing
from archive.services.compression import read_said
from archive.services.releasing import Release, Releasing
from archive.services.store import Origin
from tests import builders

from .test_store import LARGE, Site

NOW = 1_700_000_000.0
CT1 = Origin("CT1", "ARCHIVE", "10.0.0.1", local_address="10.0.0.2")
Begin = Callable[..., Site]


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    return lambda **rules: Site(tmp_path, f"sqlite:///{tmp_path}/index.db", **rules)


@pytest.fixture
def site(begin: Begin) -> Site:
    return begin()


@pytest.fixture
def begin_each(tmp_path: Path, index_url: str) -> Begin:
    """On both databases: for what the index decides."""
    return lambda **rules: Site(tmp_path, index_url, **rules)


@pytest.fixture
def each_site(begin_each: Begin) -> Site:
    return begin_each()


def put(site: Site, data: Dataset, origin: Origin = CT1, syntax: str = EXPLICIT_LITTLE) -> Outcome:
    content = builders.bytes_of(data, syntax)
    reception = site.store.receive(origin, str(data.SOPClassUID), str(data.SOPInstanceUID), syntax)
    for start in range(0, len(content), 100_000):
        reception.write(content[start : start + 100_000])
    return reception.finish()


def refused(site: Site, data: Dataset, origin: Origin = CT1) -> str:
    with pytest.raises(Conflict) as raised:
        put(site, data, origin)
    return raised.value.comment


def stored(site: Site, data: Dataset) -> Dataset:
    known = site.index.known(str(data.SOPInstanceUID))
    assert known is not None
    content = (site.volume.root / known.location.path).read_bytes()[known.location.offset :]
    assert len(content) == known.location.size
    return builders.read(content, known.transfer_syntax)


def like(first: Dataset, **overrides: Any) -> Dataset:
    """Another instance of the same series."""
    same = {name: first[name].value for name in ("StudyInstanceUID", "SeriesInstanceUID")}
    return builders.ct(**(same | overrides))


def again(first: Dataset, **overrides: Any) -> Dataset:
    """Other content under the same UID."""
    return like(first, SOPInstanceUID=first.SOPInstanceUID, **overrides)


def aside(site: Site) -> list[Path]:
    return sorted((site.volume.root / "quarantine").iterdir())


# -- contradictions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"PatientID": "P9"}, "Study Instance UID belongs to another patient"),
        ({"IssuerOfPatientID": "H2"}, "Study Instance UID belongs to another patient"),
        ({"StudyInstanceUID": "1.2.3.4"}, "Series Instance UID is in another study"),
    ],
)
def test_contradictions_go_to_quarantine_and_say_why(each_site: Site, overrides: dict[str, str], reason: str) -> None:
    site = each_site
    first = builders.ct(IssuerOfPatientID="H1")
    put(site, first)
    second = like(first, **({"IssuerOfPatientID": "H1"} | overrides))
    assert refused(site, second) == reason
    (entry,) = site.index.quarantined()
    assert (entry.reason, entry.new.header.sop_instance_uid) == (reason, second.SOPInstanceUID)
    assert aside(site) == [site.volume.root / entry.path]
    assert len(site.objects()) == 1
    assert site.index.quarantined(study_uid=str(second.StudyInstanceUID)) == [entry]
    assert site.index.quarantined(study_uid="1.2") == []


def test_an_instance_in_another_series_contradicts(each_site: Site) -> None:
    site = each_site
    first = builders.ct()
    put(site, first)
    second = again(first, SeriesInstanceUID=builders.uid())
    assert refused(site, second) == "SOP Instance UID is in another series"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Phantom^Peter", "PHANTOM^PETER", True),
        ("Phantom^Peter", "Phantom ^ Peter^^", True),
        ("Phantom^Peter", "Peter^Phantom", True),
        ("Phantom^Peter", "Phantom^Peter^A^^Dr", True),
        ("Phantom^Peter", "", True),
        ("O'Brien^Ann-Marie", "OBRIEN^ANNMARIE", True),
        ("Müller^Jörg", "MUELLER^JOERG", True),
        ("Phantom^Peter", "Phantom^Paul", False),
        ("Phantom^Peter", "Spectre^Peter", False),
    ],
)
def test_names_are_compared_as_people_read_them(begin: Begin, one: str, other: str, same: bool) -> None:
    site = begin()
    site.committer.check_names = True
    first = builders.ct(PatientName=one, SpecificCharacterSet="ISO_IR 100")
    second = builders.ct(PatientName=other, SpecificCharacterSet="ISO_IR 192")
    put(site, first)
    if same:
        assert put(site, second) is Outcome.STORED
    else:
        assert refused(site, second) == "patient name mismatch"
    site.committer.check_names = False
    assert put(site, builders.ct(PatientName=other)) is Outcome.STORED


@pytest.mark.parametrize("policy", ["reject", "accept"])
def test_other_policies_leave_no_entry(begin: Begin, policy: str) -> None:
    site = begin(on_conflict=policy)
    first = builders.ct()
    put(site, first)
    second = like(first, PatientID="P9")
    if policy == "accept":
        assert put(site, second) is Outcome.STORED and len(site.objects()) == 2
    else:
        refused(site, second)
        assert len(site.objects()) == 1
    assert site.index.quarantined() == [] and aside(site) == []


@pytest.mark.parametrize("size", [0, LARGE])
@pytest.mark.parametrize("policy", ["create", "reject", "quarantine"])
def test_objects_without_a_patient_id(begin: Begin, policy: str, size: int) -> None:
    site = begin(on_missing_patient_id=policy)
    nobody = builders.ct(PatientID="")
    if size:
        nobody.add_new(0x00091010, "OB", bytes(size))
    if policy == "create":
        assert [put(site, nobody), put(site, builders.ct(PatientID=None))] == [Outcome.STORED] * 2
        assert site.index.statistics().patients == 2
    else:
        assert refused(site, nobody) == "Patient ID is missing"
        assert len(aside(site)) == len(site.index.quarantined()) == (policy == "quarantine")
    if policy == "quarantine":
        (entry,) = site.index.quarantined()
        assert Releasing(site.store, site.index).release(entry, Release("P7")) is Outcome.STORED
        assert stored(site, nobody).PatientID == "P7" and aside(site) == []
    assert site.volume.spool.size() == 0


def test_the_issuer_of_the_sender_tells_patients_of_one_id_apart(each_site: Site) -> None:
    site = each_site
    for issuer in ("H1", "H2", "H1"):
        put(site, builders.ct(), replace(CT1, default_issuer=issuer))
    assert site.index.statistics().patients == 2
    assert site.index.patient("P0001", "H2")["PatientName"] == "Phantom^Peter"
    said = builders.ct(IssuerOfPatientID="H2")
    put(site, said, replace(CT1, default_issuer="H1"))
    assert site.index.statistics().patients == 2


# -- duplicates -------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["keep", "replace", "same_source", "version"])
def test_equal_content_costs_no_second_file(begin: Begin, policy: str) -> None:
    site = begin(on_duplicate=policy)
    first = builders.ct()
    assert [put(site, first), put(site, first)] == [Outcome.STORED, Outcome.EQUAL]
    assert len(site.objects()) == 1


@pytest.mark.parametrize("size", [0, LARGE])
def test_replace_deletes_what_no_row_points_to(begin_each: Begin, size: int) -> None:
    site = begin_each(on_duplicate="replace")
    first = builders.ct()
    second = again(first, InstanceNumber=9)
    for data in (first, second):
        data.add_new(0x00091010, "OB", bytes(size))
    put(site, first)
    assert put(site, second, replace(CT1, calling="OTHER")) is Outcome.STORED
    assert site.holds(second) and len(site.objects()) == 1
    assert site.index.statistics().instances == 1
    assert site.index.statistics().size == len(builders.bytes_of(second))


def test_same_source_replaces_its_own_only(begin_each: Begin) -> None:
    site = begin_each(on_duplicate="same_source")
    first = builders.ct()
    put(site, first)
    assert "other content" in refused(site, again(first, InstanceNumber=8), replace(CT1, calling="OTHER"))
    second = again(first, InstanceNumber=9)
    assert put(site, second) is Outcome.STORED
    assert site.holds(second) and len(site.objects()) == 1 and len(aside(site)) == 1


def test_versions_are_kept_beside_the_current_one(begin_each: Begin) -> None:
    site = begin_each(on_duplicate="version")
    first = builders.ct()
    second = again(first, InstanceNumber=9)
    put(site, first)
    assert put(site, second) is Outcome.STORED
    assert site.holds(second) and len(site.objects()) == 2
    (version,) = site.index.versions(str(first.SOPInstanceUID))
    old = (site.volume.root / version.location.path).read_bytes()[version.location.offset :]
    assert old == builders.bytes_of(first)
    assert site.index.statistics().instances == 1
    assert site.index.superseded_before(NOW + 1) == [version] and site.index.superseded_before(NOW) == []
    assert site.index.forget_versions([version.id]) == [version.location]
    assert site.index.versions(str(first.SOPInstanceUID)) == []


def test_a_crash_keeps_the_files_of_versions(begin_each: Begin) -> None:
    """The journal knows both contents, the row names one, the version the other."""
    site = begin_each(on_duplicate="version")
    first = builders.ct()
    put(site, first)
    put(site, again(first, InstanceNumber=9))
    site.crash()
    revived = begin_each(on_duplicate="version")
    (version,) = revived.index.versions(str(first.SOPInstanceUID))
    old = (revived.volume.root / version.location.path).read_bytes()[version.location.offset :]
    assert old == builders.bytes_of(first)
    assert len(revived.objects()) == 2


def test_versions_go_with_their_instance(begin_each: Begin) -> None:
    site = begin_each(on_duplicate="version")
    first = builders.ct()
    put(site, first)
    put(site, again(first, InstanceNumber=9))
    known = site.index.known(str(first.SOPInstanceUID))
    assert known is not None
    removed = site.index.remove([known.id])
    assert len({place.path for place in removed.files}) == 2


def test_the_older_file_stays_until_the_newer_is_committed(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    site = begin(on_duplicate="replace")
    first = builders.ct()
    put(site, first)

    def fail(*_: object, **__: object) -> None:
        raise IndexUnavailable("index is busy")

    with monkeypatch.context() as patch:
        patch.setattr(site.index, "add", fail)
        with pytest.raises(IndexUnavailable):
            put(site, again(first, InstanceNumber=9))
    assert site.holds(first)


@pytest.mark.parametrize("size", [0, LARGE])
def test_a_crash_before_the_older_file_is_deleted_loses_nothing(
    begin: Begin, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = begin(on_duplicate="replace")
    first = builders.ct()
    second = again(first, InstanceNumber=9)
    for data in (first, second):
        data.add_new(0x00091010, "OB", bytes(size))
    put(site, first)

    def killed(path: str) -> None:
        raise SystemExit

    monkeypatch.setattr(site.volume, "remove", killed)
    with pytest.raises(SystemExit):
        put(site, second)
    site.crash()
    revived = begin(on_duplicate="replace")
    assert revived.holds(second)
    assert len(revived.objects()) == 1, "the journal knows both, and which has its row"
    assert put(revived, second) is Outcome.EQUAL


@pytest.mark.parametrize("policy", ["keep", "replace", "version"])
def test_concurrent_duplicates_leave_one_current_instance(begin_each: Begin, policy: str) -> None:
    site = begin_each(on_duplicate=policy, on_conflict="reject")
    first = builders.ct()
    contents = [again(first, InstanceNumber=number) for number in range(12)]
    outcomes: list[object] = []

    def work(data: Dataset) -> None:
        try:
            outcomes.append(put(site, data))
        except Conflict as conflict:
            outcomes.append(conflict.comment)

    threads = [threading.Thread(target=work, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(site.holds(data) for data in contents) == 1
    versions = site.index.versions(str(first.SOPInstanceUID))
    assert len(versions) == (11 if policy == "version" else 0)
    assert len(site.objects()) == 1 + len(versions)
    assert outcomes.count(Outcome.STORED) == (1 if policy == "keep" else 12)


# -- coercion ---------------------------------------------------------------------------------

UPPER = CoerceRule("receive", actions=tuple(
    Action("upper", parse_path(name)) for name in ("PatientName", "PatientID", "AccessionNumber", "StudyID")
))  # fmt: skip


def with_rules(site: Site, *rules: CoerceRule, **more: Any) -> Site:
    site.store.changing = Changing("ARCHIVE", lambda: NOW, rules, **more)
    return site


@pytest.mark.parametrize("size", [0, LARGE])
@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, DEFLATED])
def test_a_rule_changes_what_is_stored_and_says_so(site: Site, syntax: str, size: int) -> None:
    with_rules(site, UPPER)
    data = builders.ct(PatientID="p1", PatientName="Phantom^Peter", AccessionNumber="a1", StudyID="S1")
    data.add_new(0x00091010, "OB", bytes(range(256)) * (size // 256))
    assert put(site, data, syntax=syntax) is Outcome.STORED
    got = stored(site, data)
    assert (got.PatientName, got.PatientID, got.AccessionNumber, got.StudyID) == ("PHANTOM^PETER", "P1", "A1", "S1")
    assert got.PixelData == data.PixelData and (got[0x0009, 0x1010].value or b"") == data[0x0009, 0x1010].value
    (item,) = got.OriginalAttributesSequence
    assert (item.ModifyingSystem, item.SourceOfPreviousValues) == ("ARCHIVE", "CT1")
    before = item.ModifiedAttributesSequence[0]
    assert (before.PatientName, before.PatientID, before.AccessionNumber) == ("Phantom^Peter", "p1", "a1")
    assert "StudyID" not in before
    assert site.index.patient("P1", "")["PatientName"] == "PHANTOM^PETER"
    assert site.volume.spool.size() == 0


def test_the_same_object_again_through_the_same_rule_is_equal(site: Site) -> None:
    with_rules(site, UPPER)
    data = builders.ct(PatientID="p1")
    assert [put(site, data), put(site, data)] == [Outcome.STORED, Outcome.EQUAL]
    assert len(site.objects()) == 1


def test_an_object_that_no_rule_concerns_keeps_its_bytes(site: Site) -> None:
    with_rules(site, replace(UPPER, senders=("MR*",)), replace(UPPER, receivers=("OTHER",)))
    data = builders.ct(PatientID="p1")
    put(site, data)
    assert site.holds(data)


def test_a_rule_may_change_uids_after_they_were_compared_with_the_command(site: Site) -> None:
    with_rules(site, CoerceRule("receive", actions=(Action("set", parse_path("SOPInstanceUID"), "1.2.3.99"),)))
    data = builders.ct()
    put(site, data)
    known = site.index.known("1.2.3.99")
    assert known is not None and site.index.known(str(data.SOPInstanceUID)) is None
    file = (site.volume.root / known.location.path).read_bytes()
    assert file[: known.location.offset].count(b"1.2.3.99") == 1


def test_a_crash_after_the_commit_keeps_the_coerced_object(begin: Begin) -> None:
    site = with_rules(begin(), UPPER)
    data = builders.ct(PatientID="p1")
    put(site, data)
    site.crash()
    revived = with_rules(begin(), UPPER)
    assert stored(revived, data).PatientID == "P1"
    assert put(revived, data) is Outcome.EQUAL


# -- provenance -------------------------------------------------------------------------------

SYSTEM = System("BRIT Systems, Inc.", "archive", "1.0", "PC7")


def test_provenance_says_who_sent_it_first_and_what_was_done(site: Site) -> None:
    with_rules(site, UPPER, system=SYSTEM, record=("receive", "change"))
    data = builders.ct(PatientID="p1")
    put(site, data)
    got = stored(site, data)
    assert got[0x0021, 0x0010].value == SYSTEM.creator
    assert got[0x0021, 0x1090].value == "CT1"
    received, changed = got[0x0021, 0x10A0].value
    assert [received[0x0021, element].value for element in range(0x1091, 0x1094)] == ["archive", "1.0", "PC7"]
    assert received[0x0021, 0x10A1].value == "RECEIVED"
    assert [received[0x0021, element].value for element in range(0x10A5, 0x10A9)] == [
        "ARCHIVE", "10.0.0.2", "CT1", "10.0.0.1",
    ]  # fmt: skip
    assert changed[0x0021, 0x10A1].value == "MODIFIED" and (0x0021, 0x10A7) not in changed
    before = got.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]
    assert not any(element.tag.group == 0x21 for element in before)


def test_the_original_sender_is_never_written_again(site: Site) -> None:
    with_rules(site, system=SYSTEM, record=("receive",))
    data = builders.ct()
    put(site, data)
    second = stored(site, data)
    second.SOPInstanceUID, second.SeriesInstanceUID = builders.uid(), builders.uid()
    put(site, second, replace(CT1, calling="ROUTER"))
    got = stored(site, second)
    assert got[0x0021, 0x1090].value == "CT1"
    assert [item[0x0021, 0x10A7].value for item in got[0x0021, 0x10A0].value] == ["CT1", "ROUTER"]


def test_provenance_is_silent_about_what_did_not_happen(site: Site) -> None:
    with_rules(site, UPPER, system=SYSTEM, record=("change",))
    data = builders.ct(PatientID="P1", PatientName="A^B", AccessionNumber="A1", StudyID="S1")
    put(site, data)
    assert site.holds(data)


# -- quarantine -------------------------------------------------------------------------------


def conflicting(site: Site) -> tuple[Dataset, Dataset]:
    first = builders.ct(PatientBirthDate="19600101", PatientName="Right^Person")
    put(site, first)
    second = like(first, PatientID="P9", PatientName="Wrong^Person")
    refused(site, second)
    return first, second


def test_an_object_that_is_aside_already_costs_no_second_file(each_site: Site) -> None:
    site = each_site
    _, second = conflicting(site)
    refused(site, second)
    assert len(aside(site)) == len(site.index.quarantined()) == 1
    refused(site, second, replace(CT1, calling="OTHER"))
    (entry, _) = site.index.quarantined()
    (site.volume.root / entry.path).unlink()
    refused(site, second)
    assert len(site.index.quarantined()) == 3, "a file that is gone is no copy"


def test_a_release_that_still_contradicts_leaves_the_entry(site: Site) -> None:
    _, second = conflicting(site)
    (entry,) = site.index.quarantined()
    with pytest.raises(Conflict, match="another patient"):
        Releasing(site.store, site.index).release(entry)
    assert site.index.quarantined() == [entry] and len(aside(site)) == 1 and len(site.objects()) == 1


@pytest.mark.parametrize("how", [Release("P0001"), Release(accept=True)])
def test_a_release_gives_an_object_to_its_patient_and_says_so(each_site: Site, how: Release) -> None:
    site = each_site
    first, second = conflicting(site)
    site.committer.check_names = True
    (entry,) = site.index.quarantined()
    assert Releasing(site.store, site.index).release(entry, how) is Outcome.STORED
    got = stored(site, second)
    assert (got.PatientID, got.PatientName, got.PatientBirthDate) == ("P0001", "Right^Person", "19600101")
    (item,) = got.OriginalAttributesSequence
    before = item.ModifiedAttributesSequence[0]
    assert (before.PatientID, before.PatientName) == ("P9", "Wrong^Person")
    assert item.ReasonForTheAttributeModification == "CORRECT"
    assert site.index.quarantined() == [] and aside(site) == []
    assert site.index.statistics().patients == 1
    assert put(site, second) is Outcome.EQUAL, "what was settled once is not refused again"


def test_a_released_duplicate_becomes_the_current_version(site: Site) -> None:
    first = builders.ct()
    second = again(first, InstanceNumber=9)
    put(site, first)
    refused(site, second)
    (entry,) = site.index.quarantined()
    assert Releasing(site.store, site.index).release(entry, Release(accept=True)) is Outcome.STORED
    assert stored(site, second).InstanceNumber == 9
    assert len(site.index.versions(str(first.SOPInstanceUID))) == 1


def test_rules_are_not_applied_again_at_a_release(site: Site) -> None:
    counting = CoerceRule("receive", actions=(Action("set", parse_path("StudyID"), "{StudyID}x"),))
    with_rules(site, counting)
    first = builders.ct(StudyID="S")
    put(site, first)
    second = like(first, PatientID="P9", StudyID="S")
    refused(site, second)
    (entry,) = site.index.quarantined()
    Releasing(site.store, site.index).release(entry, Release(accept=True))
    assert stored(site, second).StudyID == "Sx"


def test_a_discarded_entry_is_gone_with_its_file(site: Site) -> None:
    conflicting(site)
    (entry,) = site.index.quarantined()
    assert site.store.quarantine.discard(entry) and not site.store.quarantine.discard(entry)
    assert site.index.quarantined() == [] and aside(site) == []


def test_a_release_belongs_to_the_issuer_that_it_came_with(each_site: Site) -> None:
    """Two hospitals give out the same number: a release must not move an object from one's patient to another's."""
    site, theirs = each_site, replace(CT1, default_issuer="H2")
    first = builders.ct(PatientName="Of^H1")
    put(site, first, replace(CT1, default_issuer="H1"))
    second = like(first, PatientName="Of^H2")
    assert "another patient" in refused(site, second, theirs)
    known = site.index.known(str(first.SOPInstanceUID))
    assert known is not None
    site.index.remove([known.id])
    (entry,) = site.index.quarantined()
    assert Releasing(site.store, site.index).release(entry) is Outcome.STORED
    assert site.index.patient("P0001", "H2")["PatientName"] == "Of^H2"
    assert site.index.patient("P0001", "") == {}


def test_a_damaged_file_is_not_released(site: Site) -> None:
    conflicting(site)
    (entry,) = site.index.quarantined()
    path = site.volume.root / entry.path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged, match="damaged"):
        Releasing(site.store, site.index).release(entry, Release("P0001"))
    assert site.index.quarantined() == [entry] and len(site.objects()) == 1


def test_an_entry_without_its_file_says_so(site: Site) -> None:
    conflicting(site)
    (entry,) = site.index.quarantined()
    (site.volume.root / entry.path).unlink()
    with pytest.raises(Damaged, match="missing"):
        Releasing(site.store, site.index).release(entry, Release("P0001"))


def test_no_file_stays_when_its_row_fails(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first = builders.ct()
    put(site, first)

    def fail(*_: object) -> int:
        raise IndexUnavailable("index is busy")

    monkeypatch.setattr(site.index, "quarantine", fail)
    with pytest.raises(IndexUnavailable):
        put(site, like(first, PatientID="P9"))
    assert aside(site) == [] and len(site.objects()) == 1


def test_a_file_whose_row_a_crash_took_gets_another(each_site: Site) -> None:
    site = each_site
    _, second = conflicting(site)
    (entry,) = site.index.quarantined()
    site.index.release_quarantined(entry.id)
    assert site.store.quarantine.adopt() == 1 and site.store.quarantine.adopt() == 0
    (found,) = site.index.quarantined()
    assert found.path == entry.path and "without an entry" in found.reason
    assert (found.new.header.sop_instance_uid, found.new.source) == (second.SOPInstanceUID, "CT1")
    assert Releasing(site.store, site.index).release(found, Release("P0001")) is Outcome.STORED


# -- one patient ------------------------------------------------------------------------------


def test_first_images_of_a_patient_on_many_threads_give_one_patient(each_site: Site) -> None:
    site = each_site
    images = [builders.ct(PatientID="NEW") for _ in range(16)]
    threads = [threading.Thread(target=put, args=(site, image)) for image in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    statistics = site.index.statistics()
    assert (statistics.patients, statistics.studies, statistics.instances) == (1, 16, 16)


# -- size -------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_an_object_that_is_changed(site: Site) -> None:
    with_rules(site, UPPER)
    data = builders.ct(PatientID="p1")
    head = builders.bytes_of(data)
    head = head[: head.index(b"\xe0\x7f\x10\x00OW")]
    size, block = 96 << 20, bytes(1 << 20)
    reception = site.store.receive(CT1, str(data.SOPClassUID), str(data.SOPInstanceUID), EXPLICIT_LITTLE)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = peak()
    reception.write(head + b"\xe0\x7f\x10\x00OW\0\0" + size.to_bytes(4, "little"))
    for _ in range(size >> 20):
        reception.write(block)
    assert reception.finish() is Outcome.STORED
    assert peak() - before < 40 << 20
    known = site.index.known(str(data.SOPInstanceUID))
    assert known is not None and known.location.size > size


def peak() -> int:
    """The most memory this process has held, mapped files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def test_an_object_above_the_limit_is_refused_whatever_rules_there_are(begin: Begin) -> None:
    site = with_rules(begin(max_instance_size=2 << 20), UPPER)
    data = builders.ct(PatientID="p1")
    data.add_new(0x00091010, "OB", bytes(2 << 20))
    with pytest.raises(TooLarge):
        put(site, data)
    assert site.objects() == [] and site.volume.spool.size() == 0


def test_a_file_says_what_came_before_it_was_changed(site: Site) -> None:
    with_rules(site, UPPER)
    data = builders.ct(PatientID="p1")
    put(site, data)
    known = site.index.known(str(data.SOPInstanceUID))
    assert known is not None
    meta = read_file_meta((site.volume.root / known.location.path).read_bytes())
    said = read_said(meta.private)
    assert said is not None and said.sha256 == hashlib.sha256(builders.bytes_of(data)).digest()


def test_a_release_without_changes_stores_the_bytes_that_came(site: Site) -> None:
    first, second = conflicting(site)
    known = site.index.known(str(first.SOPInstanceUID))
    assert known is not None
    site.index.remove([known.id])  # what it contradicted has gone
    (entry,) = site.index.quarantined()
    assert Releasing(site.store, site.index).release(entry) is Outcome.STORED
    assert site.holds(second)
    now = site.index.known(str(second.SOPInstanceUID))
    assert now is not None
    received = site.index.upkeep.received(now)
    assert received is not None and received.sha256 == now.sha256
