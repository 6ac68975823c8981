"""A process that the supervisor keeps: how long it runs, and what it does when it is told to reload.

Rules that hold here: signals are waited for, never handled, so that nothing is interrupted by them; a configuration
that cannot be used changes nothing, and whoever read it has said why.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

from archive.config import Config

log = logging.getLogger(__name__)

Reload = Callable[[], Config | None]  # the configuration to go on with, None for the one that is in force

HANDLED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def run_until_told(reload: Callable[[Config], None], again: Reload) -> None:
    """Return after SIGTERM or SIGINT; after each SIGHUP ``reload`` gets what ``again`` gives."""
    while (number := signal.sigwait(HANDLED)) == signal.SIGHUP:
        config = again()
        if config is not None:
            reload(config)
    log.info("stopping on %s", signal.Signals(number).name)
