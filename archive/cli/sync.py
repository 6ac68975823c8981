"""`archive sync`: archives that are kept equal: compare now, and say what the last comparison came to."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

from archive.app.sync import summaries, syncs_of
from archive.cli.common import Commands, command, configuration, show_json, show_table, warn, when
from archive.cli.queue import moment
from archive.cli.status import answers
from archive.config import Config
from archive.index import Index, open_index
from archive.index.sync import Run, SyncRows
from archive.log import escape
from archive.services.comparing import COUNTS, IMAGES, NEW, Plan
from archive.services.sync import BY_HAND, Sync, day_of, task_of
from archive.services.syncreport import Report, line, plain

LOOK = 0.5  # seconds between two looks whether it is at its end


def add(commands: Commands) -> None:
    made = command(commands, "sync", run)
    made.add_argument("action", nargs="?", choices=("list", "run", "report"), default="list", help="what to do (list)")
    made.add_argument("name", nargs="?", metavar="NAME", help="of a sync; all if left out")
    made.add_argument("--dry-run", action="store_true", help="for run: mend nothing")
    made.add_argument("--since", metavar="DATE", help="for run: studies of this date or later: 30d or 2026-01-31")
    made.add_argument("--until", metavar="DATE", help="for run: studies of this date or earlier")
    made.add_argument("--all", action="store_true", help="for run: studies of all dates, and of none")
    made.add_argument("--compare", choices=(COUNTS, NEW, IMAGES), help="for run: how closely; else as configured")
    made.add_argument("--push-gone", action="store_true", help="for run: send again what the peer had and has no more")
    made.add_argument("--pull-deleted", action="store_true", help="for run: fetch again what was deleted here")
    made.add_argument("--wait", action="store_true", help="for run: until it is done, and what it has queued too")
    made.add_argument("--limit", type=int, default=100, help="for report: how many studies to name (100)")


def run(options: argparse.Namespace) -> int:
    config = configuration(options)
    index = open_index(config.index.url)
    syncs = syncs_of(index, config)
    if options.name and options.name not in syncs:
        warn(f"there is no sync {options.name}; there are: {', '.join(syncs) or 'none'}")
        return 2
    chosen = [syncs[options.name]] if options.name else list(syncs.values())
    return ACTIONS[options.action](options, config, index, chosen)


# -- running --------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace, config: Config, index: Index, syncs: Sequence[Sync]) -> int:
    try:
        plans = [_plan(options, sync) for sync in syncs]
    except ValueError:
        warn(f"{options.since or options.until}: a date is 30d or 2026-01-31")
        return 2
    if not plans:
        warn("no sync is configured")
        return 2
    rows, now = SyncRows(index.database), time.time()
    keys = [
        rows.begin(sync.name, sync.peer, BY_HAND, asdict(plan), now, tasks=[task_of(sync.name)])
        for sync, plan in zip(syncs, plans, strict=True)
    ]
    running = any(answers(listener) for listener in config.listeners)
    if options.wait:
        if not running:
            warn("the daemon is not running: this begins when it is")
        return _wait(options, index, keys)
    if options.json:
        show_json({"runs": keys, "daemon": running})
    else:
        later = "" if running else "; the daemon is not running, it begins when it is"
        print(f"comparing {', '.join(sync.name for sync in syncs)}{later}: archive sync report")
    return 0


def _plan(options: argparse.Namespace, sync: Sync) -> Plan:
    """What is compared by hand; raises ValueError for a date that is none."""
    plan = sync.plan_at(time.time())
    if options.all:
        plan = replace(plan, since="", until="", recent=1.0, undated=True)
    if options.since or options.until:
        since, until = (day_of(moment(text)) if text else "" for text in (options.since, options.until))
        plan = replace(plan, since=since, until=until, recent=0.0, undated=False)
    return replace(
        plan, dry=options.dry_run, compare=options.compare or plan.compare, gone=plan.gone or options.push_gone,
        deleted=plan.deleted or options.pull_deleted,
    )  # fmt: skip


def _wait(options: argparse.Namespace, index: Index, keys: Sequence[int]) -> int:
    """Until all are at their ends, and what they have queued."""
    rows, said = SyncRows(index.database), ""
    for key in keys:
        while (found := rows.run(key)) is not None:
            if found.finished is not None and not Report(index, found).balance()["queued"]:
                break
            if found.words != said:
                said = found.words
                warn(said or "goes on")
            time.sleep(LOOK)
    return _show(options, index, [found for key in keys if (found := rows.run(key)) is not None])


# -- telling --------------------------------------------------------------------------------------------------


def _report(options: argparse.Namespace, config: Config, index: Index, syncs: Sequence[Sync]) -> int:
    runs = [last for sync in syncs for last in SyncRows(index.database).runs(sync.name, 1)]
    if not runs and not options.json:
        print("nothing was compared yet")
        return 0
    return _show(options, index, runs)


def _show(options: argparse.Namespace, index: Index, runs: Iterable[Run]) -> int:
    """All about some runs; exit status 1 when something cannot be mended."""
    found = []
    for each in runs:
        report = Report(index, each)
        said = plain(each, report.balance())
        said["studies"] = [
            {"study": one.difference.study_uid, "state": one.state, "words": one.words,
             "push": one.difference.push, "pull": one.difference.pull, **one.difference.details}
            for one in islice(report.findings(), options.limit)
        ]  # fmt: skip
        found.append(said)
        if not options.json:
            _print(said)
    if options.json:
        show_json(found)
    return 1 if any(said["cannot"] or (said["finished"] and said["words"]) for said in found) else 0


def _print(said: dict[str, Any]) -> None:
    end = (when(said["finished"]) or "goes on") + (f": {escape(said['words'])}" if said["words"] else "")
    dry = ", dry run" if said["dry"] else ""
    print(f"{said['sync']} with {said['peer']} ({said['cause']}{dry}): {when(said['started'])} to {end}")
    print(f"  {line(said)}")
    images = said["images"]
    if any(images.values()):
        print(f"  images: {images['push']} to be sent, {images['pull']} to be fetched, {images['left']} left alone")
    if said["miscounted"]:
        print(f"  {said['miscounted']} studies are equal although {said['peer']} counts them otherwise")
    if said["studies"]:
        titles = ["study", "date", "here", "there", "state", "what"]
        show_table(titles, [[*(each.get(name) for name in titles[:4]), each["state"], each["words"]]
                            for each in said["studies"]])  # fmt: skip


def _list(options: argparse.Namespace, config: Config, index: Index, syncs: Sequence[Sync]) -> int:
    names = {sync.name for sync in syncs}
    rows = [row for row in summaries(index, config) if row["sync"] in names]
    if options.json:
        show_json(rows)
    else:
        titles = ["sync", "peer", "direction", "reconcile", "last", "result"]
        show_table(titles, [[*(row[name] for name in titles[:4]), when(row["last"]), row["result"]] for row in rows])
    return 0


ACTIONS = {"list": _list, "run": _run, "report": _report}
