"""Releasing what is in quarantine: handed to the store again, as it is or where a person says that it belongs.

Rules that hold here: what is changed is written into the object and its Original Attributes; what others decided about
the same patient or study in the index is taken over with its identity; an object that names no issuer keeps the one it
came with, unless a person names another; what is stored are the bytes that were put aside; the entry goes last.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from archive.dicom.coerce import CORRECT, Change
from archive.dicom.dictionary import vr_of
from archive.errors import ArchiveError, Conflict, Damaged
from archive.index import Index, NewInstance, Outcome, Quarantined
from archive.services.identity import ISSUER
from archive.services.quarantine import Quarantine
from archive.services.sources import Sources
from archive.services.store import Decision, Store

CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Release:
    """What a person says: whose it is, or that it belongs where the index has what it contradicts."""

    patient_id: str = ""
    issuer: str | None = None
    accept: bool = False


class Releasing:
    """Releases entries of one quarantine into one store."""

    def __init__(self, store: Store, index: Index, sources: Sources = Sources()) -> None:  # noqa: B008 - frozen
        self._store = store
        self._index = index
        self._sources = sources
        self._quarantine: Quarantine = store.quarantine

    def release(self, entry: Quarantined, how: Release = Release()) -> Outcome:  # noqa: B008 - a frozen value
        """Store an entry's object and forget the entry. Raises Conflict when it still contradicts, Damaged, …"""
        new = entry.new
        decision = Decision(self.changes(new, how), how.accept, new.received_sha256 or new.sha256)
        issuer = how.issuer if how.issuer is not None else new.header.values.get(ISSUER, "")
        origin = replace(self._sources.origin(new.source, new.address), default_issuer=issuer)
        reception = self._store.receive(
            origin, new.header.sop_class_uid, new.header.sop_instance_uid, new.transfer_syntax, decision
        )
        try:
            self._read(entry, reception.write)
            outcome = reception.finish()
        finally:
            reception.discard()
        self._quarantine.discard(entry)
        return outcome

    def _read(self, entry: Quarantined, write: Callable[[bytes], None]) -> None:
        location, sha = entry.new.location, hashlib.sha256()
        path = self._store.volume.root / entry.path
        try:
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size != location.offset + location.size:
                    raise Damaged("quarantined file is damaged", entry.path)
                file.seek(location.offset)
                while block := file.read(CHUNK):
                    sha.update(block)
                    write(block)
        except OSError as error:
            raise Damaged("quarantined file is missing", f"{entry.path}: {error.strerror}") from error
        if sha.digest() != entry.new.sha256:
            raise Damaged("quarantined file is damaged", f"{entry.path} has other content than came")

    def changes(self, new: NewInstance, how: Release) -> list[Change]:
        """What makes an object what a person says that it is."""
        if how.patient_id:
            wanted = {"PatientID": how.patient_id}
            issuer = new.header.values.get(ISSUER, "") if how.issuer is None else how.issuer
            if how.issuer is not None:
                wanted["IssuerOfPatientID"] = how.issuer
            wanted |= self._index.patient(how.patient_id, issuer)
        elif how.accept:
            wanted = self._index.belonging(new.header)
        else:
            wanted = {}
        return [Change((_TAGS[name],), vr_of(_TAGS[name]), value, CORRECT) for name, value in wanted.items()]


_TAGS: Mapping[str, int] = {
    "PatientID": 0x00100020,
    "IssuerOfPatientID": 0x00100021,
    "PatientName": 0x00100010,
    "PatientBirthDate": 0x00100030,
    "PatientSex": 0x00100040,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
}


def failed(error: ArchiveError) -> str:
    """Why an entry could not be released, and what would help."""
    if isinstance(error, Conflict):
        return f"{error.comment}: name its patient with --patient-id, or take over what is stored with --accept"
    return str(error)
