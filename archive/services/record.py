"""How an arrival is written into the journal, and read back after a crash."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

from archive.dicom.header import Header
from archive.index import Location, NewInstance, NewTask

CHUNK = 1 << 20


def to_json(new: NewInstance) -> dict[str, Any]:
    """Plain values for JSON; `path` stands at the top, where the journal looks for it."""
    header = new.header
    return {
        "path": new.location.path,
        "volume": new.location.volume,
        "offset": new.location.offset,
        "size": new.location.size,
        "uids": [header.sop_class_uid, header.sop_instance_uid, header.study_uid, header.series_uid],
        "values": list(header.values.items()),
        "charset": header.charset,
        "transfer_syntax": new.transfer_syntax,
        "sha256": new.sha256.hex(),
        "source": new.source,
        "address": new.address,
        "received": new.received,
        "policy": new.policy,
        "accept": new.accept,
        "tasks": [dataclasses.asdict(task) for task in new.tasks],
    }


def from_json(meta: dict[str, Any]) -> NewInstance:
    sop_class, sop_instance, study, series = meta["uids"]
    return NewInstance(
        header=Header(sop_class, sop_instance, study, series, dict(meta["values"]), tuple(meta["charset"])),
        location=Location(meta["volume"], meta["path"], meta["offset"], meta["size"]),
        transfer_syntax=meta["transfer_syntax"],
        sha256=bytes.fromhex(meta["sha256"]),
        source=meta["source"],
        address=meta["address"],
        received=meta["received"],
        policy=meta["policy"],
        accept=meta["accept"],
        tasks=tuple(NewTask(**task) for task in meta["tasks"]),
    )


def digest(fd: int) -> bytes:
    """SHA-256 of what is left to read from `fd`."""
    sha = hashlib.sha256()
    while block := os.read(fd, CHUNK):
        sha.update(block)
    return sha.digest()
