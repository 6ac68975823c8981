"""The background process: one a daemon, it runs the workers.

Rules that hold here: every worker enters by PARTS, a function from the open archive and its configuration to the
workers that this configuration asks for; after SIGHUP all are stopped and built anew.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable

from archive.app.acceptor import HANDLED, Reload
from archive.app.extra_keys import extra_keys
from archive.app.life import follow_studies
from archive.app.store import Archive
from archive.config import Config
from archive.log import set_level
from archive.workers.worker import Worker, Workers

log = logging.getLogger(__name__)

Part = Callable[[Archive, Config], Iterable[Worker]]

PARTS: tuple[Part, ...] = (follow_studies, extra_keys,)


class Background:
    """The process; ``run`` returns after SIGTERM or SIGINT."""

    def __init__(self, config: Config) -> None:
        self._archive = Archive(config)
        self._workers = self._build(config)

    def run(self, ready: Callable[[], None], again: Reload) -> int:
        self._workers.start()
        ready()
        while (number := signal.sigwait(HANDLED)) == signal.SIGHUP:
            self._reload(again())
        log.info("stopping on %s", signal.Signals(number).name)
        self._workers.stop()
        self._archive.close()
        return 0

    def _build(self, config: Config) -> Workers:
        workers = [worker for part in PARTS for worker in part(self._archive, config)]
        return Workers(workers, self._archive.index.listen)

    def _reload(self, config: Config | None) -> None:
        if config is None:
            return
        self._workers.stop()
        self._archive.change(config)
        self._workers = self._build(config)
        self._workers.start()
        set_level(config.log.level)
