"""What a verb knows while it serves: the association, whom it is for, and how to say that it is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from archive.dimse import statuses
from archive.dimse.access import Grant
from archive.dimse.association import Association, Message
from archive.dimse.reasons import ProtocolError
from archive.dimse.statuses import Answer, Service
from archive.dimse.wire import Value
from archive.services.caller import Caller

NOTHING_GRANTED = frozenset[str]()
MOST_STUDIES = 1000  # of one association; migrations send more, and have no need to be told apart by associations


@dataclass(frozen=True, slots=True)
class Session:
    """One association being served; ``grant`` is what was decided when it began, and stays so."""

    association: Association
    grant: Grant
    caller: Caller
    deferred: deque[Message] = field(default_factory=deque)
    studies: set[str] = field(default_factory=set)  # that it has stored to

    @classmethod
    def of(cls, association: Association, default_limit: int) -> Session:
        grant = association.grant
        if not isinstance(grant, Grant):
            grant = Grant(association.calling.strip(), None, NOTHING_GRANTED)
        return cls(association, grant, caller_of(grant, association.address, default_limit))

    def defer(self, message: Message) -> None:
        """Keep a request that came while another one is served, which a window of several allows (PS3.7 D.3.3.3)."""
        if len(self.deferred) >= self.association.window[0]:
            self.association.abort(words="more requests than the window agreed on")
            raise ProtocolError(self.association.ending)
        self.deferred.append(message)

    def touch(self, study_uid: str) -> None:
        """Something was stored to this study; of very many the first are remembered."""
        if len(self.studies) < MOST_STUDIES:
            self.studies.add(study_uid)

    def has_quirk(self, name: str) -> bool:
        return self.grant.peer is not None and name in self.grant.peer.quirks

    @property
    def default_charset(self) -> str:
        return (self.grant.peer.default_charset if self.grant.peer else "") or ""

    @property
    def default_issuer(self) -> str:
        return (self.grant.peer.default_issuer if self.grant.peer else "") or ""


def caller_of(grant: Grant, address: str, default_limit: int) -> Caller:
    """Who asks, as the services see it."""
    peer = grant.peer
    limit = default_limit if peer is None or peer.max_results is None else peer.max_results
    return Caller(grant.aet, address, (peer.visible_if if peer else "") or "", limit)


@dataclass(frozen=True, slots=True)
class Done:
    """A finished operation: the final response and what the log says of it."""

    answer: Answer
    words: str
    extra: Mapping[str, Value] = field(default_factory=dict)
    data: bytes | None = None
    after: Callable[[], None] | None = None  # what is to be done once the response is out

    def response(self) -> dict[str, Value]:
        """The elements of the final response beyond those of every response."""
        said = dict(self.extra)
        if self.answer.comment:
            said["ErrorComment"] = self.answer.comment
        if self.answer.offending:
            said["OffendingElement"] = b"".join(statuses.tag_bytes(tag) for tag in self.answer.offending)
        return said


class Verb(Protocol):
    """One operation of one service: reads its request, calls one service, says the answer."""

    @property
    def name(self) -> str: ...
    @property
    def service(self) -> Service: ...

    def __call__(self, session: Session, message: Message) -> Done: ...
