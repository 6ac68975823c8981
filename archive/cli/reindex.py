"""`archive reindex`: rebuild the index from the files alone."""

from __future__ import annotations

import argparse
import os
import time

from tqdm import tqdm

from archive.app.deletion import finish_deletions
from archive.app.receiving import sources
from archive.app.store import index_of, open_volume, recover, rules, settle_journals
from archive.cli.common import Commands, command, configuration, show_json, warn
from archive.config import Config
from archive.errors import ConfigurationError
from archive.services.reindex import Read, Reader, Reindex, Report
from archive.storage.journal import in_use
from archive.workers.reading import in_processes


def add(commands: Commands) -> None:
    made = command(commands, "reindex", run, "rebuild the index from the files alone; the daemon must not run")
    made.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    made.add_argument(
        "--processes", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="how many read files at a time"
    )


def run(options: argparse.Namespace) -> int:
    config = configuration(options)
    if in_use(config.storage.path / "journal"):
        raise ConfigurationError("the archive is running: stop it first")
    settle_journals(config)
    index = index_of(config)
    volume = open_volume(config, index, time.time)
    try:
        finish_deletions(index, volume)
        work = Reindex(index, volume, reader(config), in_processes(max(options.processes, 0)))
        total = work.begin(resume=options.resume)
        with tqdm(total=total, unit="file", disable=True if options.json else None) as bar:
            report = work.run(lambda done: bar.update(done - bar.n))
    finally:
        volume.close()
        index.close()
    recover(config)
    return _report(options, report)


def reader(config: Config) -> Reader:
    """How the files of this archive are read."""
    found = sources(config)
    tags = frozenset(rules(config).wanted)
    return Reader(str(config.storage.path), "main", tags, found.charsets, found.issuers)


def _report(options: argparse.Namespace, report: Report) -> int:
    if options.json:
        show_json(
            {
                "stored": report.stored, "quarantined": report.quarantined, "unreadable": _listed(report.unreadable),
                "refused": _listed(report.refused),
            }
        )  # fmt: skip
    else:
        for each in (*report.unreadable, *report.refused):
            warn(f"{each.path}: {each.reason}")
        print(
            f"{report.stored} instances, {report.quarantined} in quarantine, {len(report.unreadable)} files unreadable,"
            f" {len(report.refused)} not needed"
        )
    return 1 if report.unreadable else 0


def _listed(found: list[Read]) -> list[dict[str, str]]:
    return [{"path": each.path, "reason": each.reason} for each in found]
