"""Changes of orders and their steps, as parts of the transaction that wants them.

Rules that hold here: an order is found again by its Study Instance UID, its placer's or filler's number or its
accession number, in this order; what a later message does not mention stays; what was done is not undone by a status
that comes late.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from archive.dicom.names import name_groups
from archive.dicom.temporal import canonical_date, canonical_time
from archive.dicom.worklist import ABOVE
from archive.errors import Conflict
from archive.index.conditions import Sql, all_of
from archive.index.database import Row, Session
from archive.index.ordervalues import (
    Attributes,
    NewStep,
    OrderChange,
    OrderKeys,
    OrderSummary,
    PatientChange,
    StepState,
)

_FIND = {
    "study_uid": "study_instance_uid = ?",
    "placer": "placer = ? AND placer_issuer = ?",
    "filler": "filler = ? AND filler_issuer = ?",
    "accession_number": "accession_number = ?",
}
_SELECT = "SELECT id, study_instance_uid, placer, placer_issuer, filler, filler_issuer, attributes FROM imaging_order"
# An order is read, merged with what a message says, and written: nobody else may write it between.
LOCK = {"sqlite": "", "postgresql": " FOR UPDATE"}  # in SQLite there is one writer anyway
_COLUMNS = (
    "placer", "placer_issuer", "filler", "filler_issuer", "accession_number", "requested_procedure_id",
    "study_instance_uid", "patient_id", "issuer", "patient_name_folded", "patient_name_ideographic",
    "patient_name_phonetic", "attributes", "changed",
)  # fmt: skip
# PS3.6, group 0010: what an order says of its patient.
_OF_PATIENT = frozenset(row.keyword for row in ABOVE.values() if row.tag >> 16 == 0x0010)
SUMMARY = (  # of what summary() is made
    "SELECT id, state, study_instance_uid, accession_number, placer, filler, patient_id, issuer, attributes, created,"
    " changed FROM imaging_order"
)
_INSERT = (
    f"INSERT INTO imaging_order ({', '.join(_COLUMNS)}, state, created)"
    f" VALUES ({', '.join('?' * (len(_COLUMNS) + 2))}) RETURNING id"
)
_UPDATE = f"UPDATE imaging_order SET {', '.join(f'{name} = ?' for name in _COLUMNS)} WHERE id = ?"
_INSERT_STEP = (
    "INSERT INTO scheduled_step (imaging_order, step_id, state, modality, start_date, start_time, attributes)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id"
)
_UPDATE_STEP = (
    "UPDATE scheduled_step SET state = ?, modality = ?, start_date = ?, start_time = ?, attributes = ? WHERE id = ?"
)


def change_order(session: Session, change: OrderChange, now: float) -> bool:
    row = known(session, change.keys)
    if row is None and not change.saves:
        return False
    key = _make(session, change, now) if row is None else _renew(session, row, change, now)
    if row is not None and change.reopens:
        _reopen(session, key)
    for step in change.steps:
        _save_step(session, key, step)
    if change.state:
        _set_states(session, key, change.state)
    elif change.steps:
        _follow_steps(session, key)
    return True


def known(session: Session, keys: OrderKeys, *, lock: bool = True) -> Row | None:
    suffix = LOCK[session.dialect.name] if lock else ""
    for name, test in _FIND.items():
        value = getattr(keys, name)
        if value:
            values = (value, getattr(keys, f"{name}_issuer")) if "issuer" in test else (value,)
            rows = session.rows(f"{_SELECT} WHERE {test} LIMIT 2{suffix}", values)
            if name == "study_uid" and rows and _contradicts(rows[0], keys):
                # One would take the other's numbers, and modalities would send its images under them.
                raise Conflict("Study Instance UID is that of another order", value)
            if name in ("filler", "accession_number"):
                rows = [row for row in rows if not _contradicts(row, keys)]
            # An accession number may stand for several orders of one visit: then it says nothing.
            if len(rows) == 1 or (rows and name != "accession_number"):
                return rows[0]
    return None


def _contradicts(row: Row, keys: OrderKeys) -> bool:
    """Whether an order has other numbers than these: it is another one then, whatever else they share."""
    _, _, placer, _, filler, _, _ = row
    pairs = ((placer, keys.placer), (filler, keys.filler))
    return any(mine and theirs and mine != theirs for mine, theirs in pairs)


def _make(session: Session, change: OrderChange, now: float) -> int:
    keys = change.keys
    numbers = (keys.placer, keys.placer_issuer, keys.filler, keys.filler_issuer)
    state = (change.state or StepState.SCHEDULED).value
    attributes = {**change.defaults, **change.attributes}
    study_uid = keys.study_uid or _text(attributes, "StudyInstanceUID")
    attributes["StudyInstanceUID"] = study_uid
    row = session.row(_INSERT, (*_values(numbers, study_uid, attributes, now), state, now))
    assert row is not None
    return int(row[0])


def _renew(session: Session, row: Row, change: OrderChange, now: float) -> int:
    """What the message says goes over what is known; the Study Instance UID stays for good."""
    key, study_uid, placer, placer_issuer, filler, filler_issuer, attributes = row
    keys = change.keys
    numbers = (
        (keys.placer, keys.placer_issuer) if keys.placer else (placer, placer_issuer)
    ) + ((keys.filler, keys.filler_issuer) if keys.filler else (filler, filler_issuer))  # fmt: skip
    before = json.loads(attributes)
    if change.saves and _is_of_another(before, change.attributes):
        before = {keyword: value for keyword, value in before.items() if keyword not in _OF_PATIENT}
    merged = {**before, **change.attributes, "StudyInstanceUID": study_uid}
    session.run(_UPDATE, (*_values(numbers, study_uid, merged, now), key))
    return int(key)


def _is_of_another(known: Attributes, said: Attributes) -> bool:
    """Whether a message names another patient: nothing that was known of the first one may stay."""
    new = _text(said, "PatientID")
    issuers = {_text(each, "IssuerOfPatientID") for each in (known, said)} - {""}
    return bool(new) and (new != _text(known, "PatientID") or len(issuers) > 1)


def _values(numbers: Sequence[str], study_uid: str, attributes: Attributes, now: float) -> tuple[Any, ...]:
    """The values of _COLUMNS."""
    groups = name_groups(_text(attributes, "PatientName").split("\\")[0])
    return (
        *numbers, _text(attributes, "AccessionNumber"), _text(attributes, "RequestedProcedureID"), study_uid,
        _text(attributes, "PatientID"), _text(attributes, "IssuerOfPatientID"), *(group or None for group in groups),
        json.dumps(dict(attributes)), now,
    )  # fmt: skip


def _text(attributes: Attributes, keyword: str) -> str:
    value = attributes.get(keyword)
    return value if isinstance(value, str) else ""


def _save_step(session: Session, order: int, step: NewStep) -> None:
    which, values = (" AND step_id = ?", (order, step.step_id)) if step.step_id else ("", (order,))
    rows = session.rows(
        f"SELECT id, step_id, state, attributes FROM scheduled_step WHERE imaging_order = ?{which}", values
    )
    for row in rows:
        _renew_step(session, row, step)
    if not rows:
        _make_step(session, order, step)


def _make_step(session: Session, order: int, step: NewStep) -> None:
    attributes = {**step.defaults, **step.attributes}
    step_id = step.step_id or _text(attributes, "ScheduledProcedureStepID") or "1"
    attributes["ScheduledProcedureStepID"] = step_id
    state = step.state or StepState.SCHEDULED
    row = session.row(_INSERT_STEP, (order, step_id, *_step_values(attributes, state.value)))
    assert row is not None
    _list_stations(session, int(row[0]), attributes)


def _renew_step(session: Session, row: Row, step: NewStep) -> None:
    key, step_id, state, known = row
    attributes = {**json.loads(known), **step.attributes, "ScheduledProcedureStepID": step_id}
    session.run(_UPDATE_STEP, (*_step_values(attributes, step.state.value if step.state else state), key))
    session.run("DELETE FROM scheduled_station WHERE step = ?", (key,))
    _list_stations(session, int(key), attributes)


def _step_values(attributes: Attributes, state: str) -> tuple[str, ...]:
    date = canonical_date(_text(attributes, "ScheduledProcedureStepStartDate")) or ""
    time = canonical_time(_text(attributes, "ScheduledProcedureStepStartTime")) or ""
    return state, _text(attributes, "Modality"), date, time, json.dumps(dict(attributes))


def _list_stations(session: Session, step: int, attributes: Attributes) -> None:
    date = canonical_date(_text(attributes, "ScheduledProcedureStepStartDate")) or ""
    for aet in sorted(set(_text(attributes, "ScheduledStationAETitle").split("\\")) - {""}):
        session.run("INSERT INTO scheduled_station (aet, start_date, step) VALUES (?, ?, ?)", (aet, date, step))


def _set_states(session: Session, order: int, state: StepState) -> None:
    """Of the order and all its steps; a step that was done stays done, and an order of such steps too."""
    done = (StepState.COMPLETED.value, StepState.DISCONTINUED.value)
    session.run("UPDATE imaging_order SET state = ? WHERE id = ?", (state.value, order))
    session.run(
        "UPDATE scheduled_step SET state = ? WHERE imaging_order = ? AND state NOT IN (?, ?)",
        (state.value, order, *done),
    )
    _follow_steps(session, order)


def advance(session: Session, keys: OrderKeys, step_id: str, state: StepState) -> None:
    """Set the state of one step, or of all when the order has no such step; an unknown order is nobody's fault.

    What was completed stays so when something else of it is given up; giving up an unknown step ends what was begun.
    """
    row = known(session, keys)
    if row is None:
        return
    there = session.row("SELECT 1 FROM scheduled_step WHERE imaging_order = ? AND step_id = ?", (row[0], step_id))
    tests: list[Sql] = [("imaging_order = ?", [row[0]])]
    tests += [("step_id = ?", [step_id])] if there else []
    if state is StepState.DISCONTINUED:
        tests += [("state != ?", [StepState.COMPLETED.value]) if there else ("state = ?", [StepState.STARTED.value])]
    sql, values = all_of(tests)
    session.run(f"UPDATE scheduled_step SET state = ? WHERE {sql}", (state.value, *values))
    _follow_steps(session, int(row[0]))


def _reopen(session: Session, order: int) -> None:
    given_up = (StepState.CANCELLED.value, StepState.DISCONTINUED.value)
    row = session.row("SELECT 1 FROM imaging_order WHERE id = ? AND state IN (?, ?)", (order, *given_up))
    if row:
        scheduled = StepState.SCHEDULED.value
        session.run("UPDATE imaging_order SET state = ? WHERE id = ?", (scheduled, order))
        session.run("UPDATE scheduled_step SET state = ? WHERE imaging_order = ?", (scheduled, order))


def _follow_steps(session: Session, order: int) -> None:
    """An order is as far as the least advanced of its open steps, or as its steps when none is open."""
    states = [
        StepState(row[0])
        for row in session.rows("SELECT state FROM scheduled_step WHERE imaging_order = ?", (order,))
    ]
    ranks = list(StepState)
    if states:
        least = min(states, key=ranks.index)
        session.run("UPDATE imaging_order SET state = ? WHERE id = ?", (least.value, order))


def change_patient(session: Session, change: PatientChange, now: float) -> None:
    """Orders of this identity, and of a prior one that is given up, say what the change says."""
    identities = [(change.patient_id, change.issuer)]
    # The issuer of the prior identity is none of this one's.
    attributes = {**change.attributes, "PatientID": change.patient_id, "IssuerOfPatientID": change.issuer}
    if change.prior_id:
        identities.insert(0, (change.prior_id, change.prior_issuer))
    for patient_id, issuer in identities:
        rows = session.rows(
            f"{_SELECT} WHERE patient_id = ? AND issuer = ? ORDER BY id{LOCK[session.dialect.name]}",
            (patient_id, issuer),
        )
        for row in rows:
            _renew(session, row, OrderChange(OrderKeys(), attributes=attributes, saves=False), now)


def summary(session: Session, row: Row) -> OrderSummary:
    """A row of an order with its steps."""
    key, state, study_uid, accession, placer, filler, patient_id, issuer, attributes, created, changed = row
    steps = session.rows(
        "SELECT step_id, state, attributes FROM scheduled_step WHERE imaging_order = ? ORDER BY id", (key,)
    )
    return OrderSummary(
        key, state, study_uid, accession, placer, filler, patient_id, issuer, json.loads(attributes),
        tuple((step, each, json.loads(text)) for step, each, text in steps), created, changed,
    )  # fmt: skip
