"""Objects that were refused but kept: why, and all that is needed to release them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from archive.dicom.header import Header
from archive.dicom.names import possible
from archive.index.database import Database, Row
from archive.index.models import QuarantineRow
from archive.index.values import Location, NewInstance, NewTask, Quarantined

_COLUMNS = (QuarantineRow.id, QuarantineRow.path, QuarantineRow.reason, QuarantineRow.arrival)


def put(database: Database, new: NewInstance, path: str, reason: str) -> int:
    query = QuarantineRow.insert(
        path=path, reason=possible(reason), sop_instance_uid=possible(new.header.sop_instance_uid),
        study_instance_uid=possible(new.header.study_uid), source=possible(new.source), received=new.received,
        arrival=_to_json(new),
    ).returning(QuarantineRow.id)  # fmt: skip
    return int(database.transact(lambda session: session.query(query))[0][0])


def entries(database: Database, *, limit: int, after: int, study_uid: str = "") -> list[Quarantined]:
    query = QuarantineRow.select(*_COLUMNS).where(QuarantineRow.id > after).order_by(QuarantineRow.id).limit(limit)
    if study_uid:
        query = query.where(QuarantineRow.study_instance_uid == study_uid)
    return [_entry(row) for row in database.read(lambda session: session.query(query))]


def entry(database: Database, key: int) -> Quarantined | None:
    query = QuarantineRow.select(*_COLUMNS).where(QuarantineRow.id == key)
    rows = database.read(lambda session: session.query(query))
    return _entry(rows[0]) if rows else None


def of(database: Database, sop_instance_uid: str, digest: bytes = b"") -> list[Quarantined]:
    """The entries of a UID; with ``digest`` only those that mention it, which are few however often others came."""
    query = QuarantineRow.select(*_COLUMNS).where(QuarantineRow.sop_instance_uid == possible(sop_instance_uid))
    if digest:
        query = query.where(QuarantineRow.arrival.contains(digest.hex()))
    return [_entry(row) for row in database.read(lambda session: session.query(query))]


def count(database: Database, source: str = "") -> int:
    where, values = (" WHERE source = ?", (source,)) if source else ("", ())
    rows = database.read(lambda session: session.rows(f"SELECT COUNT(*) FROM quarantine{where}", values))
    return int(rows[0][0])


def key(database: Database, path: str) -> int:
    """The id of the entry of a file, 0 for none."""
    query = QuarantineRow.select(QuarantineRow.id).where(QuarantineRow.path == path)
    rows = database.read(lambda session: session.query(query))
    return int(rows[0][0]) if rows else 0


def remove(database: Database, key: int) -> bool:
    query = QuarantineRow.delete().where(QuarantineRow.id == key)
    return bool(database.transact(lambda session: session.query(query))[0][0])


def _entry(row: Row) -> Quarantined:
    key, path, reason, arrival = row
    return Quarantined(key, path, reason, _from_json(json.loads(arrival)))


def _to_json(new: NewInstance) -> str:
    header = new.header
    found: dict[str, Any] = {
        field.name: getattr(new, field.name)
        for field in dataclasses.fields(new)
        if field.name not in ("header", "location", "sha256", "received_sha256", "tasks")
    }
    found |= {
        "uids": [header.sop_class_uid, header.sop_instance_uid, header.study_uid, header.series_uid],
        "values": [[tag, possible(text)] for tag, text in header.values.items()],
        "charset": list(header.charset),
        "location": dataclasses.astuple(new.location),
        "sha256": new.sha256.hex(),
        "received_sha256": new.received_sha256.hex(),
        "tasks": [dataclasses.asdict(task) for task in new.tasks],
    }
    return json.dumps(found)


def _from_json(found: dict[str, Any]) -> NewInstance:
    sop_class, sop_instance, study, series = found.pop("uids")
    values, charset = dict(found.pop("values")), tuple(found.pop("charset"))
    header = Header(sop_class, sop_instance, study, series, values=values, charset=charset)
    return NewInstance(
        header=header,
        location=Location(*found.pop("location")),
        sha256=bytes.fromhex(found.pop("sha256")),
        received_sha256=bytes.fromhex(found.pop("received_sha256", "")),
        tasks=tuple(NewTask(**task) for task in found.pop("tasks")),
        **found,
    )
