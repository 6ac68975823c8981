"""Orders wired: the HL7 listeners of the background process, and the worklist of the acceptors."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

from archive.app.causes import causes
from archive.app.sockets import HL7_PORTS
from archive.app.store import Archive
from archive.config import Config
from archive.dimse.tls import ServerTLS
from archive.dimse.worklist import FindSteps
from archive.errors import ConfigurationError
from archive.hl7.inbound import Inbound
from archive.hl7.listener import Listener, Patience
from archive.hl7.mapping import FieldMap
from archive.index import Index
from archive.services.orders import Orders
from archive.services.worklist import Worklist
from archive.workers.history import History
from archive.workers.worker import Worker


def find_steps(index: Index, config: Config) -> FindSteps:
    """The verb of the modality worklist."""
    section = config.worklist
    worklist = Worklist(index, today=date.today, show_started=section.show_started)
    return FindSteps(worklist, (section.days_back, section.days_ahead))


def hl7_listeners(archive: Archive, config: Config, sockets: Sequence[socket.socket | None]) -> Iterator[Listener]:
    """The listeners for messages; raises ConfigurationError."""
    section = config.hl7
    if section is None:
        return
    inbound = Inbound(
        Orders(archive.index, causes(config)),
        clock=time.time,
        fields=field_map(config),
        charset=section.charset,
        application=config.ae.title,
        senders=section.senders,
    )
    for key, sock in zip(HL7_PORTS, sockets, strict=True):
        if sock is not None:
            tls = _tls(config) if key == "tls_port" else None
            # A reload builds new listeners on the same port: each gets a descriptor of its own.
            yield Listener(
                sock.dup(),
                inbound.receive,
                section.admits,
                tls=tls,
                per_ip=section.per_ip,
                patience=Patience(idle=section.idle),
            )


def forget_messages(archive: Archive, config: Config) -> list[Worker]:
    """The worker that ends the history of messages."""
    return [History(archive.index.orders.purge_messages, config.hl7.keep, time.time)] if config.hl7 else []


def field_map(config: Config) -> FieldMap:
    """How messages are read; raises ConfigurationError."""
    try:
        return FieldMap(config.hl7.mapping if config.hl7 else {})
    except ValueError as error:
        raise ConfigurationError(f"hl7.mapping: {error}") from error


def _tls(config: Config) -> Callable[[], ssl.SSLContext]:
    """The context of the next handshake, from the section or from the first TLS listener."""
    section = config.hl7
    assert section is not None
    files: dict[str, Path | None] = {name: getattr(section, name) for name in ("cert", "key", "ca")}
    first = next((listener.tls for listener in config.listeners if listener.tls), None)
    if first is not None:
        files = {name: path or getattr(first, name) for name, path in files.items()}
    if files["cert"] is None:
        raise ConfigurationError("hl7.tls_port: no certificate; set hl7.cert and hl7.key, or add a TLS listener")
    server = ServerTLS(cert=files["cert"], key=files["key"], ca=files["ca"], client_cert=section.client_cert)
    return lambda: server.context
