"""Comparisons with archives that are kept equal, and what was deleted for good by its UID."""

from __future__ import annotations

from collections.abc import Iterator


def statements() -> Iterator[str]:
    """Everything in order, with the types left open."""
    yield (
        "CREATE TABLE sync_run (id {id}, name {text} NOT NULL, peer {text} NOT NULL, cause {text} NOT NULL,"
        " plan {text} NOT NULL, position {text} NOT NULL, counts {text} NOT NULL, words {text} NOT NULL,"
        " started {real} NOT NULL, finished {real})"
    )
    yield "CREATE INDEX sync_run_name ON sync_run (name, id)"
    yield (
        "CREATE TABLE sync_difference (run {int} NOT NULL, study_uid {text} NOT NULL, found {real} NOT NULL,"
        " push {int} NOT NULL, pull {int} NOT NULL, waiting {int} NOT NULL, remaining {int} NOT NULL,"
        " details {text} NOT NULL, PRIMARY KEY (run, study_uid))"
    )
    yield (
        "CREATE TABLE sync_agreed (study_uid {text} NOT NULL, peer {text} NOT NULL, agreed {real} NOT NULL,"
        " instances {int} NOT NULL, PRIMARY KEY (study_uid, peer))"
    )
    yield (
        "CREATE TABLE deleted_uid (uid {text} PRIMARY KEY, operation {int} NOT NULL, happened {real} NOT NULL)"
    )
