"""`archive reindex`: rebuild the index from the files alone."""

from __future__ import annotations

import argparse
import os
import time

from tqdm import tqdm

from archive.app.deletion import finish_deletions
from archive.app.receiving import sources
from archive.app.store import opened, recover, rules, settle_journals
from archive.app.volumes import long_term, seen_volumes
from archive.cli.common import Commands, command, configuration, show_json, warn
from archive.config import Config
from archive.config.volumes import MAIN
from archive.errors import ConfigurationError
from archive.services.reindex import Read, Reader, Reindex, Report
from archive.storage.journal import in_use
from archive.workers.reading import in_processes


def add(commands: Commands) -> None:
    made = command(commands, "reindex", run)
    made.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    made.add_argument(
        "--processes", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="how many read files at a time"
    )


def run(options: argparse.Namespace) -> int:
    config = configuration(options)
    if in_use(config.storage.path / "journal"):
        raise ConfigurationError("the archive is running: stop it first")
    settle_journals(config)
    with opened(config) as (index, volume):
        volumes = seen_volumes(config, index, time.time, volume)
        finish_deletions(index, volumes)
        others = [each for each in volumes.values() if each is not volume]
        work = Reindex(index, volume, reader(config), in_processes(max(options.processes, 0)), others)
        total = work.begin(resume=options.resume)
        with tqdm(total=total, unit="file", disable=True if options.json else None) as bar:
            report = work.run(lambda done: bar.update(done - bar.n))
    recover(config)
    return _report(options, report)


def reader(config: Config) -> Reader:
    """How the files of this archive are read."""
    found = sources(config)
    tags = frozenset(rules(config).wanted)
    others = {each.name: str(each.path) for each in long_term(config)}
    return Reader(str(config.storage.path), MAIN, tags, found.charsets, found.issuers, others)


def _report(options: argparse.Namespace, report: Report) -> int:
    if options.json:
        show_json(
            {
                "stored": report.stored, "copies": report.copies, "quarantined": report.quarantined,
                "unreadable": _listed(report.unreadable), "refused": _listed(report.refused),
                "damaged": _listed(report.damaged),
            }
        )  # fmt: skip
    else:
        for each in (*report.unreadable, *report.refused, *report.damaged):
            warn(f"{each.path}: {each.reason}")
        copies = f", {report.copies} copies on other volumes" if report.copies else ""
        print(
            f"{report.stored} instances{copies}, {report.quarantined} in quarantine,"
            f" {len(report.unreadable)} files unreadable, {len(report.refused)} not needed"
            + (f", {len(report.damaged)} copies left out, which are not what they are copies of" * bool(report.damaged))
        )
    return 1 if report.unreadable or report.damaged else 0


def _listed(found: list[Read]) -> list[dict[str, str]]:
    return [{"path": each.path, "reason": each.reason} for each in found]
