"""Values of the attributes that a site indexes beyond the table, and what they are found by."""

from __future__ import annotations

from collections.abc import Iterator


def statements() -> Iterator[str]:
    yield (
        "CREATE TABLE extra_value (keyword {text} NOT NULL, level {int} NOT NULL, owner {int} NOT NULL,"
        " value {text} NOT NULL, PRIMARY KEY (keyword, level, owner)){compact}"
    )
    yield (
        "CREATE TABLE extra_term (keyword {text} NOT NULL, level {int} NOT NULL, term {text} NOT NULL,"
        " owner {int} NOT NULL, item {int} NOT NULL, PRIMARY KEY (keyword, level, term, owner, item)){compact}"
    )
    yield "CREATE INDEX extra_value_owner ON extra_value (level, owner)"
    yield "CREATE INDEX extra_term_owner ON extra_term (level, owner)"
