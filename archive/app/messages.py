"""Messages out, wired: the receivers of the configuration, and the worker that sends to them."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from archive.app.store import Archive
from archive.config import Config
from archive.config.hl7 import Hl7Receiver
from archive.dimse.tls import ClientTLS
from archive.errors import ArchiveError, UnknownDestination
from archive.hl7.sending import Receiver, send_all
from archive.index import Task
from archive.workers.lanes import LaneWorker
from archive.workers.messages import KIND, PAUSES, unpacked
from archive.workers.telling import Telling
from archive.workers.worker import Worker

TOGETHER = 50  # messages of one connection


def pass_messages_on(archive: Archive, config: Config) -> Iterable[Worker]:
    """The worker that sends to the receivers of the configuration; raises ConfigurationError."""
    if config.hl7 is None:
        return []
    receivers = {each.name: _receiver(config, each) for each in config.hl7.forward}

    def send(name: str, tasks: Sequence[Task]) -> Iterator[ArchiveError | None]:
        if name not in receivers:
            raise UnknownDestination("HL7 receiver is not configured any more", name)
        return send_all(receivers[name], [unpacked(task.payload) for task in tasks])

    passing_on = Telling(archive.index, send, time.time, pauses=PAUSES, done="acknowledged")
    return [LaneWorker("hl7 messages", KIND, archive.index, passing_on, clock=time.time, batch=TOGETHER, ordered=True)]


def _receiver(config: Config, entry: Hl7Receiver) -> Receiver:
    tls: Callable[[], ssl.SSLContext] | None = None
    if entry.tls:
        section = config.hl7
        assert section is not None
        client = ClientTLS(ca=section.ca, cert=section.cert, key=section.key)
        tls = lambda: client.context  # noqa: E731 - a name for the context of the next handshake
    return Receiver(entry.host, entry.port, tls, connect=config.timeouts.connect)
