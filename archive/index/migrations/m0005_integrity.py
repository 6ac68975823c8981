"""What was received before the archive changed an object, which files are damaged, what compression saved."""

from __future__ import annotations

from collections.abc import Iterator


def statements() -> Iterator[str]:
    # NULL: the stored form is the one that was received.
    yield "ALTER TABLE instance ADD COLUMN received_sha256 {blob}"
    yield "ALTER TABLE instance ADD COLUMN received_syntax {text}"
    # NULL: nothing is known to be wrong with the file.
    yield "ALTER TABLE instance ADD COLUMN damage {text}"
    yield "ALTER TABLE instance ADD COLUMN damage_found {real}"
    yield "CREATE INDEX instance_damaged ON instance (damage_found) WHERE damage_found IS NOT NULL"
    yield (
        "CREATE TABLE compression (transfer_syntax {text} PRIMARY KEY, objects {int} NOT NULL,"
        " bytes_before {int} NOT NULL, bytes_after {int} NOT NULL, seconds {real} NOT NULL)"
    )
