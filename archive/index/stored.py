"""Rows of instances as values, for whoever reads the files.

Rules that hold here: a statement that selects STORED_COLUMNS calls the tables instance i, series e and study s.
"""

from __future__ import annotations

from archive.index.database import Row
from archive.index.values import Location, StoredInstance

STORED_COLUMNS = (
    "i.id, i.sop_class_uid, i.sop_instance_uid, i.transfer_syntax, i.volume, i.path, i.data_offset, i.data_size,"
    " i.sha256, s.study_instance_uid, e.series_instance_uid, i.damage, s.corrected"
)


def stored_instance(row: Row) -> StoredInstance:
    """A row of STORED_COLUMNS as a value."""
    key, sop_class, sop_instance, syntax, volume, path, offset, size, sha256, study, series, damage, corrected = row
    return StoredInstance(
        key, sop_class, sop_instance, syntax, Location(volume, path, offset, size), bytes(sha256), study, series,
        damage or "", bool(corrected),
    )  # fmt: skip
