"""Tasks by study and priority, and what is known of each lane beside its tasks."""

from __future__ import annotations

from collections.abc import Iterator


def statements() -> Iterator[str]:
    yield "ALTER TABLE task ADD COLUMN study_uid {text} NOT NULL DEFAULT ''"
    yield "ALTER TABLE task ADD COLUMN priority {int} NOT NULL DEFAULT 0"
    yield "DROP INDEX task_lane"
    yield "CREATE INDEX task_lane ON task (kind, lane, priority, ready) WHERE ready IS NOT NULL"
    yield "CREATE INDEX task_study ON task (study_uid) WHERE study_uid <> ''"
    yield "CREATE INDEX task_failed ON task (kind, lane) WHERE state = 'failed'"
    yield (
        "CREATE TABLE lane (name {text} PRIMARY KEY, paused {real}, paused_why {text} NOT NULL, down_since {real},"
        " down_until {real}, down_tries {int} NOT NULL, down_why {text} NOT NULL)"
    )
