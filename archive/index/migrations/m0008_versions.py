"""Earlier versions of instances, and quarantine entries by file and by study."""

from __future__ import annotations

from collections.abc import Iterator


def statements() -> Iterator[str]:
    yield (
        "CREATE TABLE version (id {id}, instance {int} NOT NULL REFERENCES instance (id),"
        " transfer_syntax {text} NOT NULL,"
        " volume {text} NOT NULL, path {text} NOT NULL, data_offset {int} NOT NULL, data_size {int} NOT NULL,"
        " sha256 {blob} NOT NULL, received_sha256 {blob}, source {text} NOT NULL, address {text} NOT NULL,"
        " received {real} NOT NULL, superseded {real} NOT NULL)"
    )
    yield "CREATE INDEX version_instance ON version (instance)"
    yield "CREATE UNIQUE INDEX version_path ON version (volume, path)"
    yield "ALTER TABLE quarantine ADD COLUMN study_instance_uid {text} NOT NULL DEFAULT ''"
    yield "CREATE INDEX quarantine_study ON quarantine (study_instance_uid)"
    yield "CREATE UNIQUE INDEX quarantine_path ON quarantine (path)"
