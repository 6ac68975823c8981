"""`archive notify`: whether those who are to be told when something goes wrong can be."""

from __future__ import annotations

import argparse
import time
from typing import Any

from archive.app import notify
from archive.cli.commands import COMMANDS
from archive.cli.common import Commands, command, configuration, show, warn
from archive.config import Config
from archive.config.notify import NotifyRule
from archive.errors import ArchiveError

TITLES = {"name": "NAME", "to": "TO", "sent": "SENT", "said": "WHAT HAPPENED"}


def add(commands: Commands) -> None:
    made = commands.add_parser("notify", help=COMMANDS["notify"].text)
    inner = made.add_subparsers(dest="what", required=True, metavar="WHAT")
    tested = command(inner, "test", test, "send a test message to those who are notified, and say what happened")
    tested.add_argument("name", nargs="?", metavar="NAME", help="one of them, by its name in the configuration")


def test(options: argparse.Namespace) -> int:
    config = configuration(options)
    rules = [rule for rule in config.notify if options.name in (None, rule.name)]
    if not rules:
        known = ", ".join(rule.name for rule in config.notify) or "nobody: section notify is empty"
        warn(f"nobody of this name is notified; known: {known}")
        return 2
    rows = [_test(config, rule) for rule in rules]
    show(options, TITLES, rows)
    return 0 if all(row["sent"] == "yes" for row in rows) else 1


def _test(config: Config, rule: NotifyRule) -> dict[str, Any]:
    to = ", ".join(rule.to.mail) or rule.to.http or " ".join(rule.to.command)
    try:
        said = notify.test(config, rule, time.time())
    except ArchiveError as error:
        return {"name": rule.name, "to": to, "sent": "no", "said": str(error)}
    return {"name": rule.name, "to": to, "sent": "yes", "said": said}
