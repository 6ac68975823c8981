"""Importing folders: every file through the same store as everything else, and on from where it stopped.

Rules that hold here: a file that was taken in is written down before the next one is begun, and a
file is recognised by path, size and time of change; an import that ends forgets its notes; links are not
followed, so an import reads nothing outside its folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from archive.dicom.part10 import read_file_meta
from archive.errors import ArchiveError, NotUnderstood
from archive.index import Outcome
from archive.services.store import Origin, Store

HEAD = 1 << 16  # bytes to look for the file meta information in: hundreds are usual
CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one file: STORED, EQUAL, or None with the reason."""

    path: Path
    outcome: Outcome | None
    reason: str = ""


class Import:
    """One run over one or more folders or files."""

    def __init__(self, store: Store, origin: Origin, paths: Iterable[Path], *, notes: Path) -> None:
        """`notes` is the folder that remembers what earlier, interrupted runs over the same paths have done."""
        self._store = store
        self._origin = origin
        self._paths = [Path(os.path.abspath(path)) for path in paths]
        name = hashlib.sha256("\0".join(map(str, self._paths)).encode("utf-8", "surrogateescape")).hexdigest()
        self._notes = notes / f"{name[:16]}.import"
        self._done = self._read_notes()
        self.unreadable: list[str] = []

    def files(self) -> list[Path]:
        """What is still to be imported, in the order of their names; `unreadable` names the folders that were not."""
        return [path for path in self._walk() if _mark(path) not in self._done]

    def run(self, files: Iterable[Path]) -> Iterator[Imported]:
        self._notes.parent.mkdir(parents=True, exist_ok=True)
        with open(self._notes, "a", encoding="utf-8", errors="surrogateescape") as notes:
            for path in files:
                imported = self._import(path)
                yield imported
                # A refused file is tried, and named, again by the next run.
                if imported.outcome is not None:
                    notes.write(_mark(path) + "\n")
                    notes.flush()
        self._notes.unlink()

    def _walk(self) -> Iterator[Path]:
        for start in self._paths:
            if start.is_file():
                yield start
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

    def _import(self, path: Path) -> Imported:
        try:
            with open(path, "rb") as file:
                return Imported(path, self._store_file(file))
        except OSError as error:
            return Imported(path, None, error.strerror or "cannot be read")
        except ArchiveError as error:
            if error.temporary:
                raise
            return Imported(path, None, error.comment)

    def _store_file(self, file: BinaryIO) -> Outcome:
        head = file.read(HEAD)
        meta = read_file_meta(head)
        if not meta.sop_class_uid or not meta.sop_instance_uid:
            raise NotUnderstood("no SOP class or instance UID")
        reception = self._store.receive(self._origin, meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax)
        try:
            file.seek(meta.offset)
            while block := file.read(CHUNK):
                reception.write(block)
            return reception.finish()
        finally:
            reception.discard()


def _mark(path: Path) -> str:
    """A file as the notes know it; one that is gone has no size."""
    try:
        status = path.stat()
    except OSError:
        return str(path)
    return f"{status.st_size} {status.st_mtime_ns} {str(path).encode('unicode_escape', 'surrogateescape').decode()}"
