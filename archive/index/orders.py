"""Orders, their scheduled steps, and the messages that brought them.

Rules that hold here: a message and what it causes are one transaction, so that an acknowledged message has taken
effect once, however often it is sent; an order is found again by its Study Instance UID, its placer's or filler's
number or its accession number, in this order; what a later message does not mention stays; the answers of a worklist
stream page by page, and its conditions in SQL only narrow what is then matched exactly.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from archive.dicom.fit import fits_all
from archive.dicom.names import name_groups
from archive.dicom.query import Between, Condition, Moment, NameIs, OneOf
from archive.dicom.temporal import canonical_date, canonical_time
from archive.dicom.worklist import ABOVE, WorklistQuery
from archive.errors import Conflict
from archive.index.conditions import Sql, all_of, any_of, fits, variants
from archive.index.database import Database, Row, Session
from archive.index.instances import insert_task
from archive.index.values import NewTask

Attributes = Mapping[str, Any]  # text, or a list of such mappings, by keyword


class StepState(Enum):
    """Of a scheduled procedure step (PS3.3 C.4.10, Scheduled Procedure Step Status), and of the whole order."""

    SCHEDULED = "SCHEDULED"
    ARRIVED = "ARRIVED"
    READY = "READY"
    STARTED = "STARTED"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"
    CANCELLED = "CANCELLED"


OPEN_STATES = (StepState.SCHEDULED, StepState.ARRIVED, StepState.READY, StepState.STARTED)


@dataclass(frozen=True, slots=True)
class NewStep:
    """A step as a message says it; without a ``step_id`` all steps of the order are meant.

    ``defaults`` are for a step that is new, without a ``state`` the step keeps the one it has.
    """

    step_id: str
    attributes: Attributes
    state: StepState | None = None
    defaults: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OrderKeys:
    """What an order is known by; empty ones are not looked for."""

    study_uid: str = ""
    placer: str = ""
    placer_issuer: str = ""
    filler: str = ""
    filler_issuer: str = ""
    accession_number: str = ""


@dataclass(frozen=True, slots=True)
class OrderChange:
    """What one order group of a message asks for: attributes and steps to save, or only a state.

    ``defaults`` are for an order that is new.
    """

    keys: OrderKeys
    state: StepState | None = None
    attributes: Attributes = field(default_factory=dict)
    defaults: Attributes = field(default_factory=dict)
    steps: tuple[NewStep, ...] = ()
    saves: bool = True  # else the order must be there
    reopens: bool = False  # an order that was given up is scheduled again


@dataclass(frozen=True, slots=True)
class PatientChange:
    """New attributes of a patient, or with ``prior`` what becomes of another identity's orders."""

    patient_id: str
    issuer: str
    attributes: Attributes
    prior_id: str = ""
    prior_issuer: str = ""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message as it is kept: ``code`` is that of its acknowledgement."""

    sender: str
    address: str
    control_id: str
    digest: str
    kind: str
    received: float
    code: str
    reason: str
    content: bytes
    patient_id: str = ""
    accession_number: str = ""


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A row of the history of messages."""

    id: int
    sender: str
    address: str
    control_id: str
    kind: str
    received: float
    code: str
    reason: str
    patient_id: str
    accession_number: str
    content: bytes


@dataclass(frozen=True, slots=True)
class OrderSummary:
    """One order as an administrator's list shows it."""

    id: int
    state: str
    study_uid: str
    accession_number: str
    placer: str
    filler: str
    patient_id: str
    issuer: str
    attributes: Attributes
    steps: tuple[tuple[str, str, Attributes], ...]  # step ID, state, attributes
    created: float
    changed: float


class Applied(Enum):
    """What became of a message."""

    DONE = "done"
    REPEATED = "repeated"  # the same message has taken effect before
    DIFFERENT = "different"  # the same control ID, other content
    UNKNOWN_ORDER = "unknown order"
    OTHER_ORDER = "other order"  # its Study Instance UID is that of an order with other numbers


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
_INSERT_MESSAGE = (
    "INSERT INTO hl7_message (sender, address, control_id, unique_key, digest, kind, received, code, reason,"
    " patient_id, accession_number, content) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (unique_key) DO NOTHING RETURNING id"
)


class Orders:
    """The orders of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- messages -------------------------------------------------------------------------------

    def apply(
        self,
        message: NewMessage,
        orders: Sequence[OrderChange] = (),
        patients: Sequence[PatientChange] = (),
        tasks: Sequence[NewTask] = (),
    ) -> Applied:
        """Keep a message together with all it changes and causes, in one transaction. Raises IndexUnavailable."""

        def work(session: Session) -> Applied:
            if not _keep(session, message, unique=True):
                row = session.row("SELECT digest FROM hl7_message WHERE unique_key = ?", (_unique_key(message),))
                return Applied.REPEATED if row == (message.digest,) else Applied.DIFFERENT
            for patient in patients:
                _change_patient(session, patient, message.received)
            for change in orders:
                if not _change_order(session, change, message.received):
                    raise _Unknown
            for task in tasks:
                insert_task(session, task, message.received)
            return Applied.DONE

        try:
            return self._database.transact(work, repeatable=False)
        except _Unknown:
            return Applied.UNKNOWN_ORDER
        except Conflict:
            return Applied.OTHER_ORDER

    def keep(self, message: NewMessage) -> None:
        """Keep a message that was refused, which may come as often as it likes."""
        self._database.transact(lambda session: _keep(session, message, unique=False))

    def messages(
        self, *, limit: int = 100, before: int | None = None, control_id: str = "", patient_id: str = "",
        accession_number: str = "", code: str = "",
    ) -> list[KeptMessage]:  # fmt: skip
        """The history, newest first, a page at a time; what is given must be equal."""
        wanted = {
            "control_id": control_id, "patient_id": patient_id, "accession_number": accession_number, "code": code,
        }  # fmt: skip
        tests: list[Sql] = [(f"{name} = ?", [value]) for name, value in wanted.items() if value]
        tests += [("id < ?", [before])] if before is not None else []
        sql, values = all_of(tests)
        rows = self._database.read(
            lambda session: session.rows(
                "SELECT id, sender, address, control_id, kind, received, code, reason, patient_id, accession_number,"
                f" content FROM hl7_message WHERE {sql} ORDER BY id DESC LIMIT ?",
                (*values, limit),
            )
        )
        return [KeptMessage(*row) for row in rows]

    def purge_messages(self, before: float) -> int:
        """Forget messages received before; return how many."""
        return self._database.transact(
            lambda session: session.run("DELETE FROM hl7_message WHERE received < ?", (before,))
        )

    # -- orders ---------------------------------------------------------------------------------

    def latest(
        self, *, limit: int = 100, before: int | None = None, patient_id: str = "", accession_number: str = "",
        study_uid: str = "", state: str = "", placer: str = "", filler: str = "",
    ) -> list[OrderSummary]:  # fmt: skip
        """Orders, newest first, a page at a time; what is given must be equal."""
        wanted = {
            "patient_id": patient_id, "accession_number": accession_number, "study_instance_uid": study_uid,
            "state": state, "placer": placer, "filler": filler,
        }  # fmt: skip
        tests: list[Sql] = [(f"{name} = ?", [value]) for name, value in wanted.items() if value]
        tests += [("id < ?", [before])] if before is not None else []
        sql, values = all_of(tests)

        def work(session: Session) -> list[OrderSummary]:
            rows = session.rows(f"{SUMMARY} WHERE {sql} ORDER BY id DESC LIMIT ?", (*values, limit))
            return [summary(session, row) for row in rows]

        return self._database.read(work)

    def find(self, keys: OrderKeys) -> OrderSummary | None:
        """The order that a message with these keys is about."""

        def work(session: Session) -> OrderSummary | None:
            row = _known(session, keys, lock=False)
            sql = f"{SUMMARY} WHERE id = ?"
            return summary(session, session.rows(sql, (row[0],))[0]) if row else None

        return self._database.read(work)

    def save(self, change: OrderChange, now: float, tasks: Sequence[NewTask] = ()) -> bool:
        """An order that came by no message, from an imported worklist for example; False when it had to be there.

        Raises Conflict when its Study Instance UID is that of an order with other numbers.
        """

        def work(session: Session) -> bool:
            for task in tasks:
                insert_task(session, task, now)
            return _change_order(session, change, now)

        return self._database.transact(work)

    def set_state(self, study_uid: str, state: StepState, now: float, *, step_id: str = "") -> bool:
        """Set the state of an order and its steps, or of one step; False when there is none."""
        steps = (NewStep(step_id, {}, state),) if step_id else ()
        change = OrderChange(OrderKeys(study_uid=study_uid), None if step_id else state, steps=steps, saves=False)
        return self.save(change, now)

    # -- worklist -------------------------------------------------------------------------------

    def worklist(
        self, query: WorklistQuery, *, states: Sequence[StepState] = OPEN_STATES, dates: tuple[str, str] | None = None,
        stations: Sequence[str] = (), modalities: Sequence[str] = (),
    ) -> Generator[tuple[Attributes, Attributes], None, None]:  # fmt: skip
        """Orders and steps that match, by start, streamed; closing the iterator frees what it holds.

        ``dates``, ``stations`` and ``modalities`` narrow what the asker may see.
        """
        sql, values = self.statement(query, states=states, dates=dates, stations=stations, modalities=modalities)
        return _matching(self._database.stream(sql, values), query)

    def statement(
        self, query: WorklistQuery, *, states: Sequence[StepState] = OPEN_STATES, dates: tuple[str, str] | None = None,
        stations: Sequence[str] = (), modalities: Sequence[str] = (),
    ) -> Sql:  # fmt: skip
        """The statement behind ``worklist``."""
        dialect = self._database.dialect
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


# -- conditions that narrow -------------------------------------------------------------------------


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
# PS3.6, group 0010: what an order says of its patient.
_OF_PATIENT = frozenset(row.keyword for row in ABOVE.values() if row.tag >> 16 == 0x0010)
_NAME_COLUMNS = ("patient_name_folded", "patient_name_ideographic", "patient_name_phonetic")


def _order_test(dialect: Any, wanted: Condition) -> Sql | None:
    match wanted.attribute.keyword, wanted.test:
        case keyword, OneOf(values) if keyword in _EQUAL:
            return f"{_EQUAL[keyword]} IN ({', '.join('?' * len(values))})", list(values)
        case "PatientName", NameIs((pattern,)):
            columns = _NAME_COLUMNS[:1] if pattern.isascii() else _NAME_COLUMNS
            return any_of([fits(dialect, f"o.{column}", each) for column in columns for each in variants(pattern)])
    return None


# -- changes ----------------------------------------------------------------------------------------


class _Unknown(Exception):  # noqa: N818 - rolls a transaction back, and is no error of anybody
    """An order that had to be there is not."""


def _unique_key(message: NewMessage) -> str:
    return f"{message.sender}\x1f{message.control_id}"


def _keep(session: Session, message: NewMessage, *, unique: bool) -> bool:
    row = session.row(
        _INSERT_MESSAGE,
        (
            message.sender, message.address, message.control_id, _unique_key(message) if unique else None,
            message.digest, message.kind, message.received, message.code, message.reason, message.patient_id,
            message.accession_number, message.content,
        ),
    )  # fmt: skip
    return row is not None


def _change_order(session: Session, change: OrderChange, now: float) -> bool:
    row = _known(session, change.keys)
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


def _known(session: Session, keys: OrderKeys, *, lock: bool = True) -> Row | None:
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
    row = _known(session, keys)
    if row is None:
        return
    known = session.row("SELECT 1 FROM scheduled_step WHERE imaging_order = ? AND step_id = ?", (row[0], step_id))
    tests: list[Sql] = [("imaging_order = ?", [row[0]])]
    tests += [("step_id = ?", [step_id])] if known else []
    if state is StepState.DISCONTINUED:
        tests += [("state != ?", [StepState.COMPLETED.value]) if known else ("state = ?", [StepState.STARTED.value])]
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


def _change_patient(session: Session, change: PatientChange, now: float) -> None:
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
