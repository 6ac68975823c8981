"""What a study consists of.

Rules that hold here: one statement, so that it is one moment's state.
"""

from __future__ import annotations

from archive.index.database import Database

_SQL = (
    "SELECT e.series_instance_uid, i.sop_class_uid, i.sop_instance_uid FROM study s JOIN series e ON e.study = s.id"
    " JOIN instance i ON i.series = e.id WHERE s.study_instance_uid = ? ORDER BY e.id, i.id"
)


def contents(database: Database, study_uid: str) -> dict[str, list[tuple[str, str]]]:
    """SOP Class and Instance UIDs by series."""
    found: dict[str, list[tuple[str, str]]] = {}
    for series, sop_class, instance in database.read(lambda session: session.rows(_SQL, (study_uid,))):
        found.setdefault(str(series), []).append((str(sop_class), str(instance)))
    return found
