"""The values of an association: what is proposed, what is accepted, and by whom (PS3.8 9.3.2-9.3.4, PS3.7 D.3).

Rules that hold here: values only; `items` reads and writes them, `negotiation` decides on them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"  # PS3.7 A.2.1
PROTOCOL_VERSION = 1  # bit 0; the other bits are not tested (PS3.8 table 9-11)
MOST_CONTEXTS = 128  # odd numbers of one byte (PS3.8 table 9-13)
AE_LENGTH = 16
ANSWERS = 16  # to one proposal, by the terms of its callers: peers with other permissions, or a new configuration

# PS3.8 table 9-18: the result of a presentation context.
ACCEPTANCE, USER_REJECTION, NO_REASON, ABSTRACT_UNKNOWN, TRANSFER_UNKNOWN = range(5)
RESULTS = {
    ACCEPTANCE: "accepted",
    USER_REJECTION: "not allowed",
    NO_REASON: "refused without a reason",
    ABSTRACT_UNKNOWN: "SOP class not supported",
    TRANSFER_UNKNOWN: "transfer syntaxes not supported",
}


@dataclass(frozen=True, slots=True)
class Proposed:
    """A presentation context as the requestor proposes it."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context; `scu` and `scp` are the roles we may act in."""

    id: int
    abstract_syntax: str
    transfer_syntax: str
    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """Who the requestor says its user is (PS3.7 D.3.3.7): 1 name, 2 name and passcode, 3 Kerberos, 4 SAML, 5 JWT."""

    kind: int
    primary: bytes = field(repr=False)
    secondary: bytes = field(default=b"", repr=False)
    respond: bool = False


Roles = Mapping[str, tuple[bool, bool]]  # abstract syntax -> the requestor may be (SCU, SCP) (PS3.7 D.3.3.4)


@dataclass(frozen=True)
class UserInformation:
    """The sub-items of the user information item, of a request or an acceptance."""

    max_pdu: int
    implementation_class: str = ""
    implementation_version: str = ""
    window: tuple[int, int] | None = None  # operations invoked and performed at a time; 0 = no limit
    roles: Roles = field(default_factory=dict)
    extended: Mapping[str, bytes] = field(default_factory=dict)
    common: Mapping[str, str] = field(default_factory=dict)  # abstract syntax -> service class (PS3.7 D.3.3.6)
    identity: UserIdentity | None = None
    identity_response: bytes | None = None


class Memory:
    """What was worked out for a proposal; requests that say the same again share it, whoever makes them."""

    def __init__(self, contexts: tuple[Proposed, ...]) -> None:
        self.abstract_syntaxes = _abstract_syntaxes(contexts)
        self._answers: dict[Hashable, Any] = {}

    def recall(self, terms: Hashable) -> Any:
        """The answer on these terms, None if there was none yet."""
        return self._answers.get(terms)

    def keep(self, terms: Hashable, answer: object) -> None:
        if len(self._answers) >= ANSWERS:
            self._answers = {}
        self._answers[terms] = answer


def _abstract_syntaxes(contexts: tuple[Proposed, ...]) -> frozenset[str]:
    return frozenset(context.abstract_syntax for context in contexts)


@dataclass(frozen=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ."""

    calling: str
    called: str
    contexts: tuple[Proposed, ...]
    user: UserInformation
    version: int = PROTOCOL_VERSION
    application_context: str = APPLICATION_CONTEXT_NAME
    fixed: bytes = field(default=b"", repr=False)  # what the acceptance repeats: titles and reserved bytes
    memory: Memory | None = field(default=None, repr=False, compare=False)

    @cached_property
    def abstract_syntaxes(self) -> frozenset[str]:
        if self.memory is None:
            return _abstract_syntaxes(self.contexts)
        return self.memory.abstract_syntaxes

    @property
    def max_pdu(self) -> int:
        return self.user.max_pdu

    @property
    def roles(self) -> Roles:
        return self.user.roles

    @property
    def window(self) -> tuple[int, int] | None:
        return self.user.window

    @property
    def extended(self) -> Mapping[str, bytes]:
        return self.user.extended

    @property
    def identity(self) -> UserIdentity | None:
        return self.user.identity

    @property
    def implementation_class(self) -> str:
        return self.user.implementation_class

    @property
    def implementation_version(self) -> str:
        return self.user.implementation_version


@dataclass(frozen=True)
class AssociateAccept:
    """An A-ASSOCIATE-AC: per context its result and, where it was accepted, the transfer syntax."""

    results: Mapping[int, tuple[int, str]]
    user: UserInformation


def is_title(title: str) -> bool:
    """VR AE (PS3.5 6.2): at most 16 of the default characters, no backslash, no controls, not empty."""
    return 0 < len(title) <= AE_LENGTH and all(" " <= each <= "~" and each != "\\" for each in title)
