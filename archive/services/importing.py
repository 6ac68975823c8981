"""Importing folders, ZIPs and media: every file through the same store as everything else, and on where it stopped.

Rules that hold here: a file that was taken in is written down before the next one is begun, and a
file is recognised by path, size and time of change; an import that ends forgets its notes; links are not
followed, so an import reads nothing outside its folder. Of a medium with a DICOMDIR the files are taken that it names,
of a ZIP those that are DICOM objects.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from archive.dicom.directory import DIRECTORY
from archive.dicom.part10 import read_file_meta
from archive.errors import ArchiveError, NotUnderstood
from archive.index import Outcome
from archive.services.media import UNREADABLE, Absent, Member, Zips, dicomdir_of, is_zip, members, referenced
from archive.services.store import Origin, Store

HEAD = 1 << 16  # bytes to look for the file meta information in: hundreds are usual
CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one file: STORED, EQUAL, or None with the reason; what is no object in a ZIP is skipped."""

    path: Path
    outcome: Outcome | None
    reason: str = ""
    skipped: bool = False


Item = Path | Member | Absent


class _NoObject(NotUnderstood):
    """A file that is no DICOM object at all."""


class Import:
    """One run over one or more folders or files."""

    def __init__(
        self, store: Store, origin: Origin, paths: Iterable[Path], *, notes: Path, use_dicomdir: bool = True
    ) -> None:
        """`notes` is the folder that remembers what earlier, interrupted runs over the same paths have done.

        Without `use_dicomdir` every file of a medium is taken.
        """
        self._store = store
        self._origin = origin
        self._paths = [Path(os.path.abspath(path)) for path in paths]
        name = hashlib.sha256("\0".join(map(str, self._paths)).encode("utf-8", "surrogateescape")).hexdigest()
        self._notes = notes / f"{name[:16]}.import"
        self._done = self._read_notes()
        self._use_dicomdir = use_dicomdir
        self._zips = Zips()
        self.unreadable: list[str] = []

    def files(self) -> list[Item]:
        """What is still to be imported, in the order of their names; `unreadable` names what could not be looked into.
        """
        return [item for item in self._items() if _mark(item) not in self._done]

    def run(self, files: Iterable[Item]) -> Iterator[Imported]:
        self._notes.parent.mkdir(parents=True, exist_ok=True)
        with open(self._notes, "a", encoding="utf-8", errors="surrogateescape") as notes:
            try:
                for item in files:
                    imported = self._import(item)
                    yield imported
                    # A refused file is tried, and named, again by the next run.
                    if imported.outcome is not None:
                        notes.write(_mark(item) + "\n")
                        notes.flush()
            finally:
                self._zips.close()
        self._notes.unlink()

    def _items(self) -> Iterator[Item]:
        for start in self._paths:
            try:
                yield from self._items_of(start)
            except ArchiveError as error:
                self.unreadable.append(f"{start}: {error.comment}")

    def _items_of(self, start: Path) -> Iterator[Item]:
        if self._use_dicomdir and (dicomdir := dicomdir_of(start)) is not None:
            yield from referenced(dicomdir)
            return
        for path in self._walk(start):
            if not is_zip(path):
                yield path
                continue
            try:
                yield from members(path)
            except ArchiveError as error:
                self.unreadable.append(f"{path}: {error.comment}")

    def _walk(self, start: Path) -> Iterator[Path]:
        if start.is_file():
            yield start
            return
        for folder, folders, names in os.walk(start, onerror=self._note_unreadable):
            folders.sort()
            yield from (
                path for name in sorted(names) if (path := Path(folder, name)).is_file() and not path.is_symlink()
            )

    def _note_unreadable(self, error: OSError) -> None:
        self.unreadable.append(f"{error.filename}: {error.strerror}")

    def _read_notes(self) -> set[str]:
        try:
            return set(self._notes.read_text("utf-8", "surrogateescape").split("\n"))
        except FileNotFoundError:
            return set()

    def _import(self, item: Item) -> Imported:
        if isinstance(item, Absent):
            return Imported(item.path, None, item.reason)
        path = item if isinstance(item, Path) else item.path
        try:
            return Imported(path, self._stored(item))
        except _NoObject as error:
            return Imported(path, None, error.comment, skipped=isinstance(item, Member))
        except ArchiveError as error:
            if error.temporary:
                raise
            return Imported(path, None, error.comment)
        except OSError as error:
            return Imported(path, None, error.strerror or "cannot be read")

    def _stored(self, item: Path | Member) -> Outcome:
        if isinstance(item, Path):
            with open(item, "rb") as file:
                return self._store_file(file)
        try:
            with self._zips.open(item) as member:
                return self._store_file(member)
        except UNREADABLE as error:
            raise NotUnderstood("member of the ZIP cannot be read") from error

    def _store_file(self, file: IO[bytes]) -> Outcome:
        head = _head(file)
        try:
            meta = read_file_meta(head)
        except NotUnderstood as error:
            raise _NoObject(error.comment) from error
        if meta.sop_class_uid == DIRECTORY:
            raise _NoObject("a DICOMDIR is no object")
        if not meta.sop_class_uid or not meta.sop_instance_uid:
            raise NotUnderstood("no SOP class or instance UID")
        reception = self._store.receive(self._origin, meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax)
        try:
            reception.write(head[meta.offset :])
            while block := file.read(CHUNK):
                reception.write(block)
            return reception.finish()
        finally:
            reception.discard()


def _head(file: IO[bytes]) -> bytes:
    """The beginning; what unpacks gives less at a time than it is asked for."""
    head = b""
    while len(head) < HEAD and (block := file.read(HEAD - len(head))):
        head += block
    return head


def _mark(item: Item) -> str:
    """A file as the notes know it; one that is gone has no size."""
    if isinstance(item, Member):
        return item.mark
    path = item if isinstance(item, Path) else item.path
    try:
        status = path.stat()
    except OSError:
        return str(path)
    return f"{status.st_size} {status.st_mtime_ns} {str(path).encode('unicode_escape', 'surrogateescape').decode()}"
