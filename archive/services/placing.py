"""Files that take the place of others: noted before they have names, so that a crash leaves no orphan.

Rules that hold here: a note names every file of which one will be left; it is durable before the new file has its
name and goes after the other file; what a dead process has noted is settled by whoever finds it: a file that a
row points to stays, the others go.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from archive.index import Index
from archive.storage.local import Volume, sync_folder
from archive.storage.spool import NOTE

log = logging.getLogger(__name__)


class Note:
    """What is about to happen to the files of one instance."""

    def __init__(self, volume: Volume, sop_instance_uid: str, paths: Sequence[str]) -> None:
        """Durable when this returns. Raises StorageFailed."""
        self._volume = volume
        self._path = volume.spool.new_path(NOTE)
        self._said: dict[str, object] = {"uid": sop_instance_uid, "paths": list(paths)}
        try:
            with open(self._path, "x", encoding="ascii") as file:
                json.dump(self._said, file)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self._path.parent)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            raise volume.failed(error) from error

    def settle(self, index: Index) -> None:
        """Leave the file that the row points to. Raises IndexUnavailable, and then nothing was touched."""
        _settle(self._said, self._volume, index, ours=True)
        self._path.unlink(missing_ok=True)


def settle(folder: Path, volume: Volume, index: Index) -> int:
    """The same for all that a dead process has noted; return how many files had to go."""
    removed = 0
    for path in folder.glob(f"*{NOTE}"):
        try:
            said = json.loads(path.read_text("ascii"))
        except (FileNotFoundError, ValueError):
            continue  # settled by another process, or killed while it was written: nothing had happened yet
        removed += _settle(said, volume, index, ours=False)
    if removed:
        log.warning("removed %d files that a dead process was about to exchange", removed)
    return removed


def _settle(said: dict[str, object], volume: Volume, index: Index, *, ours: bool) -> int:
    kept = index.upkeep.settled(str(said["uid"]))
    if not kept and not ours:
        log.warning("instance %s is not known: its files are left alone", said["uid"])
        return 0  # this may be another index than the one the note was written for
    paths = said["paths"]
    assert isinstance(paths, list)
    gone = [path for path in paths if (volume.name, path) not in kept and (volume.root / path).exists()]
    for path in gone:
        volume.remove(path)
    return len(gone)
