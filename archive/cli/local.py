"""`archive quarantine`: what the archive holds, read from its index."""

from __future__ import annotations

import argparse

from archive.cli.common import Commands, command, configuration, show
from archive.index import open_index

ASIDE = {"id": "id", "source": "from", "sop_instance_uid": "instance", "reason": "reason", "path": "file"}


def add(commands: Commands) -> None:
    command(commands, "quarantine", quarantine, "list the objects that were refused and kept aside")


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
