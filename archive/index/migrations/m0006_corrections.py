"""The journal of corrections, what it says of each row, and the files of deleted objects."""

from __future__ import annotations

from collections.abc import Iterator


def statements() -> Iterator[str]:
    yield (
        "CREATE TABLE operation (number {int} PRIMARY KEY, operation {text} NOT NULL UNIQUE, kind {text} NOT NULL,"
        " actor {text} NOT NULL, reason {text} NOT NULL, happened {real} NOT NULL, what {text} NOT NULL,"
        " undone_by {int})"
    )
    yield (
        "CREATE TABLE correction (level {int} NOT NULL, owner {text} NOT NULL, keyword {text} NOT NULL,"
        " operation {int} NOT NULL, value {text}, active {int} NOT NULL,"
        " PRIMARY KEY (level, owner, keyword, operation)){compact}"
    )
    yield "CREATE INDEX correction_operation ON correction (operation)"
    yield (
        "CREATE TABLE received (level {int} NOT NULL, owner {text} NOT NULL, keyword {text} NOT NULL,"
        " value {text} NOT NULL, PRIMARY KEY (level, owner, keyword)){compact}"
    )
    yield "CREATE TABLE tombstone (id {id}, volume {text} NOT NULL, path {text} NOT NULL)"
    yield "CREATE UNIQUE INDEX tombstone_path ON tombstone (volume, path)"
    # 1 when an operation says something of the row or of what is above or below it.
    yield "ALTER TABLE patient ADD COLUMN corrected {int} NOT NULL DEFAULT 0"
    yield "ALTER TABLE study ADD COLUMN corrected {int} NOT NULL DEFAULT 0"
    yield "CREATE INDEX patient_corrected ON patient (corrected) WHERE corrected = 1"
    # The patient that the objects name, where the study was given to another; NULL: the same.
    yield "ALTER TABLE study ADD COLUMN said_patient {int}"
    yield "CREATE INDEX study_said_patient ON study (said_patient) WHERE said_patient IS NOT NULL"
