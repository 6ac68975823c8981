"""Adding instances: outcomes, uniqueness by constraint, counts kept in the transaction."""

from __future__ import annotations

import threading
from dataclasses import replace
from threading import Barrier

import pytest

from archive.dicom.header import Header
from archive.index import Index, NewTask, Outcome, State, open_index
from tests.index.made import CT, PR, arrival, found, tag

Results = list[Outcome]


def outcomes(index: Index, *new: object, **options: bool) -> list[Outcome]:
    return [added.outcome for added in index.add(list(new), **options)]  # type: ignore[arg-type]


def test_a_first_image_makes_all_four_levels(index: Index) -> None:
    (added,) = index.add([arrival()])
    assert added.outcome is Outcome.STORED and added.instance_id
    counted = index.statistics()
    assert (counted.patients, counted.studies, counted.series, counted.instances, counted.size) == (1, 1, 1, 1, 1000)


def test_what_was_added_is_known_by_its_uid(index: Index) -> None:
    new = arrival("1.1", "1.1.1", "1.1.1.7")
    index.add([new])
    known = index.known("1.1.1.7")
    assert known is not None
    assert (known.study_uid, known.series_uid, known.sop_class_uid) == ("1.1", "1.1.1", CT)
    assert (known.location, known.sha256, known.transfer_syntax) == (new.location, new.sha256, new.transfer_syntax)
    assert index.known("9.9") is None


def test_the_same_object_again_is_equal_and_other_content_is_different(index: Index) -> None:
    first = arrival(sop="1.5")
    assert outcomes(index, first) == [Outcome.STORED]
    again = arrival(sop="1.5", digest=first.sha256)
    assert outcomes(index, again, arrival(sop="1.5")) == [Outcome.EQUAL, Outcome.DIFFERENT]
    assert index.statistics().instances == 1


def test_a_batch_of_unknown_outcome_can_be_added_again(index: Index) -> None:
    new = arrival(tasks=(NewTask("route", {"to": "X"}),))
    assert outcomes(index, new) == outcomes(index, new) == [Outcome.STORED]
    assert len(index.tasks(kind="route")) == 1 and index.statistics().instances == 1


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (arrival("1.1", PatientID="P2"), "Study Instance UID belongs to another patient"),
        (arrival("1.1", PatientID=None), "Study Instance UID belongs to another patient"),
        (arrival("1.1", "1.1.9", PatientID="P2"), "Study Instance UID belongs to another patient"),
        (arrival("1.2", "1.1.1"), "Series Instance UID is in another study"),
        (arrival("1.1", "1.1.2", sop="1.1.1.1000"), "SOP Instance UID is in another series"),
        (arrival("1.3", "1.3.1", sop="1.1.1.1000", PatientID="P3"), "SOP Instance UID is in another series"),
    ],
)
@pytest.mark.parametrize("remembered", [True, False])
def test_what_contradicts_the_index_is_a_conflict_and_leaves_nothing(
    index: Index, index_url: str, second: object, reason: str, remembered: bool
) -> None:
    index.add([arrival("1.1", "1.1.1", sop="1.1.1.1000")])
    other = index if remembered else open_index(index_url)
    (added,) = other.add([second])  # type: ignore[list-item]
    assert (added.outcome, added.reason) == (Outcome.CONFLICT, reason)
    counted = index.statistics()
    assert (counted.patients, counted.studies, counted.series, counted.instances) == (1, 1, 1, 1)
    if other is not index:
        other.close()


def test_a_conflict_takes_no_other_row_of_its_batch_along(index: Index) -> None:
    index.add([arrival("1.1")])
    batch = (arrival("1.1"), arrival("1.1", PatientID="P2"), arrival("1.4"))
    assert outcomes(index, *batch) == [Outcome.STORED, Outcome.CONFLICT, Outcome.STORED]


def test_a_conflict_that_is_accepted_goes_where_the_index_says(index: Index) -> None:
    index.add([arrival("1.1")])
    assert outcomes(index, arrival("1.1", PatientID="P2", accept=True)) == [Outcome.STORED]
    assert index.statistics().patients == 1 and index.statistics().instances == 2


@pytest.mark.parametrize("name", ["DOE^JOHN", "doe^john^^^", " Doe ^ John", "Döe^John", "Doe^John=X^Y", "John^Doe", ""])
def test_names_that_are_equal_after_normalisation_are_one_patient(index: Index, name: str) -> None:
    index.add([arrival("1.1", PatientName="Doe^John=X^Y")], check_names=True)
    assert outcomes(index, arrival("1.1", PatientName=name), check_names=True) == [Outcome.STORED]


def test_another_name_under_the_same_id_is_a_conflict_only_when_asked(index: Index) -> None:
    index.add([arrival("1.1")])
    (added,) = index.add([arrival("1.2", PatientName="Roe^Jane")], check_names=True)
    assert (added.outcome, added.reason) == (Outcome.CONFLICT, "patient name mismatch")
    assert outcomes(index, arrival("1.1", PatientName="Roe^Jane")) == [Outcome.STORED]
    assert outcomes(index, arrival("1.1", PatientName="Roe^Jane"), check_names=True) == [Outcome.CONFLICT]


def test_replace_gives_back_the_file_that_lost_its_row(index: Index) -> None:
    first = arrival(sop="1.5", Rows="512")
    index.add([first])
    second = arrival(sop="1.5", policy="replace", Rows="256")
    (added,) = index.add([second])
    assert (added.outcome, added.replaced) == (Outcome.STORED, first.location)
    assert found(index, "IMAGE", "Rows") == ["256"]
    known = index.known("1.5")
    assert known and known.location == second.location


def test_same_source_replaces_only_what_came_from_there(index: Index) -> None:
    index.add([arrival(sop="1.5", source="CT1")])
    assert outcomes(index, arrival(sop="1.5", policy="same_source", source="CT2")) == [Outcome.DIFFERENT]
    assert outcomes(index, arrival(sop="1.5", policy="same_source", source="CT1")) == [Outcome.STORED]


def test_counts_modalities_and_classes_are_kept(index: Index) -> None:
    index.add([arrival("1.1"), arrival("1.1", "1.1.2", Modality="PR", SOPClassUID=PR)])
    index.add([arrival("1.1"), arrival("1.1", "1.1.3", Modality="CT")])
    keys = {"StudyInstanceUID": "1.1"}
    assert found(index, "STUDY", "NumberOfStudyRelatedInstances", **keys) == ["4"]
    assert found(index, "STUDY", "NumberOfStudyRelatedSeries", **keys) == ["3"]
    assert found(index, "STUDY", "ModalitiesInStudy", **keys) == ["CT\\PR"]
    assert found(index, "STUDY", "SOPClassesInStudy", **keys) == [f"{PR}\\{CT}"]
    assert found(index, "SERIES", "NumberOfSeriesRelatedInstances", **keys) == ["1", "1", "2"]


def test_later_images_fill_only_what_is_empty(index: Index) -> None:
    index.add([arrival("1.1", StudyDescription="", AccessionNumber="A1")])
    index.add([arrival("1.1", StudyDescription="Chest", AccessionNumber="A2", PatientSex="F")])
    index.add([arrival("1.1", StudyDescription="Head")])
    assert found(index, "STUDY", "StudyDescription") == ["Chest"]
    assert found(index, "STUDY", "AccessionNumber") == ["A1"]
    assert found(index, "STUDY", "PatientSex") == ["F"]


def test_patients_without_id_are_one_per_study(index: Index) -> None:
    for study in ("1.1", "1.2", "1.1"):
        assert outcomes(index, arrival(study, PatientID=None, PatientName="No^Id")) == [Outcome.STORED]
    assert outcomes(index, arrival("1.3", PatientID="")) == [Outcome.STORED]
    assert index.statistics().patients == 3


def test_the_same_id_of_two_issuers_is_two_patients(index: Index) -> None:
    index.add([arrival("1.1", IssuerOfPatientID="A"), arrival("1.2", IssuerOfPatientID="B")])
    assert index.statistics().patients == 2
    assert outcomes(index, arrival("1.1", IssuerOfPatientID="B")) == [Outcome.CONFLICT]
    assert outcomes(index, arrival("1.1")) == [Outcome.STORED]


def test_the_journal_mark_only_grows_and_commits_with_the_batch(index: Index) -> None:
    assert index.applied(1) == 0
    index.add([arrival()], journal=(1, 7), durable=False)
    index.add([], journal=(1, 5))
    index.add([], journal=(2, 3))
    index.sync()
    assert (index.applied(1), index.applied(2)) == (7, 3)


def test_tasks_are_committed_with_the_instance_that_causes_them(index: Index) -> None:
    task = NewTask("route", {"destination": "WS1"}, due=5.0, lane="WS1")
    index.add([arrival(tasks=(task,))])
    (row,) = index.tasks(kind="route")
    assert (row.kind, row.lane, dict(row.payload), row.due, row.state) == (
        "route", "WS1", {"destination": "WS1"}, 5.0, State.WAITING,
    )  # fmt: skip


def test_a_conflict_causes_no_tasks(index: Index) -> None:
    index.add([arrival("1.1")])
    index.add([arrival("1.1", PatientID="P2", tasks=(NewTask("route", {}),))])
    assert index.tasks(kind="route") == []


HOSTILE = "a\x00b\n\x1b%_[\\'\"\udc80;--"


def test_text_that_no_database_can_hold_is_stored_and_equal_on_both(index: Index) -> None:
    keywords = ("PatientName", "StudyDescription", "AccessionNumber", "SeriesDescription", "ImageComments")
    new = arrival("1.1", **dict.fromkeys(keywords, HOSTILE))
    assert outcomes(index, new) == [Outcome.STORED]
    expected = HOSTILE.replace("\x00", "\ufffd").replace("\udc80", "\ufffd")
    for level, keyword in (("STUDY", "PatientName"), ("STUDY", "StudyDescription"), ("IMAGE", "ImageComments")):
        assert found(index, level, keyword) == [expected]


def test_overlong_values_and_odd_numbers_are_stored(index: Index) -> None:
    new = arrival(
        "1.1", PatientID="9" * 100_000, PatientName="ab " * 50_000, StudyDescription="\U0010ffff" * 5000,
        InstanceNumber="7" * 100_000, SeriesNumber="junk", RequestAttributesSequence="{not json",
    )  # fmt: skip
    assert outcomes(index, new) == [Outcome.STORED]


@pytest.mark.parametrize("date", ["20261332", "junk", "2024", "20240230"])
def test_a_bad_date_is_returned_as_it_came_and_matches_no_range(index: Index, date: str) -> None:
    index.add([arrival("1.1", StudyDate=date, StudyTime="99", ContentDate=date)])
    assert found(index, "STUDY", "StudyDate") == [date]
    assert found(index, "STUDY", "StudyTime") == ["99"]
    assert found(index, "IMAGE", "ContentDate") == [date]
    assert found(index, "STUDY", "StudyInstanceUID", StudyDate="00010101-99991231") == []


def test_an_old_style_date_matches_and_is_returned_as_it_came(index: Index) -> None:
    index.add([arrival("1.1", StudyDate="1997.04.01", StudyTime="10:20:30")])
    assert found(index, "STUDY", "StudyDate", StudyDate="19970401-") == ["1997.04.01"]


def test_sixteen_first_images_of_one_new_patient_make_one_patient(index_url: str, index: Index) -> None:
    other = open_index(index_url)
    for turn in range(5):
        barrier = Barrier(16)
        results: Results = []

        def send(number: int, turn: int = turn, results: Results = results, barrier: Barrier = barrier) -> None:
            patient, study = f"N{turn}", f"5.{turn}.{number % 4}"
            new = arrival(study, f"{study}.{number % 8}", PatientID=patient)
            barrier.wait()
            results.extend(outcomes(other if number % 2 else index, new))

        threads = [threading.Thread(target=send, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [Outcome.STORED] * 16
    counted = index.statistics()
    assert (counted.patients, counted.studies, counted.series, counted.instances) == (5, 20, 40, 80)
    assert found(index, "STUDY", "NumberOfStudyRelatedInstances") == ["4"] * 20
    other.close()


def test_two_senders_race_one_study_under_two_patients_and_one_wins(index_url: str, index: Index) -> None:
    other = open_index(index_url)
    for turn in range(8):
        barrier = Barrier(2)
        results: Results = []

        def send(
            patient: str, through: Index, turn: int = turn, results: Results = results, barrier: Barrier = barrier
        ) -> None:
            barrier.wait()
            results.extend(
                outcomes(through, arrival(f"6.{turn}", f"6.{turn}.{patient}", PatientID=patient + str(turn)))
            )

        threads = [threading.Thread(target=send, args=pair) for pair in (("1", index), ("2", other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(each.name for each in results) == ["CONFLICT", "STORED"]
    assert index.statistics().patients == 8
    other.close()


def test_removal_returns_the_files_and_keeps_the_counts(index: Index) -> None:
    news = [arrival("1.1"), arrival("1.1"), arrival("1.1", "1.1.2", Modality="PR", SOPClassUID=PR), arrival("1.2")]
    added = index.add(news)
    removed = index.remove([added[0].instance_id or 0, added[2].instance_id or 0])
    assert set(removed.files) == {news[0].location, news[2].location}
    assert (removed.instances, removed.series, removed.studies) == (2, ("1.1.2",), ())
    assert found(index, "STUDY", "ModalitiesInStudy", StudyInstanceUID="1.1") == ["CT"]
    assert found(index, "STUDY", "SOPClassesInStudy", StudyInstanceUID="1.1") == [CT]
    assert found(index, "STUDY", "NumberOfStudyRelatedSeries", StudyInstanceUID="1.1") == ["1"]
    assert index.remove([added[3].instance_id or 0]).studies == ("1.2",)
    index.remove([added[1].instance_id or 0, 12345])
    counted = index.statistics()
    assert (counted.patients, counted.studies, counted.series, counted.instances, counted.size) == (0, 0, 0, 0, 0)


def test_a_series_removed_by_another_process_is_made_again(index: Index, index_url: str) -> None:
    other = open_index(index_url)
    (added,) = index.add([arrival("1.1")])
    other.remove([added.instance_id or 0])
    assert outcomes(index, arrival("1.1")) == [Outcome.STORED]
    assert index.statistics().studies == 1
    other.close()


def test_request_ids_are_lifted_out_of_their_sequence(index: Index) -> None:
    items = '[{"RequestedProcedureID": "R1", "ScheduledProcedureStepID": "S1"}, {"RequestedProcedureID": "R2"}]'
    index.add([arrival("1.1", RequestAttributesSequence=items)])
    assert found(index, "SERIES", "RequestedProcedureID", RequestedProcedureID="R2") == ["R1\\R2"]
    assert found(index, "SERIES", "ScheduledProcedureStepID", ScheduledProcedureStepID="S*") == ["S1"]


def test_a_header_without_any_attribute_is_stored(index: Index) -> None:
    new = replace(arrival(), header=Header(CT, "1.2.3", "1.2", "1.2.1", values={}, charset=()))
    assert outcomes(index, new) == [Outcome.STORED]
    assert tag("PatientID") == 0x00100020
