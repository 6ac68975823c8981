"""The quarantine: objects that were refused and are kept aside until a person has decided.

Rules that hold here: the file comes before its row, and a refusal is answered after both; a file whose row failed goes
again, one whose row a crash took is given another; a release goes through the store like every arrival and then the
entry is forgotten, so that a crash in between leaves the object twice and never nowhere.
"""

from __future__ import annotations

import logging
import mmap
import secrets
from collections.abc import Mapping

from archive.dicom.header import read_header
from archive.dicom.part10 import read_file_meta
from archive.errors import ArchiveError, IndexUnavailable, NotUnderstood
from archive.index import Index, Location, NewInstance, Quarantined
from archive.services.identity import identified
from archive.services.record import digest
from archive.storage.local import Part, Volume

log = logging.getLogger(__name__)

FOLDER = "quarantine"
HEAD = 1 << 16  # bytes to look for the file meta information in
FOUND = "found in quarantine without an entry"
PAGE = 1000

_NONE: Mapping[str, str] = {}


class Quarantine:
    """What is aside, in one volume and one index; thread-safe."""

    def __init__(self, volume: Volume, index: Index) -> None:
        self._volume = volume
        self._index = index

    # -- putting aside --------------------------------------------------------------------------

    def put(self, new: NewInstance, reason: str) -> int:
        """Move a file that has no row aside; durable when it returns. Raises StorageFailed, IndexUnavailable.

        What is aside already costs no second file: senders try again and again.
        """
        if key := self._known(new):
            self._volume.remove(new.location.path)
            return key
        return self._note(new, self._volume.quarantine(new.location.path), reason)

    def put_part(self, new: NewInstance, part: Part, reason: str) -> int:
        """The same for a synced part that has no name yet."""
        if key := self._known(new):
            part.discard()
            return key
        path = f"{FOLDER}/{secrets.token_hex(12)}.dcm"
        self._volume.place(part, path)
        return self._note(new, path, reason)

    def _known(self, new: NewInstance) -> int:
        """The entry of the very same object from the same sender, if its file is there; 0 for none."""
        digest = new.received_sha256 or new.sha256
        for entry in self._index.quarantined_instances(new.header.sop_instance_uid, digest):
            same = (entry.new.received_sha256 or entry.new.sha256) == digest and entry.new.source == new.source
            if same and self.is_there(entry):
                return entry.id
        return 0

    def _note(self, new: NewInstance, path: str, reason: str) -> int:
        try:
            key = self._index.quarantine(new, path, reason)
        except ArchiveError:
            key = self._after_failure(path)
            if not key:
                raise
        log.warning("instance %s from %s quarantined: %s", new.header.sop_instance_uid, new.source, reason)
        return key

    def _after_failure(self, path: str) -> int:
        """The entry if it was written all the same; else the file goes. Nobody can tell while the index is silent."""
        try:
            key = self._index.quarantine_key(path)
        except IndexUnavailable:
            return 0  # the next start gives the file an entry
        if not key:
            self._volume.remove(path)
        return key

    # -- what a crash left ----------------------------------------------------------------------

    def adopt(self, issuers: Mapping[str, str] = _NONE) -> int:
        """Give every file without an entry one; return how many. For the start, before anything is served.

        ``issuers`` are those of sources whose objects name none.
        """
        found = 0
        for path in sorted((self._volume.root / FOLDER).glob("*.dcm")):
            name = f"{FOLDER}/{path.name}"
            if self._index.quarantine_key(name):
                continue
            try:
                self._index.quarantine(self._described(name, issuers), name, FOUND)
                found += 1
            except (NotUnderstood, OSError) as error:
                log.error("%s is no object that can be released: %s", path, error)
        return found

    def _described(self, name: str, issuers: Mapping[str, str]) -> NewInstance:
        """What can be said of a file from its bytes."""
        path = self._volume.root / name
        with open(path, "rb") as file:
            meta = read_file_meta(file.read(HEAD))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                with memoryview(mapped)[meta.offset :] as data:
                    header = read_header(data, meta.transfer_syntax, self._index.extra.tags)
                    size = len(data)
            header = identified(header, issuers.get(meta.source, ""))
            file.seek(meta.offset)
            return NewInstance(
                header=header,
                location=Location(self._volume.name, name, meta.offset, size),
                transfer_syntax=meta.transfer_syntax,
                sha256=digest(file.fileno()),
                source=meta.source,
                address="",
                received=path.stat().st_mtime,
            )

    # -- settling -------------------------------------------------------------------------------

    def entries(self, study_uid: str = "") -> list[Quarantined]:
        """Everything that is aside, or what belongs to one study."""
        found: list[Quarantined] = []
        while page := self._index.quarantined(limit=PAGE, after=found[-1].id if found else 0, study_uid=study_uid):
            found += page
        return found

    def is_there(self, entry: Quarantined) -> bool:
        return (self._volume.root / entry.path).exists()

    def discard(self, entry: Quarantined) -> bool:
        """Delete an entry and its file; False when somebody else already did."""
        if not self._index.release_quarantined(entry.id):
            return False
        self._volume.remove(entry.path)
        return True
