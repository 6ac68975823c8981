"""`archive doctor`: why a caller or a destination does not work, and what would do."""

from __future__ import annotations

import argparse
import dataclasses
import time

from archive.app.doctor import examine
from archive.cli.common import Commands, command, configuration, show_json, warn
from archive.cli.queue import moment
from archive.log import escape
from archive.services.doctor import Finding

DEADLINE = 30.0  # seconds for all peers together: three answers of the slowest that is waited for


def add(commands: Commands) -> None:
    made = command(commands, "doctor", run)
    made.add_argument("aet", nargs="?", default="", metavar="AET", help="an AE title; without it everything")
    made.add_argument("--since", metavar="TIME", default="7d", help="what was before is past: 2h, 3d (7d)")
    made.add_argument("--deadline", metavar="SECONDS", type=float, default=DEADLINE, help="for all answers (30)")


def run(options: argparse.Namespace) -> int:
    """Exit status 1 when something is wrong."""
    config, now = configuration(options), time.time()
    try:
        since = moment(options.since, now)
    except ValueError as error:
        warn(f"{error}: a time is 2h, 3d or 2026-01-31T08:00")
        return 2
    found = examine(config, options.aet, now, since=since, deadline=max(options.deadline, 0))
    wrong = sum(finding.wrong for finding in found)
    if options.json:
        findings = [dataclasses.asdict(finding) for finding in found]
        show_json({"aet": options.aet, "wrong": wrong, "findings": findings})
    else:
        for finding in sorted(found, key=lambda each: not each.wrong):
            print(escape(_line(finding)))
        print(f"{wrong} wrong" if wrong else "nothing is wrong")
    return 1 if wrong else 0


def _line(finding: Finding) -> str:
    mark = "WRONG" if finding.wrong else "     "
    return f"{mark}  {finding.about}: {finding.says}{'; ' if finding.remedy else ''}{finding.remedy}"
