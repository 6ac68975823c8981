"""Stored instances with their attributes, for rules that look at what is there already.

Rules that hold here: attributes come as the index keeps them, by keyword, the lowest level that has one; instances come
in the order in which they arrived, streamed.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from archive.dicom.attributes import BY_KEYWORD, Level
from archive.index.database import Database
from archive.index.stored import STORED_COLUMNS, stored_instance
from archive.index.values import StoredInstance

_ALIASES = {Level.PATIENT: "p", Level.STUDY: "s", Level.SERIES: "e", Level.IMAGE: "i"}
_OWN = "i.source, i.address, i.received"


@dataclass(frozen=True, slots=True)
class Described:
    """One stored instance, who handed it in, when, and its attributes by keyword."""

    instance: StoredInstance
    source: str
    address: str
    received: float
    values: Mapping[str, str] = field(default_factory=dict)


def described(
    database: Database,
    keywords: Collection[str],
    *,
    study_uid: str = "",
    series_uid: str = "",
    sop_instance_uids: Collection[str] = (),
    since: float | None = None,
) -> Generator[Described, None, None]:
    """The instances of a study, of a series, by their UIDs, or all that came ``since``."""
    columns = _columns(keywords)
    tests: list[tuple[str, Any]] = []
    if sop_instance_uids:
        among = database.dialect.among.format(column="i.sop_instance_uid")
        tests.append((among, database.dialect.listed(list(sop_instance_uids))))
    for test, value in (
        ("s.study_instance_uid = ?", study_uid), ("e.series_instance_uid = ?", series_uid), ("i.received >= ?", since),
    ):  # fmt: skip
        if value not in ("", None):
            tests.append((test, value))
    where = " AND ".join(test for test, _ in tests) or "1 = 1"
    sql = (
        f"SELECT {', '.join([_OWN, STORED_COLUMNS, *columns.values()])} FROM instance i"
        " JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study JOIN patient p ON p.id = s.patient"
        f" WHERE {where} ORDER BY i.id"
    )
    own = len(sql.split(" FROM ", 1)[0].split(",")) - len(columns)
    for row in database.stream(sql, tuple(value for _, value in tests)):
        values = {name: str(value) for name, value in zip(columns, row[own:], strict=True) if value is not None}
        yield Described(stored_instance(row[3:own]), row[0], row[1], row[2], values)


def _columns(keywords: Collection[str]) -> dict[str, str]:
    """Keyword -> column, of the lowest level that stores it; what is not stored is left out."""
    found = {}
    for keyword in sorted(keywords):
        rows = [row for row in BY_KEYWORD.get(keyword, ()) if row.column and not row.computed]
        if rows:
            found[keyword] = f"{_ALIASES[rows[-1].level]}.{rows[-1].column}"
    return found
