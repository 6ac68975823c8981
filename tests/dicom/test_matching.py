"""Identifiers to queries: levels, hierarchy, keys of every kind, returns."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword

from archive.dicom.attributes import Level
from archive.dicom.matching import (
    AnyOf,
    Between,
    Moment,
    NameHas,
    NameIs,
    NoValue,
    OneOf,
    Query,
    Root,
    Wild,
    Within,
    read_query,
    read_retrieval,
)
from archive.errors import InvalidQuery

Keys = dict[str, Any]


def identifier(level: str = "STUDY", **keys: Any) -> dict[int, tuple[str, Any]]:
    found: dict[int, tuple[str, Any]] = {0x00080052: ("CS", level)} if level else {}
    for keyword, value in keys.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        if isinstance(value, list):
            value = [
                {tag_for_keyword(inner): (dictionary_VR(inner), text) for inner, text in item.items()} for item in value
            ]
        found[tag] = (dictionary_VR(tag), value)
    return found


def read(level: str = "STUDY", root: Root = Root.STUDY, **keys: Any) -> Query:
    options = {key: keys.pop(key) for key in list(keys) if key[0].islower()}
    return read_query(identifier(level, **keys), root, **options)


def key_test(**keys: Any) -> Any:
    conditions = read(relational=True, **keys).conditions
    return conditions[0].test if conditions else None


CASES: list[tuple[Keys, Any]] = [
    # universal matching, C.2.2.2.3
    ({"PatientName": ""}, None),
    ({"PatientID": "*"}, None),
    ({"StudyInstanceUID": "*"}, None),
    ({"PatientName": "**^*"}, None),
    ({"RequestAttributesSequence": []}, None),
    ({"RequestAttributesSequence": [{"RequestedProcedureID": ""}]}, None),
    # single value matching, C.2.2.2.1
    ({"PatientID": " 12 \x00"}, OneOf(("12",))),
    ({"AccessionNumber": "A%_[b"}, OneOf(("A%_[b",))),
    ({"PatientComments": "a\\b"}, OneOf(("a\\b",))),
    # list of UID matching, C.2.2.2.2
    ({"StudyInstanceUID": "1.2\\1.3"}, OneOf(("1.2", "1.3"))),
    ({"ModalitiesInStudy": "CT\\MR"}, OneOf(("CT", "MR"))),
    ({"ModalitiesInStudy": "CT\\M*"}, AnyOf((OneOf(("CT",)), Wild("M*")))),
    ({"ModalitiesInStudy": "CT\\*"}, None),
    # wild card matching, C.2.2.2.4
    ({"PatientID": "1**2?"}, Wild("1*2?")),
    ({"PatientAge": "03*"}, OneOf(("03*",))),
    # range matching, C.2.2.2.5
    ({"StudyDate": "20240105"}, Between("20240105", "20240105")),
    ({"StudyDate": "20240105-"}, Between("20240105", None)),
    ({"StudyDate": "-20240105"}, Between(None, "20240105")),
    ({"StudyDate": "20240105-20240107"}, Between("20240105", "20240107")),
    ({"StudyDate": "2024.01.05"}, Between("20240105", "20240105")),
    ({"StudyDate": "20240105\\20240107"}, OneOf(("20240105", "20240107"))),
    ({"StudyTime": "10"}, Between("1", "105959.999999")),
    ({"StudyTime": "1030"}, Between("103", "103059.999999")),
    ({"StudyTime": "10:30:05"}, Between("103005", "103005.999999")),
    ({"StudyTime": "103000.5-1045"}, Between("103000.5", "104559.999999")),
    ({"StudyTime": "-1045"}, Between(None, "104559.999999")),
    ({"AcquisitionDateTime": "2024"}, Between("20240101000000.000000", "20241231235959.999999")),
    ({"AcquisitionDateTime": "202402-202402"}, Between("20240201000000.000000", "20240229235959.999999")),
    ({"AcquisitionDateTime": "20240105101500+0200-"}, Between("20240105081500.000000", None)),
    (
        {"AcquisitionDateTime": "20240105101500-0500-20240105101501-0500"},
        Between("20240105151500.000000", "20240105151501.999999"),
    ),
    # person names
    ({"PatientName": "Döe ^  JOHN^^^"}, NameIs(("doe^john",))),
    ({"PatientName": "Doe^*"}, NameIs(("doe^*",))),
    ({"PatientName": "Doe^*^*"}, NameIs(("doe^*",))),
    ({"PatientName": "D?e*"}, NameIs(("d?e*",))),
    ({"PatientName": "Yamada*=山田*="}, NameIs(("yamada*", "山田*", ""))),
    ({"PatientName": "=山田"}, NameIs(("", "山田"))),
    ({"PatientName": "ﾔﾏﾀﾞ"}, NameIs(("ヤマダ",))),
    ({"PatientName": "Straße"}, NameIs(("strasse",))),
    # numbers
    ({"SeriesNumber": "007"}, OneOf(("007", "7"))),
]


@pytest.mark.parametrize(("keys", "expected"), CASES, ids=[str(case[0]) for case in CASES])
def test_a_key_becomes_a_test(keys: Keys, expected: Any) -> None:
    assert key_test(**keys) == expected


def test_a_date_range_and_a_time_range_are_one_span() -> None:
    """PS3.4 C.2.2.2.5.1."""
    query = read(StudyDate="20240105-20240107", StudyTime="1000-1200")
    (condition,) = query.conditions
    assert isinstance(condition.test, Moment)
    assert (condition.test.low, condition.test.high) == (("20240105", "1"), ("20240107", "120059.999999"))


def test_date_and_time_are_apart_when_combining_was_not_agreed_on() -> None:
    tests = [each.test for each in read(StudyDate="20240105-", StudyTime="10-11", combine=False).conditions]
    assert tests == [Between("20240105", None), Between("1", "115959.999999")]


def test_the_requesters_timezone_shifts_combined_spans() -> None:
    keys = {"StudyDate": "20240105", "StudyTime": "2330-2359", "TimezoneOffsetFromUTC": "-0500"}
    (condition,) = read(**keys, timezone="+0100").conditions
    assert isinstance(condition.test, Moment)
    assert (condition.test.low, condition.test.high) == (("20240106", "053000.000000"), ("20240106", "055959.999999"))
    (condition,) = read(**keys).conditions
    assert isinstance(condition.test, Moment) and condition.test.low == ("20240105", "233")


def test_fuzzy_names_are_words() -> None:
    assert key_test(PatientName="Doe^J*", fuzzy=True) == NameHas(("doe", "j"))


def test_two_quotes_match_what_has_no_value_when_agreed_on() -> None:
    """PS3.4 C.2.2.2.7."""
    assert key_test(AccessionNumber='""', empty_values=True) == NoValue()
    assert key_test(AccessionNumber='""') == OneOf(('""',))


def test_the_keys_of_a_sequence_item_belong_together() -> None:
    found = key_test(RequestAttributesSequence=[{"RequestedProcedureID": "R*", "AccessionNumber": "A1"}])
    assert isinstance(found, Within)
    assert [each.test for each in found.conditions] == [OneOf(("A1",)), Wild("R*")]


BAD: list[tuple[str, Root, Keys, str]] = [
    ("", Root.STUDY, {}, "Query/Retrieve Level (0008,0052) is missing"),
    ("PATIENT", Root.STUDY, {}, "Query/Retrieve Level does not exist in this model"),
    ("SERIES", Root.PATIENT_STUDY, {}, "Query/Retrieve Level does not exist in this model"),
    ("WARD", Root.PATIENT, {}, "Query/Retrieve Level does not exist in this model"),
    ("STUDY", Root.PATIENT, {"StudyInstanceUID": "1.2"}, "PatientID is missing"),
    ("SERIES", Root.STUDY, {}, "StudyInstanceUID is missing"),
    ("SERIES", Root.STUDY, {"StudyInstanceUID": "1.2\\1.3"}, "StudyInstanceUID must be a single value here"),
    ("STUDY", Root.PATIENT, {"PatientID": "1*"}, "PatientID must be a single value here"),
    ("IMAGE", Root.STUDY, {"StudyInstanceUID": "1.2"}, "SeriesInstanceUID is missing"),
    ("STUDY", Root.STUDY, {"SOPInstanceUID": "1.2"}, "SOPInstanceUID is below the STUDY level"),
    ("STUDY", Root.STUDY, {"StudyDate": "yesterday"}, "StudyDate is no date and no range"),
    ("STUDY", Root.STUDY, {"StudyDate": "20240230"}, "StudyDate is no date and no range"),
    ("STUDY", Root.STUDY, {"StudyDate": "-"}, "StudyDate is no date and no range"),
    ("STUDY", Root.STUDY, {"StudyTime": "2561"}, "StudyTime is no time and no range"),
    ("STUDY", Root.STUDY, {"StudyDate": "20240101-\\20240102"}, "StudyDate is neither one range nor a list"),
    ("STUDY", Root.STUDY, {"PatientID": "x" * 5000}, "PatientID is too long"),
    ("STUDY", Root.STUDY, {"PatientID": "*a" * 64}, "PatientID has too many wildcards"),
    ("STUDY", Root.STUDY, {"StudyInstanceUID": "1\\" * 200_000}, "StudyInstanceUID lists too many values"),
    ("STUDY", Root.STUDY, {"ProcedureCodeSequence": [{}, {}]}, "ProcedureCodeSequence must have one item"),
]


@pytest.mark.parametrize(("level", "root", "keys", "comment"), BAD, ids=[case[3] for case in BAD])
def test_what_does_not_fit_the_model_is_refused_with_a_reason(level: str, root: Root, keys: Keys, comment: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        read_query(identifier(level, **keys), root)
    assert caught.value.comment == comment


def test_relational_queries_need_no_keys_above_and_may_have_keys_below() -> None:
    query = read("SERIES", Root.PATIENT, Modality="CT", Rows="512", relational=True)
    assert [each.attribute.keyword for each in query.conditions] == ["Modality", "Rows"]
    assert not query.unsupported


def test_keys_below_the_level_are_left_out_and_said_so_when_not_relational() -> None:
    query = read("STUDY", SeriesDescription="Head", StudyInstanceUID="1.2")
    assert [each.attribute.keyword for each in query.conditions] == ["StudyInstanceUID"]
    assert query.unsupported
    (returned,) = [each for each in query.returns if each.tag == 0x0008103E]
    assert (returned.vr, returned.attribute, returned.constant) == ("LO", None, None)


def test_keys_above_the_level_match_and_are_returned() -> None:
    query = read("SERIES", StudyInstanceUID="1.2", PatientName="Doe*")
    assert [each.attribute.level for each in query.conditions] == [Level.PATIENT, Level.STUDY]


def test_unknown_and_private_keys_are_returned_empty_and_say_so() -> None:
    query = read_query(identifier() | {0x00091001: ("LO", "x"), 0x00181250: ("SH", "HEAD")}, Root.STUDY)
    assert query.unsupported and query.conditions == ()
    assert [(each.tag, each.vr) for each in query.returns if not each.attribute and each.constant is None] == [
        (0x00091001, "LO"), (0x00181250, "SH"),
    ]  # fmt: skip


def test_group_lengths_and_the_character_set_are_no_keys() -> None:
    extra = {0x00080000: ("UL", "10"), 0x00080005: ("CS", "ISO_IR 100"), 0x00100000: ("UL", "4")}
    query = read_query(identifier() | extra, Root.STUDY)
    assert not query.unsupported
    assert [each.tag for each in query.returns] == [0x00080052, 0x00080054]


def test_level_and_retrieve_title_are_always_returned() -> None:
    returns = {each.tag: each.constant for each in read(retrieve_aet="ARCHIVE", InstanceAvailability="").returns}
    assert returns == {0x00080052: "STUDY", 0x00080054: "ARCHIVE", 0x00080056: "ONLINE"}


def test_counts_are_returned_but_never_matched() -> None:
    query = read(NumberOfStudyRelatedInstances="5")
    assert query.conditions == () and query.unsupported
    assert not read(NumberOfStudyRelatedInstances="").unsupported or query.unsupported


def test_items_that_were_asked_for_are_returned() -> None:
    def items(value: list[dict[str, str]]) -> list[str]:
        (returned,) = [each for each in read("STUDY", ProcedureCodeSequence=value).returns if each.vr == "SQ"]
        return [item.keyword for item in returned.items]

    assert items([{"CodeMeaning": "", "CodeValue": ""}]) == ["CodeValue", "CodeMeaning"]
    assert items([]) == ["CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"]


def test_a_retrieval_is_its_unique_keys() -> None:
    keys = {"PatientID": "P1", "StudyInstanceUID": "1.2\\1.3", "PatientName": "ignored"}
    query = read_retrieval(identifier("STUDY", **keys), Root.PATIENT)
    assert [(each.attribute.keyword, each.test) for each in query.conditions] == [
        ("PatientID", OneOf(("P1",))), ("StudyInstanceUID", OneOf(("1.2", "1.3"))),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("level", "root", "keys", "comment"),
    [
        ("STUDY", Root.STUDY, {}, "StudyInstanceUID is missing"),
        ("STUDY", Root.STUDY, {"StudyInstanceUID": "*"}, "StudyInstanceUID is missing"),
        ("PATIENT", Root.PATIENT, {"PatientID": "1*"}, "PatientID must not hold wildcards here"),
        ("SERIES", Root.STUDY, {"SeriesInstanceUID": "1.2"}, "StudyInstanceUID is missing"),
    ],
)
def test_a_retrieval_names_what_it_wants(level: str, root: Root, keys: Keys, comment: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        read_retrieval(identifier(level, **keys), root)
    assert caught.value.comment == comment


def test_a_relational_retrieval_may_name_images_alone() -> None:
    query = read_retrieval(identifier("IMAGE", SOPInstanceUID="1\\2"), Root.STUDY, relational=True)
    assert [each.test for each in query.conditions] == [OneOf(("1", "2"))]
    with pytest.raises(InvalidQuery):
        read_retrieval(identifier("IMAGE"), Root.STUDY, relational=True)
