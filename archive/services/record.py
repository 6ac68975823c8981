"""How an arrival is written into the journal, and read back after a crash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import Any

from archive.dicom.header import Header
from archive.index import Location, NewInstance, NewTask

CHUNK = 1 << 20


def to_plain(new: NewInstance) -> dict[str, Any]:
    """Plain values, no subclasses of them; `path` stands at the top, where the journal looks for it."""
    header = new.header
    return {
        "path": new.location.path,
        "volume": new.location.volume,
        "offset": new.location.offset,
        "size": new.location.size,
        "uids": [header.sop_class_uid, header.sop_instance_uid, header.study_uid, header.series_uid],
        "values": dict(header.values),
        "charset": header.charset,
        "transfer_syntax": str(new.transfer_syntax),
        "sha256": new.sha256,
        "source": str(new.source),
        "address": str(new.address),
        "received": new.received,
        "policy": new.policy,
        "accept": new.accept,
        "known": new.known,
        "received_sha256": new.received_sha256,
        "received_syntax": str(new.received_syntax),
        "tasks": json.dumps([dataclasses.asdict(task) for task in new.tasks]) if new.tasks else "",
    }


def from_plain(meta: dict[str, Any]) -> NewInstance:
    """The instance of a record; the records of older versions are made of what JSON has."""
    sop_class, sop_instance, study, series = meta["uids"]
    sha256 = meta["sha256"]
    return NewInstance(
        header=Header(sop_class, sop_instance, study, series, dict(meta["values"]), tuple(meta["charset"])),
        location=Location(meta["volume"], meta["path"], meta["offset"], meta["size"]),
        transfer_syntax=meta["transfer_syntax"],
        sha256=bytes.fromhex(sha256) if isinstance(sha256, str) else sha256,
        source=meta["source"],
        address=meta["address"],
        received=meta["received"],
        policy=meta["policy"],
        accept=meta["accept"],
        known=meta.get("known", False),
        tasks=tuple(NewTask(**task) for task in _tasks(meta["tasks"])),
        received_sha256=meta.get("received_sha256", b""),
        received_syntax=meta.get("received_syntax", ""),
    )


def _tasks(said: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (json.loads(said) if said else []) if isinstance(said, str) else said
    return found


def digest(fd: int) -> bytes:
    """SHA-256 of what is left to read from `fd`."""
    sha = hashlib.sha256()
    while block := os.read(fd, CHUNK):
        sha.update(block)
    return sha.digest()
