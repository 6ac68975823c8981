"""Rows of made-up studies for measuring the index: evenly spread names, dates, scanners and modalities.

Rules that hold here: the same number gives the same study; rows go in the fastest way a database has, so that a million
studies take minutes; what is left is settled as it would be after months of use (statistics, write-ahead log).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from archive.dicom.attributes import BY_KEYWORD, Level
from archive.index import Index
from archive.index.columns import CLEANERS, TABLES

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
MODALITIES = ("CT", "MR", "CR", "DX", "US", "MG", "NM", "XA")
CHUNK = 10_000
SYLLABLES = "an be cor da el fi gu ha is ja ko li mo na ol pe ra si ta ul va wi xo yo ze".split()


def tag(keyword: str) -> int:
    return BY_KEYWORD[keyword][0].tag


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
