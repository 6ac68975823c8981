"""Who is this, and what may it do: calling AE title, address and certificate against the peers.

Rules that hold here: everything is looked up in tables prepared once for a configuration; a decision
is a ``Grant`` or a ``Denied`` that carries its exact reason; an association keeps the grant it got,
whatever is configured later. AE titles are compared without padding and without regard to case, the
exact spelling first, so that two peers may differ by case alone.

Whoever proposes Verification and nothing else is let in where echo is open to it, whatever the AE
titles it uses. A caller that proposes more must be a peer: a proposal that goes beyond what is open
to everybody is rejected as a whole, because a half accepted association would tell its technician
"connected" and then fail at the first image.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from archive.config import Config, Peer

T = TypeVar("T")

VERIFICATION = "1.2.840.10008.1.1"
QUERY_RETRIEVE = "1.2.840.10008.5.1.4.1.2"
ROOTS = (1, 2, 3)  # Patient Root, Study Root, Patient/Study Only

# SOP class -> permission; every other proposed class is an object to be stored (PS3.4 annexes A, C, F, J, K).
PERMISSIONS: dict[str, str] = {
    VERIFICATION: "echo",
    **{f"{QUERY_RETRIEVE}.{root}.1": "find" for root in ROOTS},
    **{f"{QUERY_RETRIEVE}.{root}.2": "move" for root in ROOTS},
    **{f"{QUERY_RETRIEVE}.{root}.3": "get" for root in ROOTS},
    "1.2.840.10008.5.1.4.31": "worklist",
    "1.2.840.10008.1.20.1": "commit",
    "1.2.840.10008.3.1.2.3.3": "mpps",
}


class Why(Enum):
    """Why an association is refused: the words, and (result, source, reason) of PS3.8 table 9-21."""

    UNKNOWN_CALLER = ("calling AE title is no configured peer", (1, 1, 3))
    WRONG_ADDRESS = ("calling AE title is known, but not at this address", (1, 1, 3))
    TLS_REQUIRED = ("this peer must call over TLS", (1, 1, 3))
    WRONG_CERTIFICATE = ("certificate is not the one pinned for this AE title", (1, 1, 3))
    WRONG_CALLED = ("called AE title is not ours", (1, 1, 7))

    @property
    def words(self) -> str:
        return self.value[0]

    @property
    def code(self) -> tuple[int, int, int]:
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Asking:
    """What is known of a caller: ``names`` are its certificate's, its fingerprint last; None on a plain connection."""

    calling: str
    called: str
    address: str
    abstract_syntaxes: Collection[str]
    names: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """An association that may be: for whom (None = no configured peer) and what it may do."""

    aet: str
    peer: Peer | None
    allow: frozenset[str]

    def permits(self, permission: str) -> bool:
        return permission in self.allow

    def permits_class(self, abstract_syntax: str, *, as_scp: bool = False) -> bool:
        """May a context be accepted? In the SCP role a storage class is for C-GET; commitment is a report to us."""
        permission = PERMISSIONS.get(abstract_syntax, "store")
        if permission == "commit" and as_scp:
            return self.peer is not None  # whoever we may have asked
        return permission in self.allow or (permission == "store" and as_scp and "get" in self.allow)


@dataclass(frozen=True, slots=True)
class Denied:
    """An association that may not be: why, and a hint that names what would do."""

    why: Why
    hint: str = ""

    @property
    def words(self) -> str:
        return f"{self.why.words}; {self.hint}" if self.hint else self.why.words


class Access:
    """The tables of one configuration: our titles, the peers, and what is open to everybody at an address."""

    def __init__(
        self, titles: Sequence[str], peers: Iterable[Peer], open_to: Callable[[str], Collection[str]]
    ) -> None:
        self._titles = {title: title for title in titles}
        self._peers = {title: peer for peer in peers for title in (peer.aet, *peer.aliases)}
        self._folded_titles = {title.upper(): title for title in titles}
        self._folded_peers = {title.upper(): peer for title, peer in self._peers.items()}
        self._open_to = open_to

    @classmethod
    def of(cls, config: Config) -> Access:
        return cls(config.ae.titles, config.peers.values(), config.unknown_peers.allowed)

    def peer(self, title: str) -> Peer | None:
        """The configured peer of this AE title (a caller, or a move destination)."""
        return _look_up(title, self._peers, self._folded_peers)

    def is_ours(self, title: str) -> bool:
        return _look_up(title, self._titles, self._folded_titles) is not None

    def decide(self, asking: Asking) -> Grant | Denied:
        peer = self.peer(asking.calling)
        why = _fault(peer, asking)
        everyone = frozenset(self._open_to(asking.address))
        echo_only = set(asking.abstract_syntaxes) == {VERIFICATION}
        if peer is not None and why is None:
            if echo_only or self.is_ours(asking.called):
                return Grant(peer.aet, peer, frozenset(peer.allow) | (everyone & {"echo"}))
            return Denied(Why.WRONG_CALLED, self._hint_called(asking.called))
        if echo_only and "echo" in everyone:
            return Grant(asking.calling.strip(), None, everyone)
        return self._stranger(asking, everyone, why or Why.UNKNOWN_CALLER)

    def _stranger(self, asking: Asking, everyone: frozenset[str], why: Why) -> Grant | Denied:
        """Anyone may do what is open to everybody, if that is what it came for."""
        wanted = {PERMISSIONS.get(uid, "store") for uid in asking.abstract_syntaxes} - {"echo"}
        if not wanted & everyone:
            return Denied(why, self._hint_calling(asking, why))
        if not self.is_ours(asking.called):
            return Denied(Why.WRONG_CALLED, self._hint_called(asking.called))
        return Grant(asking.calling.strip(), None, everyone)

    def _hint_calling(self, asking: Asking, why: Why) -> str:
        peer = self.peer(asking.calling)
        if peer is not None:
            return _hint_peer(peer, asking, why)
        if self.is_ours(asking.calling) and self.peer(asking.called):
            return "calling and called AE title are the wrong way round"
        return _resembles("calling", asking.calling, list(self._peers)) or self._at(asking.address)

    def _at(self, address: str) -> str:
        known = sorted({peer.aet for peer in self._peers.values() if _is_narrow(peer) and peer.calls_from(address)})
        return f"{address} is configured as {', '.join(known[:3])}" if known else ""

    def _hint_called(self, called: str) -> str:
        if self.peer(called):
            return f"{ascii(called)} is the AE title of a peer, not ours"
        return _resembles("called", called, list(self._titles)) or f"ours: {', '.join(self._titles)}"


def _look_up(title: str, exact: dict[str, T], folded: dict[str, T]) -> T | None:
    title = title.strip()
    return exact.get(title) or folded.get(title.upper())


def _fault(peer: Peer | None, asking: Asking) -> Why | None:
    if peer is None:
        return Why.UNKNOWN_CALLER
    if not peer.calls_from(asking.address):
        return Why.WRONG_ADDRESS
    if peer.tls_required and asking.names is None:
        return Why.TLS_REQUIRED
    if peer.certificate and not _shows(peer.certificate, asking.names or ()):
        return Why.WRONG_CERTIFICATE
    return None


def _shows(pin: str, names: Sequence[str]) -> bool:
    """A fingerprint is compared with the fingerprint only: anybody may be given it for a name."""
    return pin in names[-1:] if pin.startswith("sha256:") else pin in names[:-1]


def _hint_peer(peer: Peer, asking: Asking, why: Why) -> str:
    if why is Why.WRONG_ADDRESS:
        known = ", ".join(str(network) for network in peer.networks[:4]) or "no address could be looked up"
        return f"known AE {peer.aet} from another address {asking.address} (configured: {known})"
    if why is Why.WRONG_CERTIFICATE:
        return f"certificate shown: {', '.join(ascii(name) for name in (asking.names or ())[-4:]) or 'none'}"
    return f"peer {peer.aet} called on a plain port"


def _is_narrow(peer: Peer) -> bool:
    """Only a peer with single addresses says anything about who sits at an address."""
    return all(network.prefixlen == network.max_prefixlen for network in peer.networks)


def _resembles(role: str, title: str, known: Sequence[str]) -> str:
    """A near miss in words. Only ever asked for when an association is refused."""
    folded = {name.upper(): name for name in known}
    close = difflib.get_close_matches(title.strip().upper(), folded, n=1, cutoff=0.75)
    return f"{role} AE {ascii(title.strip())} resembles {folded[close[0]]}" if close else ""
