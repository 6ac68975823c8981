"""Jobs that fetch from peers, and what became of each of their studies.

Rules that hold here: a migration is history and never changes; it is written for both databases, with ``{types}``
where they differ.
"""

from __future__ import annotations

from collections.abc import Iterator

_COUNTS = ("series", "series_here", "series_fetched", "series_failed", "instances", "here", "fetched", "failed")


def statements() -> Iterator[str]:
    """Everything in order, with the types left open."""
    yield (
        "CREATE TABLE job (id {id}, kind {text} NOT NULL, peer {text} NOT NULL, state {text} NOT NULL,"
        " options {text} NOT NULL, plan {text} NOT NULL, notes {text} NOT NULL, reason {text} NOT NULL, task {int},"
        " slot {real} NOT NULL, created {real} NOT NULL, finished {real})"
    )
    counts = ", ".join(f"{name} {{int}} NOT NULL" for name in _COUNTS)
    yield (
        "CREATE TABLE job_study (job {int} NOT NULL, study_instance_uid {text} NOT NULL, state {text} NOT NULL,"
        f" wanted {{text}} NOT NULL, task {{int}}, {counts}, reason {{text}} NOT NULL, changed {{real}} NOT NULL,"
        " PRIMARY KEY (job, study_instance_uid)){compact}"
    )
    # What is still open is little, however many studies a job has had.
    yield "CREATE INDEX job_study_open ON job_study (job, state) WHERE state IN ('todo', 'queued', 'failed')"
    yield "CREATE INDEX job_study_task ON job_study (task) WHERE state = 'queued'"
