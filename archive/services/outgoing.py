"""What is changed in an object on its way out, for whoever receives it.

Rules that hold here: the stored file stays as it is; each source of changes looks at one object and one receiver and
says what is to be different, later sources having the last word; a source that has nothing to say costs next to
nothing, because it is asked for every object that is sent; without changes the file goes out as it is stored.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from archive.dicom.coerce import Change, OriginalAttributes, changed, moment
from archive.dicom.elements import Buffer
from archive.services.hooks import Changes, Deidentify, Hooks, Parcel, hooks_of
from archive.services.retrieve import OpenFile
from archive.services.sendable import Sendable


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who gets it, under which of our titles, over which connection."""

    aet: str
    local_aet: str = ""
    address: str = ""
    local_address: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """One object on its way to one receiver; ``mapped`` gives its data set to sources that have to read it."""

    instance: Sendable
    receiver: Receiver
    file: OpenFile
    so_far: Sequence[Change] = ()  # what earlier sources said
    hooks: Hooks | None = None  # of the route that sends it

    @contextmanager
    def mapped(self) -> Iterator[memoryview]:
        with mapped(self.file) as data:
            yield data


Source = Callable[[Subject], Sequence[Change]]


class Outgoing:
    """Asked by the sender for every object; thread-safe as its sources are."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        system: str,
        clock: Callable[[], float],
        sent: Callable[[Subject, bool], Sequence[Change]] | None = None,
    ) -> None:
        """``system`` is what Original Attributes names as the one that changed something.

        ``sent`` is asked last, and told whether the others change anything: what it writes is about the sending.
        """
        self._sources = tuple(sources)
        self._sent = sent
        self._system = system
        self._clock = clock

    def changes(self, instance: Sendable, receiver: Receiver, file: OpenFile) -> Sequence[Change]:
        """What is to be different from the file; nothing for most objects."""
        hooks = hooks_of(instance)
        instance = instance.instance if isinstance(instance, Parcel) else instance
        found: list[Change] = []
        if self._sources or self._sent:
            for source in self._sources:
                found += source(Subject(instance, receiver, file, tuple(found), hooks))
            if self._sent is not None:
                found += self._sent(Subject(instance, receiver, file), bool(found))
        if hooks is not None and hooks.deidentify is not None:
            return self._deidentified(instance, file, found, hooks.deidentify)
        return found

    def _deidentified(
        self, instance: Sendable, file: OpenFile, found: Sequence[Change], wanted: Deidentify
    ) -> Sequence[Change]:
        """Read it once from end to end: whose it is, and that nothing can go wrong when it is on its way."""
        syntax = file.transfer_syntax or instance.transfer_syntax
        with mapped(file) as data:
            seen = wanted.by.look(changed(data, syntax, found), syntax)
        wanted.check(instance.sop_class_uid, seen)
        return Changes(found, wanted.by, wanted.by.person(seen))

    def changed(self, data: Buffer, transfer_syntax: str, changes: Sequence[Change]) -> Iterator[bytes]:
        """The data set as it goes out. Raises NotUnderstood before the first byte."""
        if isinstance(changes, Changes):
            return changes.finished(changed(data, transfer_syntax, changes), transfer_syntax)
        original = OriginalAttributes(self._system, moment(self._clock()))
        return changed(data, transfer_syntax, changes, original=original)


def plain() -> Outgoing:
    """One that changes nothing but what the route of an object asks for itself."""
    return Outgoing((), system="", clock=float)


@contextmanager
def mapped(file: OpenFile) -> Iterator[memoryview]:
    """The data set of a file as memory that the kernel pages in and out."""
    if file.size == 0:
        yield memoryview(b"")
        return
    # Not closed but dropped: the traceback of whoever could not read it may still hold slices of it.
    yield memoryview(mmap.mmap(file.fd, file.offset + file.size, access=mmap.ACCESS_READ))[file.offset :]
