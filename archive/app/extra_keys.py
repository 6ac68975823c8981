"""The part of the background that goes through stored objects after `index.extra_keys` was changed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable

from archive.app.store import Archive
from archive.config import Config
from archive.services.extra_keys import ExtraFill
from archive.workers.extra_keys import FillExtraKeys
from archive.workers.worker import Worker


def extra_keys(archive: Archive, config: Config) -> Iterable[Worker]:
    """A worker, if there is something to fill in or to forget: that can only change before a start."""
    progress = archive.index.extra_progress()
    if not (progress.filling or progress.dropping):
        return ()

    def charset_of(source: str) -> str:
        peer = config.peer(source)
        return (peer.default_charset if peer else "") or ""

    fill = ExtraFill(archive.index, archive.volumes, charset_of)
    owner = f"{socket.gethostname()}:{archive.volume.root}"
    return (FillExtraKeys(archive.index, fill, owner, clock=time.time, monotonic=time.monotonic),)
