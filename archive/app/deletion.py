"""Files of what was deleted go: by a worker, or all at once before an index is made anew."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from archive.app.ledgers import deletion_of
from archive.app.store import Archive
from archive.config import Config
from archive.index import Index
from archive.services.deletion import Unlinking
from archive.services.placing import MAIN
from archive.storage.local import Volume
from archive.workers.unlink import UnlinkDeleted
from archive.workers.worker import Worker


def finish_deletions(index: Index, volumes: Mapping[str, Volume]) -> int:
    """Unlink all that was deleted, before an index is rebuilt from the files; return how many files that were.

    Once the journals have been settled on the new index, the next start looks for what they brought back.
    """
    deletion_of(index, volumes[MAIN], volumes).settle()
    done = Unlinking(index, volumes, time.time).all()
    index.deletion.look_again()
    return done


def unlinkers(archive: Archive, config: Config) -> Iterable[Worker]:
    """One worker, always: anything may be deleted while the archive runs."""
    return (UnlinkDeleted(Unlinking(archive.index, archive.volumes, time.time)),)
