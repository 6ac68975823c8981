"""Builds everything from a Config and wires it; starts and stops in order.

Rules that hold here: whoever opens the store has settled what a crash left in its own journal first; nothing
is opened before the process that uses it has been forked; what a reload may change is swapped in one
assignment, so that running associations keep what they began with.
"""

from __future__ import annotations

import gc
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from archive.config import Config, Listener
from archive.dicom.attributes import HEADER_TAGS
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
from archive.dimse.listener import bind
from archive.dimse.move import MoveMatches
from archive.dimse.negotiation import Accepted, Rejected
from archive.dimse.policy import AccessPolicy
from archive.dimse.server import Server, Verbs
from archive.dimse.store import StoreObject
from archive.dimse.tls import ServerTLS
from archive.dimse.wire import Field
from archive.errors import ConfigurationError
from archive.index import Index, open_index
from archive.log import set_level
from archive.services.callers import Callers
from archive.services.commit import Committer
from archive.services.find import Find
from archive.services.retrieve import Retrieve
from archive.services.store import Rules, Store
from archive.storage.journal import Journal, slots
from archive.storage.local import Volume
from archive.storage.spool import sweep
from archive.workers.codec import Codec
from archive.workers.runner import Runner

log = logging.getLogger(__name__)

SERVED = frozenset({"echo", "store", "find", "move", "get"})  # services, as dimse/contexts.py names them
MANY_THREADS = 10_000  # more associations than one process can serve
YOUNG = 10_000  # new objects between two looks for garbage; 700 would look at every other image
INTENTS_ONLY = 1 << 20  # bytes of a journal that holds no objects, only what is about to be renamed
DRAIN = 8.0  # seconds a process has to end in order; the supervisor waits a little longer


class Archive:
    """One process's hold on the archive: index, volume and services. A context manager."""

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.index = open_index(config.index.url, statement_timeout=config.index.statement_timeout)
        self.volume = open_volume(config, self.index, clock)
        sweep_spool(self.volume)  # a process that was killed is replaced while the others go on
        self.journal = open_journal(config, self.volume)
        self.committer = open_committer(config, self.volume, self.index, self.journal)
        self.committer.recover()
        self._clock = clock
        self.store = self.store_for(config)
        self.find = Find(self.index)
        self.retrieve = Retrieve(self.index, {self.volume.name: self.volume})
        self.codec = Codec(spool=self.volume.spool.path)
        self._checkpoint = Runner("checkpoint", self.committer.checkpoint, self.journal.wake)
        self._checkpoint.start()

    def store_for(self, config: Config) -> Store:
        """The store by the rules of `config`, which a reload may change."""
        return Store(
            volume=self.volume, index=self.index, committer=self.committer, rules=rules(config), clock=self._clock
        )

    def close(self) -> None:
        self.codec.close()
        self._checkpoint.stop()
        self.committer.close()
        self.volume.close()
        self.index.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def rules(config: Config) -> Rules:
    return Rules(
        max_instance_size=config.limits.max_instance_size,
        on_conflict=config.storage.on_conflict,
        lenient_uids=config.storage.lenient_uids,
        wanted=HEADER_TAGS,
    )


def open_volume(config: Config, index: Index, clock: Callable[[], float]) -> Volume:
    volume = Volume(config.storage.path, reserve=config.storage.reserve, clock=clock)
    volume.open(expected=index.statistics().instances > 0)
    return volume


def open_journal(config: Config, volume: Volume, slot: int | None = None) -> Journal:
    return Journal(volume.root / "journal", config.storage.journal or INTENTS_ONLY, slot)


def open_committer(config: Config, volume: Volume, index: Index, journal: Journal) -> Committer:
    return Committer(volume=volume, index=index, journal=journal, group_syncs=bool(config.storage.journal))


def recover(config: Config) -> None:
    """Bring schema, journals and spool in order after whatever happened; run before anything is served."""
    index = open_index(config.index.url, statement_timeout=config.index.statement_timeout)
    volume = open_volume(config, index, time.time)
    for slot in slots(volume.root / "journal"):
        try:
            journal = open_journal(config, volume, slot)
        except BlockingIOError:
            continue  # in use, by an import for example
        committer = open_committer(config, volume, index, journal)
        committer.recover()
        committer.close()
    sweep_spool(volume)
    volume.close()
    index.close()


def sweep_spool(volume: Volume) -> None:
    removed = sweep(volume.root / "spool")
    if removed:
        log.warning("removed %d unfinished files of dead processes", removed)


# -- the daemon -------------------------------------------------------------------------------------

Main = Callable[[Callable[[], None]], int]
Reload = Callable[[], Config | None]
HANDLED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def open_sockets(config: Config) -> list[socket.socket]:
    """The listening sockets, which all acceptor processes share. Raises ConfigurationError."""
    return [_open_socket(number, listener) for number, listener in enumerate(config.listeners)]


def _open_socket(number: int, listener: Listener) -> socket.socket:
    try:
        return bind(listener.host, listener.port)
    except OSError as error:
        raise ConfigurationError(
            f"listeners.{number}: cannot listen on {listener.host}:{listener.port}: {error.strerror}; "
            "end what uses the port, or choose another"
        ) from error


def rows_of_census(config: Config) -> int:
    """Associations one process can be asked to count: all of them, and room for a higher limit after a reload."""
    return 2 * config.limits.max_associations or MANY_THREADS


def destinations(config: Config) -> Destinations:
    """Whom this configuration lets us call."""
    return Destinations.of(config, Access.of(config))


class Daemon:
    """One acceptor process: the verbs over the services, behind the listeners of the configuration."""

    def __init__(self, config: Config, sockets: Sequence[socket.socket], census: Census, number: int) -> None:
        census.join(number)
        self._archive = Archive(config)
        self._callers = Callers(self._archive.index.note_caller, time.time)
        self._limits = Limits(census=census)
        self._door = Door()
        self._tls = [server_tls(listener) for listener in config.listeners]
        self._listeners = [
            DimseListener(sock, tls=tls, limits=self._limits)
            for sock, tls in zip(sockets, self._tls, strict=True)
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
        while (number := signal.sigwait(HANDLED)) == signal.SIGHUP:
            self._reload(again)
        log.info("stopping on %s", signal.Signals(number).name)
        self._stop()
        return 0

    def _take(self, config: Config) -> None:
        """Let new associations live by `config`; those that run keep what they began with."""
        archive = self._archive
        archive.volume.reserve = config.storage.reserve
        set_limits(self._limits, config)
        for listener in self._listeners:
            listener.change(timeouts(config.timeouts))
        access = Access.of(config)
        destinations = Destinations.of(config, access)
        codec = archive.codec
        verbs = Verbs(
            StoreObject(archive.store_for(config)),
            {
                Field.C_ECHO_RQ: {"echo": Echo()},
                Field.C_FIND_RQ: {"find": FindMatches(archive.find, config.ae.title)},
                Field.C_MOVE_RQ: {"move": MoveMatches(archive.retrieve, destinations, codec)},
                Field.C_GET_RQ: {"get": GetMatches(archive.retrieve, codec)},
            },
        )
        server = Server(verbs, max_results=config.query.max_results, close_thread=archive.index.close_thread)
        table = contexts.table(SERVED, accept_unknown=config.storage.accept_unknown_sop_classes)
        self._door.change(server, AccessPolicy(access, table, note_caller=self._callers.note))

    def _reload(self, again: Reload) -> None:
        config = again()
        if config is None:
            return
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
