"""The index: what the archive holds and what is to be done, in SQLite or PostgreSQL.

Rules that hold in this package: it is the only place that knows SQL; values go in and come out, never rows that
query later; both databases give the same answers; what must be true together is committed together.
"""

from archive.index.index import Index, open_index
from archive.index.queue import Lane, Settled, Which
from archive.index.values import (
    Added,
    CallerSeen,
    Location,
    NewInstance,
    NewTask,
    Outcome,
    Quarantined,
    Removed,
    State,
    Statistics,
    StoredInstance,
    StudySummary,
    Task,
)
from archive.index.wakes import Wakes

__all__ = [
    "Added", "CallerSeen", "Index", "Lane", "Location", "NewInstance", "NewTask", "Outcome", "Quarantined", "Removed",
    "Settled", "State", "Statistics", "StoredInstance", "StudySummary", "Task", "Wakes", "Which", "open_index",
]  # fmt: skip
