"""What we answer to an A-ASSOCIATE-RQ: which contexts, roles, window and extensions (PS3.8 9.3.3, PS3.7 D.3).

Rules that hold here: values in, values out, no sockets, no clock, no configuration; what we offer is a
`Table` prepared once, so that a context costs one look-up; who may call is the policy's decision
(`Accepted` or `Rejected`), how its contexts are answered is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from archive.dicom.uids import IMPLICIT_LITTLE, TRANSFER_SYNTAXES, Pixels
from archive.dimse.associate import (
    ABSTRACT_UNKNOWN,
    ACCEPTANCE,
    APPLICATION_CONTEXT_NAME,
    PROTOCOL_VERSION,
    TRANSFER_UNKNOWN,
    USER_REJECTION,
    AssociateRequest,
    Context,
    Proposed,
    UserIdentity,
    UserInformation,
    is_title,
)
from archive.dimse.items import repeat_accept, write_accept
from archive.dimse.reasons import (
    NO_REASON,
    UNKNOWN_CALLED,
    UNKNOWN_CALLING,
    WRONG_CONTEXT_NAME,
    WRONG_VERSION,
    rejection_words,
)
from archive.dimse.wire import SMALLEST_MAXIMUM

__all__ = [
    "Accepted",
    "Answer",
    "AssociateRequest",
    "Context",
    "Offer",
    "Proposed",
    "Rejected",
    "Table",
    "UserIdentity",
    "answer",
    "first_proposed",
    "prefer_lossless",
    "preferring",
    "refusal",
]

WINDOW = 8  # operations a requestor may have outstanding; they are performed in order, so more gains nothing

_UID = re.compile(r"[0-9][0-9.]{0,63}", re.ASCII).fullmatch

# -- transfer syntaxes --------------------------------------------------------------------------------

Choice = Callable[[Sequence[str], frozenset[str]], str | None]
"""Which of the proposed transfer syntaxes is taken, given those that are supported; None = none of them."""


def first_proposed(proposed: Sequence[str], supported: frozenset[str]) -> str | None:
    """The requestor's first wish, else Implicit VR Little Endian, else the first that is supported."""
    if proposed and proposed[0] in supported:
        return proposed[0]
    if IMPLICIT_LITTLE in supported and IMPLICIT_LITTLE in proposed:
        return IMPLICIT_LITTLE
    return next((uid for uid in proposed if uid in supported), None)


_LOSSLESS = frozenset(uid for uid, each in TRANSFER_SYNTAXES.items() if each.pixels in (Pixels.NATIVE, Pixels.LOSSLESS))


def prefer_lossless(proposed: Sequence[str], supported: frozenset[str]) -> str | None:
    """The requestor's first wish that loses nothing, else its first wish."""
    return first_proposed([uid for uid in proposed if uid in _LOSSLESS], supported) or first_proposed(
        proposed, supported
    )


@lru_cache(maxsize=256)
def preferring(*wanted: str) -> Choice:
    """Our own order first, then the requestor's."""

    def choose(proposed: Sequence[str], supported: frozenset[str]) -> str | None:
        ours = next((uid for uid in wanted if uid in supported and uid in proposed), None)
        return ours or first_proposed(proposed, supported)

    return choose


# -- what we offer ------------------------------------------------------------------------------------

Extension = Callable[[bytes], bytes]
"""SOP class extended negotiation: from the requestor's application information to ours (PS3.7 D.3.3.5)."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What we accept for an abstract syntax, and the roles we take: `scp` serves, `scu` sends back (C-GET)."""

    transfer_syntaxes: frozenset[str]
    scp: bool = True
    scu: bool = False
    extended: Extension | None = None


class Table:
    """Our offers by abstract syntax; `unknown` is offered for every UID that is not among them."""

    def __init__(self, offers: Mapping[str, Offer], unknown: Offer | None = None) -> None:
        self._offers = dict(offers)
        self._unknown = unknown

    def offer(self, abstract_syntax: str) -> Offer | None:
        found = self._offers.get(abstract_syntax)
        if found is None and self._unknown is not None and _UID(abstract_syntax):
            return self._unknown
        return found

    def __contains__(self, abstract_syntax: str) -> bool:
        return abstract_syntax in self._offers

    def __len__(self) -> int:
        return len(self._offers)


# -- what a policy decides ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Accepted:
    """An association that may be, and on which terms."""

    table: Table
    choice: Choice = first_proposed
    permits: Callable[[str, bool], bool] | None = None  # (abstract syntax, requestor as SCP) -> allowed
    aet: str = ""  # counted under this title; the calling one when empty
    known: bool = False  # a configured peer: may use the room that is kept for such
    grant: object = None  # whatever the verbs want to find again, as `association.grant`
    window: int = WINDOW  # 1: one operation at a time; 0: the proposal is not even answered
    extended: Mapping[str, bytes] = field(default_factory=dict)  # replaces the offers' own answers
    identity_response: bytes = b""
    terms: Hashable = None  # equal ones stand for equal `permits`; without them every request is answered anew


@dataclass(frozen=True, slots=True)
class Rejected:
    """An association that may not be: the codes of PS3.8 table 9-21, and words for the log."""

    result: int
    source: int
    reason: int
    words: str = ""

    @classmethod
    def of(cls, code: tuple[int, int, int], words: str = "") -> Rejected:
        return cls(*code, words)

    def __str__(self) -> str:
        said = rejection_words(self.result, self.source, self.reason)
        return f"{said}: {self.words}" if self.words else said


@dataclass(frozen=True, slots=True)
class Answer:
    """An acceptance: the PDU to send and what was agreed with it."""

    pdu: bytes
    contexts: dict[int, Context]
    window: tuple[int, int]


def refusal(request: AssociateRequest) -> Rejected | None:
    """What no policy can allow (PS3.8 9.3.4, D.1)."""
    if not request.version & PROTOCOL_VERSION:
        return Rejected.of(WRONG_VERSION, f"protocol version {request.version:#06x}")
    if request.application_context != APPLICATION_CONTEXT_NAME:
        return Rejected.of(WRONG_CONTEXT_NAME, f"application context {request.application_context[:64]}")
    if not is_title(request.calling):
        return Rejected.of(UNKNOWN_CALLING, "the calling AE title is not one")
    if not is_title(request.called):
        return Rejected.of(UNKNOWN_CALLED, "the called AE title is not one")
    if 0 < request.max_pdu < SMALLEST_MAXIMUM:
        return Rejected.of(NO_REASON, f"a maximum PDU length of {request.max_pdu} carries nothing")
    return None


def answer(request: AssociateRequest, accepted: Accepted, max_pdu: int) -> Answer:
    """The acceptance of `request` on the policy's terms; contexts are answered one by one, or as they were before."""
    memory, terms = request.memory, _terms(request, accepted, max_pdu)
    if memory is None or terms is None:
        return _answer(request, accepted, max_pdu)
    known: Answer | None = memory.recall(terms)
    if known is None:
        known = _answer(request, accepted, max_pdu)
        memory.keep(terms, known)
    return Answer(repeat_accept(known.pdu, request.fixed), known.contexts.copy(), known.window)


def _terms(request: AssociateRequest, accepted: Accepted, max_pdu: int) -> Hashable:
    """What an answer depends on besides the proposal; None if it is more than can be compared."""
    if accepted.terms is None or accepted.extended or request.extended or accepted.identity_response:
        return None
    return accepted.terms, accepted.table, accepted.choice, accepted.window, max_pdu


def _answer(request: AssociateRequest, accepted: Accepted, max_pdu: int) -> Answer:
    results: list[tuple[int, int, str]] = []
    contexts: dict[int, Context] = {}
    for proposed in request.contexts:
        result, context = _decide(proposed, request, accepted)
        results.append((proposed.id, result, context.transfer_syntax if context else ""))
        if context is not None:
            contexts[proposed.id] = context
    window = _window(request.window, accepted.window)
    pdu = write_accept(request.fixed, results, _user_information(request, accepted, contexts, window, max_pdu))
    return Answer(pdu, contexts, window or (1, 1))


def _decide(proposed: Proposed, request: AssociateRequest, accepted: Accepted) -> tuple[int, Context | None]:
    """Result and context; PS3.8 table 9-18."""
    name = proposed.abstract_syntax
    offer = accepted.table.offer(name)
    if offer is None:
        return ABSTRACT_UNKNOWN, None
    as_scu, as_scp = _roles(name, request, offer, accepted)
    if not (as_scu or as_scp):
        return USER_REJECTION, None
    syntax = accepted.choice(proposed.transfer_syntaxes, offer.transfer_syntaxes)
    if syntax is None:
        return TRANSFER_UNKNOWN, None
    return ACCEPTANCE, _context(proposed.id, name, syntax, as_scp, as_scu)


_context = lru_cache(maxsize=8192)(Context)  # ours are the opposite roles of the requestor's


def _roles(name: str, request: AssociateRequest, offer: Offer, accepted: Accepted) -> tuple[bool, bool]:
    """The roles the requestor gets; without a role selection it is the SCU (PS3.7 D.3.3.4)."""
    scu, scp = request.roles.get(name, (True, False))
    scu, scp = scu and offer.scp, scp and offer.scu
    permits = accepted.permits
    if permits is None:
        return scu, scp
    return scu and permits(name, False), scp and permits(name, True)


def _window(proposed: tuple[int, int] | None, ours: int) -> tuple[int, int] | None:
    """The agreed asynchronous operations window (PS3.7 D.3.3.3): never above the proposal, 0 being no limit."""
    if proposed is None or ours == 0:
        return None
    invoked, performed = (min(each, ours) if each else ours for each in proposed)
    return invoked, performed


def _user_information(
    request: AssociateRequest,
    accepted: Accepted,
    contexts: Mapping[int, Context],
    window: tuple[int, int] | None,
    max_pdu: int,
) -> UserInformation:
    taken = {context.abstract_syntax: context for context in contexts.values()}
    return UserInformation(
        max_pdu=max_pdu,
        window=window,
        roles={name: (taken[name].scp, taken[name].scu) for name in request.roles if name in taken},
        extended=_extended(request.extended, accepted, taken),
        identity_response=accepted.identity_response if request.identity and request.identity.respond else None,
    )


def _extended(asked: Mapping[str, bytes], accepted: Accepted, taken: Mapping[str, Context]) -> dict[str, bytes]:
    answers: dict[str, bytes] = {}
    for name, information in asked.items():
        offer = accepted.table.offer(name) if name in taken else None
        if name in taken and name in accepted.extended:
            answers[name] = accepted.extended[name]
        elif offer is not None and offer.extended is not None:
            answers[name] = offer.extended(information)
    return answers
