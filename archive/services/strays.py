"""Files that no row points to: what they are, and where they belong.

Rules that hold here: a file may be new, so one that is young, or came since the check began, is not judged; nothing is
thrown away but an exact copy of what is stored and whole, and never a file that a row points to by then; what comes
back comes by the store, as everything does; the rest goes to lost+found.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from archive.dicom.header import read_header
from archive.dicom.part10 import FileMeta, read_file_meta
from archive.errors import ArchiveError, Damaged, NotUnderstood
from archive.index import Index, StoredInstance
from archive.services.compression import read_said
from archive.services.integrity import LOST, Integrity, aside
from archive.services.sources import Sources
from archive.services.store import Decision, Store
from archive.storage.local import Volume

HEAD = 1 << 16
CHUNK = 1 << 18
GRACE = 60.0  # seconds in which an arriving file gets its row: several times what the index may take

_NAME = re.compile(r"objects/(\d{8}/[0-9a-f]+)/(\d{1,5})\.dcm", re.ASCII)


class Files:
    """A set of paths, some bits each: ten million take some megabytes."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._folders: defaultdict[str, int] = defaultdict(int)
        self._others: set[str] = set()
        batch: dict[str, int] = {}
        for path in paths:
            if match := _NAME.fullmatch(path):
                batch[match[1]] = batch.get(match[1], 0) | 1 << int(match[2])
            else:
                self._others.add(path)
            if len(batch) > 1000:
                self._take(batch)
        self._take(batch)

    def _take(self, batch: dict[str, int]) -> None:
        for folder, bits in batch.items():
            self._folders[folder] |= bits
        batch.clear()

    def __contains__(self, path: str) -> bool:
        match = _NAME.fullmatch(path)
        return path in self._others if match is None else bool(self._folders.get(match[1], 0) >> int(match[2]) & 1)


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a Part-10 file."""

    meta: FileMeta
    sop_instance_uid: str
    study_uid: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Stray:
    """A file that no row points to: its content, None if it is no object, and what is stored under its UID."""

    path: str
    content: Content | None
    instance: StoredInstance | None = None

    @property
    def words(self) -> str:
        if self.content is None:
            return "no DICOM object that can be read"
        if self.instance is None:
            return "an object that the index does not know"
        return "a copy of what is stored" if self.is_copy() else "other content than what is stored"

    def is_copy(self) -> bool:
        return self.content is not None and self.instance is not None and self.content.sha256 == self.instance.sha256


def walk(volume: Volume, *folders: str) -> Iterator[str]:
    """Every file below some folders of a volume, relative to its root."""
    for start in folders:
        for folder, below, names in os.walk(volume.root / start):
            below.sort()
            relative = os.path.relpath(folder, volume.root)
            yield from (f"{relative}/{name}" for name in sorted(names))


def read_content(path: Path, lenient_uids: bool = True) -> Content | None:
    """What is in a file; None for what is no object."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            meta = read_file_meta(mapped[:HEAD])
            with memoryview(mapped) as whole, whole[meta.offset :] as data:
                header = read_header(data, meta.transfer_syntax, lenient_uids=lenient_uids)
                return Content(meta, header.sop_instance_uid, header.study_uid, hashlib.sha256(data).digest())
    except (NotUnderstood, ValueError):  # an empty file cannot be mapped
        return None


class Strays:
    """Finds and settles the strays of one volume."""

    def __init__(
        self,
        index: Index,
        volume: Volume,
        integrity: Integrity,
        store: Store | None,
        clock: Callable[[], float],
        grace: float = GRACE,
        sources: Sources = Sources(),  # noqa: B008 - frozen
    ) -> None:
        self._index = index
        self.volume = volume
        self._integrity = integrity
        self._store = store
        self._clock = clock
        self._grace = grace
        self._began = clock()  # somebody may have begun to receive since, and a row comes after its file
        self._sources = sources

    def find(self) -> Iterator[Stray]:
        """Every file that has been there for a while and that no row points to."""
        known = Files(path for volume, path in self._index.upkeep.files() if volume == self.volume.name)
        for path in walk(self.volume, "objects"):
            if path not in known and self.is_old(path) and (stray := self.look(path)) is not None:
                yield stray

    def is_old(self, path: str) -> bool:
        try:
            status = os.stat(self.volume.root / path)
        except OSError:
            return False  # gone already
        return max(status.st_mtime, status.st_ctime) <= min(self._clock() - self._grace, self._began)

    def look(self, path: str) -> Stray | None:
        """What a file is; None if a row points to it after all, or if it is gone."""
        try:
            content = read_content(self.volume.root / path)
        except OSError as error:
            return None if isinstance(error, FileNotFoundError) else Stray(path, None)
        if self._index.upkeep.has_put_away(self.volume.name, path):
            return None
        instance = self._index.known(content.sop_instance_uid) if content else None
        if instance is not None and (instance.location.volume, instance.location.path) == (self.volume.name, path):
            return None
        return Stray(path, content, instance)

    # -- settle ---------------------------------------------------------------------------------

    def adopt(self, stray: Stray) -> str:
        """Give a stray back to the archive if it belongs there; what was done, in words."""
        if stray.content is None or self._contradicts(stray):
            return self.put_aside(stray)
        try:
            self._take_in(stray.path, stray.content.meta)
        except ArchiveError as error:
            if error.temporary:
                raise
            return f"{self.put_aside(stray)}: {error.comment}"
        if (self.volume.name, stray.path) in self._index.upkeep.files_of(stray.content.sop_instance_uid):
            return "has a row by now"
        self.volume.remove(stray.path)
        return "taken in" if stray.instance is None else "was there already, whole"

    def put_aside(self, stray: Stray) -> str:
        found = aside(self.volume, stray.path)
        return f"moved to {found}" if found else "gone"

    def _contradicts(self, stray: Stray) -> bool:
        """Whether other content is stored under its UID."""
        assert stray.content is not None
        if stray.instance is None:
            return False
        if self._is_received(stray):
            self._check(stray.instance)  # so that the copy takes the place of what is damaged
            return False
        return True

    def _is_received(self, stray: Stray) -> bool:
        assert stray.content is not None and stray.instance is not None
        received = self._index.upkeep.received(stray.instance)
        return stray.is_copy() or (received is not None and stray.content.sha256 == received.sha256)

    def _check(self, instance: StoredInstance) -> bool:
        try:
            self._integrity.verify(instance)
            return True
        except Damaged:
            return False

    def _take_in(self, path: str, meta: FileMeta) -> None:
        assert self._store is not None
        origin, said = self._sources.origin(meta.source), read_said(meta.private)
        decision = Decision(received_sha256=said.sha256 if said else b"")
        reception = self._store.receive(
            origin, meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax, decision
        )
        try:
            with open(self.volume.root / path, "rb") as file:
                file.seek(meta.offset)
                while block := file.read(CHUNK):
                    reception.write(block)
            reception.finish()
        finally:
            reception.discard()

    def rescue(self, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Damaged instances whose bytes are found in other files, in those of each other or in lost+found.

        Gives UID and path of each that was mended.
        """
        before = set(walk(self.volume, LOST))
        seen: set[str] = set()
        waiting = {*paths, *before}
        while waiting:
            for path in sorted(waiting):
                if uid := self._mend_from(path):
                    yield uid, path
            seen |= waiting
            # What lay in the place of a mended one may be what another one misses.
            waiting = set(walk(self.volume, LOST)) - seen
        for path in set(walk(self.volume, LOST)) - before:
            self._drop_copy(path)

    def _mend_from(self, path: str) -> str:
        """The UID of the damaged instance whose bytes a file holds, mended; nothing if it holds none."""
        stray = self.look(path)
        instance = stray.instance if stray else None
        if stray is None or stray.content is None or instance is None:
            return ""
        if not instance.damage or not self._is_received(stray):
            return ""
        self._take_in(path, stray.content.meta)
        if path.startswith(f"{LOST}/"):
            self.volume.remove(path)  # its bytes have their place again
        return instance.sop_instance_uid

    def _drop_copy(self, path: str) -> None:
        """Remove a file that was moved away just now and whose bytes have their place again."""
        stray = self.look(path)
        if stray and stray.content and stray.instance and self._is_received(stray) and self._check(stray.instance):
            self.volume.remove(path)
