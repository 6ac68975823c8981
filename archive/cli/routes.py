"""`archive routes`: the routes, and what they would do with what is stored. Nothing is sent or queued here."""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from archive.app.routing import routes_of, routing
from archive.cli.common import Commands, command, configuration, show, show_json, show_table, warn
from archive.cli.queue import moment
from archive.config import Config
from archive.config.routing import Route
from archive.index import Index, open_index
from archive.index.described import Described
from archive.services.routing import READY, STUDY, Decision, Routing, facts_of, timed, why

LIST = {
    "name": "name", "trigger": "trigger", "match": "match", "to": "to", "stop": "stop", "priority": "priority",
    "changes": "changes",
}  # fmt: skip


def add(commands: Commands) -> None:
    made = command(commands, "routes", run)
    made.add_argument("action", nargs="?", choices=("list", "test"), default="list")
    made.add_argument("study", nargs="?", metavar="STUDY", help="for test: a Study Instance UID")
    made.add_argument("--replay", metavar="TIME", help="for test: all that came since, e.g. 30d or 2026-01-31")


def run(options: argparse.Namespace) -> int:
    config = configuration(options)
    if options.action == "list":
        return _list(options, config)
    if not (options.study or options.replay):
        warn("routes test needs a Study Instance UID, or --replay")
        return 2
    try:
        since = moment(options.replay) if options.replay else None
    except ValueError:
        warn(f"{options.replay}: a time is 30d, 2h or 2026-01-31T08:00")
        return 2
    return _test(options, config, since)


def _list(options: argparse.Namespace, config: Config) -> int:
    rows: list[dict[str, Any]] = [
        {"name": each.name, "trigger": each.trigger, "match": each.match, "to": list(each.to), "stop": each.stop,
         "priority": each.priority, "changes": changes_of(each)}
        for each in routes_of(config)
    ]  # fmt: skip
    if not options.json:
        rows = [row | {"to": " ".join(row["to"]), "stop": "yes" if row["stop"] else ""} for row in rows]
    show(options, LIST, rows)
    return 0


def _test(options: argparse.Namespace, config: Config, since: float | None) -> int:
    routes, index = routing(config), open_index(config.index.url)
    found = Verdicts(routes, {route.name: changes_of(route) for route in routes_of(config)})
    for each in _objects(index, routes, options.study, since):
        found.add(each)
    if not found.objects:
        warn("nothing is stored that fits")
        return 1
    if options.json:
        show_json({"instances": found.objects, "routes": found.rows()})
    else:
        print(f"{found.objects} instances of {len(found.studies)} studies; nothing was sent")
        show_table(
            ["route", "trigger", "instances", "to", "changes", "why"],
            [[row["route"], row["trigger"], row["instances"], _targets(row), row["changes"], row["why"]]
             for row in found.rows()],
        )
    return 0


def _objects(index: Index, routes: Routing, study: str | None, since: float | None) -> Iterable[Described]:
    return index.queue.described(routes.keywords(), study_uid=study or "", since=since)


def changes_of(route: Route) -> str:
    """What a route does to the objects that it sends, in words."""
    made = [f"coerced: {', '.join(route.coerce)}"] if route.coerce else []
    made += [f"de-identified: {', '.join(route.deidentify)}"] if route.deidentify else []
    return "; ".join(made)


def _targets(row: dict[str, Any]) -> str:
    sent = [f"{name}: {count}" for name, count in row["to"].items()]
    return ", ".join([*sent, *(f"not {name} ({why})" for name, why in row["left_out"].items())])


class Verdicts:
    """What the routes say about many objects, counted by route."""

    def __init__(self, routes: Routing, changes: Mapping[str, str]) -> None:
        self._routes, self._changes = routes, changes
        self.objects = 0
        self.studies: set[str] = set()
        self._fits: Counter[str] = Counter()
        self._to: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._left_out: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._why: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, each: Described) -> None:
        self.objects += 1
        self.studies.add(each.instance.study_uid)
        for trigger in dict.fromkeys(route.trigger for route in self._routes.routes):
            facts = timed(facts_of(each, {"StudyState": READY} if trigger == STUDY else {}), each.received)
            for decision in self._routes.decide(trigger, facts):
                self._count(decision)
                self._why[decision.route.name][why(decision.route.rule, facts)] += 1

    def _count(self, decision: Decision) -> None:
        name = decision.route.name
        self._fits[name] += decision.fits
        self._to[name].update(decision.to)
        self._left_out[name].update(decision.left_out)

    def rows(self) -> list[dict[str, Any]]:
        """One for each route, in their order; the most common reason stands for all."""
        return [
            {
                "route": route.name,
                "trigger": route.trigger,
                "instances": self._fits[route.name],
                "to": dict(self._to[route.name]),
                "left_out": self._left_out[route.name],
                "changes": self._changes[route.name],
                "why": self._reason(route.name),
            }
            for route in self._routes.routes
        ]

    def _reason(self, name: str) -> str:
        reasons = self._why[name]
        if not reasons:
            return "an earlier route took everything (stop)"
        (first, _), = reasons.most_common(1)
        return first if len(reasons) == 1 else f"{first}; and {len(reasons) - 1} other reasons"

