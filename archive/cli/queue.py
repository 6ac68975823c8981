"""`archive queue`: what waits, what runs, what was sent and what has failed; and a person's hand in it."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from archive.cli.common import Commands, command, configuration, show, show_json, warn, when
from archive.config import Config
from archive.index import Index, State, Task, Which, open_index
from archive.index.commitment_tasks import CHECK, REPORT
from archive.services.fetching import FETCH, FROM
from archive.services.prefetch import PREFETCH
from archive.services.routing import DELIVER, VERIFY
from archive.services.waiting import NAMES, STATES, held_up, why
from archive.workers.handing import HAND_ON

LIST = {
    "id": "id", "destination": "destination", "state": "state", "tries": "tries", "route": "route",
    "instance": "instance", "why": "why",
}  # fmt: skip
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
OPEN = (State.WAITING, State.LEASED, State.FAILED)
OTHERWISE = {State.DONE: "done", State.LEASED: "running"}  # of what sends nothing
BY_HAND = "cancelled by hand"
KINDS = (DELIVER, VERIFY)
LANES = (*KINDS, FETCH)  # those that a person can pause
SEEN = (*LANES, CHECK, REPORT, PREFETCH, HAND_ON)  # without --kind: what goes to somebody else, or comes from there


def add(commands: Commands) -> None:
    made = command(commands, "queue", run)
    made.add_argument("action", nargs="?", choices=tuple(ACTIONS), default="list", help="what to do (list)")
    made.add_argument(
        "what", nargs="*", metavar="WHAT", help="ids of tasks; for pause and resume a destination, or from:PEER"
    )
    made.add_argument("--study", metavar="UID", help="only tasks about this study")
    made.add_argument("--to", metavar="DESTINATION", help="only tasks of this destination")
    made.add_argument("--state", choices=tuple(STATES), action="append", default=[], help="only these; repeatable")
    made.add_argument("--reason", metavar="TEXT", help="only tasks whose reason has this text in it")
    made.add_argument("--since", metavar="TIME", help="only tasks added since: 2h, 3d or 2026-01-31T08:00")
    made.add_argument("--until", metavar="TIME", help="only tasks added before")
    made.add_argument(
        "--kind", action="append", default=[], help="another kind of work than deliveries, or any; repeatable"
    )
    made.add_argument("--all", action="store_true", help="for retry, cancel and purge without anything narrower")
    made.add_argument("--limit", type=int, default=100, help="how many to list (100)")
    made.add_argument("--why", default="", metavar="TEXT", help="for pause: what others are told")


def run(options: argparse.Namespace) -> int:
    config = configuration(options)
    which = _which(options)
    if which is None:
        return 2
    return ACTIONS[options.action](options, config, open_index(config.index.url), which)


def _which(options: argparse.Namespace) -> Which | None:
    """What the options mean; None after a complaint."""
    try:
        since, until = (moment(text) if text else None for text in (options.since, options.until))
        ids = tuple(int(text) for text in options.what) if options.action not in ("pause", "resume") else ()
    except ValueError as error:
        warn(f"{error}: ids are numbers, times are 2h, 3d or 2026-01-31T08:00")
        return None
    states = tuple(STATES[name] for name in options.state)
    kinds = () if ids or "any" in options.kind else tuple(options.kind) or SEEN
    return Which(kinds, options.to, states, options.study, options.reason, since, until, ids)


def moment(text: str, now: float | None = None) -> float:
    """A time so long ago, or a date; raises ValueError."""
    match = re.fullmatch(r"(\d+)([smhdw])", text)
    if match:
        return (time.time() if now is None else now) - int(match[1]) * UNITS[match[2]]
    return datetime.fromisoformat(text).timestamp()


# -- looking --------------------------------------------------------------------------------------------------


def _list(options: argparse.Namespace, config: Config, index: Index, which: Which) -> int:
    if not which.states and not which.ids:
        which = _with(which, states=OPEN)
    now, lanes = time.time(), index.queue.lanes()
    rows = [_row(task, why(task, lanes, now)) for task in index.queue.latest(which, limit=options.limit)]
    show(options, LIST, rows)
    return 0


def _with(which: Which, **changes: Any) -> Which:
    return Which(**({name: getattr(which, name) for name in Which.__dataclass_fields__} | changes))


def _row(task: Task, reason: str) -> dict[str, Any]:
    return {
        "id": task.id,
        "kind": task.kind,
        "destination": task.lane,
        "state": NAMES[task.state] if task.kind in KINDS else OTHERWISE.get(task.state, NAMES[task.state]),
        "tries": task.attempts,
        "route": task.payload.get("route") or task.payload.get("by") or _other(task),
        "study": task.study_uid,
        "instance": task.payload.get("sop", ""),
        "deidentify": bool(task.payload.get("deidentify")),
        "created": task.created,
        "due": task.due,
        "finished": task.finished,
        "why": reason,
    }


def _other(task: Task) -> str:
    """What stands in place of a route where there is none."""
    return task.kind if task.kind not in KINDS else ""


def _show(options: argparse.Namespace, config: Config, index: Index, which: Which) -> int:
    """All of some tasks; without ids the destinations."""
    if not which.ids:
        return _show_lanes(options, index)
    now, lanes = time.time(), index.queue.lanes()
    rows = [_row(task, why(task, lanes, now)) for task in index.queue.select(which, limit=options.limit)]
    if options.json:
        show_json(rows)
    for row in rows if not options.json else ():
        for name, value in row.items():
            print(f"{name:12} {when(value or 0) if name in ('created', 'due', 'finished') else value}")
        print()
    return 0 if rows else 1


def _show_lanes(options: argparse.Namespace, index: Index) -> int:
    titles = {name: name for name in ("destination", "waiting", "sending", "failed", "why")}
    show(options, titles, destinations(index))
    return 0


def destinations(index: Index) -> list[dict[str, Any]]:
    """Each destination with what waits there, is being sent or has failed, and what holds it up."""
    now, lanes, counts = time.time(), index.queue.lanes(), index.queue.open(LANES)
    names = sorted({*(lane for lane, _ in counts), *(name for name in lanes if held_up(lanes[name], now))})
    return [
        {
            "destination": name,
            **{NAMES[state]: counts.get((name, state), 0) for state in OPEN},
            "why": held_up(lanes.get(name), now),
        }
        for name in names
    ]


# -- changing -------------------------------------------------------------------------------------------------


def _retry(options: argparse.Namespace, config: Config, index: Index, which: Which) -> int:
    """Failed tasks begin anew; a destination that is down is asked at once."""
    if not _narrowed(options, which):
        return 2
    if not which.states and not which.ids:
        which = _with(which, states=(State.FAILED,))
    number = index.queue.again(which, time.time(), instead=(VERIFY, DELIVER))
    down = [name for name, lane in index.queue.lanes().items() if lane.down_until is not None]
    asked = [name for name in down if options.to in (None, name)]
    for name in asked:
        index.queue.hold(name, LANES, down_until=time.time())
    return _said(options, "again", number, "are tried again") if not asked else (
        _said(options, "again", number, f"are tried again, and {', '.join(asked)} asked") and 0
    )


def _cancel(options: argparse.Namespace, config: Config, index: Index, which: Which) -> int:
    if not _narrowed(options, which):
        return 2
    return _said(options, "cancelled", index.queue.cancel(which, time.time(), BY_HAND), "cancelled")


def _purge(options: argparse.Namespace, config: Config, index: Index, which: Which) -> int:
    if not _narrowed(options, which):
        return 2
    return _said(options, "purged", index.queue.purge(which), "taken out of the history")


def _narrowed(options: argparse.Namespace, which: Which) -> bool:
    narrow = (which.ids, which.lane, which.study_uid, which.reason, which.since, which.until, which.states)
    if options.all or any(narrow):
        return True
    warn(f"queue {options.action} needs ids, --to, --study, --state, --reason, --since, --until or --all")
    return False


def _said(options: argparse.Namespace, key: str, number: int, words: str) -> int:
    show_json({key: number}) if options.json else print(f"{number} tasks {words}")
    return 0 if number else 1


def _pause(options: argparse.Namespace, config: Config, index: Index, which: Which) -> int:
    return _hold(options, config, index, time.time(), options.why)


def _resume(options: argparse.Namespace, config: Config, index: Index, which: Which) -> int:
    return _hold(options, config, index, None, "")


def _hold(options: argparse.Namespace, config: Config, index: Index, since: float | None, words: str) -> int:
    names = options.what or ([options.to] if options.to else [])
    known = {*config.peers, *(route for each in config.routes for route in each.to), *index.queue.lanes()}
    known |= {peer.aet for peer in config.peers.values()} | {lane for lane, _ in index.queue.open(LANES)}
    known |= {f"{FROM}{peer.aet}" for peer in config.peers.values()}
    unknown = [name for name in names if name not in known]
    if not names or unknown:
        warn(f"no such destination: {unknown[0]}" if unknown else f"queue {options.action} needs a destination")
        return 2
    for name in names:
        index.queue.hold(name, LANES, paused=since, paused_why=words)
    if options.json:
        show_json({"destinations": names, "paused": since is not None})
    else:
        print(f"{', '.join(names)} {'paused' if since is not None else 'goes on'}")
    return 0


Action = Callable[[argparse.Namespace, Config, Index, Which], int]
ACTIONS: Mapping[str, Action] = {
    "list": _list, "show": _show, "retry": _retry, "cancel": _cancel, "pause": _pause, "resume": _resume,
    "purge": _purge,
}  # fmt: skip
