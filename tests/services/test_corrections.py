"""Corrections: what they do to the index, late objects and each other; undone, repeated, rebuilt, interrupted."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from archive.dicom.attributes import Level
from archive.dicom.matching import Query, Root
from archive.errors import ArchiveError, Damaged, NotPossible, NotThere, StorageFailed
from archive.index import Index, NewInstance, Outcome, open_index
from archive.index.corrections import By
from archive.index.person import Person
from archive.services.corrections import Corrections, by
from archive.storage.ledger import Ledger
from tests.index import made
from tests.index.made import arrival, tag

A, B, C, D = Person("A"), Person("B"), Person("C"), Person("D", "HOSPITAL")

_numbers = itertools.count(1)


def who() -> By:
    return by("nurse", "wrong wristband", f"test:{next(_numbers)}")


def query(level: str, **keys: Any) -> Query:
    return made.query(level, root=Root.PATIENT if level == "PATIENT" else Root.STUDY, **keys)


def found(index: Index, level: str, returned: str, **keys: Any) -> list[Any]:
    """The values of one returned attribute, sorted."""
    wanted = query(level, **({returned: ""} | keys))
    place = [each.tag for each in wanted.returns].index(tag(returned))
    return sorted((row[place] for row in index.find(wanted)), key=str)


class Site:
    """An index, its ledger and what came for it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.came: list[NewInstance] = []
        self.open()

    def open(self) -> None:
        self.index = open_index(self.url, statement_timeout=60.0)  # many threads on a machine that does more
        self.ledger = Ledger(self.folder / "corrections")
        self.corrections = Corrections(self.index, self.ledger, lambda: 5000.0)

    def add(self, *new: NewInstance, **options: Any) -> list[Outcome]:
        self.came += new
        return [each.outcome for each in self.index.add(new, **options)]

    def seen(self) -> dict[str, Any]:
        """What a caller sees, at every level."""
        return seen(self.index)


def seen(index: Index) -> dict[str, Any]:
    keys = {
        "PATIENT": ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate",
                    "NumberOfPatientRelatedStudies"),
        "STUDY": ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber", "StudyDate", "ModalitiesInStudy",
                  "StudyDescription", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances",
                  "SOPClassesInStudy"),
        "SERIES": ("SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Modality", "SeriesDescription",
                   "RequestedProcedureID", "NumberOfSeriesRelatedInstances"),
        "IMAGE": ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID"),
    }  # fmt: skip
    answers: dict[str, Any] = {}
    for level, names in keys.items():
        wanted = query(level, **dict.fromkeys(names, ""))
        answers[level] = sorted(tuple(value or "" for value in row) for row in index.find(wanted))
    counted = index.statistics()
    return answers | {"counts": (counted.patients, counted.studies, counted.series, counted.instances, counted.size)}


def sound(index: Index) -> None:
    """Every count is what is there, and nothing empty is left."""

    def look(session: Any) -> list[Any]:
        size = "SELECT SUM(i.data_size) FROM series e JOIN instance i ON i.series = e.id WHERE e.study = s.id"
        return [
            session.rows(
                "SELECT id FROM series e WHERE number_of_instances = 0"
                " OR number_of_instances <> (SELECT COUNT(*) FROM instance WHERE series = e.id)"
            ),
            session.rows(
                "SELECT id FROM study s WHERE number_of_series = 0"
                " OR number_of_series <> (SELECT COUNT(*) FROM series WHERE study = s.id)"
                " OR number_of_instances <> (SELECT SUM(number_of_instances) FROM series WHERE study = s.id)"
                f" OR total_size <> ({size})"
            ),
            session.rows(
                "SELECT id FROM patient p WHERE (number_of_studies = 0 AND corrected = 0)"
                " OR number_of_studies <> (SELECT COUNT(*) FROM study WHERE patient = p.id)"
            ),
            session.rows("SELECT series_instance_uid FROM series WHERE series_instance_uid LIKE '%~'"),
        ]

    assert index.read(look) == [[], [], [], []]


@pytest.fixture
def site(index_url: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(index_url, tmp_path)
    made.add(
        arrival("1.1", PatientID="A", PatientName="Doe^Jane", PatientBirthDate="19700101", AccessionNumber="N1",
                StudyDate="20240101", StudyDescription="chest"),
        arrival("1.1", PatientID="A", PatientName="Doe^Jane"),
        arrival("1.2", PatientID="A", PatientName="Doe^Jane", AccessionNumber="N2"),
        arrival("2.1", PatientID="B", PatientName="Smith^John", PatientBirthDate="19800808"),
    )  # fmt: skip
    yield made
    sound(made.index)
    made.index.close()


# -- merge ----------------------------------------------------------------------------------------


def test_studies_of_a_merged_patient_are_those_of_the_other(site: Site) -> None:
    site.corrections.merge(A, B, who())
    assert found(site.index, "STUDY", "StudyInstanceUID", PatientID="B") == ["1.1", "1.2", "2.1"]
    assert found(site.index, "STUDY", "StudyInstanceUID", PatientID="A") == []
    assert found(site.index, "PATIENT", "PatientID") == ["B"]
    assert found(site.index, "PATIENT", "PatientName", PatientName="Doe*") == []
    assert found(site.index, "STUDY", "PatientName", StudyInstanceUID="1.1") == ["Smith^John"]
    assert site.index.statistics().patients == 1


def test_a_merge_is_undone_as_if_it_had_never_been(site: Site) -> None:
    before = site.seen()
    done = site.corrections.merge(A, B, who())
    assert done and site.seen() != before
    site.corrections.undo(done.number, who())
    assert site.seen() == before
    with pytest.raises(NotThere, match="not merged"):
        site.corrections.unmerge(A, who())


def test_merging_twice_or_by_the_same_name_has_no_effect(site: Site) -> None:
    name = who()
    first = site.corrections.merge(A, B, name)
    after = site.seen()
    assert site.corrections.merge(A, B, name) == first
    assert site.corrections.merge(A, B, who()) is None
    assert site.seen() == after
    assert len(site.corrections.operations()) == 1


def test_a_repeated_message_has_no_effect_even_when_its_merge_was_undone(site: Site) -> None:
    name = who()
    first = site.corrections.merge(A, B, name)
    assert first
    site.corrections.undo(first.number, who())
    before = site.seen()
    again = site.corrections.merge(A, B, name)
    assert again and again.undone_by == 2
    assert site.seen() == before


def test_self_merges_and_circles_are_refused(site: Site) -> None:
    site.add(arrival("3.1", PatientID="C"))
    with pytest.raises(NotPossible, match="into itself"):
        site.corrections.merge(A, A, who())
    site.corrections.merge(A, B, who())
    site.corrections.merge(B, C, who())
    before = site.seen()
    assert site.corrections.merge(B, A, who()) is None  # both are C by now
    for source, target in ((C, A), (C, B)):
        with pytest.raises(NotPossible, match="circle"):
            site.corrections.merge(source, target, who())
    assert site.seen() == before
    assert found(site.index, "STUDY", "PatientID") == ["C"] * 4
    assert site.corrections.survivor(A) == C


def test_a_second_merge_of_a_patient_names_the_first(site: Site) -> None:
    site.add(arrival("3.1", PatientID="C"))
    site.corrections.merge(A, B, who())
    with pytest.raises(NotPossible, match="operation 1 did that; undo it first"):
        site.corrections.merge(A, C, who())


def test_a_patient_nobody_knows_is_not_merged_by_mistake(site: Site) -> None:
    for source, target in ((C, B), (A, C)):
        with pytest.raises(NotThere, match="no such patient"):
            site.corrections.merge(source, target, who())
    site.corrections.merge(A, C, who(), values={"PatientName": "Right^Name", "PatientBirthDate": "19710102"})
    assert found(site.index, "PATIENT", "PatientName", PatientID="C") == ["Right^Name"]


def test_a_merge_that_comes_before_the_first_image_counts(site: Site) -> None:
    before = site.seen()
    done = site.corrections.merge(C, D, who(), unknown=True)
    assert done and site.seen() == before
    assert site.add(arrival("3.1", PatientID="C", PatientName="Late^One")) == [Outcome.STORED]
    assert found(site.index, "STUDY", "PatientID", StudyInstanceUID="3.1") == ["D"]
    assert site.add(arrival("3.2", PatientID="D", IssuerOfPatientID="HOSPITAL")) == [Outcome.STORED]
    assert found(site.index, "STUDY", "StudyInstanceUID", PatientID="D") == ["3.1", "3.2"]
    site.corrections.undo(done.number, who())
    assert found(site.index, "STUDY", "StudyInstanceUID", PatientID="C") == ["3.1"]
    assert found(site.index, "PATIENT", "PatientName", PatientID="C") == ["Late^One"]


def test_a_patient_gets_another_id(site: Site) -> None:
    changed = who()
    site.corrections.merge(A, D, changed, unknown=True)
    assert found(site.index, "PATIENT", "PatientName", PatientID="D") == ["Doe^Jane"]
    assert found(site.index, "PATIENT", "PatientBirthDate", IssuerOfPatientID="HOSPITAL") == ["19700101"]
    back = who()
    assert site.corrections.unmerge(A, back) == site.corrections.unmerge(A, back)
    assert found(site.index, "STUDY", "StudyInstanceUID", PatientID="A") == ["1.1", "1.2"]


def test_what_comes_late_for_a_merged_patient_goes_to_the_other_and_contradicts_nothing(site: Site) -> None:
    site.corrections.merge(A, B, who())
    late = [
        arrival("1.1", PatientID="A", PatientName="Doe^Jane"),  # known series
        arrival("1.1", "1.1.9", PatientID="A", PatientName="Doe^Jane"),  # known study
        arrival("1.3", PatientID="A", PatientName="Doe^Jane", PatientSex="F"),  # new study
        arrival("1.3", "1.3.9", PatientID="B", PatientName="Smith^John"),  # the modality knows by now
    ]
    assert [site.add(each, check_names=True) for each in late] == [[Outcome.STORED]] * 4
    assert found(site.index, "STUDY", "StudyInstanceUID", PatientID="B") == ["1.1", "1.2", "1.3", "2.1"]
    assert found(site.index, "PATIENT", "PatientSex") == [None]  # B's images said nothing of it
    assert site.add(arrival("1.3", PatientID="Z")) == [Outcome.CONFLICT]
    site.corrections.unmerge(A, who())
    assert found(site.index, "STUDY", "StudyInstanceUID", PatientID="A") == ["1.1", "1.2", "1.3"]


def test_another_process_that_remembers_the_old_rows_notices(site: Site) -> None:
    other = open_index(site.url)
    other.add([arrival("1.1", PatientID="A", PatientName="Doe^Jane")])
    site.corrections.merge(A, B, who())
    site.corrections.move_series(["1.2.1"], "2.1", who())
    assert other.add([arrival("1.1", PatientID="A")])[0].outcome is Outcome.STORED
    assert other.add([arrival("1.1", PatientID="B")])[0].outcome is Outcome.STORED
    assert other.add([arrival("1.2", PatientID="A")])[0].outcome is Outcome.STORED
    assert found(other, "STUDY", "StudyInstanceUID", PatientID="B") == ["1.1", "2.1"]
    other.close()


# -- link -----------------------------------------------------------------------------------------


def test_linked_patients_stay_apart_and_know_each_other(site: Site) -> None:
    site.add(arrival("3.1", PatientID="C"))
    before = site.seen()
    site.corrections.link(A, B, who())
    site.corrections.link(B, C, who())
    assert site.corrections.link(B, A, who()) is None
    assert site.corrections.links(A) == [B, C]
    assert site.seen() == before
    site.corrections.unlink(A, B, who())
    assert (site.corrections.links(A), site.corrections.links(C)) == ([], [B])
    with pytest.raises(NotThere, match="not linked"):
        site.corrections.unlink(A, B, who())


# -- move and split -------------------------------------------------------------------------------


def test_a_study_moves_to_another_patient_and_back(site: Site) -> None:
    before = site.seen()
    done = site.corrections.move_studies(["1.2"], B, who())
    assert done and found(site.index, "STUDY", "StudyInstanceUID", PatientID="B") == ["1.2", "2.1"]
    assert site.corrections.move_studies(["1.2"], B, who()) is None
    late = arrival("1.2", "1.2.9", PatientID="A", PatientName="Doe^Jane")
    assert site.add(late, check_names=True) == [Outcome.STORED]
    assert site.add(arrival("1.2", PatientID="A")) == [Outcome.STORED]
    assert site.add(arrival("1.2", PatientID="Z")) == [Outcome.CONFLICT]
    site.corrections.undo(done.number, who())
    assert found(site.index, "STUDY", "StudyInstanceUID", PatientID="A") == ["1.1", "1.2"]
    assert site.seen()["PATIENT"] == before["PATIENT"]


def test_the_only_study_of_a_patient_moves_and_the_patient_is_gone_until_it_comes_back(site: Site) -> None:
    before = site.seen()
    done = site.corrections.move_studies(["2.1"], A, who())
    assert found(site.index, "PATIENT", "PatientID") == ["A"]
    assert done
    site.corrections.undo(done.number, who())
    assert site.seen() == before


def test_a_study_without_patient_id_is_given_one_and_gives_it_back(site: Site) -> None:
    site.add(arrival("9.1", PatientID=None, PatientName="Unknown^Trauma", PatientSex="M"))
    before = site.seen()
    done = site.corrections.move_studies(["9.1"], B, who())
    assert found(site.index, "STUDY", "PatientName", StudyInstanceUID="9.1") == ["Smith^John"]
    assert site.add(arrival("9.1", "9.1.9", PatientID=None)) == [Outcome.STORED]
    assert done
    site.corrections.undo(done.number, who())
    assert found(site.index, "STUDY", "PatientName", StudyInstanceUID="9.1") == ["Unknown^Trauma"]
    assert site.seen()["PATIENT"] == before["PATIENT"]


def test_a_study_can_only_go_to_somebody_who_is_known_or_described(site: Site) -> None:
    with pytest.raises(NotThere, match="no such patient"):
        site.corrections.move_studies(["1.1"], D, who())
    with pytest.raises(NotThere, match="no such study"):
        site.corrections.move_studies(["7.7"], B, who())
    site.corrections.move_studies(["1.1"], D, who(), values={"PatientName": "New^One"})
    assert found(site.index, "PATIENT", "PatientName", PatientID="D", IssuerOfPatientID="HOSPITAL") == ["New^One"]


def test_some_studies_are_split_off_to_a_new_patient(site: Site) -> None:
    before = site.seen()
    done = site.corrections.split(A, ["1.2"], D, who(), values={"PatientBirthDate": "19990909"})
    assert found(site.index, "PATIENT", "PatientName", PatientID="D") == ["Doe^Jane"]
    assert found(site.index, "PATIENT", "PatientBirthDate", PatientID="D") == ["19990909"]
    assert found(site.index, "STUDY", "StudyInstanceUID", PatientID="D") == ["1.2"]
    assert site.corrections.split(A, ["1.2"], D, who()) is None
    with pytest.raises(NotPossible, match="not one of this patient's"):
        site.corrections.split(A, ["2.1"], C, who())
    with pytest.raises(NotPossible, match="known already"):
        site.corrections.split(A, ["1.1"], B, who())
    assert done
    site.corrections.undo(done.number, who())
    assert site.seen() == before


def test_series_move_to_another_study_and_back(site: Site) -> None:
    site.add(arrival("1.1", "1.1.2", PatientID="A", Modality="SR", RequestedProcedureID="R7"))
    before = site.seen()
    done = site.corrections.move_series(["1.1.2", "1.2.1"], "2.1", who())
    assert found(site.index, "SERIES", "SeriesInstanceUID", StudyInstanceUID="2.1") == ["1.1.2", "1.2.1", "2.1.1"]
    assert found(site.index, "STUDY", "ModalitiesInStudy", StudyInstanceUID="2.1") == ["CT\\SR"]
    assert found(site.index, "STUDY", "ModalitiesInStudy", StudyInstanceUID="1.1") == ["CT"]
    assert found(site.index, "STUDY", "StudyInstanceUID") == ["1.1", "2.1"]  # 1.2 is empty
    assert found(site.index, "SERIES", "SeriesInstanceUID", RequestedProcedureID="R7") == ["1.1.2"]
    sound(site.index)
    for late in (arrival("1.1", "1.1.2", PatientID="A", Modality="SR"), arrival("1.2", PatientID="A")):
        assert site.add(late) == [Outcome.STORED]
    assert site.add(arrival("1.7", "1.1.2", PatientID="A")) == [Outcome.CONFLICT]
    assert found(site.index, "STUDY", "StudyInstanceUID") == ["1.1", "2.1"]
    assert done
    site.corrections.undo(done.number, who())
    assert [row[:2] for row in site.seen()["SERIES"]] == [row[:2] for row in before["SERIES"]]
    assert site.seen()["PATIENT"] == before["PATIENT"]


def test_series_make_a_new_study_of_their_own(site: Site) -> None:
    site.add(arrival("1.1", "1.1.2", PatientID="A"))
    before = site.seen()
    done = site.corrections.move_series(["1.1.2"], "", who())
    assert done
    uid = done.draft.arguments["to"]
    assert uid.startswith("2.25.") and found(site.index, "STUDY", "AccessionNumber", StudyInstanceUID=uid) == ["N1"]
    site.corrections.undo(done.number, who())
    assert site.seen() == before


def test_instances_move_to_another_series_and_are_known_when_they_come_again(site: Site) -> None:
    extra = arrival("1.1", sop="1.1.1.77", PatientID="A", digest=b"7" * 32)
    alone = arrival("1.4", sop="1.4.1.77", PatientID="A", digest=b"8" * 32)
    site.add(extra, alone)
    before = site.seen()
    done = site.corrections.move_instances(["1.1.1.77", "1.4.1.77"], "2.1.1", who())
    assert found(site.index, "IMAGE", "SOPInstanceUID", SeriesInstanceUID="2.1.1")[:2] == ["1.1.1.77", "1.4.1.77"]
    assert "1.4" not in found(site.index, "STUDY", "StudyInstanceUID")
    sound(site.index)
    again = [arrival("1.1", sop="1.1.1.77", PatientID="A", digest=b"7" * 32),
             arrival("1.4", sop="1.4.1.77", PatientID="A", digest=b"8" * 32)]  # fmt: skip
    assert [each.outcome for each in site.index.add(again)] == [Outcome.EQUAL] * 2
    sound(site.index)
    other = arrival("1.4", sop="1.4.1.78", PatientID="A")
    assert site.add(other) == [Outcome.STORED]
    assert found(site.index, "STUDY", "PatientID", StudyInstanceUID="1.4") == ["A"]
    site.index.remove([site.index.known("1.4.1.78").id])  # type: ignore[union-attr]
    assert done
    site.corrections.undo(done.number, who())
    assert site.seen() == before


def test_instances_of_one_series_make_a_new_one(site: Site) -> None:
    site.add(arrival("1.1", sop="1.1.1.77", PatientID="A"))
    site.add(arrival("1.1", "1.1.5", sop="1.1.5.1", Modality="SR", PatientID="A"))
    before = site.seen()
    with pytest.raises(NotPossible, match="one modality"):
        site.corrections.move_instances(["1.1.1.77"], "1.1.5", who())
    done = site.corrections.move_instances(["1.1.1.77"], "", who(), study="1.2")
    assert done and found(site.index, "IMAGE", "StudyInstanceUID", SOPInstanceUID="1.1.1.77") == ["1.2"]
    site.corrections.undo(done.number, who())
    assert site.seen() == before


# -- edit -----------------------------------------------------------------------------------------


def test_attributes_are_edited_found_and_put_back(site: Site) -> None:
    before = site.seen()
    numbers = []
    for level, owner, values in (
        (Level.PATIENT, A, {"PatientName": "Dough^Jane=山田^花子", "PatientBirthDate": None}),
        (Level.STUDY, "1.1", {"AccessionNumber": "N9", "StudyDate": "20231231", "StudyDescription": ""}),
        (Level.SERIES, "1.1.1", {"Modality": "MR", "SeriesDescription": "head",
                                 "RequestAttributesSequence": '[{"RequestedProcedureID": "R1"}]'}),
    ):  # fmt: skip
        done = site.corrections.edit(level, owner, values, who())  # type: ignore[arg-type]
        assert done and site.corrections.edit(level, owner, values, who()) is None  # type: ignore[arg-type]
        numbers.append(done.number)
    assert found(site.index, "STUDY", "StudyInstanceUID", PatientName="dough^jane") == ["1.1", "1.2"]
    assert found(site.index, "STUDY", "StudyInstanceUID", PatientName="=山田*") == ["1.1", "1.2"]
    assert found(site.index, "STUDY", "StudyInstanceUID", StudyDate="20231231", ModalitiesInStudy="MR") == ["1.1"]
    assert found(site.index, "STUDY", "StudyInstanceUID", AccessionNumber="N1") == []
    assert found(site.index, "SERIES", "SeriesInstanceUID", RequestedProcedureID="R1") == ["1.1.1"]
    for number in numbers:
        site.corrections.undo(number, who())
    assert site.seen() == before
    assert found(site.index, "STUDY", "StudyInstanceUID", PatientName="doe*") == ["1.1", "1.2"]


def test_late_objects_change_nothing_that_was_edited(site: Site) -> None:
    site.corrections.edit(Level.PATIENT, A, {"PatientName": "Dough^Jane", "PatientBirthDate": None}, who())
    site.corrections.edit(Level.STUDY, "1.1", {"AccessionNumber": ""}, who())
    late = {"PatientID": "A", "PatientName": "Doe^Jane", "PatientBirthDate": "19700101", "AccessionNumber": "N1"}
    for new in (arrival("1.1", **late), arrival("1.1", "1.1.3", **late), arrival("1.5", **late)):
        assert site.add(new, check_names=True) == [Outcome.STORED]
    assert found(site.index, "PATIENT", "PatientName", PatientID="A") == ["Dough^Jane"]
    assert found(site.index, "PATIENT", "PatientBirthDate", PatientID="A") == [None]
    assert found(site.index, "STUDY", "AccessionNumber", StudyInstanceUID="1.1") == [""]
    assert site.add(arrival("1.1", PatientID="A", PatientName="Somebody^Else"), check_names=True) == [Outcome.CONFLICT]


def test_the_last_of_several_edits_holds_and_they_are_undone_in_order(site: Site) -> None:
    first = site.corrections.edit(Level.STUDY, "1.1", {"AccessionNumber": "X1"}, who())
    second = site.corrections.edit(Level.STUDY, "1.1", {"AccessionNumber": "X2", "StudyID": "7"}, who())
    assert first and second
    with pytest.raises(NotPossible, match="operation 2 .edit.; undo that one first"):
        site.corrections.undo(first.number, who())
    site.corrections.undo(second.number, who())
    assert found(site.index, "STUDY", "AccessionNumber", StudyInstanceUID="1.1") == ["X1"]
    site.corrections.undo(first.number, who())
    assert site.corrections.undo(first.number, who()) is None
    assert found(site.index, "STUDY", "AccessionNumber", StudyInstanceUID="1.1") == ["N1"]


@pytest.mark.parametrize(
    ("level", "values", "words"),
    [
        (Level.PATIENT, {"PatientID": "Z"}, "merge the patient"),
        (Level.STUDY, {"StudyInstanceUID": "1.9"}, "move its series"),
        (Level.STUDY, {"PatientName": "X"}, "no attribute that can be edited"),
        (Level.STUDY, {"NumberOfStudyRelatedSeries": "1"}, "no attribute that can be edited"),
        (Level.SERIES, {"FrameOfReferenceUID": "1.2"}, "no attribute that can be edited"),
        (Level.STUDY, {"AccessionNumber": "12345678901234567"}, "16 characters"),
        (Level.STUDY, {"AccessionNumber": "A\\B"}, "one value"),
        (Level.STUDY, {"StudyDate": "20240230"}, "YYYYMMDD"),
        (Level.STUDY, {"StudyTime": "2561"}, "HHMMSS"),
        (Level.PATIENT, {"PatientSex": "female"}, "capital letters"),
        (Level.PATIENT, {"PatientName": "A\x1b$BB"}, "control character"),
        (Level.PATIENT, {"PatientName": "A\ud800"}, "no character"),
        (Level.STUDY, {"ProcedureCodeSequence": "[{}, {}]"}, "JSON list of one item"),
        (Level.STUDY, {"ProcedureCodeSequence": '[{"CodeValue": "12345678901234567"}]'}, "16 characters"),
        (Level.STUDY, {}, "nothing is to be changed"),
    ],
)
def test_what_cannot_be_a_value_is_refused_in_words(
    tmp_path: Path, level: Level, values: dict[str, Any], words: str
) -> None:
    site = Site(f"sqlite:///{tmp_path}/index.db", tmp_path)
    with pytest.raises(NotPossible, match=words):
        site.corrections.edit(level, A if level is Level.PATIENT else "1.1", values, who())
    site.index.close()


def test_nobody_and_no_reason_are_refused() -> None:
    for actor, reason in (("", "x"), ("x", " "), ("x" * 65, "y"), ("x", "y\x00")):
        with pytest.raises(NotPossible, match="needs its"):
            by(actor, reason)


# -- one after the other --------------------------------------------------------------------------


def test_undo_names_what_rests_on_an_operation(site: Site) -> None:
    site.add(arrival("3.1", PatientID="C"))
    steps: list[Callable[[], Any]] = [
        lambda: site.corrections.merge(A, B, who()),
        lambda: site.corrections.move_studies(["1.1"], C, who()),
        lambda: site.corrections.edit(Level.STUDY, "1.1", {"AccessionNumber": "Q"}, who()),
        lambda: site.corrections.merge(B, C, who()),
    ]
    seen = [site.seen()]
    for step in steps:
        assert step()
        seen.append(site.seen())
    for number, words in ((1, "operation 4"), (2, "")):
        if words:
            with pytest.raises(NotPossible, match=words):
                site.corrections.undo(number, who())
    for number in (4, 3, 2, 1):
        site.corrections.undo(number, who())
        assert site.seen() == seen[number - 1]
    with pytest.raises(NotPossible, match="cannot be undone"):
        site.corrections.undo(5, who())
    with pytest.raises(NotThere, match="no such operation"):
        site.corrections.undo(99, who())


def test_an_edit_outlives_a_later_move_and_its_undoing(site: Site) -> None:
    site.corrections.edit(Level.PATIENT, B, {"PatientName": "Smythe^John"}, who())
    move = site.corrections.move_studies(["2.1"], A, who())
    assert found(site.index, "STUDY", "PatientName", StudyInstanceUID="2.1") == ["Doe^Jane"]
    assert move
    site.corrections.undo(move.number, who())
    assert found(site.index, "STUDY", "PatientName", StudyInstanceUID="2.1") == ["Smythe^John"]


def test_a_dry_run_says_what_would_be_and_keeps_nothing(site: Site) -> None:
    before = site.seen()
    tried = site.corrections.merge(A, B, who(), dry_run=True)
    assert tried and tried.draft.arguments == {"patient": "A", "into": "B", "studies": ["1.1", "1.2"]}
    assert site.seen() == before
    assert site.corrections.operations() == [] and site.ledger.last() == 0


def test_the_journal_says_who_why_and_when_and_is_found_by_what_it_is_about(site: Site) -> None:
    site.corrections.merge(A, B, by("alice", "same person", "hl7:4711"))
    site.corrections.edit(Level.STUDY, "1.1", {"AccessionNumber": "Q"}, who())
    latest = site.corrections.operations()
    assert [each.number for each in latest] == [2, 1]
    first = latest[1]
    assert (first.actor, first.reason, first.id, first.when) == ("alice", "same person", "hl7:4711", 5000.0)
    for about, numbers in (("A", [1]), ("A\\", [1]), ("1.1", [2]), ("Z", [])):
        assert [each.number for each in site.corrections.operations(about=about)] == numbers
    assert [each.number for each in site.corrections.operations(before=2, limit=5)] == [1]


# -- durable --------------------------------------------------------------------------------------


def everything(site: Site) -> None:
    jane = {"PatientID": "A", "PatientName": "Doe^Jane"}
    site.add(arrival("1.1", "1.1.2", sop="1.1.2.1", **jane), arrival("3.1", PatientID="C", PatientName="Cee"))
    site.add(arrival("9.1", PatientID=None, PatientName="Unknown"), arrival("1.1", sop="1.1.1.77", **jane))
    done = site.corrections
    done.edit(Level.PATIENT, B, {"PatientName": "Smythe^John", "PatientBirthDate": "19811111"}, who())
    done.edit(Level.STUDY, "1.1", {"AccessionNumber": "Q", "StudyDate": "20200202"}, who())
    done.merge(A, B, who())
    done.link(B, C, who())
    done.move_series(["1.1.2"], "", who())
    done.move_studies(["9.1"], D, who(), values={"PatientName": "Found^Out"})
    done.split(B, ["1.2"], Person("E"), who())
    done.move_instances(["1.1.1.77"], "3.1.1", who())
    done.edit(Level.SERIES, "1.1.1", {"SeriesDescription": "right"}, who())
    gone = done.edit(Level.STUDY, "3.1", {"StudyDescription": "undone"}, who())
    assert gone
    done.undo(gone.number, who())
    done.merge(Person("F"), C, who(), unknown=True)
    site.add(arrival("6.1", PatientID="F"))


def rebuilt(site: Site, postgresql_url: Callable[[], str] | None, tmp_path: Path, name: str) -> Site:
    url = postgresql_url() if postgresql_url else f"sqlite:///{tmp_path}/{name}.db"
    again = Site(url, site.folder)
    again.came = site.came
    return again


@pytest.mark.parametrize(
    ("index_url", "order"),
    [("sqlite", "objects first"), ("sqlite", "objects last"), ("sqlite", "backwards"), ("sqlite", "half and half"),
     ("postgresql", "half and half")],
    indirect=["index_url"],
)  # fmt: skip
def test_a_rebuilt_index_gives_the_same_answers_and_can_still_undo(
    site: Site, order: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    everything(site)
    make = request.getfixturevalue("postgresql") if site.url.startswith("postgresql") else None
    again = rebuilt(site, make, tmp_path, "again")
    objects = site.came[::-1] if order == "backwards" else site.came
    half = {"objects first": len(objects), "objects last": 0}.get(order, len(objects) // 2)
    for new in objects[:half]:
        again.index.add([new])
    assert again.corrections.replay() == site.ledger.last()
    for new in objects[half:]:
        assert again.index.add([new])[0].outcome is Outcome.STORED
    sound(again.index)
    assert again.seen() == site.seen()
    assert again.corrections.operations() == site.corrections.operations()
    assert again.corrections.links(C) == site.corrections.links(C) == [B]
    for number in (12, 9, 8, 7, 6, 5, 4, 3, 2, 1):
        for each in (site, again):
            each.corrections.undo(number, by("x", "y", f"undo:{number}"))
        assert site.seen() == again.seen(), number
    sound(again.index)
    again.index.close()


def test_what_a_crash_kept_from_the_index_is_carried_out_at_the_start(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: Ledger, entry: dict[str, Any]) -> int:
        append(self, entry)
        raise StorageFailed("the power is gone")

    append = Ledger.append
    monkeypatch.setattr(Ledger, "append", crash)
    with pytest.raises(StorageFailed):
        site.corrections.merge(A, B, by("x", "y", "hl7:1"))
    monkeypatch.undo()
    assert found(site.index, "STUDY", "PatientID") == ["A", "A", "B"]
    site.open()
    assert site.corrections.replay() == 1
    assert found(site.index, "STUDY", "PatientID") == ["B", "B", "B"]
    assert site.corrections.replay() == 0
    known = site.corrections.merge(A, B, by("x", "y", "hl7:1"))
    assert known and known.number == 1


def test_an_entry_without_row_is_settled_before_the_next_operation(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    append = Ledger.append
    monkeypatch.setattr(Ledger, "append", lambda self, entry: [append(self, entry), 1 / 0])
    with pytest.raises(ZeroDivisionError):
        site.corrections.edit(Level.STUDY, "1.1", {"StudyID": "1"}, who())
    monkeypatch.undo()
    site.corrections.edit(Level.STUDY, "1.2", {"StudyID": "2"}, who())
    assert [each.number for each in site.corrections.operations()] == [2, 1]
    assert found(site.index, "STUDY", "StudyID", StudyID="1") == ["1"]


def test_a_refused_operation_leaves_nothing_anywhere(site: Site) -> None:
    before = site.seen()
    with pytest.raises(ArchiveError):
        site.corrections.move_studies(["1.1", "7.7"], B, who())
    assert site.seen() == before
    assert site.ledger.last() == 0


def test_a_ledger_that_was_lost_is_written_again_from_the_index(site: Site) -> None:
    site.corrections.merge(A, B, who())
    site.corrections.edit(Level.STUDY, "1.1", {"StudyID": "1"}, who())
    before = [{key: value for key, value in entry.items() if key != "after"} for entry in site.ledger.entries()]
    for file in site.ledger.folder.glob("*.jsonl"):
        file.unlink()
    site.open()
    assert site.corrections.replay() == 2
    again = [{key: value for key, value in entry.items() if key != "after"} for entry in site.ledger.entries()]
    assert json.loads(json.dumps(again)) == before


def test_the_ledger_of_another_archive_is_refused(site: Site, tmp_path: Path) -> None:
    site.corrections.merge(A, B, by("x", "y", "mine"))
    other = Site(f"sqlite:///{tmp_path}/other.db", tmp_path / "other")
    (tmp_path / "other").mkdir()
    other.add(arrival("1.1", PatientID="A"), arrival("2.1", PatientID="B"))
    other.corrections.merge(A, B, by("x", "y", "theirs"))
    mixed = Corrections(site.index, other.ledger, lambda: 0.0)
    with pytest.raises(Damaged, match="another's"):
        mixed.replay()
    other.index.close()


def test_an_altered_ledger_stops_corrections_and_not_the_archive(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site.corrections.merge(A, B, who())
    site.corrections.edit(Level.STUDY, "1.1", {"StudyID": "1"}, who())
    (file,) = site.ledger.folder.glob("*.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"merge"', b'"Merge"'))
    site.open()
    site.corrections.start()
    assert "ledger was altered" in caplog.text and str(site.ledger.folder) in caplog.text
    with pytest.raises(Damaged):
        site.corrections.edit(Level.STUDY, "1.1", {"StudyID": "2"}, who())
    empty = Site(f"sqlite:///{tmp_path}/empty.db", tmp_path)
    with pytest.raises(Damaged):
        empty.corrections.start()
    empty.index.close()
    site.ledger.folder.rename(tmp_path / "aside")
    site.open()
    site.corrections.start()
    assert site.corrections.edit(Level.STUDY, "1.1", {"StudyID": "2"}, who())


def test_padding_of_ids_is_no_part_of_them(site: Site) -> None:
    assert site.corrections.merge(Person(" A "), Person("B ", " "), who())
    assert found(site.index, "STUDY", "PatientID") == ["B"] * 3


def test_killed_at_any_moment_an_operation_is_whole_or_not_at_all(site: Site) -> None:
    random = Random(7)
    for _ in range(8):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                _merge_and_undo(Site(site.url, site.folder), write)
            os._exit(1)
        os.close(write)
        os.read(read, random.randint(1, 5))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        site.index.close()
        site.open()
        site.corrections.replay()
        assert site.ledger.last() == site.corrections.operations(limit=1)[0].number
        merged = site.corrections.survivor(A) == B
        assert found(site.index, "STUDY", "PatientID") == (["B"] * 3 if merged else ["A", "A", "B"])
        sound(site.index)


def _merge_and_undo(site: Site, told: int) -> None:
    """Until somebody ends it, one byte for each operation."""
    while True:
        if site.corrections.survivor(A) == A:
            site.corrections.merge(A, B, by("x", "y"))
        else:
            site.corrections.unmerge(A, by("x", "y"))
        os.write(told, b".")


# -- at once --------------------------------------------------------------------------------------


def test_sixteen_threads_store_while_patients_are_merged_moved_and_taken_apart_again(site: Site) -> None:
    stop = threading.Event()
    errors: list[object] = []
    stored: list[NewInstance] = []

    def store(thread: int) -> None:
        numbers = itertools.count()
        while not stop.is_set():
            number = next(numbers)
            study = f"1.{100 + number % 7}.{thread % 4}"
            new = arrival(study, f"{study}.{number % 3}", PatientID="A" if thread % 2 else "F", PatientName="Doe^Jane")
            if thread % 2 != (thread % 4) % 2:
                continue
            try:
                outcome = site.index.add([new])[0].outcome
                if outcome is not Outcome.STORED:
                    errors.append(outcome)
                stored.append(new)
            except Exception as error:  # noqa: BLE001  said below
                errors.append(error)

    threads = [threading.Thread(target=store, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    try:
        site.corrections.merge(Person("F"), C, who(), unknown=True)
        for _ in range(2):
            done = site.corrections.merge(A, B, who())
            moved = site.corrections.move_studies(["2.1"], D, who(), values={"PatientName": "X"})
            assert done and moved
            site.corrections.move_series(["1.1.1"], "2.1", who())
            site.corrections.undo(site.corrections.operations(limit=1)[0].number, who())
            site.corrections.undo(moved.number, who())
            site.corrections.undo(done.number, who())
        site.corrections.merge(A, B, who())
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert errors == [] and stored
    sound(site.index)
    assert set(found(site.index, "STUDY", "PatientID")) == {"B", "C"}
    assert site.index.statistics().instances == len(stored) + 4
