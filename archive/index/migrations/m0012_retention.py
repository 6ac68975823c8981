"""Legal holds, and studies that rules have kept for as long as they say."""

from __future__ import annotations

from collections.abc import Iterator


def statements() -> Iterator[str]:
    yield (
        "CREATE TABLE hold (scope {text} NOT NULL, owner {text} NOT NULL, operation {int} NOT NULL,"
        " PRIMARY KEY (scope, owner, operation)){compact}"
    )
    yield "CREATE INDEX hold_owner ON hold (owner)"
    yield "CREATE INDEX hold_operation ON hold (operation)"
    yield (
        "CREATE TABLE retention (study_instance_uid {text} PRIMARY KEY, rule {text} NOT NULL, due {real} NOT NULL,"
        " disposal {text} NOT NULL, why {text} NOT NULL, looked {real} NOT NULL){compact}"
    )
    yield "CREATE INDEX retention_due ON retention (disposal, due)"
    yield "CREATE INDEX retention_looked ON retention (looked)"
    yield "CREATE INDEX version_superseded ON version (superseded)"
