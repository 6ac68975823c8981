"""Correcting what was received: merge, link, split, move, edit, and undo.

Rules that hold here: files stay as they are, the rows of the index say what is right, and what goes out is changed on
its way; an operation has a name, and asked for twice by one name, or when all is as wanted already, it has no effect;
it is durable in the storage folder before the index says that it was carried out, so that a rebuilt index has it too;
values are checked here, what an operation means for the rows is decided in its transaction.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from archive.dicom.acceptable import complaint
from archive.dicom.attributes import BY_LEVEL, Attribute, Key, Level
from archive.dicom.uids import is_uid, new_uid
from archive.errors import Damaged, NotPossible, NotThere
from archive.index import Index
from archive.index.corrections import By, Draft, Operation
from archive.index.decide import (
    NewSeries,
    edit,
    link,
    linked,
    links,
    merge,
    merged,
    move_instances,
    move_series,
    move_studies,
    split,
    survivor,
    undo,
)
from archive.index.person import Person
from archive.storage.ledger import Ledger

log = logging.getLogger(__name__)

FOLDER = "corrections"  # of the ledger, below the root of the volume

_NONE: Mapping[str, str] = {}
_PROTECTED = {
    "PatientID": "merge the patient into the one with the right ID, or move its studies",
    "IssuerOfPatientID": "merge the patient into the one with the right issuer",
    "StudyInstanceUID": "move its series to the right study",
    "SeriesInstanceUID": "move its instances to the right series",
}
_LONGEST = {"actor": 64, "reason": 1000, "name": 200}

Values = Mapping[str, str]
Decide = Callable[[Any], Draft | None]


def by(actor: str, reason: str, name: str = "") -> By:
    """Who wants something and why; ``name`` is the caller's own name for it (a message control ID), else a new one.

    Raises NotPossible when nobody is named, or no reason.
    """
    given = {"actor": actor.strip(), "reason": reason.strip(), "name": name or f"own:{uuid.uuid4()}"}
    for what, text in given.items():
        if not text or len(text) > _LONGEST[what] or complaint("UT", text):
            raise NotPossible(f"a correction needs its {what}", f"1 to {_LONGEST[what]} characters")
    return By(given["actor"], given["reason"], given["name"])


class Corrections:
    """Of one archive. Every operation returns what was carried out, also earlier under this name, or None: all is so.

    With ``dry_run`` all is tried and nothing is kept. ``values`` are by keyword. Raises NotThere, NotPossible,
    StorageFailed, or IndexUnavailable: then nobody knows if it took effect, and asking again by the same name is safe.
    """

    def __init__(self, index: Index, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._index = index
        self._ledger = ledger
        self._clock = clock

    def _perform(self, who: By, decide: Decide, dry_run: bool) -> Operation | None:
        journal = self._index.corrections
        done = journal.perform(self._ledger, who, decide, self._clock(), dry_run=dry_run)
        if done and not dry_run:
            log.info("correction %d by %s: %s", done.number, done.actor, done.kind)
        return done

    # -- patients -------------------------------------------------------------------------------

    def merge(
        self, source: Person, target: Person, who: By, *, values: Values = _NONE, unknown: bool = False,
        dry_run: bool = False,
    ) -> Operation | None:  # fmt: skip
        """``source`` is ``target``, and all that comes for it as well.

        ``values`` make the target when nobody has its ID yet; with ``unknown`` patients of whom nothing came yet
        are merged too, as another system's messages may say before the first image, and a target that is not known
        is like the source: another ID of the same person.
        """
        source, target = _people(source, target)
        given = checked(Level.PATIENT, values)
        return self._perform(who, lambda s: merge(s, source, target, given, unknown=unknown), dry_run)

    def unmerge(self, source: Person, who: By, *, dry_run: bool = False) -> Operation | None:
        """Take back the merge of ``source``, whatever it was merged into."""
        return self._undo(who, lambda session: merged(session, source), dry_run)

    def link(
        self, one: Person, other: Person, who: By, *, unknown: bool = False, dry_run: bool = False
    ) -> Operation | None:
        """Both are one person; nothing of either changes."""
        one, other = _people(one, other)
        return self._perform(who, lambda s: link(s, one, other, unknown=unknown), dry_run)

    def unlink(self, one: Person, other: Person, who: By, *, dry_run: bool = False) -> Operation | None:
        return self._undo(who, lambda session: linked(session, one, other), dry_run)

    def _undo(self, who: By, which: Callable[[Any], int], dry_run: bool) -> Operation | None:
        """Undo what is found when it comes to it: asked for again by the same name, nothing is looked for."""
        return self._perform(who, lambda session: undo(session, which(session)), dry_run)

    def links(self, person: Person) -> list[Person]:
        """The other patients that are this person."""
        return self._index.corrections.ask(lambda session: links(session, person))

    def survivor(self, person: Person) -> Person:
        """The patient that this one was merged into at last, or itself."""
        return self._index.corrections.ask(lambda session: survivor(session, person))

    def split(
        self, person: Person, studies: Sequence[str], new: Person, who: By, *, values: Values = _NONE,
        dry_run: bool = False,
    ) -> Operation | None:  # fmt: skip
        """Some studies of a patient are of another one nobody knows yet: like the first, but for ``values``."""
        person, new = _people(person, new)
        given = checked(Level.PATIENT, values)
        return self._perform(who, lambda s: split(s, person, studies, new, given), dry_run)

    # -- studies, series, instances -------------------------------------------------------------

    def move_studies(
        self, studies: Sequence[str], target: Person, who: By, *, values: Values = _NONE, dry_run: bool = False
    ) -> Operation | None:
        """Studies are of another patient; ``values`` make one when nobody has this ID."""
        (target,) = _people(target)
        given = checked(Level.PATIENT, values)
        return self._perform(who, lambda s: move_studies(s, studies, target, given), dry_run)

    def move_series(
        self, series: Sequence[str], study: str, who: By, *, dry_run: bool = False
    ) -> Operation | None:
        """Series are of another study; an empty ``study`` makes a new one like theirs."""
        into = NewSeries(_uid(study))
        return self._perform(who, lambda s: move_series(s, series, into), dry_run)

    def move_instances(
        self, instances: Sequence[str], series: str, who: By, *, study: str = "", dry_run: bool = False
    ) -> Operation | None:
        """Instances are of another series; an empty ``series`` makes a new one like theirs in ``study``."""
        if bool(series) == bool(study):
            raise NotPossible("name the series, or the study in which to make one")
        into = NewSeries(study, _uid(series))
        return self._perform(who, lambda s: move_instances(s, instances, into), dry_run)

    def edit(
        self, level: Level, owner: str | Person, values: Mapping[str, str | None], who: By, *, dry_run: bool = False
    ) -> Operation | None:
        """Attributes of a patient, or of the study or series with a UID, have other values; None takes one away.

        An order's accession number, for one, is an edit of the study.
        """
        if level is Level.IMAGE:
            raise NotPossible("attributes of single instances are not edited")
        given = checked(level, values)
        key = _people(owner)[0].owner if isinstance(owner, Person) else owner
        return self._perform(who, lambda s: edit(s, level, key, given), dry_run)

    # -- the journal ----------------------------------------------------------------------------

    def undo(self, operation: int, who: By, *, dry_run: bool = False) -> Operation | None:
        """Take an operation back, unless a later one rests on it."""
        number = self.operation(operation).number
        return self._perform(who, lambda session: undo(session, number), dry_run)

    def note(self, kind: str, arguments: Mapping[str, Any], who: By) -> Operation:
        """Enter into the journal what is done elsewhere and cannot be undone."""
        noted = self._perform(who, lambda session: Draft(kind, arguments), False)
        assert noted is not None
        return noted

    def operation(self, number: int | str) -> Operation:
        """Raises NotThere."""
        found = self._index.corrections.operation(number)
        if found is None:
            raise NotThere("no such operation", str(number))
        return found

    def operations(self, *, limit: int = 100, before: int | None = None, about: str = "") -> list[Operation]:
        """The last operations, newest first; those of one UID or Patient ID with ``about``."""
        return self._index.corrections.entries(limit=limit, before=before, about=about)

    def start(self) -> None:
        """Bring index and ledger to agree. A ledger that was altered keeps nobody from storing images.

        It does when the index was rebuilt and has no operation: it would show the wrong patients. Raises Damaged.
        """
        try:
            self.replay()
        except Damaged as error:
            if not self.operations(limit=1):
                raise
            words = "the index goes on by its own; nothing is corrected until %s is moved away, then it is written anew"
            log.error(f"%s: {words}", error, self._ledger.folder)

    def replay(self) -> int:
        """Bring index and ledger to agree; return how many operations that took."""
        done = self._index.corrections.replay(self._ledger)
        if done:
            log.warning("journal of corrections: %d operations carried out that index or ledger lacked", done)
        return done


# -- what may be written --------------------------------------------------------------------------


def checked(level: Level, values: Mapping[str, str | None]) -> dict[str, Any]:
    """The values as they are written. Raises NotPossible with the name of the attribute and what would do."""
    if level is not Level.PATIENT and not values:
        raise NotPossible("nothing is to be changed")
    return {keyword: _checked(level, keyword, value) for keyword, value in values.items()}


def _checked(level: Level, keyword: str, value: str | None) -> str | None:
    attribute = next((row for row in BY_LEVEL[level] if row.keyword == keyword), None)
    if keyword in _PROTECTED or (attribute and attribute.key is Key.UNIQUE):
        raise NotPossible(f"{keyword} is not edited", _PROTECTED.get(keyword, ""))
    if attribute is None or attribute.computed or attribute.vr == "UI":
        names = ", ".join(row.keyword for row in BY_LEVEL[level] if not row.computed and row.vr != "UI")
        raise NotPossible("that is no attribute that can be edited", f"{keyword}; of a {level.name.lower()}: {names}")
    if value is None:
        return None
    if attribute.vr == "SQ":
        return _checked_items(attribute, value)
    if wrong := complaint(attribute.vr, value, multiple=attribute.multiple):
        raise NotPossible(f"{keyword}: not a value", wrong)
    return value


def _checked_items(attribute: Attribute, value: str) -> str:
    """The first item of a sequence, as JSON: ``[{"CodeValue": "…"}]``, or ``[]`` for none."""
    known = {item.keyword: item for item in attribute.items}
    try:
        items = json.loads(value or "[]")
        item = items[0] if items else {}
        fits = isinstance(items, list) and len(items) < 2 and {*item} <= known.keys()
    except (ValueError, TypeError, KeyError):
        fits, items, item = False, [], {}
    if not fits:
        raise NotPossible(f"{attribute.keyword}: not an item", f"a JSON list of one item with {', '.join(known)}")
    for keyword, text in item.items():
        if wrong := complaint(known[keyword].vr, text) if isinstance(text, str) else "it is no text":
            raise NotPossible(f"{attribute.keyword}: not a value of {keyword}", wrong)
    return json.dumps(items, ensure_ascii=False)


def _people(*people: Person) -> list[Person]:
    """As the index knows them: without padding."""
    found = [Person(*(text.strip() for text in person)) for person in people]
    for person in found:
        for text in person:
            if wrong := complaint("LO", text):
                raise NotPossible("not a Patient ID or issuer", wrong)
        if not person.patient_id:
            raise NotPossible("a patient is known by its ID", "move studies of a patient without ID one by one")
    return found


def _uid(given: str) -> str:
    """A UID that was given, or a new one (PS3.5 B.2)."""
    if given and not is_uid(given, lenient=True):
        raise NotPossible("not a UID", given)
    return given or new_uid()
