"""Compressing what is stored, by rules, after it was acknowledged: another form of the same object takes its place.

Rules that hold here: nothing is compressed with loss, nothing that was compressed with loss is touched, and nothing
whose new form was not read back and compared; the original is the archive's until the row names the new file, which
is durable by then; a form that saves nothing is not kept; the digest and syntax of what was received stay known, in
the row and in the new file itself.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from archive.dicom import compressed as ts
from archive.dicom.expression import Expression
from archive.dicom.part10 import file_meta
from archive.dicom.rule import holds
from archive.dicom.uids import RLE, Pixels, transfer_syntax
from archive.errors import NotTranscodable, StorageFailed
from archive.index import Index, Location, NewTask, StoredInstance
from archive.index.upkeep import Form, Received
from archive.services.causes import Cause, Event
from archive.services.integrity import Integrity
from archive.services.placing import MAIN, Note, Noted
from archive.storage.local import Part, Volume

log = logging.getLogger(__name__)

KIND = "compress"
TARGETS = (ts.JPEG_LOSSLESS_SV1, ts.JPEG_LS, ts.JPEG_2000_LOSSLESS, RLE)


@dataclass(frozen=True, slots=True)
class Rule:
    """What fits ``match`` is stored in ``target``, ``after`` so many seconds; ``recompress`` says whether also what
    came compressed without loss."""

    match: Expression | None
    target: str
    after: float = 0.0
    recompress: bool = False


class Made(Protocol):
    """What a codec says of the file that it wrote and compared."""

    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> bytes: ...
    @property
    def sha256_before(self) -> bytes: ...
    @property
    def photometric(self) -> str: ...


class Codec(Protocol):
    def compress(self, path: Path, target: str, prefix: bytes, result: Path) -> Made: ...


def cause(rules: Sequence[Rule]) -> Cause:
    """The task that the first rule which holds for an arriving image wants."""

    def tasks(event: Event) -> Iterable[NewTask]:
        if not event.facts("Rows"):
            return ()
        rule = next((rule for rule in rules if holds(rule.match, event.facts)), None)
        if rule is None or unfit(event.facts("TransferSyntaxUID"), rule.target, recompress=rule.recompress):
            return ()
        payload = {"sop": event.sop_instance_uid, "to": rule.target, "recompress": rule.recompress}
        return (NewTask(KIND, payload, due=event.when + rule.after, study_uid=event.study_uid),)

    return tasks


def unfit(stored: str, target: str, *, recompress: bool) -> str:
    """Why what is stored in a syntax is not to be compressed to another; nothing if it may be."""
    facts = transfer_syntax(stored)
    if target not in TARGETS:
        return "no lossless compression has this transfer syntax"
    if stored == target:
        return "stored in this transfer syntax already"
    if facts.uncompressed:
        return ""
    if facts.pixels is not Pixels.LOSSLESS:
        return "came in a transfer syntax that allows loss, and is left as it came"
    return "" if recompress else "came compressed"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one instance: compressed, or left alone for a reason."""

    before: int
    after: int
    reason: str = ""


class Compression:
    """Compresses instances, wherever they are, into the volume that takes what arrives; for one thread."""

    def __init__(
        self,
        index: Index,
        volumes: Mapping[str, Volume],
        codec: Codec,
        integrity: Integrity,
        timer: Callable[[], float],
    ) -> None:
        self._index = index
        self._volumes = volumes
        self._volume = volumes[MAIN]
        self._codec = codec
        self._integrity = integrity
        self._timer = timer
        self._doubtful: list[Note] = []

    def compress(self, sop_instance_uid: str, target: str, *, recompress: bool = False) -> Result:
        """Store an instance in another form, if that can be and pays.

        Raises Damaged when its file is, and what is temporary: OutOfResources, StorageFailed, IndexUnavailable.
        """
        self._settle_doubts()
        instance = self._index.known(sop_instance_uid)
        if instance is None:
            return Result(0, 0, "no longer there")
        size = instance.location.size
        if reason := unfit(instance.transfer_syntax, target, recompress=recompress):
            return Result(size, size, reason)
        if instance.damage:
            return Result(size, size, instance.damage)
        try:
            return self._compress(instance, target)
        except NotTranscodable as error:
            return Result(size, size, str(error))

    def _compress(self, instance: StoredInstance, target: str) -> Result:
        received = self._index.upkeep.received(instance)
        if received is None:
            return Result(0, 0, "no longer there")
        self._source(instance.location).require()
        self._volume.check(instance.location.size)
        prefix = file_meta(
            instance.sop_class_uid, instance.sop_instance_uid, target, source=received.source, private=said(received)
        )
        part = self._volume.part()
        try:
            return self._exchange(instance, target, prefix, received, part)
        finally:
            part.discard()

    def _exchange(
        self, instance: StoredInstance, target: str, prefix: bytes, received: Received, part: Part
    ) -> Result:
        old, started = instance.location, self._timer()
        made = self._codec.compress(self._source(old).root / old.path, target, prefix, part.path)
        if made.sha256_before != instance.sha256:
            return self._refuse(instance)
        if len(prefix) + made.size >= old.offset + old.size:
            return Result(old.size, made.size, "compressed it would not be smaller")
        # By these times the files are taken in again when the index is lost.
        os.utime(part.fd, (received.when, received.when))
        self._volume.sync_part(part)
        location = Location(self._volume.name, self._volume.new_path(), len(prefix), made.size)
        form = Form(location, target, made.sha256, made.photometric)
        return self._place(instance, form, part, self._timer() - started)

    def _place(self, instance: StoredInstance, form: Form, part: Part, seconds: float) -> Result:
        old, new = instance.location, form.location
        files = [Noted(instance.sop_instance_uid, place.volume, place.path) for place in (old, new)]
        note = Note(self._volumes, files)
        self._doubtful.append(note)  # should the index not answer: it may have taken effect all the same
        try:
            self._volume.place(part, new.path)
            exchanged = self._index.upkeep.compress(instance, form, seconds)
        finally:
            self._settle_doubts()
        return Result(old.size, new.size, "" if exchanged else "changed meanwhile")

    def _source(self, place: Location) -> Volume:
        volume = self._volumes.get(place.volume)
        if volume is None:
            raise StorageFailed("storage is not available", f"volume {place.volume} is not configured")
        return volume

    def _refuse(self, instance: StoredInstance) -> Result:
        """What was read is not what came: damage, or the row has changed since."""
        self._integrity.verify(instance)
        return Result(instance.location.size, instance.location.size, "changed meanwhile")

    def _settle_doubts(self) -> None:
        while self._doubtful:
            self._doubtful[-1].settle(self._index)
            self._doubtful.pop()


def said(received: Received) -> bytes:
    """How an instance came, for the meta information of the file that it is in now."""
    return json.dumps(
        {
            "received": received.when, "address": received.address, "sha256": received.sha256.hex(),
            "syntax": received.transfer_syntax,
        }
    ).encode("ascii")  # fmt: skip


def read_said(private: str) -> Received | None:
    """The same from the meta information; None when it says nothing of the kind."""
    try:
        found = json.loads(private)
        return Received(
            "", str(found["address"]), float(found["received"]), bytes.fromhex(found["sha256"]), str(found["syntax"])
        )
    except (ValueError, KeyError, TypeError):
        return None
