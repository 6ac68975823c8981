"""Attributes that a site indexes beyond the table are matched, returned, filled in later and forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from archive.dicom.attributes import Level
from archive.dicom.extra import ExtraKeys
from archive.dicom.matching import Root, read_query
from archive.index import Index, open_index
from archive.index.extra_fill import KIND
from tests.index.made import arrival, identifier, tag

NAMES = (
    "patient.CountryOfResidence", "study.NamesOfIntendedRecipientsOfResults", "study.ContentDate",
    "series.ScanningSequence", "series.AnatomicRegionSequence", "series.MagneticFieldStrength", "image.KVP",
    "image.DetectorDescription", "image.InstanceCreationTime",
)  # fmt: skip
KEYS = ExtraKeys.of(NAMES)
VALUES: dict[str, Any] = {
    "CountryOfResidence": "Österreich",
    "NamesOfIntendedRecipientsOfResults": "Müller^Eva=山田\\Roe^Ann",
    "ContentDate": "20240203",
    "ScanningSequence": "SE\\IR",
    "AnatomicRegionSequence": '[{"CodeValue": "T-A0100", "CodeMeaning": "Brain"},'
    ' {"CodeValue": "T-D1100", "CodeMeaning": "Head"}]',
    "MagneticFieldStrength": "1.50",
    "KVP": "120",
    "DetectorDescription": "line one\r\nback\\slash",
    "InstanceCreationTime": "101530.5",
}
OTHER = {"CountryOfResidence": "France", "ScanningSequence": "GR", "KVP": "80", "ContentDate": "20250101"}


@pytest.fixture
def index(index_url: str) -> Iterator[Index]:
    found = open_index(index_url, extra=KEYS)
    found.settle_extra(1.0)
    found.add([arrival("1.1", PatientID="A", **VALUES), arrival("1.2", PatientID="B", **OTHER)])
    yield found
    found.close()


def found(index: Index, level: str, returned: str, *, fuzzy: bool = False, **keys: Any) -> list[Any]:
    asked = read_query(
        identifier(level, **({returned: ""} | keys)), Root.PATIENT, relational=True, fuzzy=fuzzy, empty_values=True,
        extra=index.extra,
    )  # fmt: skip
    place = [each.tag for each in asked.returns].index(tag(returned))
    return sorted(row[place] or "" for row in index.find(asked))


CASES: list[tuple[str, dict[str, Any]]] = [
    ("PATIENT", {"CountryOfResidence": "Österreich"}),
    ("PATIENT", {"CountryOfResidence": "Ö*ch"}),
    ("STUDY", {"CountryOfResidence": "Öst*"}),
    ("STUDY", {"NamesOfIntendedRecipientsOfResults": "muller^*"}),
    ("STUDY", {"NamesOfIntendedRecipientsOfResults": "roe^ann"}),
    ("STUDY", {"NamesOfIntendedRecipientsOfResults": "=山田"}),
    ("STUDY", {"ContentDate": "20240201-20240301"}),
    ("STUDY", {"ScanningSequence": "IR"}),
    ("SERIES", {"ScanningSequence": "S?"}),
    ("SERIES", {"ScanningSequence": "XX\\SE"}),
    ("SERIES", {"MagneticFieldStrength": "1.5"}),
    ("SERIES", {"AnatomicRegionSequence": [{"CodeValue": "T-A0100", "CodeMeaning": "Br*"}]}),
    ("SERIES", {"AnatomicRegionSequence": [{"CodeMeaning": "Head"}], "ScanningSequence": "*"}),
    ("IMAGE", {"KVP": "120.0"}),
    ("IMAGE", {"DetectorDescription": "*back\\slash"}),
    ("IMAGE", {"InstanceCreationTime": "1015-1016"}),
    ("PATIENT", {"KVP": "120", "ScanningSequence": "SE"}),
]


@pytest.mark.parametrize(("level", "keys"), CASES)
def test_each_kind_of_value_is_matched(index: Index, level: str, keys: dict[str, Any]) -> None:
    assert found(index, level, "PatientID", **keys) == ["A"]


@pytest.mark.parametrize(
    ("level", "keys"),
    [
        ("STUDY", {"ScanningSequence": "S"}),
        ("STUDY", {"CountryOfResidence": "österreich"}),
        ("SERIES", {"AnatomicRegionSequence": [{"CodeValue": "T-A0100", "CodeMeaning": "Head"}]}),
        ("IMAGE", {"KVP": "12"}),
        ("STUDY", {"ContentDate": "20230101-20231231"}),
    ],
)
def test_what_does_not_match_is_not_found(index: Index, level: str, keys: dict[str, Any]) -> None:
    assert found(index, level, "PatientID", **keys) == []


def test_names_are_matched_fuzzily_and_missing_values_by_empty_quotes(index: Index) -> None:
    assert found(index, "STUDY", "PatientID", fuzzy=True, NamesOfIntendedRecipientsOfResults="eva mull") == ["A"]
    assert found(index, "IMAGE", "PatientID", DetectorDescription='""') == ["B"]
    assert found(index, "SERIES", "PatientID", MagneticFieldStrength='""') == ["B"]


def test_every_value_is_returned_as_it_came(index: Index) -> None:
    for name in NAMES:
        level, _, keyword = name.partition(".")
        assert found(index, level.upper(), keyword, PatientID="A") == [VALUES[keyword]]
    assert found(index, "STUDY", "CountryOfResidence") == ["France", "Österreich"]


def test_a_later_object_fills_what_is_still_missing_and_changes_nothing_else(index: Index) -> None:
    index.add([arrival("1.2", PatientID="B", ScanningSequence="SE", MagneticFieldStrength="3", KVP="140")])
    assert found(index, "SERIES", "ScanningSequence", PatientID="B") == ["GR"]
    assert found(index, "SERIES", "MagneticFieldStrength", PatientID="B") == ["3"]
    assert found(index, "IMAGE", "KVP", PatientID="B") == ["140", "80"]


def test_a_replaced_object_takes_its_values_along(index: Index) -> None:
    index.add([arrival("1.3", PatientID="C", sop="1.3.1.1", KVP="60")])
    index.add([arrival("1.3", PatientID="C", sop="1.3.1.1", KVP="70", policy="replace")])
    assert found(index, "IMAGE", "KVP", PatientID="C") == ["70"]
    assert found(index, "IMAGE", "PatientID", KVP="60") == []


def counts(index: Index) -> tuple[int, int]:
    values, terms = (
        index.read(lambda session, table=table: session.row(f"SELECT COUNT(*) FROM {table}"))[0]
        for table in ("extra_value", "extra_term")
    )
    return values, terms


def test_deleting_leaves_nothing_behind(index: Index) -> None:
    assert counts(index)[0] == len(VALUES) + len(OTHER)
    rows = index.read(lambda session: session.rows("SELECT id FROM instance"))
    index.remove([row[0] for row in rows])
    assert counts(index) == (0, 0)


def test_an_index_without_extra_attributes_keeps_none(index_url: str) -> None:
    index = open_index(index_url)
    assert not index.settle_extra(1.0)
    index.add([arrival("1.1", **VALUES)])
    assert counts(index) == (0, 0)
    assert index.tasks(kind=KIND) == []
    index.close()


def fill(index: Index, files: dict[str, dict[str, str]], page: int = 2) -> int:
    """What the background does, with headers in place of files; the number of files read."""
    reads = 0
    while rows := index.unfilled(page):
        lacking = [each for each in rows if each.lacking]
        reads += len(lacking)
        values = {each.id: {tag(k): v for k, v in files[each.sop_instance_uid].items()} for each in lacking}
        index.fill_extra(rows, values)
    index.end_extra()
    return reads


def test_attributes_that_were_configured_later_are_filled_in_and_those_that_are_no_more_forgotten(
    index_url: str,
) -> None:
    plain = open_index(index_url)
    plain.add([arrival("1.1", sop=f"1.1.1.{n}", PatientID="A") for n in range(1, 6)])
    plain.add([arrival("1.2", sop="1.2.1.1", PatientID="B")])
    plain.close()
    index = open_index(index_url, extra=ExtraKeys.of(["series.ScanningSequence", "series.SequenceName"]))
    assert index.settle_extra(1.0) and not index.settle_extra(2.0)
    assert [task.kind for task in index.lease(KIND, "me", 1e12, seconds=5)] == [KIND]
    files = {f"1.1.1.{n}": {"ScanningSequence": "SE", "SequenceName": "S"} for n in range(1, 6)} | {"1.2.1.1": OTHER}
    first = index.unfilled(2)
    index.fill_extra(first, {first[1].id: {tag("ScanningSequence"): "IR", tag("SequenceName"): "N"}})
    index.close()  # killed here: another process goes on behind the first page
    index = open_index(index_url, extra=ExtraKeys.of(["series.ScanningSequence", "series.SequenceName"]))
    assert fill(index, files) == 1
    assert found(index, "SERIES", "ScanningSequence") == ["GR", "IR"]
    assert index.extra_progress().filling == ()
    index.close()

    index = open_index(index_url, extra=ExtraKeys.of(["image.KVP", "series.SequenceName"]))
    assert index.settle_extra(3.0)
    assert index.extra_progress().dropping == ("series.ScanningSequence",)
    while index.drop_extra(1):
        pass
    assert counts(index) == (1, 1)  # the sequence name of one series
    assert fill(index, files) == 6
    assert found(index, "IMAGE", "KVP", PatientID="B") == ["80"]
    index.close()


def test_what_was_deleted_meanwhile_is_not_filled_in(index_url: str) -> None:
    plain = open_index(index_url)
    plain.add([arrival("1.1", sop="1.1.1.1")])
    plain.close()
    index = open_index(index_url, extra=ExtraKeys.of(["series.ScanningSequence", "image.KVP"]))
    index.settle_extra(1.0)
    page = index.unfilled(10)
    index.remove([page[0].id])
    index.fill_extra(page, {page[0].owners[Level.IMAGE]: {tag("KVP"): "120", tag("ScanningSequence"): "SE"}})
    assert counts(index) == (0, 0)
    index.close()
