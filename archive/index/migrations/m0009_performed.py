"""Performed procedure steps.

Rules that hold here: a migration is history and never changes; it is written for both databases, with ``{types}``
where they differ.
"""

from __future__ import annotations

from collections.abc import Iterator


def statements() -> Iterator[str]:
    """Everything in order, with the types left open."""
    yield (
        "CREATE TABLE performed_step (id {id}, sop_instance_uid {text} NOT NULL UNIQUE, state {text} NOT NULL,"
        " study_instance_uid {text} NOT NULL, station {text} NOT NULL, source {text} NOT NULL,"
        " attributes {text} NOT NULL, created {real} NOT NULL, changed {real} NOT NULL)"
    )
    yield "CREATE INDEX performed_study ON performed_step (study_instance_uid)"
