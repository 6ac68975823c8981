"""A tree of nodes to a Config: sections read, then what depends on more than one option worked out.

Rules that hold here: everything that is wrong is collected before anything is raised; DNS names are looked up
once, all at the same time, and a name without an answer is a warning, since an archive must start when DNS is down.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from .document import Node
from .kinds import Reading
from .schema import Section
from .sections import TLS, Config, Peer, PeerTLS
from .values import Network, network
from .volumes import completed

Resolver = Callable[[str], Sequence[str]]  # addresses of a DNS name; OSError or nothing: not known

LOOKUPS = 32  # at a time, so that names without an answer wait together and not after each other


def read(root: Node, reading: Reading, resolve: Resolver) -> Config:
    """The configuration, peers by their names in the file; defaults stand where complaints were made."""
    config: Config = Section(Config).read(root, reading)
    addresses = look_up((host for peer in config.peers.values() for host in peer.host), resolve)
    tls = next((listener.tls for listener in config.listeners if listener.tls), None)
    return replace(
        config,
        storage=completed(config.storage, reading),
        peers={
            name: _complete(replace(peer, name=name), config, addresses, tls) for name, peer in config.peers.items()
        },
    )


def _complete(peer: Peer, config: Config, addresses: Mapping[str, Sequence[str]], tls: TLS | None) -> Peer:
    """The peer with what it leaves out taken from where the manual says."""
    given: Any = peer.timeouts  # pairs of what the peer overrides
    fetching: Any = peer.fetch
    return replace(
        peer,
        tls=peer.tls and _complete_tls(peer.tls, tls),
        local_aet=peer.local_aet or config.ae.title,
        default_charset=peer.default_charset or "",
        default_issuer=peer.default_issuer or "",
        visible_if=peer.visible_if or "",
        max_pdu=config.limits.max_pdu if peer.max_pdu is None else peer.max_pdu,
        max_results=config.query.max_results if peer.max_results is None else peer.max_results,
        timeouts=replace(config.timeouts, **dict(given)),
        fetch=replace(config.fetch, **dict(fetching)),
        networks=tuple(networks(peer.host, addresses)),
    )


def _complete_tls(tls: PeerTLS, listener: TLS | None) -> PeerTLS:
    if listener is None:
        return tls
    own = (tls.cert, tls.key) if tls.cert or tls.key else (listener.cert, listener.key)
    return replace(tls, cert=own[0], key=own[1], ca=tls.ca or listener.ca)


def networks(hosts: Iterable[str], addresses: Mapping[str, Sequence[str]]) -> Iterable[Network]:
    """The networks of addresses, networks and names."""
    for host in hosts:
        yield from map(network, addresses.get(host, ()) if is_name(host) else [host])


def is_name(host: str) -> bool:
    """Whether a host is a DNS name."""
    try:
        network(host)
    except ValueError:
        return True
    return False


def look_up(hosts: Iterable[str], resolve: Resolver) -> dict[str, Sequence[str]]:
    """The addresses of the DNS names among the hosts."""
    names = sorted({host for host in hosts if is_name(host)})
    if not names:
        return {}
    with ThreadPoolExecutor(min(LOOKUPS, len(names))) as pool:
        return dict(zip(names, pool.map(lambda name: _addresses(name, resolve), names), strict=True))


def _addresses(name: str, resolve: Resolver) -> Sequence[str]:
    try:
        return resolve(name)
    except OSError:
        return ()


def dns(name: str) -> Sequence[str]:
    """The addresses of a name as the system knows them."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return sorted({str(entry[4][0]).partition("%")[0] for entry in found})
