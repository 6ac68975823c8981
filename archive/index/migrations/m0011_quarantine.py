"""Quarantine entries by instance: senders try again and again."""

from __future__ import annotations

from collections.abc import Iterator


def statements() -> Iterator[str]:
    yield "CREATE INDEX quarantine_instance ON quarantine (sop_instance_uid)"
