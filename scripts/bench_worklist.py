"""How long one station's worklist of today takes among many steps: ``scripts/bench_worklist.py [URL] [STEPS]``.

Without URL an SQLite file is made; with one the database has to be empty. Twenty stations, sixty days.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from datetime import date, timedelta

from archive.dicom.worklist import BY_KEYWORD, STEP, STEP_SEQUENCE_TAG, WorklistQuery, read_worklist_query
from archive.index import Index, open_index
from archive.index.database import Session
from archive.services.worklist import View, Worklist

STATIONS, DAYS, ROUNDS, BATCH = 20, 60, 30, 2000
ORDER = (
    "id", "placer", "placer_issuer", "filler", "filler_issuer", "accession_number", "requested_procedure_id",
    "study_instance_uid", "patient_id", "issuer", "patient_name_folded", "patient_name_ideographic",
    "patient_name_phonetic", "state", "attributes", "created", "changed",
)  # fmt: skip
STEP_COLUMNS = ("id", "imaging_order", "step_id", "state", "modality", "start_date", "start_time", "attributes")
TODAY = date(2026, 11, 21)


def fill(index: Index, steps: int) -> None:
    for start in range(0, steps, BATCH):
        numbers = range(start, min(start + BATCH, steps))
        index.database.transact(lambda session, numbers=numbers: _insert(session, numbers))


def _insert(session: Session, numbers: range) -> None:
    session.bulk("imaging_order", ORDER, [_order(number) for number in numbers])
    session.bulk("scheduled_step", STEP_COLUMNS, [_step(number) for number in numbers])
    session.bulk("scheduled_station", ("aet", "start_date", "step"), [(_station(n), _day(n), n + 1) for n in numbers])


def _order(number: int) -> tuple[object, ...]:
    values = {
        "PatientName": f"Doe{number}^Jane", "PatientID": f"P{number}", "AccessionNumber": f"A{number}",
        "StudyInstanceUID": f"1.2.3.{number}", "RequestedProcedureID": f"R{number}", "PatientSex": "F",
        "RequestedProcedureDescription": "CT head",
    }  # fmt: skip
    known = [f"P{number}", "", "", "", f"A{number}", f"R{number}", f"1.2.3.{number}", f"P{number}", ""]
    return (number + 1, *known, f"doe{number}^jane", None, None, "SCHEDULED", json.dumps(values), 0.0, 0.0)


def _step(number: int) -> tuple[object, ...]:
    start = f"{8 + number % 10:02}00"
    values = {
        "Modality": "CT", "ScheduledStationAETitle": _station(number), "ScheduledProcedureStepStartDate": _day(number),
        "ScheduledProcedureStepStartTime": start, "ScheduledProcedureStepID": "S1",
    }  # fmt: skip
    return number + 1, number + 1, "S1", "SCHEDULED", "CT", _day(number), f"{start}00", json.dumps(values)


def _day(number: int) -> str:
    return f"{TODAY + timedelta(number % DAYS - DAYS // 2):%Y%m%d}"


def _station(number: int) -> str:
    return f"CT{number // DAYS % STATIONS}"


def question(**step: str) -> WorklistQuery:
    above = {BY_KEYWORD[key].tag: (BY_KEYWORD[key].vr, "") for key in ("PatientName", "PatientID", "AccessionNumber")}
    items = {tag: (row.vr, step[row.keyword]) for tag, row in STEP.items() if row.keyword in step}
    return read_worklist_query({**above, STEP_SEQUENCE_TAG: ("SQ", [items])})


def measured(index: Index, query: WorklistQuery, view: View) -> tuple[int, float, float]:
    worklist = Worklist(index, today=lambda: TODAY)
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        found = len(list(worklist.search(query, view)))
        times.append((time.perf_counter() - began) * 1000)
    return found, median(times), max(times)


def main(url: str, steps: int) -> None:
    index = open_index(url)
    fill(index, steps)
    if url.startswith("postgresql"):
        index.database.transact(lambda session: session.run("ANALYZE"))
    today = f"{TODAY:%Y%m%d}"
    asked = question(ScheduledStationAETitle="CT3", ScheduledProcedureStepStartDate=today, Modality="CT")
    narrowed = View(stations=["CT3"], days_back=0, days_ahead=0)
    for name, query, view in (
        ("station and day asked for", asked, View()),
        ("narrowed by the peer's entry", question(Modality="CT"), narrowed),
        ("any station, today", question(ScheduledProcedureStepStartDate=today), View()),
    ):
        found, middle, worst = measured(index, query, view)
        print(f"{name}: {found} steps, median {middle:.1f} ms, longest {worst:.1f} ms")
    index.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(*(sys.argv[1:2] or [f"sqlite:///{folder}/index.db"]), int((sys.argv[2:3] or ["100000"])[0]))
