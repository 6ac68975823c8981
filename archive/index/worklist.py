"""The worklist: scheduled steps with their orders, by start.

Rules that hold here: answers stream page by page; conditions in SQL only narrow what is then matched exactly, by the
columns beside the JSON of each step.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence

from archive.dicom.fit import fits_all
from archive.dicom.query import Between, Condition, Moment, NameIs, OneOf
from archive.dicom.worklist import WorklistQuery
from archive.index.conditions import Sql, all_of, any_of, fits, variants
from archive.index.database import Database, Dialect, Row
from archive.index.ordervalues import OPEN_STATES, Attributes, StepState

Steps = Generator[tuple[Attributes, Attributes], None, None]


def worklist(
    database: Database,
    query: WorklistQuery,
    *,
    states: Sequence[StepState] = OPEN_STATES,
    dates: tuple[str, str] | None = None,
    stations: Sequence[str] = (),
    modalities: Sequence[str] = (),
) -> Steps:
    """Orders and steps that match, by start, streamed; closing the iterator frees what it holds.

    ``dates``, ``stations`` and ``modalities`` narrow what the asker may see.
    """
    sql, values = statement(
        database.dialect, query, states=states, dates=dates, stations=stations, modalities=modalities
    )
    return _matching(database.stream(sql, values), query)


def statement(
    dialect: Dialect,
    query: WorklistQuery,
    *,
    states: Sequence[StepState] = OPEN_STATES,
    dates: tuple[str, str] | None = None,
    stations: Sequence[str] = (),
    modalities: Sequence[str] = (),
) -> Sql:
    """The statement behind ``worklist``."""
    tests: list[Sql] = [(f"s.state IN ({', '.join('?' * len(states))})", [state.value for state in states])]
    tests += [_between("s.start_date", dates)] if dates else []
    tests += [("s.modality IN (" + ", ".join("?" * len(modalities)) + ")", list(modalities))] if modalities else []
    days = dates or _days(query.step)
    tests += [_at_stations(stations, days)] if stations else []
    tests += filter(None, (_step_test(each, days) for each in query.step))
    tests += filter(None, (_order_test(dialect, each) for each in query.above))
    sql, values = all_of(tests)
    return (
        "SELECT o.attributes, s.attributes, s.state FROM scheduled_step s"
        f" JOIN imaging_order o ON o.id = s.imaging_order WHERE {sql} ORDER BY s.start_date, s.start_time, s.id",
        values,
    )


def _matching(rows: Iterator[Row], query: WorklistQuery) -> Generator[tuple[Attributes, Attributes], None, None]:
    try:
        for above_text, step_text, state in rows:
            above = json.loads(above_text)
            step = {**json.loads(step_text), "ScheduledProcedureStepStatus": state}
            if fits_all(query.above, above) and fits_all(query.step, step):
                yield above, step
    finally:
        rows.close()  # type: ignore[attr-defined]


def _between(column: str, bounds: tuple[str | None, str | None]) -> Sql:
    ends = ((f"{column} >= ?", bounds[0]), (f"{column} <= ?", bounds[1]))
    return all_of([(sql, [value]) for sql, value in ends if value])


Days = tuple[str | None, str | None]


def _at_stations(stations: Sequence[str], days: Days) -> Sql:
    """Steps of these stations: the days are beside the titles, so that years of a station's past cost nothing."""
    marks = ", ".join("?" * len(stations))
    tests: list[Sql] = [(f"aet IN ({marks})", list(stations))]
    sql, values = all_of([*tests, *([_between("start_date", days)] if any(days) else [])])
    return f"s.id IN (SELECT step FROM scheduled_station WHERE {sql})", values


def _days(wanted: Sequence[Condition]) -> Days:
    """The days that are asked for."""
    for each in wanted:
        match each.attribute.keyword, each.test:
            case "ScheduledProcedureStepStartDate", Between(low, high):
                return low, high
            case "ScheduledProcedureStepStartDate", Moment() as moment:
                return moment.low and moment.low[0], moment.high and moment.high[0]
    return None, None


def _step_test(wanted: Condition, days: Days) -> Sql | None:
    match wanted.attribute.keyword, wanted.test:
        case "ScheduledStationAETitle", OneOf(titles):
            return _at_stations(titles, days)
        case "ScheduledProcedureStepStartDate", Between() | Moment():
            return _between("s.start_date", days)
        case "Modality", OneOf(modalities):
            return f"s.modality IN ({', '.join('?' * len(modalities))})", list(modalities)
    return None


_EQUAL = {
    "PatientID": "o.patient_id",
    "AccessionNumber": "o.accession_number",
    "StudyInstanceUID": "o.study_instance_uid",
    "RequestedProcedureID": "o.requested_procedure_id",
}
_NAME_COLUMNS = ("patient_name_folded", "patient_name_ideographic", "patient_name_phonetic")


def _order_test(dialect: Dialect, wanted: Condition) -> Sql | None:
    match wanted.attribute.keyword, wanted.test:
        case keyword, OneOf(values) if keyword in _EQUAL:
            return f"{_EQUAL[keyword]} IN ({', '.join('?' * len(values))})", list(values)
        case "PatientName", NameIs((pattern,)):
            columns = _NAME_COLUMNS[:1] if pattern.isascii() else _NAME_COLUMNS
            return any_of([fits(dialect, f"o.{column}", each) for column in columns for each in variants(pattern)])
    return None
