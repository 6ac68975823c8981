"""`archive serve`: the daemon."""

from __future__ import annotations

import argparse
import logging
import socket
from collections.abc import Callable
from dataclasses import replace

from archive import log
from archive.app.acceptor import Acceptor, rows_of_census
from archive.app.alarming import ended
from archive.app.background import Background
from archive.app.notify import Notifier
from archive.app.sockets import open_hl7_sockets, open_sockets
from archive.app.store import recover
from archive.cli.common import Commands, command
from archive.config import Complaints, Config, find_file, load, needs_restart
from archive.dimse.census import Census
from archive.dimse.relay import Relay
from archive.services.alarms import Line
from archive.supervisor import Main, Supervisor, run_alone

LOG = logging.getLogger("archive.serve")


def add(commands: Commands) -> None:
    made = command(commands, "serve", serve, as_json=False)
    made.add_argument(
        "--insecure",
        action="store_true",
        help="listen beyond this machine although neither peers nor TLS are configured",
    )


class Settings:
    """The configuration in force, and how it is read again."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.reloaded: Callable[[Config], None] = lambda config: None
        self.first = self.config = self._written = self._load()

    def _load(self) -> Config:
        options = self._options
        return load(find_file(options.config), overrides=options.set, insecure=options.insecure)

    def again(self) -> Config | None:
        """The file as it is now, also for `self.config`; None when it cannot be used.

        What needs a restart stays as it was, also for a process that is replaced.
        """
        try:
            self._written = self._load()
        except Complaints as complaints:
            for complaint in complaints.complaints:
                LOG.error("configuration not reloaded: %s", complaint)
            return None
        self.config = as_started(self._written, self.first)
        return self.config

    def reload(self) -> bool:
        """For the supervisor, which speaks for all: say what changed; a bad file changes nothing."""
        new = self.again()
        if new is None:
            return False
        for key in needs_restart(self.first, self._written):
            LOG.warning("%s has changed, which needs a restart", key)
        log.set_level(new.log.level)
        _say_warnings(new)
        self.reloaded(new)
        LOG.info("configuration reloaded, %d peers", len(new.peers))
        return True


def as_started(new: Config, first: Config) -> Config:
    """The new configuration with the sockets, files and database of the one the daemon was started with."""
    was = first.storage
    storage = replace(new.storage, path=was.path, volumes=was.volumes, journal=was.journal)
    hl7 = first.hl7
    if first.hl7 and new.hl7:
        hl7 = replace(new.hl7, host=first.hl7.host, port=first.hl7.port, tls_port=first.hl7.tls_port)
    return replace(
        new, listeners=first.listeners, processes=first.processes, index=first.index, storage=storage, hl7=hl7
    )


def serve(options: argparse.Namespace) -> int:
    settings = Settings(options)
    config = settings.config
    log.configure(config.log.level)
    _say_warnings(config)
    sockets, hl7_sockets = open_sockets(config), open_hl7_sockets(config)
    if run_alone(lambda: recover(config)) != 0:
        LOG.error("the store could not be opened, see above")
        return 1
    line = Line()
    line.wanted = bool(config.notify)
    census = Census(config.processes, rows_of_census(config))
    relay = Relay(config.processes, len(sockets)) if config.processes > 1 else None
    children = [
        (f"acceptor-{number}", _acceptor(settings, sockets, census, number, relay, line))
        for number in range(config.processes)
    ]
    children.append(("background", _background(settings, hl7_sockets, line)))
    _say_listening(config, sockets)
    _say_messages(hl7_sockets)
    supervisor = Supervisor(children, settings.reload, died=lambda name, how: line.raise_alarm(ended(name, how)))
    settings.reloaded = lambda new: _tell(supervisor, settings, line, new)
    settings.reloaded(config)
    status = supervisor.run()
    LOG.info("stopped")
    return status


def _acceptor(
    settings: Settings, sockets: list[socket.socket], census: Census, number: int, relay: Relay | None, line: Line
) -> Main:
    return lambda ready: Acceptor(settings.config, sockets, census, number, relay, line).run(ready, settings.again)


def _background(settings: Settings, sockets: list[socket.socket | None], line: Line) -> Main:
    return lambda ready: Background(settings.config, sockets, line).run(ready, settings.again)


def _tell(supervisor: Supervisor, settings: Settings, line: Line, config: Config) -> None:
    """A process that tells people, as soon as there is somebody to be told."""
    line.wanted = bool(config.notify)
    if config.notify:
        supervisor.add("notifier", lambda ready: Notifier(settings.config, line).run(ready, settings.again))


def _say_warnings(config: Config) -> None:
    for warning in config.warnings:
        LOG.warning("%s", warning)


def _say_listening(config: Config, sockets: list[socket.socket]) -> None:
    for listener, sock in zip(config.listeners, sockets, strict=True):
        host, port = sock.getsockname()[:2]
        how = f"TLS, profile {listener.tls.profile}" if listener.tls else "plain"
        LOG.info("%s listens on %s:%d (%s)", config.ae.title, host, port, how)
    LOG.info("files in %s", config.storage.path)


def _say_messages(sockets: list[socket.socket | None]) -> None:
    for sock, how in zip(sockets, ("plain", "TLS"), strict=False):
        if sock is not None:
            host, port = sock.getsockname()[:2]
            LOG.info("HL7 messages are taken on %s:%d (%s)", host, port, how)
