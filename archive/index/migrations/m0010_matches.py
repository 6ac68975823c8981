"""Which study is of which order.

Rules that hold here: a migration is history and never changes; it is written for both databases, with ``{types}``
where they differ.
"""

from __future__ import annotations

from collections.abc import Iterator


def statements() -> Iterator[str]:
    """Everything in order, with the types left open."""
    yield (
        "CREATE TABLE order_match (study_instance_uid {text} PRIMARY KEY, order_uid {text} NOT NULL,"
        " how {text} NOT NULL, since {real} NOT NULL, operations {text} NOT NULL)"
    )
    yield "CREATE INDEX match_order ON order_match (order_uid)"
