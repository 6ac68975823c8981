"""Tasks of which one for each study waits at a time: a further trigger joins the one that waits.

Rules that hold here: who joins is never lost: the task that waits does what both asked for, and one that is under way
is not joined, because it may have looked already; of two transactions that ask at the same moment the second one waits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from archive.index.database import Session
from archive.index.values import NewTask

MOST_NAMES = 50  # of others who want the same

# Nothing is there yet that could be locked; in SQLite there is one writer anyway.
_TURN = {"sqlite": "", "postgresql": "SELECT pg_advisory_xact_lock(hashtextextended(?, 7))"}
_LOCK = {"sqlite": "", "postgresql": " FOR UPDATE"}
_WAITS = (
    "SELECT id, payload, due, attempts, priority FROM task WHERE study_uid = ? AND study_uid <> '' AND kind = ?"
    " AND lane = ? AND state = 'waiting' ORDER BY id LIMIT 1"
)
_JOIN = "UPDATE task SET payload = ?, due = ?, ready = ?, priority = ? WHERE id = ?"


def joins(session: Session, task: NewTask, now: float) -> int | None:
    """The id of the waiting task that does this one's work too; None when there is none."""
    dialect = session.dialect.name
    if _TURN[dialect]:
        session.row(_TURN[dialect], ("|".join((task.kind, task.lane, task.study_uid)),))
    row = session.row(_WAITS + _LOCK[dialect], (task.study_uid, task.kind, task.lane))
    if row is None:
        return None
    key, payload, due, attempts, priority = row
    known = json.loads(payload)
    wanted = _both(known, task.payload)
    # One that has failed keeps its pause: a storm of triggers must not become a storm of tries.
    sooner = due if attempts else min(due, task.due or now)
    if wanted != known or sooner < due or task.priority > priority:
        higher = max(priority, task.priority)
        session.run(_JOIN, (json.dumps(wanted), sooner, sooner, higher, key))
        session.wake(task.kind)
    return int(key)


def _both(known: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What both ask for: no series means all of them, no window means always."""
    series = {*known.get("series", ()), *new.get("series", ())}
    everything = not known.get("series") or not new.get("series")
    both = {**known, "series": [] if everything else sorted(series)}
    if new.get("by") != known.get("by"):
        both["also"] = sorted({*known.get("also", ()), str(new.get("by", ""))})[:MOST_NAMES]
    if both["series"] != known.get("series"):
        both.pop("first", None)
    if known.get("window") != new.get("window"):
        both.pop("window", None)
    return both
