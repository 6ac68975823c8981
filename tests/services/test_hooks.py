"""Hooks of routes: each route's own changes, de-identified or not at all, asked for under the UIDs that were sent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from archive.dicom.coercion import ROUTE, Action, CoerceRule
from archive.dicom.deidentify import Deidentifier
from archive.dicom.paths import parse_path
from archive.index import Index, State, StoredInstance, Task
from archive.services.changing import Changing
from archive.services.delivery import IDENTIFIED
from archive.services.destination import Conditions, Fate
from archive.services.folder import FolderReach
from archive.services.hooks import Deidentify, Hooks
from archive.services.outgoing import Outgoing
from archive.services.proof import UNPROVEN, Proof
from archive.services.routing import facts_of
from tests.dimse.archives import Archive, fill, instance, parts
from tests.services.test_delivery import SENT, TERMS, Lane

KEY = "a secret of at least thirty-two characters"
HIDDEN = Hooks(deidentify=Deidentify(Deidentifier((), KEY)))
MARKED = Hooks(coerce=("mark",))
RULE = CoerceRule(ROUTE, actions=(Action("set", parse_path("InstitutionName"), text="Marked"),), name="mark")
CHANGING = Changing("ARCHIVE", lambda: 0.0, [RULE])
STUDIES = itertools.count(2)


def test_one_image_by_two_routes_is_sent_twice_one_after_the_other(index: Index) -> None:
    terms = {"r": TERMS, "hidden": replace(TERMS, hooks=HIDDEN), "marked": replace(TERMS, hooks=MARKED)}
    lane = Lane(index, Conditions(terms=terms))
    lane.begin("a")
    lane.queue("a", route="hidden", deidentify=True)
    lane.queue("a", route="marked")
    for times in (1, 2, 3):
        lane.step(0.2)
        assert lane.peer.given.count("a") == times
        lane.step(0.2)
        assert lane.peer.given.count("a") == times
        lane.peer.answer(SENT, "a")
    lane.step(0.2)
    lane.step(0.2)
    assert {task.state for task in lane.tasks()} == {State.DONE}


@pytest.mark.parametrize("terms", [{}, {"hidden": TERMS}, {"hidden": replace(TERMS, hooks=MARKED)}])
def test_what_was_to_be_deidentified_never_goes_out_otherwise(index: Index, terms: dict[str, object]) -> None:
    lane = Lane(index, Conditions(terms=terms))  # type: ignore[arg-type]
    lane.add("a", route="hidden", deidentify=True)
    lane.step()
    lane.step(0.2)
    assert lane.peer.given == [] and lane.ends()["a"] == (State.FAILED, IDENTIFIED)


def test_a_proof_asks_under_the_uids_that_were_sent(index: Index) -> None:
    asked: list[StoredInstance] = []
    conditions = Conditions(terms={"r": replace(TERMS, verify=True, hooks=HIDDEN)})
    lane = Lane(index, conditions)

    def missing(items: Sequence[StoredInstance]) -> set[str]:
        asked.extend(items)
        return set()

    lane.peer.missing = missing  # type: ignore[method-assign]
    lane.begin("1.2.3")
    lane.peer.answer(SENT, "1.2.3")
    lane.step(0.2)
    lane.step(5)
    Proof("WS1", lane.index, lane.peer, conditions, owner="me", clock=lambda: lane.now).step()
    assert lane.ends()["1.2.3"][0] is State.DONE
    uids = {uid for each in asked for uid in (each.sop_instance_uid, each.study_uid, each.series_uid)}
    assert len(uids) >= 3 and all(uid.startswith("2.25.") for uid in uids)


@pytest.mark.parametrize("terms", [{}, {"r": replace(TERMS, verify=True, hooks=MARKED)}])
def test_nobody_is_asked_under_the_uids_it_has_here_when_the_route_is_another(
    index: Index, terms: dict[str, object]
) -> None:
    lane = Lane(index, Conditions(terms={"r": replace(TERMS, verify=True, hooks=HIDDEN)}))
    lane.begin()
    lane.add("a", deidentify=True)
    lane.step(0.2)
    lane.peer.answer(SENT, "a")
    lane.step(0.2)
    lane.step(5)
    asked: list[StoredInstance] = []
    lane.peer.missing = lambda items: set(map(str, asked.extend(items) or ()))  # type: ignore[func-returns-value, method-assign]
    Proof("WS1", lane.index, lane.peer, Conditions(terms=terms), owner="me", clock=lambda: lane.now).step()  # type: ignore[arg-type]
    assert lane.ends()["a"] == (State.FAILED, UNPROVEN)
    assert "a" not in {each.sop_instance_uid for each in asked}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with parts(tmp_path_factory.mktemp("archive")) as made:
        yield made


def written(
    archive: Archive, root: Path, hooks: Hooks | None, *objects: Dataset, outgoing: bool = True
) -> list[tuple[str, str]]:
    """Objects that are stored into a folder; what became of them."""
    fill(archive, *objects)
    root.mkdir()
    keywords = ["PatientID", "AccessionNumber", "StudyDate", "SOPInstanceUID"]

    def describe(uids: object) -> dict[str, object]:
        found = archive.index.queue.described(keywords, sop_instance_uids=uids)  # type: ignore[arg-type]
        return {each.instance.sop_instance_uid: facts_of(each) for each in found}

    reach = FolderReach(
        root, archive.retrieve.open, describe,  # type: ignore[arg-type]
        lambda task: "{PatientID}/{StudyDate}/{AccessionNumber}/{SOPInstanceUID}.dcm",
        outgoing=Outgoing([CHANGING.coerced], system="A", clock=lambda: 0.0) if outgoing else None,
        hooks=lambda task: hooks,
    )  # fmt: skip
    channel = reach.open(lambda: None)
    task = Task(1, "deliver", "folder:x", {}, State.LEASED, 0, 1, None, "", 0, None, "")
    uids = [str(each.SOPInstanceUID) for each in objects]
    channel.put([(task, each.instance) for each in archive.index.queue.described((), sop_instance_uids=uids)])
    return [(each.fate.value, each.reason) for each in channel.results()]


def test_a_folder_gets_files_and_names_that_tell_nothing(archive: Archive, tmp_path: Path) -> None:
    study = next(STUDIES)
    objects = instance(1, study=study, patient="P-77"), instance(2, study=study, patient="P-77")
    both = Hooks(("mark",), Deidentify(Deidentifier(("shift-dates", "retain-device"), KEY)))
    assert {each[0] for each in written(archive, tmp_path / "out", both, *objects)} == {Fate.SENT.value}
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 2 and len({path.parent for path in files}) == 1
    for path in files:
        ds = pydicom.dcmread(path)
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID == path.stem
        assert path.relative_to(tmp_path / "out").parts[:3] == (ds.PatientID, ds.StudyDate, "none")
        assert b"P-77" not in path.read_bytes() and ds.PatientIdentityRemoved == "YES" and len(ds.PixelData) == 8192
        assert "OriginalAttributesSequence" not in ds and ds.InstitutionName not in ("", "Marked")


def test_a_rule_for_routes_is_applied_by_those_that_name_it(archive: Archive, tmp_path: Path) -> None:
    marked = instance(3, study=next(STUDIES))
    for name, hooks in (("with", MARKED), ("without", None), ("other", Hooks(coerce=("another",)))):
        written(archive, tmp_path / name, hooks, marked)
        (path,) = (tmp_path / name).rglob("*.dcm")
        assert ("InstitutionName" in pydicom.dcmread(path)) is (name == "with")


def test_an_archive_that_changes_nothing_deidentifies_all_the_same(archive: Archive, tmp_path: Path) -> None:
    written(archive, tmp_path / "out", HIDDEN, instance(4, study=next(STUDIES), patient="P-78"), outgoing=False)
    (path,) = (tmp_path / "out").rglob("*.dcm")
    assert b"P-78" not in path.read_bytes() and pydicom.dcmread(path).PatientIdentityRemoved == "YES"


PIXELS = "not de-identified: it may show patient data in its pixels"


@pytest.mark.parametrize(
    ("sop_class", "burned_in", "send", "said"),
    [
        ("", "YES", False, PIXELS),
        ("", "NO", False, ""),
        ("", "YES", True, ""),
        (SecondaryCaptureImageStorage, "", False, PIXELS),
        (SecondaryCaptureImageStorage, "NO", False, ""),
        (SecondaryCaptureImageStorage, "", True, ""),
        ("1.2.840.10008.5.1.4.1.1.7.4", "", False, PIXELS),
        ("1.2.840.10008.5.1.4.1.1.88.11", "NO", False, "not de-identified: it is a document and may tell patient data"),
    ],
)
def test_what_may_show_who_it_is_is_refused(
    archive: Archive, tmp_path: Path, sop_class: str, burned_in: str, send: bool, said: str
) -> None:
    made = instance(1, study=next(STUDIES), **({"sop_class": sop_class} if sop_class else {}))  # type: ignore[arg-type]
    if burned_in:
        made.BurnedInAnnotation = burned_in
    hooks = Hooks(deidentify=Deidentify(Deidentifier((), KEY), send))
    ((fate, reason),) = written(archive, tmp_path / "out", hooks, made)
    assert (fate, reason) == ((Fate.REFUSED.value, said) if said else (Fate.SENT.value, "written"))
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == (not said)
    assert not list((tmp_path / "out").rglob("*.part"))


def test_an_overlay_in_the_bits_of_the_pixels_is_refused(archive: Archive, tmp_path: Path) -> None:
    made = instance(5, study=next(STUDIES))
    made.add_new(0x60000100, "US", 16)
    ((fate, reason),) = written(archive, tmp_path / "out", HIDDEN, made)
    assert fate == Fate.REFUSED.value and "overlay" in reason
