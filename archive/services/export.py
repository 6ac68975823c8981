"""Export: stored objects as files of a folder or a ZIP, with a DICOMDIR if it is wanted.

Rules that hold here: what goes out is what a receiver would get, corrections and coercion on send included, under new
meta information; an object is read again and compared with its digest before it goes; one that cannot go is named, and
the others go on; a name stands for a whole, durable file; an existing file is replaced only by force, and one that
says the same is left as it is.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import BinaryIO, Protocol

from archive.dicom.convert import convert, converted
from archive.dicom.directory import NAME, Directory, header_of
from archive.dicom.part10 import file_meta
from archive.dicom.rule import Facts
from archive.dicom.stored import take_apart
from archive.dicom.uids import EXPLICIT_LITTLE, IMPLICIT_LITTLE, transfer_syntax
from archive.errors import ArchiveError, StorageFailed
from archive.index import StoredInstance
from archive.services.folder import EVERYTHING_FAILS
from archive.services.integrity import Integrity
from archive.services.outgoing import Outgoing, Receiver, mapped
from archive.services.retrieve import OpenFile
from archive.services.routing import file_name
from archive.services.sendable import Codec

CHUNK = 1 << 20
GROUP = 100  # objects whose names are looked up together
KEEP = "keep"
WALKED = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)  # looked through in place; others would have to be unpacked first
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # PS3.10 8.5, without the underscore

Pieces = Iterable[bytes | memoryview]
Describe = Callable[[Collection[str]], "dict[str, Facts]"]  # SOP Instance UIDs -> facts for the layout


class Fate(Enum):
    WRITTEN = "written"
    LEFT = "already there"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of one object, or of the DICOMDIR."""

    sop_instance_uid: str
    name: str
    fate: Fate
    reason: str = ""


class Moment:
    """The time that exported objects tell: that of their file, so that the same object becomes the same file again."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._fixed = 0.0

    def __call__(self) -> float:
        return self._fixed or self.now()

    def now(self) -> float:
        """In steps of two seconds, which every file system can keep."""
        return float(int(self._clock()) & ~1)

    def fix(self, moment: float) -> None:
        self._fixed = moment


class Contents:
    """What the file of an object has in it."""

    def __init__(
        self,
        open_file: Callable[[StoredInstance], OpenFile],
        integrity: Integrity,
        codec: Codec,
        outgoing: Outgoing | None,
        receiver: Receiver,
        syntax: str = KEEP,
    ) -> None:
        """``outgoing`` and ``receiver`` are as for a sender; ``syntax`` is a transfer syntax, or keep."""
        self._open_file = open_file
        self._integrity = integrity
        self._codec = codec
        self._outgoing = outgoing
        self._receiver = receiver
        self._syntax = syntax

    @contextmanager
    def of(self, instance: StoredInstance) -> Iterator[tuple[str, Pieces]]:
        """Its transfer syntax and the bytes of its file, for one reading. Raises ArchiveError, at the latest then."""
        if not instance.damage:
            self._integrity.verify(instance)
        with ExitStack() as stack:
            file = stack.enter_context(self._open_file(instance))
            syntax, pieces = self._data(instance, file, stack)
            meta = file_meta(
                instance.sop_class_uid, instance.sop_instance_uid, syntax, source=self._receiver.local_aet
            )
            yield syntax, chain((meta,), pieces)

    def _data(self, instance: StoredInstance, file: OpenFile, stack: ExitStack) -> tuple[str, Pieces]:
        stored = file.transfer_syntax or instance.transfer_syntax
        target = stored if self._syntax == KEEP else self._syntax
        changes = self._outgoing.changes(instance, self._receiver, file) if self._outgoing else ()
        if target != stored and transfer_syntax(stored).uncompressed and transfer_syntax(target).uncompressed:
            data = stack.enter_context(mapped(file))
            if self._outgoing is None or not changes:
                return target, convert(data, stored, target)
            return target, converted(self._outgoing.changed(data, stored, changes), stored, target)
        if target != stored:
            file, stored = self._transcoded(file, stored, target, stack)
        if self._outgoing is None or not changes:
            return stored, _read(file)
        return stored, self._outgoing.changed(stack.enter_context(mapped(file)), stored, changes)

    def _transcoded(self, file: OpenFile, stored: str, target: str, stack: ExitStack) -> tuple[OpenFile, str]:
        if stored in WALKED and not _has_pixels(file, stored):
            return file, stored  # a report, say: there is nothing to compress in it
        coded = stack.enter_context(self._codec.transcode(file.link, [target]))
        fd = os.open(coded.path, os.O_RDONLY | os.O_CLOEXEC)
        return stack.enter_context(OpenFile(fd, coded.offset, coded.size)), coded.transfer_syntax


def _has_pixels(file: OpenFile, syntax: str) -> bool:
    with mapped(file) as data:
        return take_apart(data, syntax).pixels is not None


def _read(file: OpenFile) -> Iterator[bytes]:
    position, end = file.offset, file.offset + file.size
    while position < end:
        block = os.pread(file.fd, min(CHUNK, end - position), position)
        if not block:
            raise StorageFailed("stored file is shorter than its entry says", str(file.path or ""))
        position += len(block)
        yield block


class Target(Protocol):
    """Where files go; a context manager that is left by an exception when nothing more will come."""

    def moment(self, name: str) -> float | None:
        """When the file of this name was made; None if there is none."""

    def same(self, name: str, pieces: Pieces) -> bool:
        """Whether the file of this name has these bytes."""

    def write(self, name: str, pieces: Pieces, moment: float, *, packed: bool, look: Look | None) -> None:
        """One file; ``packed`` bytes cannot be made smaller, ``look`` may refuse it before it has its name."""

    def read(self, name: str) -> BinaryIO | None:
        """The file of this name, if there is one."""

    def sync(self) -> None:
        """Make durable what was written."""


Look = Callable[[BinaryIO], None]


class Export:
    """One run to one target."""

    def __init__(
        self,
        target: Target,
        contents: Contents,
        moment: Moment,
        *,
        describe: Describe,
        layout: str = "",
        directory: bool = False,
        force: bool = False,
    ) -> None:
        """Files are called by ``layout``, or by file IDs that a DICOMDIR can name."""
        self._target = target
        self._contents = contents
        self._moment = moment
        self._describe = describe
        self._layout = layout
        self._directory = Directory() if directory else None
        self._force = force
        self._taken: set[str] = set()

    def run(self, instances: Iterable[StoredInstance]) -> Iterator[Exported]:
        """Raises OSError when nothing more can be written."""
        for group in _grouped(instances):
            facts = {} if self._directory else self._describe([each.sop_instance_uid for each in group])
            for instance in group:
                known = facts.get(instance.sop_instance_uid, lambda keyword: "")
                yield self._export(instance, self._name(instance, known))
        self._target.sync()
        if self._directory is not None and self._taken:
            yield self._list()

    def _name(self, instance: StoredInstance, known: Facts) -> str:
        if self._directory is None:
            return file_name(self._layout, known)
        series = f"S{_short(instance.study_uid)}/E{_short(instance.series_uid)}"
        names = (f"{series}/I{_short(instance.sop_instance_uid, number)}" for number in range(100))
        return next(name for name in names if name not in self._taken)

    def _export(self, instance: StoredInstance, name: str) -> Exported:
        uid = instance.sop_instance_uid
        if name in self._taken:
            return Exported(uid, name, Fate.FAILED, "the layout gives it the name of another object")
        self._taken.add(name)
        try:
            return Exported(uid, name, self._put(instance, name))
        except ArchiveError as error:
            return Exported(uid, name, Fate.FAILED, str(error))
        except OSError as error:
            if error.errno in EVERYTHING_FAILS:
                raise
            return Exported(uid, name, Fate.FAILED, error.strerror or "cannot be written")

    def _put(self, instance: StoredInstance, name: str) -> Fate:
        look = self._listed(name) if self._directory is not None else None
        there = self._target.moment(name)
        if there is not None:
            self._moment.fix(there)
            with self._contents.of(instance) as (_, pieces):
                same = self._target.same(name, pieces)
            if same:
                return self._left(name, look)
            if not self._force:
                raise FileExistsError(0, "another file of this name is there")
        self._moment.fix(now := self._moment.now())
        with self._contents.of(instance) as (syntax, pieces):
            packed = transfer_syntax(syntax).encapsulated or transfer_syntax(syntax).deflated
            self._target.write(name, pieces, now, packed=packed, look=look)
        return Fate.WRITTEN

    def _left(self, name: str, look: Look | None) -> Fate:
        if look is not None and (file := self._target.read(name)) is not None:
            with file:
                look(file)
        return Fate.LEFT

    def _listed(self, name: str) -> Look:
        def look(file: BinaryIO) -> None:
            assert self._directory is not None
            self._directory.add(header_of(file), name.split("/"))

        return look

    def _list(self) -> Exported:
        """Write the DICOMDIR; an older one goes when the new one lists all that it lists."""
        assert self._directory is not None
        if self._directory.empty:
            return Exported("", NAME, Fate.FAILED, "nothing to list")
        encoded = self._directory.encoded()
        if self._target.moment(NAME) is not None:
            if self._target.same(NAME, (encoded,)):
                return Exported("", NAME, Fate.LEFT)
            if not self._force and not self._covers():
                return Exported("", NAME, Fate.FAILED, "there is one that lists other files")
        self._target.write(NAME, (encoded,), self._moment.now(), packed=False, look=None)
        self._target.sync()
        return Exported("", NAME, Fate.WRITTEN)

    def _covers(self) -> bool:
        assert self._directory is not None
        file = self._target.read(NAME)
        if file is None:
            return False
        with file:
            return self._directory.lists_all_of(file)


def _grouped(instances: Iterable[StoredInstance]) -> Iterator[list[StoredInstance]]:
    group: list[StoredInstance] = []
    for instance in instances:
        group.append(instance)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group


def _short(uid: str, number: int = 0) -> str:
    """Seven characters for a UID: the same each time, so that an export can be repeated; ``number`` gives others."""
    rest = int.from_bytes(hashlib.sha256(f"{uid} {number}".encode("ascii", "replace")).digest()[:8], "big")
    text = ""
    for _ in range(7):
        rest, digit = divmod(rest, len(_DIGITS))
        text += _DIGITS[digit]
    return text
