"""`archive retention`: what rules say of studies, what is due, and carrying it out by hand."""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

from archive.app.retention import looking_of, retire_of
from archive.app.store import index_of, open_volume
from archive.cli.common import Commands, command, configuration, show, show_json, warn, when
from archive.config import Config
from archive.index import Index, Which
from archive.index.retention import RETIRE, ROOM, RetentionRows
from archive.services.retention import Looking, Verdict
from archive.services.rounds import progress
from archive.services.steadyclock import SteadyClock
from archive.services.watermarks import crossed
from archive.workers.retention import LONGEST_PAUSE

TESTED = {"study_uid": "study", "rule": "rule", "due": "due", "then": "then", "holds_up": "held up by"}
LISTED = {"study_uid": "study", "rule": "rule", "due": "due since", "then": "then", "why": "held up by"}
HISTORY = {"finished": "when", "study_uid": "study", "state": "state", "reason": "what became of it"}


def add(commands: Commands) -> None:
    made = command(commands, "retention", retention)
    made.add_argument(
        "action", choices=tuple(ACTIONS), nargs="?", default="status",
        help="test: which rule decides, when studies are due and what holds them up; run: look at all and"
        " delete what is due; list: what is due; history: what became of it; status (the default);"
        " clock: whether it is believed",
    )  # fmt: skip
    made.add_argument("studies", nargs="*", metavar="STUDY", help="Study Instance UIDs, for test")
    made.add_argument("--all", action="store_true", help="test: all studies")
    made.add_argument("--due", action="store_true", help="test: only those that are due")
    made.add_argument("--dry-run", action="store_true", help="run: say what would be deleted and delete nothing")
    made.add_argument("--right", action="store_true", help="clock: it is right, whatever it was before")
    made.add_argument("--limit", type=int, default=100, help="list, history: how many (100)")


def retention(options: argparse.Namespace) -> int:
    config = configuration(options)
    if options.studies and (options.action != "test" or options.all):
        warn("Study Instance UIDs are for test, without --all")
        return 2
    index = index_of(config)
    try:
        return ACTIONS[options.action](options, config, index)
    finally:
        index.close()


# -- trying -------------------------------------------------------------------------------------------


def _test(options: argparse.Namespace, config: Config, index: Index) -> int:
    if not options.studies and not options.all:
        warn("test needs a Study Instance UID, or --all")
        return 2
    looking, now = looking_of(index, config), time.time()
    if options.all:
        found: Iterable[Verdict] = looking.all()
    else:
        known = {uid: looking.one(uid) for uid in options.studies}
        if missing := [uid for uid, verdict in known.items() if verdict is None]:
            warn(f"no such study: {missing[0]}")
            return 1
        found = [verdict for verdict in known.values() if verdict]
    show(options, TESTED, (_tested(options, each, now) for each in found if each.is_due(now) or not options.due))
    return 0


def _tested(options: argparse.Namespace, verdict: Verdict, now: float) -> dict[str, Any]:
    due, needs = verdict.due, [str(need) for need in verdict.needs]
    due = None if due == math.inf else due
    if options.json:
        return {
            "study_uid": verdict.study_uid, "rule": verdict.rule or None, "due": due, "then": verdict.then or None,
            "is_due": verdict.is_due(now), "held_up": list(verdict.why), "needs": needs,
        }  # fmt: skip
    until = when(due)[:10] if due is not None and due < 2.5e11 else "never"
    asked = [f"{need} (asked just before)" for need in needs]
    return {
        "study_uid": verdict.study_uid, "rule": verdict.rule or "(none)", "then": verdict.then,
        "due": f"{until} (due)" if verdict.is_due(now) else until, "holds_up": "; ".join([*verdict.why, *asked]),
    }  # fmt: skip


# -- carrying out -------------------------------------------------------------------------------------


def _run(options: argparse.Namespace, config: Config, index: Index) -> int:
    if options.dry_run:
        if doubt := _doubt(index):
            warn(f"nothing of it would be deleted: {doubt}")
        now = time.time()
        free = (each for each in _looking(index, config).all() if each.is_free(now) and each.then == "delete")
        show(options, TESTED, (_tested(options, each, now) for each in free))
        return 0
    if doubt := SteadyClock(index, time.time).doubt():
        warn(f"{doubt}; archive retention clock --right, if it is right now")
        return 1
    volume = open_volume(config, index, time.time)
    try:
        worker = retire_of(index, volume, config, always=True)
        worker.begin()
        while (pause := worker.step()) is not None and pause <= LONGEST_PAUSE:
            time.sleep(pause)
    finally:
        volume.close()
    found = dataclasses.asdict(progress(index)) | {"deleted": worker.deleted}
    words = "{studies} studies were looked at, {due} are due, {held_up} held up, {deleted} deleted".format(**found)
    show_json(found) if options.json else print(words)
    return 0


def _looking(index: Index, config: Config) -> Looking:
    return looking_of(index, config)


# -- telling ------------------------------------------------------------------------------------------


def _list(options: argparse.Namespace, config: Config, index: Index) -> int:
    show(options, LISTED, _due(options, index))
    return 0


def _due(options: argparse.Namespace, index: Index) -> Iterator[dict[str, Any]]:
    for each in RetentionRows(index.database).due(limit=options.limit):
        row = dataclasses.asdict(each)
        yield row if options.json else row | {"due": when(each.due)[:10]}


def _history(options: argparse.Namespace, config: Config, index: Index) -> int:
    """The tasks of retention, the last one last."""
    rows = (
        {"finished": task.finished if options.json else when(task.finished), "study_uid": task.study_uid,
         "state": task.state.value, "reason": task.reason}
        for task in index.queue.latest(Which((RETIRE, ROOM)), limit=options.limit)
    )  # fmt: skip
    show(options, HISTORY, rows)
    return 0


def _status(options: argparse.Namespace, config: Config, index: Index) -> int:
    rows, last, marks = RetentionRows(index.database), progress(index), crossed(index)
    counts = [
        {"rule": rule, "then": then, "held_up": held_up, "studies": count}
        for (rule, then, held_up), count in sorted(rows.counts().items())
    ]
    said = {
        "rules": [rule.name for rule in config.retention], "round": dataclasses.asdict(last) if last.began else None,
        "due": counts, "about_to_be_deleted": rows.open_tasks(), "clock": _doubt(index) or "believed",
        "watermarks": {"crossed_since": marks.since, "times": marks.times, "making_room": marks.purging},
    }  # fmt: skip
    show_json(said) if options.json else _print(said)
    return 0


def _doubt(index: Index) -> str:
    return SteadyClock(index, time.time).doubt(note=False)


def _print(said: dict[str, Any]) -> None:
    print(f"rules: {', '.join(said['rules']) or 'none, everything is kept for ever'}")
    if last := said["round"]:
        ended = f"ended {when(last['ended'])}" if last["ended"] else "is under way"
        print(f"round of {when(last['began'])} {ended}: {last['studies']} studies looked at, {last['due']} due")
    for each in said["due"]:
        state = "held up" if each["held_up"] else "may go"
        print(f"  {each['rule']}: {each['studies']} due, {state} ({each['then']})")
    if said["about_to_be_deleted"]:
        print(f"{said['about_to_be_deleted']} are about to be deleted")
    if said["clock"] != "believed":
        print(f"NOTHING IS DELETED: {said['clock']}; archive retention clock --right, if it is right now")
    for name, since in said["watermarks"]["crossed_since"].items():
        print(f"watermark {name} is crossed since {when(since)}")


def _clock(options: argparse.Namespace, config: Config, index: Index) -> int:
    if options.right:
        SteadyClock(index, time.time).believe()
    doubt = _doubt(index)
    show_json({"believed": not doubt, "why": doubt}) if options.json else print(doubt or "the clock is believed")
    return 1 if doubt else 0


ACTIONS = {
    "test": _test, "run": _run, "list": _list, "history": _history, "status": _status, "clock": _clock,
}  # fmt: skip
