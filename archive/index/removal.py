"""Deleting instances, and the series, studies and patients that are left empty.

Rules that hold here: rows go first and files afterwards, so that no row ever points to nothing; counts and lists
are right when the transaction ends; what another process just gave an instance is not empty and stays.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from archive.dicom.attributes import Level
from archive.index.columns import TABLES
from archive.index.database import Database, Session
from archive.index.extra import drop
from archive.index.overlay import refresh_patient
from archive.index.parents import BESIDE
from archive.index.tombstones import drop_copies
from archive.index.values import Location, Removed
from archive.index.versions import drop as drop_versions

LEVELS = {table: level for level, table in TABLES.items()}
CHUNK = 2_000  # instances of one transaction, so that arrivals wait for tenths of a second at most


def remove(database: Database, ids: Collection[int]) -> Removed:
    keys, total = sorted(set(ids)), Removed()
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        part = database.transact(lambda session, chunk=chunk: Removal(session).run(chunk))  # type: ignore[misc]
        total = joined(total, part)
    return total


def joined(one: Removed, other: Removed) -> Removed:
    return Removed(
        one.files + other.files, one.instances + other.instances, one.series + other.series, one.studies + other.studies
    )


# What is replaced at this very moment is waited for: its newer file is the one to go. SQLite has one writer anyway.
_LOCK = {"sqlite": "", "postgresql": " FOR UPDATE OF i"}


class Removal:
    """One transaction's deletion."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def among(self, column: str) -> str:
        return self.session.dialect.among.format(column=column)

    def listed(self, keys: Sequence[int]) -> tuple[Any, ...]:
        return (self.session.dialect.listed(keys),)

    def run(self, ids: Sequence[int]) -> Removed:
        session = self.session
        rows = session.rows(
            "SELECT i.id, i.series, e.study, i.volume, i.path, i.data_offset, i.data_size FROM instance i"
            f" JOIN series e ON e.id = i.series WHERE {self.among('i.id')}{_LOCK[session.dialect.name]}",
            self.listed(ids),
        )
        if not rows:
            return Removed()
        beside = drop_versions(session, [row[0] for row in rows]) + drop_copies(session, [row[0] for row in rows])
        session.run(f"DELETE FROM instance WHERE {self.among('id')}", self.listed([row[0] for row in rows]))
        drop(session, Level.IMAGE, [row[0] for row in rows])
        series = self._shrink_series(sorted({row[1] for row in rows}), [row[1] for row in rows])
        sizes = [(row[2], row[6]) for row in rows]
        studies = self._shrink_studies(sorted({row[2] for row in rows}), sizes)
        return Removed((*(Location(*row[3:]) for row in rows), *beside), len(rows), series, studies)

    def _shrink_series(self, keys: list[int], removed: list[int]) -> tuple[str, ...]:
        gone: list[str] = []
        for key in keys:
            self.session.run(
                "UPDATE series SET number_of_instances = number_of_instances - ? WHERE id = ?",
                (removed.count(key), key),
            )
            self._drop_beside("series", key, "number_of_instances = 0")
            uid = self.session.row(
                "DELETE FROM series WHERE id = ? AND number_of_instances = 0 RETURNING series_instance_uid", (key,)
            )
            gone += map(str, uid or ())
        return tuple(gone)

    def _shrink_studies(self, keys: list[int], sizes: list[tuple[int, int]]) -> tuple[str, ...]:
        gone = []
        for key in keys:
            mine = [size for study, size in sizes if study == key]
            self.session.run(
                "UPDATE study SET number_of_instances = number_of_instances - ?, total_size = total_size - ?,"
                " number_of_series = (SELECT COUNT(*) FROM series WHERE series.study = study.id) WHERE id = ?",
                (len(mine), sum(mine), key),
            )
            self._drop_beside("study", key, "number_of_instances = 0")
            row = self.session.row(
                "DELETE FROM study WHERE id = ? AND number_of_instances = 0"
                " RETURNING patient, study_instance_uid, said_patient",
                (key,),
            )
            if row:
                gone.append(str(row[1]))
                self._shrink_patient(int(row[0]))
                if row[2] is not None:
                    refresh_patient(self.session, int(row[2]))
            else:
                self._list_again(key)
        return tuple(gone)

    def _list_again(self, key: int) -> None:
        """The modalities and SOP classes that are left."""
        modalities = self.session.rows("SELECT DISTINCT modality FROM series WHERE study = ?", (key,))
        classes = self.session.rows(
            "SELECT DISTINCT i.sop_class_uid FROM series e JOIN instance i ON i.series = e.id WHERE e.study = ?", (key,)
        )
        kept = [row[0] for row in modalities if row[0]]
        among = self.among("modality")
        self.session.run(
            f"DELETE FROM study_modality WHERE study = ? AND NOT ({among})", (key, self.session.dialect.listed(kept))
        )
        lists = ("\\".join(sorted(row[0] for row in rows if row[0])) for rows in (modalities, classes))
        self.session.run(
            "UPDATE study SET modalities_in_study = ?, sop_classes_in_study = ? WHERE id = ?", (*lists, key)
        )

    def _shrink_patient(self, key: int) -> None:
        self.session.run("UPDATE patient SET number_of_studies = number_of_studies - 1 WHERE id = ?", (key,))
        empty = "number_of_studies = 0 AND corrected = 0"  # operations may speak of a patient without studies
        self._drop_beside("patient", key, empty)
        self.session.run(f"DELETE FROM patient WHERE id = ? AND {empty}", (key,))

    def _drop_beside(self, table: str, key: int, empty: str) -> None:
        """What stands beside a row that is going."""
        which = f"(SELECT id FROM {table} WHERE id = ? AND {empty})"
        self.session.run(f"DELETE FROM {BESIDE[table]} WHERE {table} IN {which}", (key,))
        if self.session.row(f"SELECT 1 FROM {table} WHERE id = ? AND {empty}", (key,)):
            drop(self.session, LEVELS[table], [key])
