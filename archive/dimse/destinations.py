"""Peers as somebody to call: by which host, port, titles, TLS and timeouts.

Rules that hold here: everything is worked out, and certificates are read, when a configuration is
taken into use, so that a peer that cannot be called is known then; who is no peer is not called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from archive.dimse.access import Access
from archive.dimse.association import Association
from archive.dimse.connection import Timeouts
from archive.dimse.planning import Proposal
from archive.dimse.requestor import connect
from archive.dimse.tls import ClientTLS
from archive.errors import UnknownDestination, Unreachable

if TYPE_CHECKING:
    from archive import config
    from archive.config import Config, Peer, PeerTLS

PROPOSES_NOTHING = 1  # an asynchronous operations window of one is the default of PS3.7 D.3.3.3


@dataclass(frozen=True, slots=True)
class Destination:
    """One AE that can be called; also made by hand, for an AE that is no peer (``archive echo HOST PORT``)."""

    aet: str
    host: str
    port: int
    calling: str
    timeouts: Timeouts = field(default_factory=Timeouts)
    tls: ClientTLS | None = None
    max_pdu: int = 0
    async_window: int = PROPOSES_NOTHING
    store_associations: int = 1
    quirks: frozenset[str] = frozenset()

    def has_quirk(self, name: str) -> bool:
        return name in self.quirks

    def connect(
        self,
        contexts: Sequence[Proposal],
        *,
        roles: Mapping[str, tuple[bool, bool]] | None = None,
        extended: Mapping[str, bytes] | None = None,
    ) -> Association:
        """An association with these contexts; raises Unreachable with the reason in words."""
        window = None if self.async_window == PROPOSES_NOTHING else (self.async_window, PROPOSES_NOTHING)
        return connect(
            self.host,
            self.port,
            calling=self.calling,
            called=self.aet,
            contexts=contexts,
            roles={} if roles is None or self.has_quirk("no_role_selection") else roles,
            timeouts=self.timeouts,
            tls=self.tls,
            max_pdu=self.max_pdu,
            window=None if self.has_quirk("no_async") else window,
            extended=extended or {},
        )


class Destinations:
    """The peers of one configuration as destinations."""

    def __init__(self, access: Access, destinations: Iterable[Destination]) -> None:
        self._access = access
        self._by_title = {each.aet: each for each in destinations}

    @classmethod
    def of(cls, config: Config) -> Destinations:
        """Whom a configuration lets us call. Raises ConfigurationError for a certificate or key that cannot be used."""
        return cls.of_peers(Access.of(config), config.peers.values())

    @classmethod
    def of_peers(cls, access: Access, peers: Iterable[Peer]) -> Destinations:
        return cls(access, [destination_of(peer) for peer in peers if peer.port])

    def named(self, title: str) -> Destination:
        """The destination of this AE title; raises UnknownDestination or Unreachable."""
        peer = self._access.peer(title)
        if peer is None:
            raise UnknownDestination("move destination is no configured peer", ascii(title))
        found = self._by_title.get(peer.aet)
        if found is None or not found.host:
            raise Unreachable("peer has no address to call", f"{peer.aet} needs a port and a host that is no network")
        return found


def destination_of(peer: Peer) -> Destination:
    """How a peer is called."""
    return Destination(
        aet=peer.aet,
        host=peer.address or "",
        port=peer.port or 0,
        calling=peer.local_aet,
        timeouts=timeouts(peer.timeouts),
        tls=_client_tls(peer, peer.tls),
        max_pdu=peer.max_pdu or 0,
        async_window=peer.async_window,
        store_associations=peer.store_associations,
        quirks=frozenset(peer.quirks),
    )


def timeouts(section: config.Timeouts) -> Timeouts:
    """The section ``timeouts``, or a peer's own, as the association engine takes them."""
    return Timeouts(
        section.tls, section.acse, section.pdu, section.dimse, section.idle, section.send, section.connect
    )


def _client_tls(peer: Peer, tls: PeerTLS | None) -> ClientTLS | None:
    if tls is None:
        return None
    return ClientTLS(tls.profile, ca=tls.ca, cert=tls.cert, key=tls.key, server_name=peer.address)
