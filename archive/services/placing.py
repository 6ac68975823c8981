"""Files that take the place of others: noted before they have names, so that a crash leaves no orphan.

Rules that hold here: a note names every file of which the index will say which are left; it is durable before a new
file has its name and goes after the last of the others; what a dead process has noted is settled by whoever finds it:
a file that a row points to stays, the others go; what is on a volume that is not there waits for it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from archive.index import Index
from archive.storage.local import Volume, sync_folder
from archive.storage.spool import NOTE, leftovers

log = logging.getLogger(__name__)

MAIN = "main"  # the volume whose spool has the notes

Volumes = Mapping[str, Volume]


class Noted(NamedTuple):
    """A file of an instance."""

    sop_instance_uid: str
    volume: str
    path: str


class Note:
    """What is about to happen to the files of some instances."""

    def __init__(self, volumes: Volumes, files: Sequence[Noted]) -> None:
        """Durable when this returns. Raises StorageFailed."""
        self._volumes = volumes
        self._files = list(files)
        main = volumes[MAIN]
        self._path = main.spool.new_path(NOTE)
        try:
            with open(self._path, "x", encoding="ascii") as file:
                json.dump({"files": self._files}, file)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self._path.parent)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            raise main.failed(error) from error

    def settle(self, index: Index) -> None:
        """Leave the files that rows point to. Raises IndexUnavailable or StorageFailed, and then the note stays."""
        for uid, files in _by_instance(self._files):
            _settle(uid, files, self._volumes, index, ours=True)
        self.forget()

    def forget(self) -> None:
        """All of them are where they belong."""
        self._path.unlink(missing_ok=True)


def settle(folder: Path, volumes: Volumes, index: Index) -> bool:
    """The same for all that a dead process has noted; False when something has to wait for a volume."""
    removed, whole = 0, True
    for path in folder.glob(f"*{NOTE}"):
        files = read_note(path)
        if not all(each.volume in volumes and volumes[each.volume].is_there() for each in files):
            log.warning("files that a dead process was about to exchange wait for a volume that is not there")
            whole = False
            continue
        removed += sum(_settle(uid, mine, volumes, index, ours=False) for uid, mine in _by_instance(files))
        path.unlink(missing_ok=True)
    if removed:
        log.warning("removed %d files that a dead process was about to exchange", removed)
    return whole


def noted(volumes: Volumes) -> set[tuple[str, str]]:
    """Volume and path of files that dead processes were about to exchange."""
    notes = [path for path in leftovers(volumes[MAIN].root / "spool") if path.suffix == NOTE]
    return {(each.volume, each.path) for path in notes for each in read_note(path)}


def read_note(path: Path) -> list[Noted]:
    """What a note says; nothing of one that was settled by somebody else or never finished: nothing had happened."""
    try:
        said: dict[str, Any] = json.loads(path.read_text("ascii"))
    except (FileNotFoundError, ValueError):
        return []
    if "uid" in said:  # as older versions wrote it
        return [Noted(str(said["uid"]), MAIN, str(each)) for each in said["paths"]]
    return [Noted(*map(str, each)) for each in said["files"]]


def _by_instance(files: Sequence[Noted]) -> Iterator[tuple[str, list[Noted]]]:
    for uid in dict.fromkeys(each.sop_instance_uid for each in files):
        yield uid, [each for each in files if each.sop_instance_uid == uid]


def _settle(uid: str, files: Sequence[Noted], volumes: Volumes, index: Index, *, ours: bool) -> int:
    kept = index.upkeep.settled(uid)
    if not kept and not ours:
        log.warning("instance %s is not known: its files are left alone", uid)
        return 0  # this may be another index than the one the note was written for
    gone = [each for each in files if (each.volume, each.path) not in kept]
    removed = 0
    for each in gone:
        volume = volumes[each.volume]
        volume.require()
        removed += (volume.root / each.path).exists()
        volume.remove(each.path)
    return removed
