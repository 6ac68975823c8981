"""Routes wired: which tasks they cause, what they do to the objects that they send, and on which terms they send."""

from __future__ import annotations

from collections.abc import Callable, Collection

from archive.config import Config
from archive.config.routing import Route as RouteOption
from archive.dicom.deidentify import Deidentifier
from archive.dicom.rule import parse_rule
from archive.index import Task
from archive.services.causes import IMAGE, STUDY, Causes
from archive.services.destination import Conditions, Terms
from archive.services.hooks import Deidentify, Hooks
from archive.services.routing import Route, Routing
from archive.services.schedule import Schedule

PRIORITIES = {"low": -1, "normal": 0, "high": 1}


def routes_of(config: Config) -> tuple[RouteOption, ...]:
    """The routes of a configuration; what syncs push are routes, asked first so that none that stops hides it."""
    return (*(sync.route for sync in config.sync if sync.pushes), *config.routes)


def routing(config: Config) -> Routing:
    """The same, ready to decide."""
    routes = [
        Route(
            route.name, parse_rule(route.match), route.trigger, route.to, route.stop, PRIORITIES[route.priority],
            bool(route.deidentify),
        )
        for route in routes_of(config)
    ]
    return Routing(routes, lambda target: _titles(config, target), series_after=config.queue.series_after)


def _titles(config: Config, target: str) -> Collection[str]:
    peer = config.peer(target)
    return (peer.aet, *peer.aliases) if peer is not None else (target,)


def add(causes: Causes, config: Config) -> None:
    """For app/causes.py: what routes want to be done."""
    if not routes_of(config):
        return
    routes = routing(config)
    if any(routes.has(trigger) for trigger in ("image", "series", "report")):
        causes.on(IMAGE, routes.on_image)
    if routes.has("study"):
        causes.on(STUDY, routes.on_study)


def hooks_of(config: Config) -> dict[str, Hooks]:
    """What routes do to the objects that they send, by the names of the routes."""
    found = {}
    for route in routes_of(config):
        wanted = None
        if route.deidentify:
            options = set(route.deidentify) - {"basic"}
            wanted = Deidentify(Deidentifier(options, config.deidentify.key), route.burned_in == "send")
        if route.coerce or wanted is not None:
            found[route.name] = Hooks(route.coerce, wanted)
    return found


def hooks_for(config: Config) -> Callable[[Task], Hooks | None]:
    """The same for a task of the queue."""
    found = hooks_of(config)
    return lambda task: found.get(task.payload.get("route", ""))


def conditions(config: Config, target: str) -> Conditions:
    """What the routes to a destination say about sending there."""
    routes = [route for route in routes_of(config) if target in route.to]
    hooks = hooks_of(config)
    terms = {
        route.name: Terms(
            Schedule(route.window), route.delays, route.give_up, route.verify != "none", hooks.get(route.name)
        )
        for route in routes
    }
    return Conditions(
        max((route.rate or 0 for route in routes), default=0), config.queue.idle, terms,
        down_after=config.queue.down_after,
    )  # fmt: skip
