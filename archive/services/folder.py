"""Delivering to a folder: stored objects as Part-10 files under names that a layout gives.

Rules that hold here: a name stands for a whole, durable file: bytes go to a hidden part file, are synced, renamed, and
the folder is synced before anybody is told; what is corrected or coerced on its way out is so here too; the folder
itself is never made, so that an absent mount is seen; a file that is there already is replaced by the same object only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from archive.dicom.coerce import Change
from archive.dicom.part10 import file_meta
from archive.dicom.rule import Facts
from archive.errors import ArchiveError, StorageFailed, Unreachable
from archive.index import StoredInstance, Task
from archive.services.destination import Delivered, Fate
from archive.services.hooks import Hooks, Parcel, as_sent, known_as
from archive.services.outgoing import Outgoing, Receiver, mapped, plain
from archive.services.retrieve import OpenFile
from archive.services.routing import file_name
from archive.storage.local import sync_folder

PIECE = 16 << 20  # bytes copied by one call
WRITTEN = "written"
NAME = "FOLDER"  # what rules of coercion call every folder
EVERYTHING_FAILS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE}  # not this file alone

OpenInstance = Callable[[StoredInstance], OpenFile]
Describe = Callable[[Collection[str]], "dict[str, Facts]"]  # SOP Instance UIDs -> facts for the layout

Written = tuple[StoredInstance, OSError | ArchiveError | None]


class FolderReach:
    """One folder; ``layout`` says how a task's files are called."""

    def __init__(
        self,
        root: Path,
        open_file: OpenInstance,
        describe: Describe,
        layout: Callable[[Task], str],
        *,
        outgoing: Outgoing | None = None,
        local_aet: str = "",
        hooks: Callable[[Task], Hooks | None] = lambda task: None,
    ) -> None:
        """``outgoing`` says what is to be different from the stored file; rules know this receiver as FOLDER.

        ``hooks`` is what the route of a task does to objects.
        """
        self._hooks = hooks
        self.root = root
        self._outgoing = outgoing or plain()
        self._receiver = Receiver(NAME, local_aet)
        self._open_file = open_file
        self._describe = describe
        self._layout = layout

    def open(self, wake: Callable[[], None]) -> FolderChannel:
        return FolderChannel(self, wake)

    def probe(self) -> None:
        if not self.root.is_dir():
            raise Unreachable("folder does not exist", f"{self.root}: is it mounted?")
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise Unreachable("folder cannot be written", str(self.root))

    @property
    def proof(self) -> str:
        return WRITTEN

    def missing(self, items: Sequence[StoredInstance]) -> set[str]:
        """A file that was written is durable: there is nothing to ask."""
        return set()

    def write(self, items: Sequence[tuple[Task, StoredInstance]]) -> list[Written]:
        """Write files, and make all their names durable together."""
        facts = self._describe([instance.sop_instance_uid for _, instance in items])
        folders: set[Path] = set()
        found: list[Written] = []
        for task, instance in items:
            try:
                known = facts.get(instance.sop_instance_uid, lambda keyword: "")
                self._write(Parcel(instance, self._hooks(task)), self._layout(task), known, folders)
                found.append((instance, None))
            except (OSError, ArchiveError) as error:
                found.append((instance, error))
        try:
            for folder in folders:
                sync_folder(folder)
        except OSError as error:
            return [(instance, failed or error) for instance, failed in found]
        return found

    def _write(self, parcel: Parcel, layout: str, facts: Facts, folders: set[Path]) -> None:
        with self._open_file(parcel.instance) as file:
            changes = self._outgoing.changes(parcel, self._receiver, file)
            path = self.root / file_name(layout, known_as(facts, changes))
            self._write_file(path, parcel, file, changes, folders)

    def _write_file(
        self, path: Path, parcel: Parcel, file: OpenFile, changes: Sequence[Change], folders: set[Path]
    ) -> None:
        for folder in (path.parent, *path.parent.parents):
            if folder == self.root or folder.is_dir():
                break
            folders.add(folder.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.parent / f".{secrets.token_hex(8)}.part"
        instance = as_sent(parcel.instance, parcel.hooks)
        syntax = file.transfer_syntax or instance.transfer_syntax
        try:
            if changes:
                with mapped(file) as data:
                    compose(instance, syntax, self._outgoing.changed(data, syntax, changes), part)
            else:
                copy(file, part)
            part.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        folders.add(path.parent)


class FolderChannel:
    """Writes what it is given at once; a lane's thread is its own."""

    def __init__(self, reach: FolderReach, wake: Callable[[], None]) -> None:
        self._reach = reach
        self._wake = wake
        self._results: list[Delivered] = []
        self.alive = True
        self.reason = ""

    def put(self, items: Sequence[tuple[Task, StoredInstance]]) -> None:
        try:
            self._reach.probe()
        except ArchiveError as error:
            self._die(str(error))
            return
        for instance, failed in self._reach.write(items):
            self._results.append(_delivered(instance, failed))
            if isinstance(failed, OSError) and failed.errno in EVERYTHING_FAILS:
                self._die(f"{self._reach.root}: {failed.strerror}")
        self._wake()

    def _die(self, reason: str) -> None:
        self.alive, self.reason = False, reason
        self._wake()

    def results(self) -> list[Delivered]:
        found, self._results = self._results, []
        return found

    def give_up(self) -> None:
        """Nothing is left over: what is handed over is written at once."""

    def close(self, grace: float) -> None:
        """Nothing is kept open."""


def copy(file: OpenFile, part: Path) -> None:
    """The whole Part-10 file into a new one, durably. Raises OSError or StorageFailed."""
    size, offset = file.offset + file.size, 0
    fd = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    try:
        while offset < size:
            done = os.sendfile(fd, file.fd, offset, min(PIECE, size - offset))
            if not done:
                raise StorageFailed("stored file is shorter than its entry says", str(file.path or ""))
            offset += done
        os.fdatasync(fd)
    finally:
        os.close(fd)


def compose(instance: StoredInstance, syntax: str, pieces: Iterable[bytes], part: Path) -> None:
    """A new Part-10 file of a data set that goes out otherwise than it is stored, durably."""
    meta = file_meta(instance.sop_class_uid, instance.sop_instance_uid, syntax)
    with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644), "wb") as file:
        file.write(meta)
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fdatasync(file.fileno())


def _delivered(instance: StoredInstance, error: OSError | ArchiveError | None) -> Delivered:
    if error is None:
        return Delivered(instance.sop_instance_uid, Fate.SENT, WRITTEN)
    if isinstance(error, OSError):
        return Delivered(instance.sop_instance_uid, Fate.AGAIN, f"cannot be written: {error.strerror}")
    return Delivered(instance.sop_instance_uid, Fate.AGAIN if error.temporary else Fate.REFUSED, str(error))
