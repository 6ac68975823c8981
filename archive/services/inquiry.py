"""What is asked of an archive that is compared with this one, and on which terms.

Rules that hold here: whoever can ask a kind of peer keeps this contract; nothing here knows a protocol.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from archive.dicom.attributes import BY_KEYWORD, Level
from archive.dicom.expression import Expression
from archive.services.comparing import TheirStudy
from archive.services.routing import keywords


class Questions(Protocol):
    """What a peer can be asked."""

    def between(self, since: str, until: str, limit: int = 0) -> Iterator[TheirStudy]: ...
    def named(self, uids: Collection[str]) -> Iterator[TheirStudy]: ...
    def series(self, study_uid: str) -> dict[str, tuple[str, int | None]]: ...
    def images(self, study_uid: str, series_uid: str) -> set[str]: ...


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
