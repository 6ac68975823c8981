"""The life of studies after their images came, and storage commitment."""

from __future__ import annotations

from collections.abc import Iterator


def statements() -> Iterator[str]:
    # Studies that are here already came long ago: nothing is caused by them. Of new ones nobody has looked at it is ''.
    yield "ALTER TABLE study ADD COLUMN state {text} NOT NULL DEFAULT ''"
    yield "ALTER TABLE study ADD COLUMN arrivals {int} NOT NULL DEFAULT 0"
    yield "ALTER TABLE study ADD COLUMN closed {real}"
    yield "UPDATE study SET state = 'ready'"
    yield (
        "CREATE TABLE study_history (id {id}, study_instance_uid {text} NOT NULL, state {text} NOT NULL,"
        " since {real} NOT NULL, cause {text} NOT NULL, instances {int} NOT NULL)"
    )
    yield "CREATE INDEX study_history_study ON study_history (study_instance_uid, id)"
    yield (
        "CREATE TABLE commitment (id {id}, direction {text} NOT NULL, peer {text} NOT NULL,"
        " transaction_uid {text} NOT NULL, calling {text} NOT NULL, called {text} NOT NULL,"
        " study_instance_uid {text} NOT NULL, state {text} NOT NULL, number_of_items {int} NOT NULL,"
        " number_of_failures {int} NOT NULL, items {text} NOT NULL, failures {text} NOT NULL, reason {text} NOT NULL,"
        " created {real} NOT NULL, finished {real}, UNIQUE (direction, peer, transaction_uid))"
    )
    yield "CREATE INDEX commitment_finished ON commitment (finished)"
    yield "CREATE INDEX commitment_pending ON commitment (direction, peer) WHERE finished IS NULL"
