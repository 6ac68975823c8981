"""Copies of instances on other volumes, and when a study that has some was used last."""

from __future__ import annotations

from collections.abc import Iterator


def statements() -> Iterator[str]:
    yield (
        "CREATE TABLE copy (instance {int} PRIMARY KEY REFERENCES instance (id), volume {text} NOT NULL,"
        " path {text} NOT NULL, data_offset {int} NOT NULL, data_size {int} NOT NULL, verified {real} NOT NULL)"
    )
    yield "CREATE UNIQUE INDEX copy_path ON copy (volume, path)"
    yield "CREATE TABLE residence (study_instance_uid {text} PRIMARY KEY, used {real} NOT NULL){compact}"
    yield "CREATE INDEX residence_used ON residence (used)"
    # What is not in the cache: costs an arrival nothing, and counts without a walk over all instances.
    yield "CREATE INDEX instance_elsewhere ON instance (volume, data_size) WHERE volume <> 'main'"
