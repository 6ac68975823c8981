"""`archive delete`: studies, series and instances for good."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from archive.app.ledgers import deletion_of
from archive.app.store import opened
from archive.cli.common import Commands, command, configuration, show_json, user, warn
from archive.cli.status import readable
from archive.services.corrections import by
from archive.services.deletion import Deleted


def add(commands: Commands) -> None:
    made = command(commands, "delete", run)
    made.add_argument("uids", nargs="+", metavar="UID", help="of a study, a series or an instance")
    made.add_argument("--yes", action="store_true", help="do not ask")
    made.add_argument("--reason", default="no reason given", metavar="TEXT", help="why; kept in the journal")
    made.add_argument("--user", default="", metavar="NAME", help="who (the name you are logged in by)")
    made.add_argument("--dry-run", action="store_true", help="say what would be deleted and delete nothing")


def run(options: argparse.Namespace) -> int:
    with opened(configuration(options)) as (index, volume):
        deletion = deletion_of(index, volume)
        found = [deletion.would_delete(uid) for uid in dict.fromkeys(options.uids)]
        if not options.json:
            for each in found:
                print(described(each))
        if not options.dry_run and not (options.yes or asked()):
            warn("nothing was deleted")
            return 1
        if not options.dry_run:
            found = [deletion.delete(each.uid, by(user(options.user), options.reason)) for each in found]
    if options.json:
        show_json([dataclasses.asdict(each) | {"level": each.level.name} for each in found])
    elif not options.dry_run:
        print(f"deleted: {sum(each.instances for each in found)} instances")
    return 0


def described(found: Deleted) -> str:
    return f"{found.level.name.lower()} {found.uid}: {found.instances} instances, {readable(found.size)}"


def asked() -> bool:
    """Whether a person at a terminal says yes; without one nothing is deleted unasked."""
    if not sys.stdin.isatty():
        return False
    return input("delete this for good? [y/N] ").strip().lower() in ("y", "yes")
