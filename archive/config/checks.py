"""What must hold between options: each check yields complaints, and the archive does not start with any.

Rules that hold here: a check looks at a Config and says where in the file the trouble is; what is allowed but
looks like a mistake is in warnings.py.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from .certificates import Finding, examine, examine_authority
from .complaints import Complaint, Where
from .document import join
from .kinds import Reading
from .notify import notices
from .prefetch import prefetches
from .receiving import coercions
from .retention import kept
from .routing import routes
from .sections import TLS, Config, Listener, PeerTLS
from .sync import syncs
from .telling import told
from .volumes import volumes

Check = Callable[[Config, Reading], Iterator[Complaint]]

LEGACY = "legacy-aes128-cbc"
COMMIT_WAYS = ("commit_same_association", "commit_new_association", "commit_both")


def complaints(config: Config, reading: Reading) -> Iterator[Complaint]:
    """Everything that keeps a configuration from being used."""
    for check in (
        titles, limits, listeners, client_certificates, peers, routes, syncs, coercions, told, kept,
        volumes, notices, prefetches,
    ):  # fmt: skip
        yield from check(config, reading)


def titles(config: Config, reading: Reading) -> Iterator[Complaint]:
    """An AE title belongs to one peer."""
    owners: dict[str, str] = {}
    for name, peer in config.peers.items():
        aliases = [(f"aliases.{number}", alias) for number, alias in enumerate(peer.aliases)]
        for option, title in [("aet", peer.aet), *aliases]:
            if title in owners:
                problem = f"{title!r} is an AE title of {owners[title]} already"
                yield reading.about(f"{join('peers', name)}.{option}", problem, "one peer for each AE title")
            owners.setdefault(title, name)
    if config.ae.title in config.ae.aliases:
        yield reading.about("ae.aliases", f"{config.ae.title!r} is ae.title already", "leave it out here")


def limits(config: Config, reading: Reading) -> Iterator[Complaint]:
    total, reserved = config.limits.max_associations, config.limits.reserved_for_peers
    if total and reserved >= total:
        remedy = f"a number below max_associations ({total}) would do"
        yield reading.about("limits.reserved_for_peers", f"{reserved} of {total} leave none for others", remedy)


def listeners(config: Config, reading: Reading) -> Iterator[Complaint]:
    """An address and port is listened on once; the legacy profile has a port of its own."""
    for (_, first), (number, second) in combinations(enumerate(config.listeners), 2):
        key = f"listeners.{number}.port"
        if first.port != second.port or not second.port:
            continue
        if _profile(first) != _profile(second) and LEGACY in (_profile(first), _profile(second)):
            yield reading.about(key, f"shared by {LEGACY} and something else", f"give {LEGACY} a port of its own")
        elif _overlap(first.host, second.host):
            yield reading.about(key, f"{first.host}:{first.port} is listened on already", "another port would do")


def _profile(listener: Listener) -> str:
    return listener.tls.profile if listener.tls else ""


def _overlap(first: str, second: str) -> bool:
    """Whether one port cannot be had on both; ``::`` takes the IPv4 addresses too."""
    if first == second or "::" in (first, second):
        return True
    return "0.0.0.0" in (first, second) and ":" not in first + second


def client_certificates(config: Config, reading: Reading) -> Iterator[Complaint]:
    for number, listener in enumerate(config.listeners):
        if listener.tls and not listener.tls.ca and listener.tls.client_cert != "ignore":
            problem = f"client_cert: {listener.tls.client_cert} without ca: nobody's certificate could be verified"
            yield reading.about(f"listeners.{number}.tls.client_cert", problem, "add ca, or write client_cert: ignore")


def peers(config: Config, reading: Reading) -> Iterator[Complaint]:
    for name, peer in config.peers.items():
        key = join("peers", name)
        if "no_async" in peer.quirks and peer.async_window != 1:
            yield reading.about(f"{key}.async_window", "contradicts the quirk no_async", "leave one of the two out")
        ways = [quirk for quirk in COMMIT_WAYS if quirk in peer.quirks]
        if len(ways) > 1:
            yield reading.about(f"{key}.quirks", f"{ways[0]} contradicts {ways[1]}", "leave one of the two out")
        if peer.tls and bool(peer.tls.cert) != bool(peer.tls.key):
            yield reading.about(f"{key}.tls", "cert and key belong together", "give both or neither")


def exposed(config: Config, reading: Reading) -> Iterator[Complaint]:
    """A plain listener that others can reach while nobody is configured."""
    for number, listener in enumerate(config.listeners):
        if not (config.peers or listener.loopback or listener.tls):
            problem = "reachable from other machines with neither peers nor TLS"
            remedy = "configure peers or tls, listen on 127.0.0.1, or start with --insecure"
            yield reading.about(f"listeners.{number}.host", problem, remedy)


def key_files(config: Config, reading: Reading, now: float) -> tuple[list[Complaint], list[Complaint]]:
    """Complaints and warnings about the files of TLS; a file that several options name is examined once."""
    found: tuple[list[Complaint], list[Complaint]] = ([], [])
    examined: set[object] = set()
    for key, tls in _tls_sections(config):
        pair = (tls.cert, tls.key, tls.profile == LEGACY)
        findings: list[Finding] = []
        if tls.cert and tls.key and pair not in examined:
            findings += examine(tls.cert, tls.key, now, rsa=pair[2])
        if tls.ca and tls.ca not in examined:
            findings += examine_authority(tls.ca)
        examined |= {pair, tls.ca}
        for finding in findings:
            found[finding.warning].append(reading.about(f"{key}.{finding.option}", finding.problem, finding.remedy))
    return found


def _tls_sections(config: Config) -> Iterator[tuple[str, TLS | PeerTLS]]:
    for number, listener in enumerate(config.listeners):
        if listener.tls:
            yield f"listeners.{number}.tls", listener.tls
    for name, peer in config.peers.items():
        if peer.tls:
            yield f"{join('peers', name)}.tls", peer.tls


def ports_in_use(config: Config) -> list[Complaint]:
    """Listeners whose address cannot be had on this machine now. For ``check-config``: while the archive
    itself is running its own ports are in use."""
    return [found for number, listener in enumerate(config.listeners) for found in _try(number, listener, config)]


def _try(number: int, listener: Listener, config: Config) -> Iterator[Complaint]:
    key = f"listeners.{number}.port"
    where = config.places.get(key) or Where(str(config.file or "built-in configuration"))
    try:
        for family, kind, _, _, address in socket.getaddrinfo(
            listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen(1)
    except OSError as error:
        yield Complaint(where, key, f"{listener.host}:{listener.port}", *_refusal(error, listener))


def _refusal(error: OSError, listener: Listener) -> tuple[str, str]:
    if error.errno == errno.EADDRINUSE:
        return (
            "in use by another program",
            f"another port would do; 'ss -ltnp sport = :{listener.port}' names the program",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return "not allowed to this user", "a port above 1023 would do, or the capability CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return "no address of this machine", "0.0.0.0 would do for all of them"
    return os.strerror(error.errno or 0), "another address or port would do"


def once(found: Sequence[Complaint]) -> list[Complaint]:
    """In the order of the file, one for each value: what follows from the first is not told."""
    first: dict[object, Complaint] = {}
    for number, complaint in enumerate(found):
        first.setdefault((complaint.where, complaint.key, complaint.value) if complaint.value else number, complaint)
    return sorted(first.values(), key=lambda complaint: (complaint.where.line == 0, complaint.where.line))
