"""Every statement of receiving, querying and retrieving uses an index, on both databases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from archive.dicom.extra import ExtraKeys
from archive.dicom.matching import Root, read_query, read_retrieval
from archive.index import Index, NewTask, open_index
from archive.index.database import Session
from archive.index.models import MODELS
from archive.index.postgresql import PostgresqlDatabase, PostgresqlSession
from archive.index.sqlite import SqliteDatabase, SqliteSession
from scripts.index_rows import fill
from tests.index.made import arrival, identifier, query

TABLES = {str(model._meta.table_name) for model in MODELS}
Recorded = dict[str, tuple[Any, ...]]


@pytest.fixture
def recorded(index: Index, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """The statements that run from here on, with the values of one execution."""
    found: Recorded = {}

    def recording(name: str, owner: type) -> None:
        original = getattr(owner, name)

        def method(self: Any, sql: str, parameters: Any = ()) -> Any:
            found.setdefault(sql, tuple(parameters))
            return original(self, sql, parameters)

        monkeypatch.setattr(owner, name, method)

    for owner in (SqliteSession, PostgresqlSession):
        for name in ("row", "rows", "run"):
            recording(name, owner)
    for database in (SqliteDatabase, PostgresqlDatabase):
        recording("stream", database)
    fill(index, 2_000)
    index.add([arrival(f"8.{number}", PatientID="P8", RequestedProcedureID=f"N{number}") for number in range(60)])
    index.database.transact(lambda session: session.run("ANALYZE series_request"))
    found.clear()
    return found


def sqlite_scans(session: Session, sql: str, parameters: tuple[Any, ...]) -> list[str]:
    rows = [str(row[3]) for row in session.rows(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    aliases = {"p", "s", "e", "i", "s2", "e2", "i2"}
    # Making a parent, SQLite would look for children only if some were waiting for it.
    harmless = {"SCAN patient_word"} if sql.startswith("INSERT INTO patient ") else set()
    return [
        row for row in rows if row.startswith("SCAN") and row.split()[1] in TABLES | aliases and row not in harmless
    ]


def postgresql_scans(session: Session, sql: str, parameters: tuple[Any, ...]) -> list[str]:
    for choice in ("seqscan", "hashjoin", "mergejoin"):  # what is left shows whether an index can serve at all
        session.run(f"SET LOCAL enable_{choice} = off")
    row = session.row(f"EXPLAIN (FORMAT JSON) {sql}", parameters)
    assert row
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return [
        f"{node['Node Type']} {node.get('Relation Name', '')}"
        for node in nodes(plan[0]["Plan"])
        if (node["Node Type"] == "Seq Scan" and node["Relation Name"] in TABLES)
        or (node["Node Type"] in ("Index Scan", "Index Only Scan", "Bitmap Index Scan") and "Index Cond" not in node)
    ]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def scans(index: Index, recorded: Recorded) -> dict[str, list[str]]:
    """The statements that look at every row of a table, and where."""
    explain: Callable[..., list[str]] = {"sqlite": sqlite_scans, "postgresql": postgresql_scans}[
        index.database.dialect.name
    ]
    plain = {
        sql: parameters
        for sql, parameters in recorded.items()
        if sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))
    }
    assert plain
    found = {
        sql: index.database.transact(lambda session, sql=sql, values=values: explain(session, sql, values))  # type: ignore[misc]
        for sql, values in plain.items()
    }
    return {sql: each for sql, each in found.items() if each}


def test_receiving_scans_no_table(index: Index, recorded: Recorded) -> None:
    task = NewTask("route", {}, lane="A")
    first = arrival("1.1", sop="1.1.1.1", tasks=(task,), StudyDescription="")
    index.add([first, arrival("1.1", StudyDescription="Chest")], journal=(1, 1))
    index.add([arrival("1.1", sop="1.1.1.1"), arrival("1.1", "1.1.2", sop="1.1.1.1"), arrival("1.1", PatientID="Z")])
    index.add([arrival("1.1", sop="1.1.1.1", policy="replace")], check_names=True)
    index.known("1.1.1.1")
    index.applied(1)
    index.lease("route", "me", 1e12, seconds=5)
    index.lease("route", "me", 1e12, seconds=5, lane="A")
    known = index.known("1.1.1.1")
    assert known
    index.remove([known.id])
    assert scans(index, recorded) == {}


KEYS: list[tuple[str, dict[str, Any]]] = [
    ("STUDY", {"StudyInstanceUID": "1.1"}),
    ("STUDY", {"StudyInstanceUID": "1.1\\1.2"}),
    ("STUDY", {"PatientID": "P1"}),
    ("STUDY", {"PatientID": "PID0000001*"}),
    ("STUDY", {"PatientID": "Q?1*"}),
    ("STUDY", {"PatientName": "doe^john"}),
    ("STUDY", {"PatientName": "Doe*"}),
    ("STUDY", {"PatientName": "Doe^*"}),
    ("STUDY", {"PatientName": "山田*"}),
    ("STUDY", {"PatientName": "=山田*"}),
    ("STUDY", {"PatientBirthDate": "19700101-19701231"}),
    ("STUDY", {"StudyDate": "20240105"}),
    ("STUDY", {"StudyDate": "20240105-20240107", "ModalitiesInStudy": "CT"}),
    ("STUDY", {"StudyDate": "20240105-20240107", "StudyTime": "1000-1100"}),
    ("STUDY", {"StudyTime": "1000-1100"}),
    ("STUDY", {"AccessionNumber": "A1"}),
    ("STUDY", {"AccessionNumber": "ACC0000001*"}),
    ("STUDY", {"StudyID": "1"}),
    ("STUDY", {"StudyDescription": "Chest*"}),
    ("STUDY", {"ReferringPhysicianName": "House*"}),
    ("STUDY", {"ModalitiesInStudy": "SM"}),
    ("STUDY", {"Modality": "SM"}),
    ("STUDY", {"StudyDate": "20240105-", "ModalitiesInStudy": "SM"}),
    ("STUDY", {"SOPInstanceUID": "1.1"}),
    ("STUDY", {"SeriesInstanceUID": "1.1"}),
    ("PATIENT", {"PatientID": "P1"}),
    ("PATIENT", {"PatientName": "Doe*"}),
    ("PATIENT", {"StudyInstanceUID": "1.1"}),
    ("SERIES", {"StudyInstanceUID": "1.1"}),
    ("SERIES", {"StudyInstanceUID": "1.1", "Modality": "CT"}),
    ("SERIES", {"SeriesInstanceUID": "1.1"}),
    ("SERIES", {"PatientID": "P1"}),
    ("SERIES", {"RequestedProcedureID": "R1"}),
    ("SERIES", {"SeriesDescription": "coronal*"}),
    ("SERIES", {"PerformedProcedureStepStartDate": "20240105-"}),
    ("IMAGE", {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}),
    ("IMAGE", {"SOPInstanceUID": "1\\2"}),
    ("IMAGE", {"StudyInstanceUID": "1.1"}),
]
COMPUTED = (
    "NumberOfStudyRelatedInstances",
    "ModalitiesInStudy",
    "SOPClassesInStudy",
    "NumberOfPatientRelatedInstances",
)


@pytest.mark.parametrize("visible", [None, "Modality != 'PR'", "SOPClassUID = '1.2'", "InstitutionName != 'X'"])
def test_querying_and_retrieving_scan_no_table(index: Index, recorded: Recorded, visible: str | None) -> None:
    for level, keys in KEYS:
        returned = dict.fromkeys(COMPUTED, "") if level != "PATIENT" else {}
        wanted = query(level, root=Root.PATIENT, **(returned | {"PatientName": ""} | keys))
        list(index.find(wanted, visible=visible))
    for level, keys in (
        ("PATIENT", {"PatientID": "P1"}),
        ("STUDY", {"StudyInstanceUID": "1.1\\1.2"}),
        ("SERIES", {"SeriesInstanceUID": "1.1\\1.2"}),
        ("IMAGE", {"SOPInstanceUID": "1.1\\1.2"}),
    ):
        retrieval = read_retrieval(identifier(level, **keys), Root.PATIENT, relational=True)
        list(index.instances(retrieval, visible=visible))
        index.count(retrieval, visible=visible)
    assert scans(index, recorded) == {}


EXTRA = ExtraKeys.of([
    "study.NamesOfIntendedRecipientsOfResults", "series.ScanningSequence", "series.AnatomicRegionSequence", "image.KVP",
])  # fmt: skip


def test_a_site_s_own_attributes_scan_no_table(index_url: str, recorded: Recorded) -> None:
    with closing(open_index(index_url, extra=EXTRA)) as index:
        index.settle_extra(1.0)
        said = {"ScanningSequence": "SE", "KVP": "120", "NamesOfIntendedRecipientsOfResults": "Roe^Ann"}
        said["AnatomicRegionSequence"] = '[{"CodeValue": "1", "CodeMeaning": "2"}]'
        index.add([arrival(f"9.{number}", sop=f"9.{number}.1", **said) for number in range(500)])
        index.add([arrival("9.1", sop="9.1.1", policy="replace", **said)])
        index.database.transact(lambda session: session.run("ANALYZE"))
        recorded.clear()
        index.add([arrival("9.1", **said)])
        for level, keys in (
            ("STUDY", {"NamesOfIntendedRecipientsOfResults": "roe*"}),
            ("STUDY", {"ScanningSequence": "SE", "StudyInstanceUID": "9.1"}),
            ("SERIES", {"AnatomicRegionSequence": [{"CodeValue": "1", "CodeMeaning": "2"}]}),
            ("IMAGE", {"KVP": "1*"}),
            ("IMAGE", {"KVP": '""', "PatientID": "P1"}),
        ):
            wanted = read_query(identifier(level, **keys), Root.STUDY, relational=True, empty_values=True, extra=EXTRA)
            list(index.find(wanted))
        page = index.unfilled(50)
        index.fill_extra(page, {})
        known = index.known("9.1.1")
        assert known
        index.remove([known.id])
        index.drop_extra(10)
        index.end_extra()
        assert scans(index, recorded) == {}


def test_fuzzy_names_scan_no_table(index: Index, recorded: Recorded) -> None:
    list(index.find(query("STUDY", fuzzy=True, PatientName="john doe")))
    assert scans(index, recorded) == {}
