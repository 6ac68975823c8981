"""What is allowed but looks like a mistake; most of it cost somebody hours.

Rules that hold here: a warning never keeps the archive from starting; it names what would do like a complaint.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from .complaints import Complaint, redacted
from .document import join
from .kinds import Reading
from .reader import is_name
from .sections import Config, Peer
from .values import network


def warnings(config: Config, reading: Reading) -> Iterator[Complaint]:
    """Everything that deserves a second look."""
    for check in (open_door, out_of_reach, limits, near_titles, password, data_in_etc):
        yield from check(config, reading)
    for name, peer in config.peers.items():
        for check_peer in (callable_peer, fetched_peer, source, tls_peer):
            yield from check_peer(join("peers", name), peer, config, reading)


def open_door(config: Config, reading: Reading) -> Iterator[Complaint]:
    verbs = [verb for verb in config.unknown_peers.allow if verb != "echo"]
    if verbs and any(not listener.loopback for listener in config.listeners):
        problem = f"anybody who reaches the archive may {', '.join(verbs)}"
        yield reading.about("unknown_peers.allow", problem, "[echo] would do once the callers are peers")


def out_of_reach(config: Config, reading: Reading) -> Iterator[Complaint]:
    """Peers that no listener serves."""
    elsewhere = [peer for peer in config.peers.values() if not all(each.is_loopback for each in peer.networks)]
    if elsewhere and all(listener.loopback for listener in config.listeners):
        problem = f"only this machine is listened to, but {elsewhere[0].aet} calls from another"
        yield reading.about("listeners", problem, "a listener with host: 0.0.0.0 would do")


def limits(config: Config, reading: Reading) -> Iterator[Complaint]:
    total = config.limits.max_associations
    for name, value in (("per_ae", config.limits.per_ae), ("per_ip", config.limits.per_ip)):
        if total and value > total:
            problem = f"{value} is more than max_associations ({total}), so that one caller can take all"
            yield reading.about(f"limits.{name}", problem, f"a number below {total} would do")


def near_titles(config: Config, reading: Reading) -> Iterator[Complaint]:
    """AE titles that differ by case alone, and peers that are called as the archive is."""
    seen: dict[str, str] = {}
    for name, peer in config.peers.items():
        key = f"{join('peers', name)}.aet"
        for title in (peer.aet, *peer.aliases):
            other = seen.setdefault(title.upper(), title)
            if other != title:
                yield reading.about(key, f"{title!r} differs from {other!r} by case alone", "one spelling would do")
        if peer.aet in config.ae.titles:
            yield reading.about(key, f"{peer.aet!r} is the archive's own AE title", "a title of its own would do")


def password(config: Config, reading: Reading) -> Iterator[Complaint]:
    node = reading.nodes.get("index.url")
    if node is None or redacted(node.written) == node.written or "${" in node.written or config.file is None:
        return
    try:
        readable = os.stat(config.file).st_mode & stat.S_IROTH
    except OSError:
        return
    if readable:
        problem = "a password in a file that every user of this machine can read"
        yield reading.about("index.url", problem, f"chmod o-rwx {config.file}, or ${{NAME}} for the password")


def data_in_etc(config: Config, reading: Reading) -> Iterator[Complaint]:
    if Path("/etc") in config.storage.path.parents:
        problem = f"images would be kept in {config.storage.path}"
        yield reading.about("storage.path", problem, "/var/lib/archive/files would do, index.url likewise")


def callable_peer(key: str, peer: Peer, config: Config, reading: Reading) -> Iterator[Complaint]:
    """A peer that the archive has to call needs a port and an address."""
    for verb, purpose in (
        ("commit", "send it commitment reports"),
        ("move", "send it what it asks to be moved to itself"),
    ):
        if verb == "commit" and "commit_same_association" in peer.quirks:
            continue
        if verb in peer.allow and peer.port is None:
            yield reading.about(f"{key}.allow", f"{verb} without a port: the archive cannot {purpose}", "add port")
    if peer.port is not None and peer.address is None:
        problem = "networks only: the archive does not know where to call it"
        yield reading.about(f"{key}.host", problem, "the peer's own address as first entry of a list would do")


def fetched_peer(key: str, peer: Peer, config: Config, reading: Reading) -> Iterator[Complaint]:
    """What comes by C-MOVE comes as any object that the peer stores."""
    if "store" in peer.allow or peer.fetch.retrieve != "move":
        return
    for why in _fetched(key, peer, config, reading):
        problem = f"no store, but {why}: what it sends by C-MOVE would be refused"
        yield reading.about(f"{key}.allow", problem, "store, or fetch: {retrieve: get}, would do")
        return


def _fetched(key: str, peer: Peer, config: Config, reading: Reading) -> Iterator[str]:
    """What shows that a peer is fetched from."""
    pulls = [sync for sync in config.sync if sync.peer == peer.aet and sync.mends in ("pull", "both")]
    yield from (f"sync {sync.name} fetches from it" for sync in pulls)
    yield from (f"prefetch {rule.name} fetches from it" for rule in config.prefetch if peer.aet in rule.from_)
    if f"{key}.fetch" in reading.nodes:
        yield "it says how it is fetched from"


def source(key: str, peer: Peer, config: Config, reading: Reading) -> Iterator[Complaint]:
    """The host has to be the address that the archive sees, NAT and containers included."""
    key = f"{key}.host"
    if not peer.networks:
        yield reading.about(key, "no address found for this name", "correct the name or reload when DNS answers")
    elsewhere = any(not listener.loopback for listener in config.listeners)
    if elsewhere and peer.networks and all(each.is_loopback for each in peer.networks):
        yield reading.about(
            key, "only this machine can be this peer", "the address that its packets come from would do"
        )
    if any(each.prefixlen == 0 for each in peer.networks) and not peer.certificate:
        yield reading.about(key, f"whoever says {peer.aet} is this peer", "its address or a certificate would do")
    for host in peer.host:
        if not is_name(host) and "/" in host and ipaddress.ip_interface(host).ip != network(host).network_address:
            remedy = f"{network(host)} for the network, {host.partition('/')[0]} for the single address"
            yield reading.about(key, f"{host} is an address inside the network {network(host)}", remedy)


def tls_peer(key: str, peer: Peer, config: Config, reading: Reading) -> Iterator[Complaint]:
    served = [listener.tls for listener in config.listeners if listener.tls]
    if peer.certificate and not any(tls.client_cert != "ignore" for tls in served):
        problem = "no listener asks for certificates, so this peer is never accepted"
        yield reading.about(f"{key}.certificate", problem, "a listener with tls and client_cert: require would do")
    elif peer.tls_required and not served:
        problem = "no listener speaks TLS, so this peer is never accepted"
        yield reading.about(f"{key}.tls", problem, "a listener with tls, or tls: {incoming: optional}, would do")
