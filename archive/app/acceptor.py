"""An acceptor process: the verbs over the services, behind the listeners of the configuration.

Rules that hold here: nothing is opened before the process has been forked, but the listening sockets, which all
share; what a reload may change is swapped in one assignment, so that running associations keep what they began with.
"""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence

from archive.app.commitment import commitment_verbs
from archive.app.life import lifecycle_of
from archive.app.orders import find_steps
from archive.app.performed import performed_verbs
from archive.app.process import Reload, run_until_told
from archive.app.store import Archive
from archive.config import Config, Listener
from archive.dimse import contexts
from archive.dimse.access import Access
from archive.dimse.associate import AssociateRequest
from archive.dimse.association import Association
from archive.dimse.census import Census
from archive.dimse.destinations import Destinations, timeouts
from archive.dimse.echo import Echo
from archive.dimse.find import FindMatches
from archive.dimse.get import GetMatches
from archive.dimse.limits import Limits
from archive.dimse.listener import Listener as DimseListener
from archive.dimse.move import MoveMatches
from archive.dimse.negotiation import Accepted, Rejected
from archive.dimse.policy import AccessPolicy
from archive.dimse.relay import Relay
from archive.dimse.server import Server, Verbs
from archive.dimse.store import StoreObject
from archive.dimse.tls import ServerTLS
from archive.dimse.wire import Field
from archive.errors import ConfigurationError
from archive.log import set_level
from archive.services.alarms import Line
from archive.services.callers import Callers

log = logging.getLogger(__name__)

MANY_THREADS = 10_000  # more associations than one process can serve
YOUNG = 10_000  # new objects between two looks for garbage; 700 would look at every other image
DRAIN = 8.0  # seconds a process has to end in order; the supervisor waits a little longer


def rows_of_census(config: Config) -> int:
    """Associations one process can be asked to count: all of them, and room for a higher limit after a reload."""
    return 2 * config.limits.max_associations or MANY_THREADS


class Acceptor:
    """One acceptor process."""

    def __init__(
        self, config: Config, sockets: Sequence[socket.socket], census: Census, number: int, relay: Relay | None = None,
        line: Line | None = None,
    ) -> None:  # fmt: skip
        census.join(number)
        self._archive = Archive(config, line=line)
        self._archive.well()
        self._callers = Callers(self._archive.index.note_caller, time.time)
        self._limits = Limits(census=census)
        self._door = Door()
        self._tls = [server_tls(listener) for listener in config.listeners]
        self._listeners = [
            DimseListener(sock, tls=tls, limits=self._limits, place=relay.join(number, index) if relay else None)
            for index, (sock, tls) in enumerate(zip(sockets, self._tls, strict=True))
        ]
        self._take(config)

    def run(self, ready: Callable[[], None], again: Reload) -> int:
        """Serve until SIGTERM or SIGINT; `again` gives the configuration to go on with after a SIGHUP."""
        for listener in self._listeners:
            listener.start(self._door.handle, self._door)
        # The tables made so far live as long as the process: the garbage collector need not walk them again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG)
        ready()
        run_until_told(self._reload, again)
        self._stop()
        return 0

    def _take(self, config: Config) -> None:
        """Let new associations live by `config`; those that run keep what they began with."""
        archive = self._archive
        archive.change(config)
        set_limits(self._limits, config)
        for listener in self._listeners:
            listener.change(timeouts(config.timeouts))
        access = Access.of(config)
        destinations = Destinations.of_peers(access, config.peers.values())
        codec = archive.codec
        verbs = Verbs(
            StoreObject(archive.store),
            {
                Field.C_ECHO_RQ: {"echo": Echo()},
                Field.C_FIND_RQ: {
                    "find": FindMatches(archive.find, config.ae.title),
                    "worklist": find_steps(archive.index, config),
                },
                Field.C_MOVE_RQ: {
                    "move": MoveMatches(archive.retrieve, destinations, codec, outgoing=archive.outgoing),
                },
                Field.C_GET_RQ: {"get": GetMatches(archive.retrieve, codec, outgoing=archive.outgoing)},
                **commitment_verbs(archive, config),
                **performed_verbs(archive, config),
            },
        )
        lifecycle = lifecycle_of(archive.index, config)
        server = Server(
            verbs,
            max_results=config.query.max_results,
            released=lambda session: lifecycle.closed(sorted(session.studies)),
        )
        table = contexts.table(accept_unknown=config.storage.accept_unknown_sop_classes)
        self._door.change(server, AccessPolicy(access, table, note_caller=self._callers.note))

    def _reload(self, config: Config) -> None:
        try:
            for tls in self._tls:
                if tls is not None:
                    tls.reload()
            self._take(config)
            set_level(config.log.level)
        except ConfigurationError as error:
            log.error("configuration not reloaded: %s", error)

    def _stop(self) -> None:
        threads = [threading.Thread(target=listener.stop, args=(DRAIN,)) for listener in self._listeners]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DRAIN + 0.5)
        self._archive.close()


class Door:
    """What a listener holds on to, while what is behind it changes with the configuration."""

    def __init__(self) -> None:
        self._behind: tuple[Server, AccessPolicy] | None = None

    def change(self, server: Server, policy: AccessPolicy) -> None:
        self._behind = (server, policy)

    def handle(self, association: Association) -> None:
        assert self._behind is not None
        self._behind[0].handle(association)

    def admit(self, address: str) -> bool:
        return self._behind is not None and self._behind[1].admit(address)

    def negotiate(
        self, request: AssociateRequest, address: str, tls_names: tuple[str, ...] | None
    ) -> Accepted | Rejected:
        assert self._behind is not None
        return self._behind[1].negotiate(request, address, tls_names)


def set_limits(limits: Limits, config: Config) -> None:
    """What new associations are measured by, from now on."""
    section = config.limits
    limits.max_associations = section.max_associations
    limits.kept_for_known = section.reserved_for_peers
    limits.per_ae = section.per_ae
    limits.per_ip = section.per_ip
    limits.max_pdu = section.max_pdu


def server_tls(listener: Listener) -> ServerTLS | None:
    tls = listener.tls
    if tls is None:
        return None
    return ServerTLS(tls.profile, cert=tls.cert, key=tls.key, ca=tls.ca, client_cert=tls.client_cert)
