"""Finding: every kind of matching, returns, hierarchy, filters, the same on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest

from archive.dicom.attributes import ATTRIBUTES, BY_LEVEL, Attribute, Level
from archive.dicom.matching import Root, read_query, read_retrieval
from archive.index import Index
from tests.index.made import PR, arrival, found, identifier, query

STUDIES = {
    "1.1": {"PatientID": "A1", "PatientName": "Müller^Hans", "StudyDate": "20240105", "StudyTime": "101500"},
    "1.2": {
        "PatientID": "A2",
        "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "StudyDate": "20240106",
        "StudyTime": "0930",
    },
    "1.3": {"PatientID": "B%1", "PatientName": "MULLER^ANNA^MARIA", "StudyDate": "20240107", "StudyTime": "235959.5"},
    "1.4": {"PatientID": "B_1", "PatientName": "Smith", "StudyDate": None, "StudyTime": None},
    "1.5": {"PatientID": "C[x]\\1".replace("\\", ""), "PatientName": "O'Neil-Ørsted^Łukasz Jan", "StudyDate": "bad"},
}


@pytest.fixture
def filled(index: Index) -> Index:
    index.add([arrival(uid, **keys) for uid, keys in STUDIES.items()])
    return index


def uids(index: Index, **keys: Any) -> list[str]:
    return found(index, "STUDY", "StudyInstanceUID", **keys)


CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["1.1", "1.2", "1.3", "1.4", "1.5"]),
    ({"PatientID": ""}, ["1.1", "1.2", "1.3", "1.4", "1.5"]),
    ({"PatientID": "*"}, ["1.1", "1.2", "1.3", "1.4", "1.5"]),
    ({"StudyInstanceUID": "1.2"}, ["1.2"]),
    ({"StudyInstanceUID": "1.2\\1.4\\7.7"}, ["1.2", "1.4"]),
    ({"PatientID": "A1"}, ["1.1"]),
    ({"PatientID": "a1"}, []),
    ({"PatientID": "A*"}, ["1.1", "1.2"]),
    ({"PatientID": "A?"}, ["1.1", "1.2"]),
    ({"PatientID": "*1"}, ["1.1", "1.3", "1.4", "1.5"]),
    ({"PatientID": "B%*"}, ["1.3"]),
    ({"PatientID": "B_*"}, ["1.4"]),
    ({"PatientID": "%"}, []),
    ({"PatientID": "B%1"}, ["1.3"]),
    ({"PatientID": "C[x]*"}, ["1.5"]),
    ({"PatientID": "?[x]1"}, ["1.5"]),
    ({"PatientID": "[A-C]*"}, []),
    ({"PatientID": "' OR 1=1 --"}, []),
    ({"PatientName": "müller^hans"}, ["1.1"]),
    ({"PatientName": "MULLER*"}, ["1.1", "1.3"]),
    ({"PatientName": "*anna*"}, ["1.3"]),
    ({"PatientName": "muller^*"}, ["1.1", "1.3"]),
    ({"PatientName": "smith^*"}, ["1.4"]),
    ({"PatientName": "Smith^^^"}, ["1.4"]),
    ({"PatientName": "muller"}, []),
    ({"PatientName": "山田*"}, ["1.2"]),
    ({"PatientName": "やまだ^たろう"}, ["1.2"]),
    ({"PatientName": "=山田*"}, ["1.2"]),
    ({"PatientName": "=やまだ*"}, []),
    ({"PatientName": "Yamada*=*太郎="}, ["1.2"]),
    ({"PatientName": "?amada*"}, ["1.2"]),
    ({"PatientName": "o'neil-orsted^lukasz*"}, ["1.5"]),
    ({"StudyDate": "20240105"}, ["1.1"]),
    ({"StudyDate": "20240105-20240106"}, ["1.1", "1.2"]),
    ({"StudyDate": "20240106-"}, ["1.2", "1.3"]),
    ({"StudyDate": "-20240106"}, ["1.1", "1.2"]),
    ({"StudyDate": "2024.01.06"}, ["1.2"]),
    ({"StudyTime": "1015"}, ["1.1"]),
    ({"StudyTime": "09-10"}, ["1.1", "1.2"]),
    ({"StudyTime": "093000-1014"}, ["1.2"]),
    ({"StudyTime": "235959-"}, ["1.3"]),
    ({"StudyTime": "-093000"}, ["1.2"]),
    ({"StudyDate": "20240105-20240107", "StudyTime": "1014-0931"}, ["1.1", "1.2"]),
    ({"StudyDate": "20240105-20240106", "StudyTime": "1016-0930"}, ["1.2"]),
    ({"StudyDate": "20240105-20240107", "PatientName": "muller*"}, ["1.1", "1.3"]),
    ({"ModalitiesInStudy": "CT"}, ["1.1", "1.2", "1.3", "1.4", "1.5"]),
    ({"ModalitiesInStudy": "MR\\CT", "StudyDate": "20240105"}, ["1.1"]),
    ({"ModalitiesInStudy": "M?"}, []),
    ({"Modality": "C*", "PatientID": "A1"}, ["1.1"]),
]


@pytest.mark.parametrize(("keys", "expected"), CASES, ids=[str(case[0]) for case in CASES])
def test_studies_match(filled: Index, keys: dict[str, Any], expected: list[str]) -> None:
    assert uids(filled, **keys) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hans mul", ["1.1"]),
        ("mull", ["1.1", "1.3"]),
        ("tar^yam", ["1.2"]),
        ("山", ["1.2"]),
        ("jan orst", ["1.5"]),
        ("ulle", []),
    ],
)
def test_fuzzy_names_match_by_the_beginning_of_words_in_any_order(
    filled: Index, name: str, expected: list[str]
) -> None:
    wanted = query("STUDY", fuzzy=True, PatientName=name, StudyInstanceUID="")
    assert sorted(row[-1] for row in filled.find(wanted)) == expected


def sample(attribute: Attribute) -> str:
    """A value of its VR, in the form in which it is stored."""
    texts = {
        "DA": "20240105", "TM": "101500", "DT": "20240105101500.000000", "UI": "1.2.3.4", "IS": "7", "US": "12",
        "DS": "1.5", "AS": "033Y", "PN": "Doe^Jane", "CS": "VALUE", "AE": "AET",
    }  # fmt: skip
    if attribute.vr == "SQ":
        return json.dumps([{item.keyword: sample(item) for item in attribute.items}])
    return texts.get(attribute.vr, f"text of {attribute.keyword}"[:30])


OWN = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


def rich() -> Any:
    values = {a.keyword: sample(a) for a in ATTRIBUTES if not a.computed and a.keyword not in OWN}
    return arrival("1.1", "1.1.1", "1.1.1.1", SOPClassUID="1.2.3.4", **values)


def expected(attribute: Attribute) -> str:
    known = {
        "StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1", "SOPInstanceUID": "1.1.1.1", "Modality": "VALUE",
        "ModalitiesInStudy": "VALUE", "SOPClassesInStudy": "1.2.3.4", "SOPClassUID": "1.2.3.4",
        "AvailableTransferSyntaxUID": "1.2.840.10008.1.2.1",
    }  # fmt: skip
    if attribute.keyword.startswith("NumberOf") and attribute.computed:
        return "1"
    return known.get(attribute.keyword) or sample(attribute)


def answers(index: Index, attribute: Attribute, key: Any) -> list[Any]:
    """The attribute's value in the answers to a query for it alone."""
    wanted = query(attribute.level.name, root=Root.PATIENT, **{attribute.keyword: key})
    place = [each.tag for each in wanted.returns].index(attribute.tag)
    values = [row[place] for row in index.find(wanted)]
    return [json.loads(value) for value in values] if attribute.vr == "SQ" else values


def other(attribute: Attribute) -> str:
    return {"DA": "19990101", "TM": "111111", "DT": "1999"}.get(attribute.vr, "9")


def test_every_attribute_is_returned_matched_by_its_value_and_by_no_other(index: Index) -> None:
    index.add([rich()])
    wrong = []
    for attribute in ATTRIBUTES:
        value, name = expected(attribute), f"{attribute.level.name} {attribute.keyword}"
        if attribute.vr == "SQ":
            wrong += [name] if answers(index, attribute, []) != [json.loads(value)] else []
            for item in attribute.items:
                hits = [len(answers(index, attribute, [{item.keyword: key}])) for key in (sample(item), other(item))]
                wrong += [f"{name} {item.keyword}"] if hits != [1, 0] else []
            continue
        never_matched = (attribute.computed and attribute.vr == "IS") or attribute.keyword == "TimezoneOffsetFromUTC"
        hits = [len(answers(index, attribute, key)) for key in (value, other(attribute))]
        wrong += [name] if answers(index, attribute, "") != [value] else []
        wrong += [name] if hits != ([1, 1] if never_matched else [1, 0]) else []
    assert wrong == []


def test_every_level_can_be_asked_for_all_its_keys_at_once(index: Index) -> None:
    index.add([rich()])
    for level in Level:
        keys = {a.keyword: [] if a.vr == "SQ" else "" for upper in Level if upper <= level for a in BY_LEVEL[upper]}
        wanted = query(level.name, root=Root.PATIENT, **keys)
        (row,) = index.find(wanted)
        empty = [each.attribute.keyword for each, value in zip(wanted.returns, row, strict=True)
                 if each.attribute and not value]  # fmt: skip
        assert empty == []


def test_several_values_of_an_attribute_match_each(index: Index) -> None:
    index.add([arrival("1.1", OtherPatientIDs="X1\\Y2", ImageType="ORIGINAL\\PRIMARY", OperatorsName="A^B\\Ç^D=山")])
    assert uids(index, OtherPatientIDs="Y2") == ["1.1"]
    assert uids(index, OtherPatientIDs="Y*") == ["1.1"]
    assert uids(index, OtherPatientIDs="X*2") == []
    assert found(index, "IMAGE", "ImageType", ImageType="PRIM*") == ["ORIGINAL\\PRIMARY"]
    for name in ("a^b", "c^*", "山"):
        assert len(found(index, "SERIES", "OperatorsName", OperatorsName=name)) == 1, name


def test_numbers_match_by_value(index: Index) -> None:
    index.add([arrival("1.1", SeriesNumber="007", InstanceNumber="+3", PatientWeight="70.50")])
    assert found(index, "SERIES", "SeriesNumber", SeriesNumber="7") == ["7"]
    assert found(index, "IMAGE", "InstanceNumber", InstanceNumber="03") == ["3"]
    assert uids(index, PatientWeight="70.50") == ["1.1"]


def test_all_keys_of_a_sequence_item_must_match_one_item(index: Index) -> None:
    items = json.dumps([{"RequestedProcedureID": "R1", "AccessionNumber": "A1"}, {"RequestedProcedureID": "R2"}])
    steps = json.dumps([{"ScheduledPerformingPhysicianName": "Müller^H=山田"}])
    index.add([arrival("1.1", RequestAttributesSequence=items, ScheduledProcedureStepSequence=steps)])
    assert (
        len(found(index, "SERIES", "SeriesInstanceUID", RequestAttributesSequence=[{"RequestedProcedureID": "R2"}]))
        == 1
    )
    both = [{"RequestedProcedureID": "R2", "AccessionNumber": "A1"}]
    assert found(index, "SERIES", "SeriesInstanceUID", RequestAttributesSequence=both) == []
    for name in ("MULLER*", "山田"):
        step = [{"ScheduledPerformingPhysicianName": name}]
        assert uids(index, ScheduledProcedureStepSequence=step) == ["1.1"], name


def test_empty_value_matching_finds_what_is_missing_or_empty(filled: Index) -> None:
    wanted = read_query(identifier("STUDY", StudyDate='""', StudyInstanceUID=""), Root.STUDY, empty_values=True)
    assert sorted(row[-1] for row in filled.find(wanted)) == ["1.4", "1.5"]
    assert wanted.unsupported is False


def test_ten_thousand_uids_in_a_list(filled: Index) -> None:
    uids_asked = "\\".join([f"9.{number}" for number in range(10_000)] + ["1.3"])
    assert uids(filled, StudyInstanceUID=uids_asked) == ["1.3"]
    wanted = read_retrieval(identifier("STUDY", StudyInstanceUID=uids_asked), Root.STUDY)
    assert filled.count(wanted) == 1
    assert [each.study_uid for each in filled.instances(wanted)] == ["1.3"]


def test_instances_come_with_what_a_retrieval_needs(index: Index) -> None:
    news = [arrival("1.1"), arrival("1.1", "1.1.2"), arrival("1.2")]
    index.add(news)
    wanted = read_retrieval(identifier("STUDY", StudyInstanceUID="1.1"), Root.STUDY)
    stored = sorted(index.instances(wanted), key=lambda each: each.id)
    assert [each.location for each in stored] == [new.location for new in news[:2]]
    assert [each.sha256 for each in stored] == [new.sha256 for new in news[:2]]
    keys = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.2"}
    assert index.count(read_retrieval(identifier("SERIES", **keys), Root.STUDY)) == 1
    keys["SOPInstanceUID"] = stored[1].sop_instance_uid + "\\9.9"
    assert index.count(read_retrieval(identifier("IMAGE", **keys), Root.STUDY)) == 1
    assert index.count(read_retrieval(identifier("PATIENT", PatientID="P1"), Root.PATIENT)) == 3


def test_relational_keys_below_the_level_must_be_fulfilled_together(index: Index) -> None:
    index.add([arrival("1.1", Modality="CT", SeriesDescription="Head", Rows="512")])
    index.add([arrival("1.1", "1.1.2", Modality="MR", SeriesDescription="Neck", Rows="256")])
    assert uids(index, SeriesDescription="Head", Rows="512") == ["1.1"]
    assert uids(index, SeriesDescription="Head", Rows="256") == []


def test_a_limit_ends_the_answers(filled: Index) -> None:
    assert len(list(filled.find(query("STUDY"), limit=2))) == 2


def test_answers_in_progress_see_one_state_and_hold_up_nobody(filled: Index) -> None:
    rows = filled.find(query("STUDY", StudyInstanceUID=""))
    next(rows)
    filled.add([arrival("7.7")])
    assert len(list(rows)) == 4
    assert len(uids(filled)) == 6


def test_more_abandoned_answers_than_connections_free_what_they_held(filled: Index) -> None:
    for _ in range(300):
        rows = filled.find(query("STUDY", StudyInstanceUID=""))
        next(rows)
        rows.close()  # type: ignore[attr-defined]
    assert len(uids(filled)) == 5


# -- what a caller may see ------------------------------------------------------------------------


@pytest.fixture
def mixed(index: Index) -> Index:
    index.add([arrival("1.1", InstitutionName="North"), arrival("1.1", "1.1.2", Modality="PR", SOPClassUID=PR)])
    index.add([arrival("1.2", Modality="PR", PatientID="P2", InstitutionName="South"), arrival("1.3", Modality=None)])
    return index


VISIBLE = [
    ("Modality != 'PR'", ["1.1", "1.3"], ["1", "1"]),
    ("Modality = 'PR'", ["1.1", "1.2"], ["1", "1"]),
    ("not (Modality = 'PR') and InstitutionName like 'N*'", ["1.1"], ["1"]),
    ("InstitutionName in ('North', 'South')", ["1.1", "1.2"], ["1", "2"]),
    ("InstitutionName not in ('North')", ["1.2", "1.3"], ["1", "1"]),
    ("PatientID = 'P2' or Modality == ''", ["1.2", "1.3"], ["1", "1"]),
    (f"SOPClassUID <> '{PR}'", ["1.1", "1.2", "1.3"], ["1", "1", "1"]),
    ("NumberOfStudyRelatedInstances > 1", ["1.1"], ["2"]),
    ("ModalitiesInStudy = 'PR'", ["1.1", "1.2"], ["1", "2"]),
    ("PatientName like 'DOE*' and PatientName = 'dóe^john'", ["1.1", "1.2", "1.3"], ["1", "1", "2"]),
    ("InstanceNumber < 0", [], []),
    ("StudyDate >= '20200101'", [], []),
]


@pytest.mark.parametrize(("visible", "studies", "counts"), VISIBLE, ids=[case[0] for case in VISIBLE])
def test_only_what_is_visible_is_found_and_counted(
    mixed: Index, visible: str, studies: list[str], counts: list[str]
) -> None:
    assert found(mixed, "STUDY", "StudyInstanceUID", visible=visible) == studies
    assert found(mixed, "STUDY", "NumberOfStudyRelatedInstances", visible=visible) == counts
    wanted = read_retrieval(identifier("STUDY", StudyInstanceUID="1.1\\1.2\\1.3"), Root.STUDY)
    seen = list(mixed.instances(wanted, visible=visible))
    assert sorted({each.study_uid for each in seen}) == studies
    assert len(seen) == mixed.count(wanted, visible=visible) == sum(map(int, counts))


def test_nothing_leaks_through_counts_lists_or_lower_keys(mixed: Index) -> None:
    visible = "Modality != 'PR'"
    keys = {"StudyInstanceUID": "1.1"}
    assert found(mixed, "STUDY", "ModalitiesInStudy", visible=visible, **keys) == ["CT"]
    assert PR not in found(mixed, "STUDY", "SOPClassesInStudy", visible=visible, **keys)[0]
    assert found(mixed, "STUDY", "NumberOfStudyRelatedSeries", visible=visible, **keys) == ["1"]
    assert found(mixed, "STUDY", "StudyInstanceUID", visible=visible, ModalitiesInStudy="PR") == []
    assert found(mixed, "STUDY", "StudyInstanceUID", visible=visible, SOPClassUID=PR) == []
    assert found(mixed, "SERIES", "SeriesInstanceUID", visible=visible, SeriesInstanceUID="1.1.2") == []
    assert found(mixed, "SERIES", "NumberOfStudyRelatedInstances", visible=visible, **keys) == ["1"]

    def patients(returned: str) -> list[str]:
        wanted = query("PATIENT", root=Root.PATIENT, PatientID="", **{returned: ""})
        places = [each.attribute.keyword if each.attribute else "" for each in wanted.returns]
        return sorted(row[places.index(returned)] for row in mixed.find(wanted, visible=visible))

    assert patients("NumberOfPatientRelatedStudies") == ["2"]
    assert patients("NumberOfPatientRelatedInstances") == ["2"]
    assert patients("NumberOfPatientRelatedSeries") == ["2"]


def test_image_filters_hold_for_counts_of_all_levels(mixed: Index) -> None:
    visible = f"SOPClassUID != '{PR}'"
    assert found(mixed, "STUDY", "NumberOfStudyRelatedSeries", visible=visible, StudyInstanceUID="1.1") == ["1"]
    assert found(mixed, "SERIES", "NumberOfSeriesRelatedInstances", visible=visible, SeriesInstanceUID="1.1.2") == []
