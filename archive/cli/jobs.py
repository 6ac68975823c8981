"""`archive import --from` and `archive migrate`: jobs that fetch what a peer has and the archive has not.

Rules that hold here: the daemon does the work; a command makes a job, looks at it or holds it up, and may end any time.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import date
from typing import Any

from tqdm import tqdm

from archive.cli.common import Commands, command, configuration, show_json, show_table, warn, when
from archive.cli.remote import destination
from archive.cli.status import answers
from archive.config import Config
from archive.config.kinds import Unfit
from archive.config.pacing import WINDOW
from archive.errors import InvalidQuery
from archive.index import open_index
from archive.index.jobs import Jobs
from archive.index.jobvalues import CANCELLED, DONE, PAUSED, RUNNING, Job
from archive.services.joborder import COMPARISONS, Order, read_keys
from archive.services.jobs import IMPORT, MIGRATE, balance
from archive.services.slices import beginning_of, plain

LOOK = 0.5  # seconds between two looks at the progress
PARTS = ("studies", "series", "instances")
COLUMNS = {"listed": "at the peer", "here": "were here", "fetched": "fetched", "failed": "failed", "open": "open"}
SHOWN = 20  # failures that are printed; --json has more
ACTIONS = ("status", "show", "cancel", "pause", "resume")


def add(commands: Commands) -> None:
    made = command(commands, "migrate", migrate)
    made.add_argument("--from", dest="peer", metavar="AET", required=True, help="the peer")
    made.add_argument("--since", metavar="DATE", help="studies since this date (2020-01-31)")
    made.add_argument("--until", metavar="DATE", help="studies until this date, which is included")
    made.add_argument(
        "--slice", default="adaptive", metavar="DAYS",
        help="days to ask for at once, such as 1d or 7d; adaptive: as many as the peer answers",
    )  # fmt: skip
    made.add_argument("--oldest-first", action="store_true", help="else the newest studies come first")
    made.add_argument("--dated-only", action="store_true", help="do not look for studies without a date at the end")
    made.add_argument("--new", action="store_true", help="a new job, even if one like it has not ended")
    terms(made)


def terms(made: argparse.ArgumentParser) -> None:
    """The options of all jobs."""
    meanings = "; ".join(f"{word}: {meaning}" for word, meaning in COMPARISONS.items())
    made.add_argument("--compare", choices=tuple(COMPARISONS), help=f"{meanings} (uids)")
    made.add_argument("--per-minute", type=int, default=0, metavar="N", help="studies begun in a minute")
    made.add_argument(
        "--window", action="append", default=[], metavar="SPAN", help="when it works, e.g. 22:00-06:00; repeatable"
    )
    made.add_argument("--wait", action="store_true", help="show how far it is, until it has ended")


# -- beginning ------------------------------------------------------------------------------------------------


def migrate(options: argparse.Namespace) -> int:
    config = configuration(options)
    try:
        since, until = (_date(text) if text else "" for text in (options.since, options.until))
        days = _days(options.slice)
        order = _order(options, since=since, until=until, days=days)
    except ValueError as error:
        warn(error)
        return 2
    if days and not since:
        warn("slices of so many days need --since; adaptive ones do not")
        return 2
    if days and not until:
        order = dataclasses.replace(order, until=date.today().isoformat())
    return _begin(options, config, MIGRATE, order)


def fetch(options: argparse.Namespace) -> int:
    """`archive import --from`."""
    config = configuration(options)
    try:
        keys, series_keys, since, until = read_keys(_keys(options))
        order = _order(options, keys=keys, series_keys=series_keys, since=since, until=until)
    except (ValueError, InvalidQuery) as error:
        warn(error)
        return 2
    if not keys and not series_keys and not since and not until:
        warn("import --from needs keys (-k PatientID=123); archive migrate fetches everything")
        return 2
    return _begin(options, config, IMPORT, order)


def _keys(options: argparse.Namespace) -> dict[str, str]:
    found = {}
    for text in [*options.key, *options.query]:
        keyword, mark, value = text.partition("=")
        if not mark or not keyword:
            raise ValueError(f"{text}: a key is KEYWORD=VALUE")
        found[keyword] = value
    return found


def _order(options: argparse.Namespace, **more: Any) -> Order:
    """Raises ValueError."""
    try:
        window = tuple(WINDOW.convert(text) for text in options.window)
    except Unfit as error:
        raise ValueError(f"--window: {error}") from error
    if options.per_minute < 0:
        raise ValueError("--per-minute is a number of studies")
    return Order(
        **more, compare=options.compare or "uids", per_minute=options.per_minute, window=window,
        oldest_first=getattr(options, "oldest_first", False), dated_only=getattr(options, "dated_only", False),
    )  # fmt: skip


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"{text} is no date; 2020-01-31 would be one") from None


def _days(text: str) -> int:
    match = re.fullmatch(r"([1-9]\d{0,4})d", text)
    if not match and text != "adaptive":
        raise ValueError(f"{text} is no slice; adaptive, 1d or 30d would be")
    return int(match[1]) if match else 0


def _begin(options: argparse.Namespace, config: Config, kind: str, order: Order) -> int:
    peer = destination(options, config).aet  # an unknown one is said now
    with closing(open_index(config.index.url)) as index:
        jobs, asked = Jobs(index.database), _as_kept(order)
        job = None if getattr(options, "new", False) else _same(jobs, kind, peer, asked)
        if job is None:
            plan = plain(beginning_of(order.since, order.until, order.days))
            key = jobs.create(kind, peer, asked, plan, time.time())
        else:
            key = job.id
        running = any(answers(listener) for listener in config.listeners)
        if options.wait:
            return _wait(options, jobs, key, running)
        if options.json:
            show_json({"job": key, "known": job is not None, "daemon": running})
        else:
            words = "is at it already" if job is not None and job.state == RUNNING else "goes on" if job else "begins"
            print(f"{kind} {key} from {peer} {words}{_later(running)}; archive import show {key} tells how far it is")
        return 0


def _as_kept(order: Order) -> dict[str, Any]:
    found = dataclasses.asdict(order)
    found["window"] = [[list(days), start, end] for days, start, end in order.window]
    return found


def _same(jobs: Jobs, kind: str, peer: str, asked: Mapping[str, Any]) -> Job | None:
    """The job that asks the same and has not ended; one that was held up, or lost its task, goes on."""
    for job in jobs.all(unfinished=True):
        same = (job.kind, job.peer, dict(job.options)) == (kind, peer, dict(asked))
        if same and jobs.resume(job.id, time.time()):
            return job
    return None


def _later(running: bool) -> str:
    return "" if running else " when the daemon runs, which it does not"


# -- watching -------------------------------------------------------------------------------------------------


def _wait(options: argparse.Namespace, jobs: Jobs, key: int, running: bool) -> int:
    if not running:
        warn("the daemon is not running; the job goes on when it is")
    try:
        job = _watch(jobs, key)
    except KeyboardInterrupt:
        warn(f"the daemon goes on with job {key}; archive import show {key} tells how far it is")
        return 1
    return _report(options, jobs, job)


def _watch(jobs: Jobs, key: int) -> Job:
    """Until the job has ended, or a person holds it up."""
    with tqdm(unit="study", disable=None) as bar:
        while True:
            job = jobs.get(key)
            if job is None:
                raise InvalidQuery("there is no such job", str(key))
            studies = balance(jobs, job, failures=0)["studies"]
            bar.total, bar.n = studies["listed"], studies["listed"] - studies["open"]
            bar.set_postfix_str(job.reason[:60])
            bar.refresh()
            if job.state != RUNNING:
                return job
            time.sleep(LOOK)


def _report(options: argparse.Namespace, jobs: Jobs, job: Job) -> int:
    jobs.studies.settle(job.id, time.time())  # what a person has tried again since
    found = balance(jobs, job)
    show_json(found) if options.json else _print(found)
    return 0 if job.state == DONE and not found["studies"]["failed"] else 1


def _print(found: Mapping[str, Any]) -> None:
    ended = f", {when(found['finished'])}" if found["finished"] else ""
    why = f": {found['why']}" if found["why"] else ""
    print(f"{found['kind']} {found['id']} from {found['peer']}: {found['state']}{ended}{why}")
    columns = COLUMNS | ({"cancelled": "cancelled"} if found["studies"]["cancelled"] else {})
    show_table(["", *columns.values()], [[part, *(found[part].get(name, "") for name in columns)] for part in PARTS])
    if found["to_ask"]:
        print(f"{found['to_ask']} questions are still to be asked")
    for note in found["notes"]:
        warn(note)
    for each in found["failures"][:SHOWN]:
        print(f"failed: {each['study']}: {each['reason']}")
    if found["studies"]["failed"] > SHOWN:
        print(f"… and {found['studies']['failed'] - SHOWN} more, all of them with --json")


# -- a person's hand in it ------------------------------------------------------------------------------------


def act(options: argparse.Namespace, action: str, words: Sequence[str]) -> int:
    """`archive import ACTION JOB…`."""
    config = configuration(options)
    if not all(word.isascii() and word.isdigit() for word in words) or (action != "status" and not words):
        warn(f"import {action} needs the numbers of jobs; archive import status lists them")
        return 2
    with closing(open_index(config.index.url)) as index:
        jobs = Jobs(index.database)
        found = [jobs.get(int(word)) for word in words]
        if None in found:
            warn(f"there is no job {words[found.index(None)]}; archive import status lists them")
            return 2
        known = [job for job in found if job is not None]
        if action == "status":
            return _status(options, jobs, known or jobs.all())
        if action == "show":
            return max(_report(options, jobs, job) for job in known)
        return max(_change(options, jobs, job, action) for job in known)


def _status(options: argparse.Namespace, jobs: Jobs, known: Sequence[Job]) -> int:
    for job in known:
        jobs.studies.settle(job.id, time.time())
    rows = [balance(jobs, job, failures=0) for job in known]
    if options.json:
        show_json(rows)
        return 0
    titles = ["job", "kind", "peer", "state", *COLUMNS.values(), "begun", "why"]
    cells = [
        [row["id"], row["kind"], row["peer"], row["state"], *(row["studies"][name] for name in COLUMNS),
         when(row["created"]), row["why"]]
        for row in rows
    ]  # fmt: skip
    show_table(titles, cells)
    return 0


def _change(options: argparse.Namespace, jobs: Jobs, job: Job, action: str) -> int:
    change: Callable[[int, float], bool] = {"cancel": jobs.cancel, "pause": jobs.pause, "resume": jobs.resume}[action]
    if not change(job.id, time.time()):
        warn(f"job {job.id} is {job.state}: it cannot {action}")
        return 1
    state = {"cancel": CANCELLED, "pause": PAUSED, "resume": RUNNING}[action]
    show_json({"job": job.id, "state": state}) if options.json else print(f"{job.kind} {job.id}: {state}")
    return 0
