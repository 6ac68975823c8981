"""What is asked of another archive, to fetch from it or to compare it with this one, and on which terms.

Rules that hold here: whoever can ask a kind of peer keeps this contract; nothing here knows a protocol; an answer that
belongs to another study or series than was asked for is none, and a question has an end, whatever the peer answers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from archive.dicom.attributes import BY_KEYWORD, Level
from archive.dicom.expression import Expression
from archive.services.comparing import TheirStudy
from archive.services.routing import keywords

# A peer that lists more is out of its mind, and would fill our memory: it is Refused.
MOST_STUDIES = 10_000_000
MOST_SERIES = 10_000  # of one study
MOST_IMAGES = 500_000


class Listing(Protocol):
    """What a peer has of a study."""

    def series(self, study_uid: str) -> Mapping[str, tuple[str, int | None]]:
        """Its series: the modality of each, and how many images the peer counts."""
        ...

    def images(self, study_uid: str, series_uid: str) -> Mapping[str, str]:
        """SOP Instance UIDs, each with its SOP class, which is empty when the peer does not say."""
        ...


class Questions(Listing, Protocol):
    """What a peer can be asked."""

    def between(self, since: str, until: str, limit: int = 0) -> Iterator[TheirStudy]: ...
    def named(self, uids: Collection[str]) -> Iterator[TheirStudy]: ...


class Inquiry(Protocol):
    """A peer that can be asked; raises Unreachable when it is not there, Refused when it will not answer."""

    def open(self) -> AbstractContextManager[Questions]: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """With whom is compared, and what of it."""

    peer: str
    titles: frozenset[str]  # with which the peer stores here
    route: str  # that pushes are booked to
    priority: int = 0
    rule: Expression | None = None

    @property
    def keywords(self) -> frozenset[str]:
        """What has to be known of the peer's studies for the rule."""
        asked = {"ModalitiesInStudy" if keyword == "Modality" else keyword for keyword in keywords(self.rule)}
        return frozenset(
            keyword for keyword in asked if any(row.level <= Level.STUDY for row in BY_KEYWORD.get(keyword, ()))
        )
