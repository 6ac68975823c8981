"""What a route does to the objects that it sends, and an object together with that.

Rules that hold here: two routes to one destination keep their own hooks, because an object carries them through the
lane; what is to be de-identified goes out so or not at all; what an object is called on its way is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from archive.dicom.coerce import Change
from archive.dicom.deidentify import Deidentifier, Found, Person
from archive.dicom.rule import Facts
from archive.errors import NotDeidentified
from archive.index import StoredInstance, Task

# PS3.4 B.5: kinds whose pixels usually show who it is, unless Burned In Annotation (0028,0301) says NO, and documents,
# which nobody can clean.
_SHOWING = ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.6")  # SC, ultrasound
_TELLING = ("1.2.840.10008.5.1.4.1.1.88", "1.2.840.10008.5.1.4.1.1.104")  # structured and encapsulated documents


@dataclass(frozen=True, slots=True)
class Deidentify:
    """De-identification as one route wants it."""

    by: Deidentifier
    burned_in: bool = False  # objects that may show patient data in their pixels go out all the same

    def check(self, sop_class_uid: str, found: Found) -> None:
        """Raises NotDeidentified for what the profile does not make safe."""
        if self.burned_in:
            return
        no = found.burned_in.upper() == "NO"
        if _is_one_of(sop_class_uid, _TELLING):
            raise NotDeidentified("not de-identified: it is a document and may tell patient data")
        if (_is_one_of(sop_class_uid, _SHOWING) or found.burned_in) and not no:
            raise NotDeidentified("not de-identified: it may show patient data in its pixels")
        if found.overlay_in_pixels:
            raise NotDeidentified("not de-identified: an overlay is in the bits of its pixels")


def _is_one_of(uid: str, kinds: Sequence[str]) -> bool:
    return any(uid == kind or uid.startswith(f"{kind}.") for kind in kinds)


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of one route: names of rules, and de-identification."""

    coerce: tuple[str, ...] = ()
    deidentify: Deidentify | None = None


class Changes(list[Change]):
    """What is to be different, and how it is de-identified then; without either it is false."""

    def __init__(self, found: Sequence[Change], by: Deidentifier, person: Person) -> None:
        super().__init__(found)
        self.by, self.person = by, person

    def __bool__(self) -> bool:
        return True

    def finished(self, pieces: Iterator[bytes], transfer_syntax: str) -> Iterator[bytes]:
        return self.by.pieces(pieces, transfer_syntax, self.person)


@dataclass(frozen=True, slots=True)
class Parcel:
    """A stored object on its way by a route."""

    instance: StoredInstance
    hooks: Hooks | None = None

    @property
    def sop_class_uid(self) -> str:
        return self.instance.sop_class_uid

    @property
    def sop_instance_uid(self) -> str:
        """The one it has here, by which it is known to the queue."""
        return self.instance.sop_instance_uid

    @property
    def transfer_syntax(self) -> str:
        return self.instance.transfer_syntax


def is_owed(task: Task, hooks: Hooks | None) -> bool:
    """Whether a task is to de-identify, and the route that it names does not any more."""
    return bool(task.payload.get("deidentify")) and (hooks is None or hooks.deidentify is None)


def hooks_of(item: object) -> Hooks | None:
    return item.hooks if isinstance(item, Parcel) else None


def as_sent(instance: StoredInstance, hooks: Hooks | None) -> StoredInstance:
    """The object under the UIDs that its receiver knows."""
    if hooks is None or hooks.deidentify is None:
        return instance
    uid = hooks.deidentify.by.uid
    return replace(
        instance, sop_instance_uid=uid(instance.sop_instance_uid), study_uid=uid(instance.study_uid),
        series_uid=uid(instance.series_uid),
    )  # fmt: skip


def sent_uid(item: object, uid: str) -> str:
    """The SOP Instance UID under which an object that has ``uid`` here goes out."""
    hooks = hooks_of(item)
    return uid if hooks is None or hooks.deidentify is None else hooks.deidentify.by.uid(uid)


def known_as(facts: Facts, changes: Sequence[Change]) -> Facts:
    """What may be told of an object in the name of its file."""
    if not isinstance(changes, Changes):
        return facts
    return lambda keyword: changes.by.fact(keyword, facts(keyword), changes.person)
