"""The tasks of storage commitment: to check a request, and to bring its report to the peer.

Rules that hold here: a task is changed in the transaction of what it is about; whoever works on it from the beginning
holds it by a lease; a peer that is heard of gets what waits for it because it could not be called.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from archive.index.database import Session

CHECK, REPORT = "commit-check", "commit-report"  # kinds of tasks; their lanes are the peers

_TASK = (
    "INSERT INTO task (kind, lane, payload, state, ready, due, attempts, owner, lease_until, created, reason,"
    " study_uid, priority) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', '', 0) RETURNING id"
)


@dataclass(frozen=True, slots=True)
class Lease:
    """A task that its maker works on himself, and for how many seconds nobody else does."""

    owner: str
    seconds: float


NOT_REACHED = "not reached"  # how the reason of a report begins that the peer could not be called for


def hasten(session: Session, peer: str, now: float) -> None:
    """What waits because this peer could not be called is due now."""
    changed = session.run(
        "UPDATE task SET ready = ?, due = ? WHERE kind = ? AND lane = ? AND state = 'waiting' AND ready > ?"
        " AND reason LIKE ?",
        (now, now, REPORT, peer, now, f"{NOT_REACHED}%"),
    )
    if changed:
        session.wake(REPORT)


def bring_forward(session: Session, peer: str, key: int, now: float, lease: Lease | None) -> int:
    """The task of a transaction that waits is due now, or the lease-holder's: its id then, else 0."""
    which = f"kind IN ('{CHECK}', '{REPORT}') AND lane = ? AND payload = ? AND state = 'waiting' AND ready IS NOT NULL"
    values = (peer, payload_of(key))
    if lease is None:
        session.run(f"UPDATE task SET ready = ?, due = ? WHERE {which}", (now, now, *values))
        session.wake(CHECK)
        session.wake(REPORT)
        return 0
    row = session.row(
        "UPDATE task SET state = 'leased', attempts = attempts + 1, owner = ?, lease_until = ?, ready = ?"
        f" WHERE {which} RETURNING id",
        (lease.owner, now + lease.seconds, now + lease.seconds, *values),
    )
    return int(row[0]) if row else 0


def add_task(
    session: Session, kind: str, peer: str, key: int, due: float, now: float, lease: Lease | None
) -> int:
    values: tuple[Any, ...] = ("waiting", due, due, 0, "", None, now)
    if lease is not None:
        values = ("leased", now + lease.seconds, due, 1, lease.owner, now + lease.seconds, now)
    row = session.row(_TASK, (kind, peer, payload_of(key), *values))
    session.wake(kind)
    return int(row[0]) if row else 0


def end_report(session: Session, peer: str, key: int) -> None:
    """A report that has failed is no more: there will be another one."""
    sql = "DELETE FROM task WHERE kind = ? AND lane = ? AND payload = ?"
    session.run(sql, (REPORT, peer, payload_of(key)))


def payload_of(key: int) -> str:
    return json.dumps({"commitment": key})
