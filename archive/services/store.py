"""The only way in: whoever sends and however it comes, an object becomes part of the archive here.

Rules that hold here: the stored data set is bit for bit what was received, unless a rule says otherwise, and then the
digest of what was received is kept beside its own; success is durable (bytes,
name and row are on stable storage, or in the synced journal, before `finish` returns); an object that is
refused leaves nothing behind, or a quarantine entry that says so; memory does not grow with the object.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from archive.dicom.attributes import HEADER_TAGS
from archive.dicom.coerce import Change
from archive.dicom.header import Header, read_header
from archive.dicom.part10 import file_meta
from archive.dicom.rule import header_facts
from archive.dicom.wanted import SOP_INSTANCE_UID
from archive.errors import ArchiveError, ClassMismatch, Conflict, NotUnderstood, OutOfResources, TooLarge
from archive.index import Added, Index, Location, NewInstance, NewTask, Outcome
from archive.index.upkeep import Received
from archive.services.alarms import nobody
from archive.services.causes import IMAGE, Causes, Event
from archive.services.changing import Changing
from archive.services.commit import Arrival, Committer
from archive.services.compression import said
from archive.services.identity import PATIENT_ID, identified
from archive.services.quarantine import Quarantine
from archive.services.refusals import Refusals
from archive.storage.local import Part, Volume

log = logging.getLogger(__name__)

NO_PATIENT_ID = "Patient ID is missing"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who hands an object in, and to which of our titles."""

    calling: str
    called: str = ""
    address: str = ""
    default_charset: str = ""
    default_issuer: str = ""
    local_address: str = ""
    as_is: bool = False  # it was here before: rules are not applied to it again
    own: bool = False  # the archive itself has made it: it is no arrival for its study


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided about an object that was put aside, and is handed in again."""

    changes: Sequence[Change] = ()
    accept: bool = False  # the newer of two contents is what is found, the older is kept beside it
    received_sha256: bytes = b""  # of the object as it came first


@dataclass(frozen=True, slots=True)
class Rules:
    """What is accepted; the values of the configuration that concern receiving."""

    max_instance_size: int
    on_conflict: str = "quarantine"
    on_duplicate: str = "keep"
    on_missing_patient_id: str = "create"
    lenient_uids: bool = True
    wanted: Collection[int] = ()


class Store:
    """Receives objects into one volume and one index; thread-safe."""

    def __init__(
        self,
        *,
        volume: Volume,
        index: Index,
        committer: Committer,
        rules: Rules,
        clock: Callable[[], float],
        causes: Causes | None = None,
        mend: Callable[[NewInstance], bool] = lambda new: False,
        changing: Changing | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        """``changing`` is what rules make of an object before it is stored.

        ``mend`` lets a copy of what is stored already stand for a damaged file, and says whether it was needed.
        """
        self.volume = volume
        self.index = index
        self.committer = committer
        self.rules = rules
        self.clock = clock
        self.causes = causes or Causes()
        self.mend = mend
        self.changing = changing or Changing("ARCHIVE", clock)
        self.quarantine = Quarantine(volume, index)
        self.refusals = refusals or Refusals(nobody)

    def receive(
        self,
        origin: Origin,
        sop_class: str,
        sop_instance: str,
        transfer_syntax: str,
        decision: Decision | None = None,
    ) -> Reception:
        """Begin to receive one object. Raises OutOfResources when nothing can be stored now."""
        try:
            self.volume.check()
        except ArchiveError as error:
            self.refusals.refused(error, origin.calling)
            raise
        return Reception(self, origin, sop_class, sop_instance, transfer_syntax, decision)


class Reception:
    """One object on its way in: `write` its data set piece by piece, then `finish` or `discard`."""

    def __init__(
        self,
        store: Store,
        origin: Origin,
        sop_class: str,
        sop_instance: str,
        transfer_syntax: str,
        decision: Decision | None = None,
    ) -> None:
        self._store = store
        self._origin = origin
        self._decision = decision
        self._received_sha256 = decision.received_sha256 if decision else b""
        self.study_uid = ""  # once its header was read
        self._sop_class = sop_class
        self._sop_instance = sop_instance
        self._transfer_syntax = transfer_syntax
        self._sha = hashlib.sha256()
        self._buffer = bytearray()
        self._part: Part | None = None
        self._size = 0
        self._error: ArchiveError | None = None
        self._prefix = b""

    def write(self, fragment: memoryview | bytes) -> None:
        """Take the next bytes of the data set. A fault is kept for `finish`, so that the sender can end in order."""
        if self._error is not None:
            return
        self._size += len(fragment)
        if self._size > self._store.rules.max_instance_size:
            self._fail(TooLarge("instance is too large", f"limit is {self._store.rules.max_instance_size} bytes"))
            return
        self._sha.update(fragment)
        if self._part is None and self._size <= self._store.committer.largest_in_journal:
            self._buffer += fragment
        else:
            self._write_part(fragment)

    def _write_part(self, fragment: memoryview | bytes) -> None:
        try:
            if self._part is None:
                self._store.volume.check(self._size)
                self._part = self._store.volume.part()
                self._part.write([self._file_meta(), self._buffer])
                self._buffer = bytearray()
            self._part.write([fragment])
        except OSError as error:
            self._fail(self._store.volume.failed(error))
        except ArchiveError as error:
            self._fail(error)

    def _file_meta(self) -> bytes:
        if not self._prefix:
            self._prefix = file_meta(
                self._sop_class,
                self._sop_instance,
                self._transfer_syntax,
                source=self._origin.calling,
                private=self._said() if self._received_sha256 else b"",
            )
        return self._prefix

    def _said(self) -> bytes:
        """What came, for the file of what was made of it: the index may be lost."""
        origin, when = self._origin, self._store.clock()
        return said(Received(origin.calling, origin.address, when, self._received_sha256, self._transfer_syntax))

    def _fail(self, error: ArchiveError) -> None:
        self.discard()
        self._error = error

    def discard(self) -> None:
        """Leave nothing behind."""
        self._buffer = bytearray()
        if self._part:
            self._part.discard()
            self._part = None

    def finish(self) -> Outcome:
        """Make the object part of the archive: STORED, or EQUAL when the very same bytes are there already.

        Raises NotUnderstood, ClassMismatch, Conflict, TooLarge or OutOfResources; then it is not.
        """
        try:
            outcome = self._finish()
        except ArchiveError as error:
            self._store.refusals.refused(error, self._origin.calling)
            raise
        finally:
            self.discard()
        self._store.refusals.stored()
        return outcome

    def _finish(self) -> Outcome:
        if self._error:
            raise self._error
        header = self._read_header()
        self.study_uid = header.study_uid
        self._check(header)
        if self._decision is not None or (self._store.changing.on_receive and not self._origin.as_is):
            header = self._changed(header)
            self.study_uid = header.study_uid
        return self._commit(identified(header, self._origin.default_issuer))

    def _read_header(self) -> Header:
        if self._size == 0:
            raise NotUnderstood("data set is empty")
        if self._part is None:
            return self._gate(self._buffer)
        with self._data() as data:
            return self._gate(data)

    @contextmanager
    def _data(self) -> Iterator[bytearray | memoryview]:
        """The data set, in memory or mapped."""
        if self._part is None:
            yield self._buffer
            return
        # Not closed but dropped: the traceback of whoever could not read it may still hold slices of it.
        yield memoryview(_mapped(self._part.fd))[len(self._prefix) :]

    def _gate(self, data: bytearray | memoryview) -> Header:
        """The header; an attribute that only this site indexes never is a reason to refuse an object."""
        wanted = self._store.rules.wanted
        try:
            return self._header(data, wanted)
        except NotUnderstood:
            if not frozenset(wanted) > HEADER_TAGS:
                raise
            return self._header(data, HEADER_TAGS)

    def _header(self, data: bytearray | memoryview, wanted: Collection[int]) -> Header:
        return read_header(
            data,
            self._transfer_syntax,
            wanted,
            default_charset=self._origin.default_charset,
            lenient_uids=self._store.rules.lenient_uids,
        )

    def _check(self, header: Header) -> None:
        if header.sop_class_uid != self._sop_class:
            raise ClassMismatch("SOP Class UID of command and data set differ")
        if header.sop_instance_uid != self._sop_instance:
            raise ClassMismatch("SOP Instance UID of command and data set differ")

    def _changed(self, header: Header) -> Header:
        """Let rules and decisions change the object, if they do; the header of what it is then."""
        changing, decision = self._store.changing, self._decision
        with self._data() as data:
            more = decision.changes if decision else ()
            changes = changing.incoming(self._origin, header, data, self._transfer_syntax, more)
            if not changes:
                return header
            charset, source = self._origin.default_charset, self._origin.calling
            self._rewrite(changing.changed(data, self._transfer_syntax, changes, source, charset), changes)
        return self._read_header()

    def _rewrite(self, pieces: Iterator[bytes], changes: Sequence[Change]) -> None:
        """Put the changed object in the place of the received one, whose digest is kept."""
        received, before = self._sha.digest(), self._part
        for change in changes:
            if change.path == (SOP_INSTANCE_UID,) and change.value:
                self._sop_instance = change.value
        self._received_sha256 = self._received_sha256 or received
        self._sha, self._size, self._prefix = hashlib.sha256(), 0, b""
        self._part, self._buffer = None, bytearray()
        try:
            for piece in pieces:
                self.write(piece)
        finally:
            if before:
                before.discard()
        if self._error:
            raise self._error
        if self._sha.digest() == self._received_sha256:
            self._received_sha256 = b""

    def _commit(self, header: Header) -> Outcome:
        store, prefix = self._store, self._file_meta()
        path, digest = store.volume.new_path(), self._sha.digest()
        received = store.clock()
        new = NewInstance(
            header=header,
            location=Location(store.volume.name, path, len(prefix), self._size),
            transfer_syntax=self._transfer_syntax,
            sha256=digest,
            source=self._origin.calling,
            address=self._origin.address,
            received=received,
            tasks=self._tasks(header, received),
            policy=store.rules.on_duplicate if not (self._decision and self._decision.accept) else "version",
            accept=store.rules.on_conflict == "accept",
            received_sha256=self._received_sha256 if self._received_sha256 != digest else b"",
            known=self._origin.own,
        )
        if store.rules.on_missing_patient_id != "create" and not header.values.get(PATIENT_ID):
            self._refuse_nobody(new)
        return self._settle(new, store.committer.commit(self._arrival(new)))

    def _tasks(self, header: Header, received: float) -> tuple[NewTask, ...]:
        """What the arrival causes, as rows of its transaction."""
        causes = self._store.causes
        if not causes.has(IMAGE):
            return ()
        origin = self._origin
        words = {
            "CallingAETitle": origin.calling,
            "CalledAETitle": origin.called,
            "CallingAddress": origin.address,
            "TransferSyntaxUID": self._transfer_syntax,
        }
        return causes.tasks(
            Event(
                IMAGE,
                header_facts(header.values, words),
                received,
                study_uid=header.study_uid,
                series_uid=header.series_uid,
                sop_instance_uid=header.sop_instance_uid,
            )
        )

    def _arrival(self, new: NewInstance) -> Arrival:
        if self._part is None:
            return Arrival(new, pieces=(self._prefix, self._buffer))
        self._store.volume.sync_part(self._part)
        part, self._part = self._part, None
        return Arrival(new, part=part)

    def _settle(self, new: NewInstance, added: Added) -> Outcome:
        """What became of it; an object that contradicts the index goes where `on_conflict` says."""
        volume = self._store.volume
        if added.outcome is Outcome.STORED:
            if added.replaced is not None and added.replaced.volume == volume.name:
                volume.remove(added.replaced.path)
            return added.outcome
        if added.outcome is Outcome.EQUAL:
            if not self._store.mend(new):
                volume.remove(new.location.path)
                if self._store.index.known(new.header.sop_instance_uid) is None:
                    raise OutOfResources("instance was deleted at this moment", new.header.sop_instance_uid)
            return added.outcome
        reason = added.reason or "same SOP Instance UID, other content"
        if self._store.rules.on_conflict == "quarantine" and self._decision is None:
            self._store.quarantine.put(new, reason)
        else:
            volume.remove(new.location.path)
        raise Conflict(reason)

    def _refuse_nobody(self, new: NewInstance) -> None:
        """An object without Patient ID where that is not accepted."""
        if self._store.rules.on_missing_patient_id == "quarantine" and self._decision is None:
            if self._part is None:
                self._part = self._store.volume.part()
                self._part.write([self._prefix, self._buffer])
            self._store.volume.sync_part(self._part)
            part, self._part = self._part, None
            self._store.quarantine.put_part(new, part, NO_PATIENT_ID)
        raise Conflict(NO_PATIENT_ID)


def _mapped(fd: int) -> mmap.mmap:
    """The file as memory; a process whose address space is limited may have no room for a large one now."""
    try:
        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise OutOfResources("out of memory", error.strerror or "") from error
