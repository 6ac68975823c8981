"""The background process: one a daemon, it runs the workers.

Rules that hold here: every worker enters by PARTS, a function from the open archive and its configuration to the
workers that this configuration asks for; after SIGHUP all are stopped and built anew.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Sequence

from archive.app.alarming import failed, pass_alarms_on, watch_certificates, watched
from archive.app.availability import notify_peers
from archive.app.commitment import commitments
from archive.app.deletion import unlinkers
from archive.app.delivery import deliver
from archive.app.extra_keys import extra_keys
from archive.app.fetching import fetch_studies
from archive.app.keeping import compressors, scrubbers
from archive.app.life import follow_studies
from archive.app.matching import match_studies
from archive.app.messages import pass_messages_on
from archive.app.orders import forget_messages, hl7_listeners
from archive.app.performed import follow_performed
from archive.app.prefetch import fetch_priors
from archive.app.process import Reload, run_until_told
from archive.app.reporting import correct_patients, file_reports
from archive.app.retention import retire
from archive.app.store import Archive
from archive.app.sync import synchronise
from archive.app.volumes import move_files
from archive.config import Config
from archive.errors import ConfigurationError
from archive.log import set_level
from archive.services.alarms import Line
from archive.workers.worker import Worker, Workers

log = logging.getLogger(__name__)

Part = Callable[[Archive, Config], Iterable[Worker]]

PARTS: tuple[Part, ...] = (
    follow_studies, extra_keys, forget_messages, deliver, compressors, scrubbers, commitments,
    follow_performed, unlinkers, match_studies, file_reports, correct_patients, pass_messages_on, notify_peers,
    fetch_studies, move_files, fetch_priors, retire, synchronise, pass_alarms_on, watch_certificates,
)  # fmt: skip


class Background:
    """The process; ``run`` returns after SIGTERM or SIGINT."""

    def __init__(
        self, config: Config, hl7_sockets: Sequence[socket.socket | None] = (), line: Line | None = None
    ) -> None:
        self._archive = Archive(config, line=line)
        self._archive.index.queue.failed = failed(self._archive.alarm)
        self._sockets = hl7_sockets
        self._build(config)

    def run(self, ready: Callable[[], None], again: Reload) -> int:
        self._start()
        ready()
        run_until_told(self._reload, again)
        self._stop()
        self._archive.close()
        return 0

    def _build(self, config: Config) -> None:
        listeners = list(hl7_listeners(self._archive, config, self._sockets))
        workers = [worker for part in PARTS for worker in part(self._archive, config)]
        self._listeners, self._workers = listeners, Workers(workers, watched(self._archive))

    def _start(self) -> None:
        self._workers.start()
        for listener in self._listeners:
            listener.start()

    def _stop(self) -> None:
        for listener in self._listeners:
            listener.stop()
        self._workers.stop()

    def _reload(self, config: Config) -> None:
        before = self._archive.config
        self._stop()
        try:
            self._archive.change(config)
            self._build(config)
            set_level(config.log.level)
        except ConfigurationError as error:
            log.error("configuration not reloaded: %s", error)
            self._archive.change(before)
            self._build(before)
        self._start()
