"""The section ``prefetch``: which earlier studies are fetched before they are needed, from where and when.

Rules that hold here: as in sections.py; a rule asks of orders and of studies alike, so that it knows the attributes of
the worklist besides those of objects; sources and receivers are peers that can be called.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archive.errors import ConfigurationError

from .complaints import Complaint
from .hl7 import MODALITY
from .kinds import ListOf, Reading, Scalar, Unfit
from .pacing import WINDOW, Hours
from .routing import PRIORITIES
from .rules import FOLDER, NAME, TARGET, callable_peer, own_names
from .schema import Section, option
from .values import AE_TITLE, SWITCH, duration, number, one_of
from .volumes import LONG_TERM

if TYPE_CHECKING:
    from .sections import Config

YEAR = 365 * 86400.0
TRIGGERS = {
    "order": "an order arrives or changes by HL7",
    "worklist": "an entry of the worklist arrives or changes another way, such as archive worklist import",
    "image": "the first image of a study arrives",
}
SAME = {
    "modality": "an image modality of both is the same; CR and DX are",
    "body_part": "a region of the body is the same",
    "procedure": "the code of the procedure is the same, or its description where one has no code",
    "laterality": "the side is the same, where both name one",
}


def _rule(text: str) -> str:
    from archive.dicom.rule import parse_order_rule

    try:
        parse_order_rule(text)
    except ConfigurationError as error:
        raise Unfit(str(error), "a rule such as Modality = 'CT' would do") from None
    return text.strip()


MATCH = Scalar("a rule such as Modality = 'CT' and RequestedProcedurePriority != 'STAT'; empty is everything", _rule)
WORD = Scalar("a word", str.strip)


@dataclass(frozen=True, slots=True, kw_only=True)
class Priors:
    """Which earlier studies are wanted."""

    max: int = option(number(1, 1000), "3", "the most relevant are wanted, and so many at most")
    within: float | None = option(duration(86400, 200 * YEAR), None, "none that is older, such as 5y", unset=None)
    same: tuple[str, ...] = option(ListOf(one_of(SAME)), [], "in what they must be like the coming examination")
    modalities: tuple[str, ...] = option(ListOf(MODALITY), [], "only with one of these; empty is any")
    words: tuple[str, ...] = option(ListOf(WORD), [], "words of descriptions that make a study more relevant")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefetchRule:
    name: str = option(NAME, None, "what lists and logs call it", required=True)
    on: tuple[str, ...] = option(ListOf(one_of(TRIGGERS), 1), ["order"], "what makes it look for priors")
    match: str = option(MATCH, "", "which orders and studies; empty is all")
    priors: Priors = option(Section(Priors), {}, "which earlier studies are wanted")
    from_: tuple[str, ...] = option(ListOf(AE_TITLE), [], "which peers are asked for them: AE titles")
    to: tuple[str, ...] = option(ListOf(TARGET), [], "who gets them as well: AE titles of peers, folder:/path")
    ahead: float = option(duration(0, YEAR), "4h", "so long before the examination; at once without its time")
    late: float = option(duration(60, YEAR), "1d", "so long after its beginning nothing is fetched or tried any more")
    skip_if_present: bool = option(SWITCH, "on", "what is here as a whole is not compared with its source again")
    window: tuple[Hours, ...] = option(ListOf(WINDOW), [], "when sources may be asked (local time); empty is always")
    priority: str = option(one_of(PRIORITIES), "normal", "the place in the queue of what goes to a peer")


def has_long_term(config: Config) -> bool:
    """Whether priors may lie on a volume from which they are brought to the cache."""
    return any(each.role == LONG_TERM for each in config.storage.volumes)


def prefetches(config: Config, reading: Reading) -> Iterator[Complaint]:
    """Rules have names of their own, somewhere to look, and peers that can be called."""
    yield from own_names(reading, "prefetch", config.prefetch)
    for position, rule in enumerate(config.prefetch):
        key = f"prefetch.{position}"
        if not (rule.from_ or rule.to or has_long_term(config)):
            yield reading.about(key, "fetches from nowhere and sends to nobody", "add from: [AET of a peer]")
        for target in rule.from_:
            if target.startswith(FOLDER):
                yield reading.about(f"{key}.from", f"{target} cannot be asked", "the AE title of a peer would do")
            yield from callable_peer(config, reading, key, target, "from")
        for target in rule.to:
            yield from callable_peer(config, reading, key, target)
