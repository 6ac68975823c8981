"""The section ``sync``: archives that are kept equal with this one, in real time and by comparing.

Rules that hold here: a sync is with one peer, and no two are with the same one; what it pushes is a route of trigger
``image``, so that what concerns its destination is said as routes say it and agrees with theirs; nothing is mended in
a direction in which it does not work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .complaints import Complaint
from .kinds import OFF_WORDS, ListOf, Reading, Scalar, Unfit
from .pacing import GIVE_UP, RATE, RETRY, WINDOW, Hours, Retry
from .routing import PRIORITIES, PROOFS, TRANSCODING, Route, agreeing
from .rules import NAME, RULE, callable_peer
from .schema import option
from .units import read_duration, show_duration
from .values import AE_TITLE, duration, number, one_of, unlimited

if TYPE_CHECKING:
    from .sections import Config

OFTEN = 60.0  # seconds: less between two comparisons would be nothing but comparing
MINUTE = 1
DAY = 1440  # minutes

DIRECTIONS = {
    "push": "what arrives here is sent there",
    "pull": "what is missing here is fetched from there when the two are compared",
    "both": "both",
}
MENDS = {
    "push": "what is missing there is sent there",
    "pull": "what is missing here is fetched from there",
    "both": "both",
    "report": "nothing is mended, differences are only named",
}
COMPARES = {
    "counts": "studies by their numbers of series and images; what differs, by the UIDs of its images",
    "new": "the same, and once by the UIDs of its images what has changed here since it was found equal",
    "images": "every study by the UIDs of its images",
}
GONE = {
    "report": "it may have been deleted there: it is named and left alone",
    "push": "it is sent there again",
}
DELETED = {
    "leave": "what was deleted here stays deleted",
    "pull": "it is fetched again",
}


class Reconcile(NamedTuple):
    """When two archives are compared: ``every`` so many seconds, or when a span of the day begins, while it lasts.

    A span that is only a moment has no end: what was begun then goes on. Neither is never.
    """

    every: float = 0.0
    hours: Hours | None = None
    ends: bool = False


def _reconcile(text: str) -> Reconcile:
    text = text.strip().lower()
    if text in OFF_WORDS:
        return Reconcile()
    if "-" in text.rpartition(" ")[2]:
        return Reconcile(hours=WINDOW.convert(text), ends=True)
    if ":" in text:
        return Reconcile(hours=_moment(text))
    every = read_duration(text)
    if not OFTEN <= every <= 31 * 86400:
        raise Unfit("out of range")
    return Reconcile(every=every)


def _moment(text: str) -> Hours:
    days, _, clock = text.rpartition(" ")
    hours: Hours = WINDOW.convert(f"{days} {clock}-{'24:00' if clock == '23:59' else '23:59'}".strip())
    return Hours(hours.days, hours.start, hours.start + MINUTE)


def _show_reconcile(value: Reconcile) -> str:
    if value.every:
        return show_duration(value.every)
    if value.hours is None:
        return "off"
    shown = str(WINDOW.show(value.hours))
    return shown if value.ends else shown.rpartition("-")[0]


RECONCILE = Scalar(
    "off, a time such as 02:00 or 'sun 02:00', a span such as 22:00-06:00, or an interval such as 6h",
    _reconcile,
    _show_reconcile,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    name: str = option(NAME, None, "what lists and logs call it", required=True)
    peer: str = option(AE_TITLE, None, "the AE title of the peer that is to be kept equal", required=True)
    match: str = option(RULE, "", "which objects take part; empty is all")
    direction: str = option(one_of(DIRECTIONS), "push", "which way images go")
    reconcile: Reconcile = option(RECONCILE, "02:00", "when the two are compared (local time)")
    within: float = option(
        unlimited(duration(86400, 200 * 365 * 86400)), "30d", "studies of how many days are compared; 0 = all"
    )
    compare: str = option(one_of(COMPARES), "new", "how closely studies are looked at")
    mend: str | None = option(one_of(MENDS), None, "what becomes of differences; direction if left out")
    gone: str = option(one_of(GONE), "report", "what becomes of images that the peer had and has no more")
    deleted: str = option(one_of(DELETED), "leave", "what becomes of images that were deleted here and are there")
    window: tuple[Hours, ...] = option(ListOf(WINDOW), [], "when images may be sent (local time); empty is always")
    priority: str = option(one_of(PRIORITIES), "normal", "their place in the queue of the peer")
    retry: Retry | tuple[float, ...] = option(RETRY, {}, "when an image has failed")
    give_up: float = option(GIVE_UP, "7d", "images fail when the peer could not be reached for so long")
    rate: int = option(RATE, None, "most that is sent to the peer in a second", unset=0)
    associations: int | None = option(
        number(1, 16), None, "associations to the peer at a time; its store_associations if left out"
    )
    transcode: str = option(one_of(TRANSCODING), "auto", "what happens to compressed images")
    verify: str = option(one_of(PROOFS), "none", "what proves that an image has arrived")

    @property
    def pushes(self) -> bool:
        return self.direction in ("push", "both")

    @property
    def mends(self) -> str:
        return self.mend or self.direction

    @property
    def route(self) -> Route:
        """What it pushes, as a route."""
        return Route(
            name=route_name(self.name), match=self.match, trigger="image", to=(self.peer,), window=self.window,
            priority=self.priority, retry=self.retry, give_up=self.give_up, rate=self.rate,
            associations=self.associations, transcode=self.transcode, verify=self.verify,
        )  # fmt: skip


def route_name(name: str) -> str:
    """What the route of a sync is called."""
    return f"sync {name}"


def syncs(config: Config, reading: Reading) -> Iterator[Complaint]:
    """Syncs have names and peers of their own, lead to peers that can be called, and agree with the routes."""
    names: set[str] = set()
    taken = {route.name for route in config.routes}
    peers: dict[str, str] = {}
    said: dict[tuple[str, str], tuple[str, object]] = {}
    for route in config.routes:
        for target in route.to:
            list(agreeing(said, reading, "", route, target))
    for position, sync in enumerate(config.sync):
        key = f"sync.{position}"
        if sync.name in names or sync.route.name in taken:
            yield reading.about(f"{key}.name", f"{sync.name!r} is taken already", "another name would do")
        if sync.peer in peers:
            problem = f"sync {peers[sync.peer]} is with {sync.peer} already"
            yield reading.about(f"{key}.peer", problem, "one sync for each peer")
        names.add(sync.name)
        peers.setdefault(sync.peer, sync.name)
        yield from callable_peer(config, reading, key, sync.peer, "peer")
        yield from agreeing(said, reading, key, sync.route, sync.peer)
        yield from _one_way(reading, key, sync)


def _one_way(reading: Reading, key: str, sync: Sync) -> Iterator[Complaint]:
    if sync.mends not in (sync.direction, "report") and sync.direction != "both":
        remedy = f"mend: {sync.direction}, mend: report or direction: both would do"
        yield reading.about(f"{key}.mend", f"contradicts direction {sync.direction}", remedy)
