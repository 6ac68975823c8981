"""The sections ``routes`` and ``queue``: what is sent on to whom, when, and how often it is tried.

Rules that hold here: a route is a rule, a trigger and destinations; what concerns a destination as a whole (rate,
associations, transcode, the kind of proof) is said alike by all routes that name it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .complaints import Complaint
from .kinds import ListOf, Reading, Scalar, Unfit
from .pacing import GIVE_UP, RATE, RETRY, WINDOW, Hours, Retry, pauses
from .rules import NAME, RULE, TARGET, callable_peer, own_names
from .schema import option
from .values import SWITCH, duration, number, one_of

if TYPE_CHECKING:
    from .sections import Config

LAYOUT_OF_FOLDERS = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"

TRIGGERS = {
    "image": "each image as it arrives, while its study is still arriving",
    "series": "the images of a series when none has come for queue.series_after",
    "study": "the images of a study when it is ready, and later ones when it is ready again",
    "report": "the objects of a study, the report among them, when a report on it arrives",
}
PRIORITIES = {"low": "after everything else", "normal": "in the order of arrival", "high": "before everything else"}
TRANSCODING = {
    "auto": "as stored where the receiver takes that, else converted without loss",
    "off": "pixels are never decoded or encoded: an image that the receiver does not take as stored has failed",
}
PROOFS = {
    "none": "the destination's answer to the store is enough",
    "query": "the destination must find the image by C-FIND as well",
    "commitment": "the destination must promise to keep it, by storage commitment",
}

DEIDENTIFY = {
    "basic": "the Basic Application Level Confidentiality Profile (PS3.15 E.2)",
    "retain-dates": "dates and times stay",
    "shift-dates": "dates move by so many days, the same for all of a patient",
    "retain-uids": "UIDs stay",
    "retain-device": "what identifies the equipment stays",
    "retain-patient-characteristics": "age, sex, size, weight and the like stay",
}
BURNED_IN = {
    "refuse": "fail: Burned In Annotation YES, secondary captures and ultrasound without NO, documents",
    "send": "are sent: somebody else has made sure",
}

_FIELD = re.compile(r"\{(\w*)\}")


def _layout(text: str) -> str:
    from archive.dicom.attributes import BY_KEYWORD

    unknown = [name for name in _FIELD.findall(text) if not any(row.column for row in BY_KEYWORD.get(name, ()))]
    if unknown:
        raise Unfit(f"{{{unknown[0]}}} is no indexed attribute")
    if "{SOPInstanceUID}" not in text:
        raise Unfit("images would overwrite each other", "a layout with {SOPInstanceUID} in it would do")
    if text.startswith("/") or ".." in text.split("/"):
        raise Unfit("leads out of the folder")
    return text.strip()


LAYOUT = Scalar("a relative path with attributes such as {PatientID}/{SOPInstanceUID}.dcm", _layout)
KEY = Scalar("a secret text, best as ${NAME}", str.strip, lambda value: "***" if value else "")
SHORTEST_KEY = 32  # characters: a person cannot remember it, and nobody can find it by trying


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    name: str = option(NAME, None, "what lists and logs call it", required=True)
    match: str = option(RULE, "", "which objects; empty is all")
    trigger: str = option(one_of(TRIGGERS), "image", "when its objects are put into the queue")
    to: tuple[str, ...] = option(ListOf(TARGET, 1), None, "where to: AE titles of peers, folder:/path", required=True)
    stop: bool = option(SWITCH, "off", "no later route of the same trigger looks at what this one took")
    window: tuple[Hours, ...] = option(ListOf(WINDOW), [], "when it may be sent (local time); empty is always")
    priority: str = option(one_of(PRIORITIES), "normal", "its place in the queue of a destination")
    retry: Retry | tuple[float, ...] = option(RETRY, {}, "when an image has failed")
    give_up: float = option(GIVE_UP, "7d", "images fail when their destination could not be reached for so long")
    rate: int = option(RATE, None, "most that is sent to the destination in a second", unset=0)
    associations: int | None = option(
        number(1, 16), None, "associations to the destination at a time; store_associations of the peer if left out"
    )
    transcode: str = option(one_of(TRANSCODING), "auto", "what happens to compressed images")
    verify: str = option(one_of(PROOFS), "none", "what proves that an image has arrived")
    coerce: tuple[str, ...] = option(
        ListOf(NAME), [], "rules of coerce with on: route, by their names, applied to what this route sends"
    )
    deidentify: tuple[str, ...] = option(
        ListOf(one_of(DEIDENTIFY)), [], "basic, and what of PS3.15 E.3 is wanted besides; empty is off"
    )
    burned_in: str = option(one_of(BURNED_IN), "refuse", "images that may show patient data, when de-identifying")
    layout: str | None = option(
        LAYOUT, None, f"names of the files in a folder; {LAYOUT_OF_FOLDERS} if left out", unset=LAYOUT_OF_FOLDERS
    )

    @property
    def delays(self) -> tuple[float, ...]:
        """The pauses before each further try."""
        return pauses(self.retry)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeidentifySettings:
    key: str = option(KEY, "", "the secret from which routes that de-identify make pseudonyms")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    history: float = option(duration(60, 10 * 365 * 86400), "90d", "how long the outcome of each task is kept")
    idle: float = option(duration(0.1, 3600), "5s", "how long an association is kept open for the next image")
    down_after: float = option(
        duration(1, 30 * 86400), "15m", "a destination that was not reached for so long is told to those in notify"
    )
    series_after: float = option(
        duration(1, 86400), "60s", "a series is whole when nothing has come for so long (trigger: series)"
    )


def routes(config: Config, reading: Reading) -> Iterator[Complaint]:
    """Routes lead to peers that can be called, have names of their own and agree about their destinations."""
    yield from own_names(reading, "routes", config.routes)
    said: dict[tuple[str, str], tuple[str, object]] = {}
    for position, route in enumerate(config.routes):
        key = f"routes.{position}"
        for target in route.to:
            yield from callable_peer(config, reading, key, target)
            yield from agreeing(said, reading, key, route, target)
        yield from _hooks(config, reading, key, route)


def _hooks(config: Config, reading: Reading, key: str, route: Route) -> Iterator[Complaint]:
    """The rules that a route names are there, and de-identification is as it can be."""
    known = {rule.name for rule in config.coerce if rule.on == "route" and rule.name}
    for name in route.coerce:
        if name not in known:
            remedy = f"rules of coerce with on: route: {', '.join(sorted(known)) or 'none'}"
            yield reading.about(f"{key}.coerce", f"{name!r} is no such rule", remedy)
    options = set(route.deidentify)
    if options and "basic" not in options:
        yield reading.about(f"{key}.deidentify", "options without the profile", "basic and they would do")
    if {"retain-dates", "shift-dates"} <= options:
        yield reading.about(f"{key}.deidentify", "dates cannot stay and move", "one of the two would do")
    if options and len(config.deidentify.key) < SHORTEST_KEY:
        problem = f"pseudonyms need a secret key of at least {SHORTEST_KEY} characters"
        yield reading.about(f"{key}.deidentify", problem, "deidentify: {key: ${NAME}} would do")
    if route.burned_in != "refuse" and not options:
        yield reading.about(f"{key}.burned_in", "means nothing without deidentify", "leave it out")


def agreeing(
    said: dict[tuple[str, str], tuple[str, object]], reading: Reading, key: str, route: Route, target: str
) -> Iterator[Complaint]:
    for name in ("rate", "associations", "transcode", "verify"):
        value = getattr(route, name)
        if value is None or value == "none":
            continue
        other, earlier = said.setdefault((target, name), (route.name, value))
        if earlier != value:
            problem = f"contradicts route {other}, which leads to {target} as well"
            yield reading.about(f"{key}.{name}", problem, f"say the same {name} in both")
