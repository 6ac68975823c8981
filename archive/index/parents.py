"""Patient, study and series of an arriving instance: found, made or contradicted.

Rules that hold here: who belongs to whom is decided by unique constraints, never by reading first and writing
later; what was read is remembered for the next instance of the series, and a foreign key notices when it is no
longer true; the first instance fills the rows, later ones only what is still empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from archive.dicom.attributes import Level
from archive.dicom.header import Header
from archive.dicom.names import name_tokens, same_name
from archive.index.columns import (
    CLEANERS,
    ISSUER,
    MODALITY,
    PATIENT_ID,
    PATIENT_NAME,
    REQUEST_COLUMNS,
    TABLES,
    Cleaner,
)
from archive.index.database import Session
from archive.index.extra import Filled

OTHER_STUDY = "Series Instance UID is in another study"
OTHER_PATIENT = "Study Instance UID belongs to another patient"
OTHER_NAME = "patient name mismatch"

WORDS = 30  # of one patient's names, or request IDs of one series, that can be searched for one by one
_ATTEMPTS = 5  # of finding a row that another process makes and takes back at the same moment

# Values that have rows of their own, for searching, and whose they are.
BESIDE = {"patient": "patient_word", "study": "study_modality", "series": "series_request"}

_UPPER = (Level.PATIENT, Level.STUDY, Level.SERIES)
# What rows are known by is never filled in later.
_FIXED = frozenset({PATIENT_ID})


@dataclass(slots=True)
class Parents:
    """The rows above an instance, and which of their attributes are still empty."""

    patient: int
    study: int
    series: int
    study_uid: str
    patient_id: str | None
    issuer: str
    patient_name: str
    missing: dict[Level, set[int]]
    created: list[tuple[str, int]] = field(default_factory=list)
    lacking: frozenset[int] = frozenset()
    agreed: tuple[str | None, ...] = ()  # what the last header that belonged here said
    corrected: int = 0  # an operation says something of these rows, see ``late``
    counted: bool = False  # rows that were made just now are counted already
    placed: bool = False  # the instance was given to this series, whatever it says itself
    said_patient: int = 0  # whom the objects name and fill in, where the study was given to another
    extra: Filled = frozenset()  # which of a site's own attributes the rows have

    def contradiction(self, header: Header, *, check_names: bool) -> str:
        """Why the header cannot belong here, or nothing."""
        if header.study_uid != self.study_uid:
            return OTHER_STUDY
        values = header.values
        name = values.get(PATIENT_NAME)
        said = (values.get(PATIENT_ID), values.get(ISSUER), name if check_names else None)
        if said == self.agreed:
            return ""
        patient_id, issuer = identity(values)
        if patient_id != self.patient_id or (issuer and self.issuer and issuer != self.issuer):
            return OTHER_PATIENT
        if check_names and not same_name(name or "", self.patient_name):
            return OTHER_NAME
        self.agreed = said
        return ""

    def lacks(self, values: Mapping[int, str]) -> bool:
        """Whether a header has something that one of the rows still lacks."""
        return any(values[tag] for tag in self.lacking & values.keys())

    def rows(self) -> dict[Level, int]:
        return {Level.PATIENT: self.patient, Level.STUDY: self.study, Level.SERIES: self.series}

    def settle(self) -> None:
        """Note what is lacking now."""
        self.lacking = frozenset(tag for missing in self.missing.values() for tag in missing)

    def copy(self) -> Parents:
        missing = {level: set(tags) for level, tags in self.missing.items()}
        return replace(self, missing=missing, created=list(self.created))


def identity(values: Mapping[int, str]) -> tuple[str | None, str]:
    """Patient ID (None when missing) and issuer, as the index keeps them."""
    row = CLEANERS[Level.PATIENT].row({tag: values[tag] for tag in (PATIENT_ID, ISSUER) if values.get(tag)})
    return row["patient_id"] or None, row["issuer_of_patient_id"] or ""


def find_parents(session: Session, header: Header) -> Parents | None:
    """The rows above a known series."""
    parents = _read(session, Level.SERIES, "e.series_instance_uid = ?", (header.series_uid,))
    if parents:
        parents.settle()
    return parents


def make_parents(session: Session, header: Header, now: float) -> Parents:
    """The rows above a series that was not known: those that exist, and new ones below them."""
    for _ in range(_ATTEMPTS):
        created: list[tuple[str, int]] = []
        study = _read(session, Level.STUDY, "s.study_instance_uid = ?", (header.study_uid,))
        study = study or _make_study(session, header, now, created)
        parents = study and _make_series(session, header, now, study, created)
        if parents:
            parents.created = created
            parents.settle()
            return parents
        discard(session, created)
        if found := find_parents(session, header):
            return found
    raise RuntimeError("rows appear and vanish")


def discard(session: Session, created: list[tuple[str, int]]) -> None:
    """Take back rows made in this transaction that nothing came to hang from."""
    for table, key in reversed(created):
        if table in BESIDE:
            session.run(f"DELETE FROM {BESIDE[table]} WHERE {table} = ?", (key,))
        session.run(f"DELETE FROM {table} WHERE id = ?", (key,))
    created.clear()


_ALIASES = {Level.PATIENT: "p", Level.STUDY: "s", Level.SERIES: "e"}
_FROM = {
    Level.PATIENT: "patient p",
    Level.STUDY: "study s JOIN patient p ON p.id = s.patient",
    Level.SERIES: "series e JOIN study s ON s.id = e.study JOIN patient p ON p.id = s.patient",
}


def _select(level: Level) -> str:
    keys = {
        Level.PATIENT: "p.corrected, p.id, NULL, NULL, NULL",
        Level.STUDY: "s.corrected, p.id, s.id, NULL, s.study_instance_uid",
    }
    head = keys.get(level, "s.corrected, p.id, s.id, e.id, s.study_instance_uid")
    rest = [f"{_ALIASES[each]}.{name}" for each in _UPPER if each <= level for name in CLEANERS[each].columns]
    return f"SELECT {head}, p.issuer, {', '.join(rest)} FROM {_FROM[level]} WHERE "


_SELECT = {level: _select(level) for level in _UPPER}


def _read(session: Session, level: Level, where: str, parameters: tuple[Any, ...]) -> Parents | None:
    row = session.row(_SELECT[level] + where, parameters)
    if row is None:
        return None
    corrected, patient, study, series, study_uid, issuer, *rest = row
    values: dict[Level, dict[str, Any]] = {}
    for each in _UPPER[: level + 1]:
        names = CLEANERS[each].columns
        values[each] = dict(zip(names, rest[: len(names)], strict=True))
        del rest[: len(names)]
    missing = {each: lacking_in(CLEANERS[each], found) for each, found in values.items()}
    person = values[Level.PATIENT]
    return Parents(
        patient, study or 0, series or 0, study_uid or "", person["patient_id"], issuer,
        person["patient_name"] or "", missing, corrected=corrected,
    )  # fmt: skip


def lacking_in(cleaner: Cleaner, row: Mapping[str, Any]) -> set[int]:
    """The attributes that a row does not have and later objects may give it."""
    return {tag for tag, column in cleaner.by_tag.items() if not row[column.name] and tag not in _FIXED}


def _insert(level: Level, own: tuple[str, ...], conflict: str) -> str:
    names = (*own, *(name for name in CLEANERS[level].columns if name not in own))
    return (
        f"INSERT INTO {TABLES[level]} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        f" ON CONFLICT ({conflict}) DO NOTHING RETURNING id"
    )


_PATIENT_OWN = ("issuer", "number_of_studies", "created")
_STUDY_OWN = (
    "study_instance_uid", "patient", "number_of_series", "number_of_instances", "total_size", "modalities_in_study",
    "sop_classes_in_study", "created", "updated",
)  # fmt: skip
_SERIES_OWN = ("series_instance_uid", "study", "number_of_instances", "created")

_INSERT_PATIENT = _insert(Level.PATIENT, _PATIENT_OWN, "patient_id, issuer")
_INSERT_STUDY = _insert(Level.STUDY, _STUDY_OWN, "study_instance_uid")
_INSERT_SERIES = _insert(Level.SERIES, _SERIES_OWN, "series_instance_uid")


def _create(session: Session, level: Level, sql: str, own: dict[str, Any], row: dict[str, Any]) -> int | None:
    rest = [value for name, value in row.items() if name not in own]
    made = session.row(sql, (*own.values(), *rest))
    return made[0] if made else None


def _find_or_make_patient(
    session: Session, header: Header, now: float, created: list[tuple[str, int]]
) -> Parents | None:
    patient_id, issuer = identity(header.values)
    where = "p.patient_id = ? AND p.issuer = ?"
    if patient_id and (found := _read(session, Level.PATIENT, where, (patient_id, issuer))):
        return found
    cleaner = CLEANERS[Level.PATIENT]
    row = cleaner.row(header.values)
    row["patient_id"] = patient_id
    own = dict(zip(_PATIENT_OWN, (issuer, 0, now), strict=True))
    key = _create(session, Level.PATIENT, _INSERT_PATIENT, own, row)
    if key is None:
        return _read(session, Level.PATIENT, where, (patient_id, issuer))
    created.append(("patient", key))
    add_words(session, key, row["patient_name"])
    missing = {Level.PATIENT: lacking_in(cleaner, row)}
    return Parents(key, 0, 0, "", patient_id, issuer, row["patient_name"] or "", missing)


def _make_study(session: Session, header: Header, now: float, created: list[tuple[str, int]]) -> Parents | None:
    parents = _find_or_make_patient(session, header, now, created)
    if parents is None:
        return None
    row = CLEANERS[Level.STUDY].row(header.values)
    own = dict(zip(_STUDY_OWN, (header.study_uid, parents.patient, 0, 0, 0, "", "", now, now), strict=True))
    key = _create(session, Level.STUDY, _INSERT_STUDY, own, row)
    if key is None:
        return None
    created.append(("study", key))
    parents.study, parents.study_uid = key, header.study_uid
    parents.missing[Level.STUDY] = lacking_in(CLEANERS[Level.STUDY], own | row)
    return parents


def _make_series(
    session: Session, header: Header, now: float, parents: Parents, created: list[tuple[str, int]]
) -> Parents | None:
    row = CLEANERS[Level.SERIES].row(header.values)
    own = dict(zip(_SERIES_OWN, (header.series_uid, parents.study, 0, now), strict=True))
    key = _create(session, Level.SERIES, _INSERT_SERIES, own, row)
    if key is None:
        return None
    created.append(("series", key))
    add_requests(session, key, row)
    parents.series = key
    parents.missing[Level.SERIES] = lacking_in(CLEANERS[Level.SERIES], own | row)
    return parents


def fill(session: Session, parents: Parents, values: Mapping[int, str]) -> None:
    """Give the rows above what they still lack and this header has."""
    for level, missing in parents.missing.items():
        if tags := [tag for tag in missing if values.get(tag)]:
            _fill(session, parents, level, {tag: values[tag] for tag in tags})
            missing.difference_update(tags)
    parents.settle()


def _fill(session: Session, parents: Parents, level: Level, values: Mapping[int, str]) -> None:
    found = {name: value for name, value in CLEANERS[level].row(values).items() if value and name != "verbatim"}
    if not found:
        return
    sets = ", ".join(f"{name} = COALESCE(NULLIF({name}, ''), ?)" for name in found)
    patient = parents.said_patient or parents.patient
    key = {Level.PATIENT: patient, Level.STUDY: parents.study, Level.SERIES: parents.series}[level]
    session.later(f"UPDATE {TABLES[level]} SET {sets} WHERE id = ?", (*found.values(), key))
    if "study_date" in found:
        session.later(
            "UPDATE study_modality SET study_date = ? WHERE study = ? AND study_date = ''", (found["study_date"], key)
        )
    if level is Level.SERIES:
        add_requests(session, key, found)
    if PATIENT_NAME in values:
        parents.patient_name = parents.patient_name or values[PATIENT_NAME]
        add_words(session, patient, values[PATIENT_NAME])


def add_words(session: Session, patient: int, name: str | None) -> None:
    words = [word[:100] for word in name_tokens(name or "")][:WORDS]
    sql = "INSERT INTO patient_word (word, patient) VALUES (?, ?) ON CONFLICT (word, patient) DO NOTHING"
    for word in dict.fromkeys(words):
        session.later(sql, (word, patient))


def add_requests(session: Session, series: int, row: Mapping[str, Any]) -> None:
    sql = "INSERT INTO series_request (keyword, value, series) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    for keyword, column in REQUEST_COLUMNS.items():
        for value in (row.get(column) or "").split("\\")[:WORDS]:
            if value:
                session.later(sql, (keyword, value, series))


def modality_of(values: Mapping[int, str]) -> str:
    """The modality a series with these values adds to its study."""
    return str(CLEANERS[Level.SERIES].row({MODALITY: values.get(MODALITY, "")})["modality"] or "")
