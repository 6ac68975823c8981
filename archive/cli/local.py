"""`archive queue`, `quarantine`: what the archive holds, read from its index."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from archive.cli.common import Commands, command, configuration, show, when
from archive.index import open_index

TASKS = {
    "id": "id",
    "kind": "kind",
    "lane": "lane",
    "state": "state",
    "attempts": "tries",
    "due": "due",
    "reason": "reason",
}
ASIDE = {"id": "id", "source": "from", "sop_instance_uid": "instance", "reason": "reason", "path": "file"}


def add(commands: Commands) -> None:
    made = command(commands, "queue", queue, "list the work that waits, runs or has failed")
    made.add_argument("--limit", type=int, default=100, help="how many (100)")
    command(commands, "quarantine", quarantine, "list the objects that were refused and kept aside")


def queue(options: argparse.Namespace) -> int:
    index = open_index(configuration(options).index.url)
    show(options, TASKS, (_task(options, dataclasses.asdict(task)) for task in index.tasks(limit=options.limit)))
    return 0


def _task(options: argparse.Namespace, row: dict[str, Any]) -> Mapping[str, Any]:
    return row | {"state": row["state"].value, "due": row["due"] if options.json else when(row["due"])}


def quarantine(options: argparse.Namespace) -> int:
    index = open_index(configuration(options).index.url)
    rows = [
        {
            "id": each.id,
            "source": each.new.source,
            "sop_instance_uid": each.new.header.sop_instance_uid,
            "study_uid": each.new.header.study_uid,
            "reason": each.reason,
            "path": each.path,
        }
        for each in index.quarantined()
    ]
    show(options, ASIDE, rows)
    return 0
