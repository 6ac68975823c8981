"""A batch of instances, added in one transaction: the hot path.

Rules that hold here: a row that cannot be added takes no other row with it and leaves nothing behind; a batch
may be run again after an unknown outcome, because a row is known by its file; counts, modalities and tasks are
written in the transaction of the instances that cause them; rows are changed in the same order by everybody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from archive.dicom.attributes import Attribute, Level
from archive.dicom.header import Header
from archive.index import held, late, versions
from archive.index.columns import CLEANERS
from archive.index.database import Session
from archive.index.extra import add as add_extra
from archive.index.extra import drop as drop_extra
from archive.index.outbox import insert_task, watch_study
from archive.index.parents import Parents, fill, find_parents, make_parents, modality_of
from archive.index.tombstones import bury_copies, lay_tombstones
from archive.index.values import Added, Location, NewInstance, Outcome

OTHER_SERIES = "SOP Instance UID is in another series"
SKEW = 60.0  # seconds by which the time of an arrival may be off, while the index is busy; by more the clock was wrong

_OWN = (
    "sop_instance_uid", "series", "sop_class_uid", "transfer_syntax", "volume", "path", "data_offset", "data_size",
    "sha256", "source", "address", "received", "received_sha256", "received_syntax",
)  # fmt: skip
_CLEANER = CLEANERS[Level.IMAGE]
_COLUMNS = tuple(name for name in _CLEANER.columns if name not in _OWN)


@lru_cache(maxsize=256)
def _insert(names: tuple[str, ...]) -> str:
    """The statement for rows that have these columns: most objects have a third of them, and NULLs cost time too."""
    return (
        f"INSERT INTO instance ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        " ON CONFLICT (sop_instance_uid) DO NOTHING RETURNING id"
    )


_REPLACE = (
    f"UPDATE instance SET {', '.join(f'{name} = ?' for name in (*_OWN, *_COLUMNS))}, damage = NULL, damage_found = NULL"
    " WHERE id = ?"
)
_EXISTING = (
    "SELECT id, series, sha256, received_sha256, source, volume, path, data_offset, data_size FROM instance"
    " WHERE sop_instance_uid = ?"
)
_LOCK = {"sqlite": "", "postgresql": " FOR UPDATE"}  # in SQLite there is one writer anyway
_CURRENT = "SELECT received, volume, path, data_offset, data_size FROM instance WHERE id = ?"
_COUNT_SERIES = "UPDATE series SET number_of_instances = number_of_instances + ? WHERE id = ?"
_COUNT_STUDY = (
    "UPDATE study SET number_of_instances = number_of_instances + ?, number_of_series = number_of_series + ?,"
    " total_size = total_size + ?, updated = ?, arrivals = arrivals + ? WHERE id = ?"
    " RETURNING modalities_in_study, sop_classes_in_study, study_date, arrivals"
)
_COUNT_PATIENT = "UPDATE patient SET number_of_studies = number_of_studies + ? WHERE id = ?"
_SET_LISTS = "UPDATE study SET modalities_in_study = ?, sop_classes_in_study = ? WHERE id = ?"
_INSERT_MODALITY = "INSERT INTO study_modality (modality, study_date, study) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_MARK = (
    "INSERT INTO journal (slot, sequence) VALUES (?, ?) ON CONFLICT (slot) DO UPDATE SET sequence = excluded.sequence"
    " WHERE excluded.sequence > journal.sequence"
)


@dataclass(slots=True)
class _StudyGrowth:
    uid: str = ""
    arrivals: int = 0  # of instances and new versions of them
    instances: int = 0
    series: int = 0
    size: int = 0
    updated: float = 0.0
    modalities: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)


class Batch:
    """One attempt to add a batch in one transaction."""

    def __init__(
        self,
        session: Session,
        remembered: dict[str, Parents],
        check_names: bool,
        extra: Sequence[Attribute] = (),
        takes_turns: bool = False,
        comes_now: bool = False,
    ) -> None:
        """``comes_now``: it is received at this moment, not found in a journal or among files."""
        self.session = session
        self.takes_turns = takes_turns
        self.comes_now = comes_now
        self.extra = extra
        self.remembered = remembered
        self.check_names = check_names
        self.learned: dict[str, Parents] = {}
        self.series: defaultdict[int, int] = defaultdict(int)
        self.studies: defaultdict[int, _StudyGrowth] = defaultdict(_StudyGrowth)
        self.patients: defaultdict[int, int] = defaultdict(int)

    def run(self, batch: Sequence[NewInstance], journal: tuple[int, int] | None) -> list[Added]:
        """Rows of one study after the other, so that two batches never wait for each other in a circle."""
        if self.takes_turns:
            late.share_corrections(self.session)
        results: list[Added | None] = [None] * len(batch)
        order = sorted(range(len(batch)), key=lambda n: (batch[n].header.study_uid, batch[n].header.series_uid))
        for number in order if len(batch) > 1 else range(len(batch)):
            results[number] = self._add(batch[number])
        self._count()
        if journal:
            self.session.later(_MARK, journal)
        return [result for result in results if result is not None]

    def _add(self, new: NewInstance) -> Added:
        header = new.header
        parents = self.learned.get(header.series_uid) or self.remembered.get(header.series_uid)
        if parents is None:
            parents = self._learn(header, new.received)
        if parents.corrected and (effect := late.was_moved(self.session, header)):
            self._take_turns()
            parents = late.put_where_it_belongs(self.session, header, parents, effect, new.received)
        reason = "" if new.accept else parents.contradiction(header, check_names=self.check_names)
        if reason and (found := self._after_all(header, parents)):
            reason, parents = "", found
        if reason:
            late.take_back(self.session, parents)
            return self._conflict(new, reason)
        names, values = _present(self._values(new, parents))
        row = self.session.row(_insert(names), values)
        if row is None:
            late.take_back(self.session, parents)
            return self._settle(new, parents)
        self._grow(new, parents)
        if self.extra:
            self._add_extra(header, self.learned.get(header.series_uid, parents), row[0])
        for task in new.tasks:
            insert_task(self.session, task, new.received)
        return Added(Outcome.STORED, row[0])

    def _add_extra(self, header: Header, parents: Parents, key: int) -> None:
        """Values of a site's own attributes; what the rows above have is remembered with them."""
        filled = add_extra(self.session, self.extra, {**parents.rows(), Level.IMAGE: key}, header.values, parents.extra)
        if filled != parents.extra and not parents.corrected:
            parents = self.learned[header.series_uid] = parents.copy()
            parents.extra = filled

    def _learn(self, header: Header, now: float) -> Parents:
        parents = find_parents(self.session, header)
        if parents is None:
            parents = make_parents(self.session, header, now)
            if parents.corrected or late.spoken_of(self.session, header, parents):
                self._take_turns()
                parents = late.settle_new(self.session, header, parents, now)
            return parents
        if parents.corrected:  # and looked at anew for each instance
            return late.restrict(self.session, parents, header)
        self.learned[header.series_uid] = parents
        return parents

    def _take_turns(self) -> None:
        if not self.takes_turns:
            raise late.MustTakeTurns

    def _after_all(self, header: Header, parents: Parents) -> Parents | None:
        """The rows above an object that seems to contradict them, when it does not: they were corrected meanwhile."""
        remembered = header.series_uid in self.remembered and header.series_uid not in self.learned
        if remembered and not parents.placed:
            parents = find_parents(self.session, header) or parents
            if not parents.contradiction(header, check_names=self.check_names):
                return parents
        return parents if late.belongs(self.session, header, parents, check_names=self.check_names) else None

    def _values(self, new: NewInstance, parents: Parents) -> list[object]:
        header, location = new.header, new.location
        row = _CLEANER.row(header.values)
        own = [
            header.sop_instance_uid, parents.series, header.sop_class_uid, new.transfer_syntax, location.volume,
            location.path, location.offset, location.size, new.sha256, new.source, new.address, new.received,
            new.received_sha256 or None, new.received_syntax or None,
        ]  # fmt: skip
        return own + [row[name] for name in _COLUMNS]

    def _grow(self, new: NewInstance, parents: Parents) -> None:
        header = new.header
        if parents.created or parents.lacks(header.values):
            # A copy, as the transaction may yet fail.
            parents = self._filled(parents, header.values)
            if not parents.corrected:
                self.learned[header.series_uid] = parents
        study = self.studies[parents.study]
        self.series[parents.series] += 1
        study.uid = parents.study_uid
        study.arrivals += not new.known
        study.instances += 1
        study.size += new.location.size
        study.updated = new.received
        study.classes.add(header.sop_class_uid)
        if parents.created:
            tables = {table for table, _ in parents.created}
            study.series += "series" in tables
            study.modalities.add(modality_of(header.values))
            self.patients[parents.patient] += "study" in tables
            parents.created = []

    def _filled(self, parents: Parents, values: Mapping[int, str]) -> Parents:
        parents = parents.copy()
        fill(self.session, parents, values)
        return parents

    def _settle(self, new: NewInstance, parents: Parents) -> Added:
        """The SOP Instance UID is known: the same object, another one, or one in the wrong place."""
        row = self.session.row(_EXISTING, (new.header.sop_instance_uid,))
        if row is None:  # removed by somebody at this very moment
            return Added(Outcome.DIFFERENT, reason="instance is being removed")
        key, series, sha256, received, source, *place = row
        location = Location(*place)
        elsewhere = series != parents.series
        if elsewhere and not new.accept:
            return self._conflict(new, OTHER_SERIES)
        if _is_same(new, bytes(sha256), bytes(received or b"")):
            # Its own file: an earlier attempt whose outcome was not known.
            own = (location.volume, location.path) == (new.location.volume, new.location.path)
            return Added(Outcome.STORED if own else Outcome.EQUAL, key)
        replaces = new.policy in ("replace", "version") or (new.policy == "same_source" and source == new.source)
        if not elsewhere and replaces:
            return self._replace(new, parents, key)
        return Added(Outcome.DIFFERENT, key)

    def _conflict(self, new: NewInstance, reason: str) -> Added:
        """A contradiction, unless the very same object is here already: somebody gave it its right place."""
        row = self.session.row(_EXISTING, (new.header.sop_instance_uid,))
        if row and _is_same(new, bytes(row[2]), bytes(row[3] or b"")):
            own = tuple(row[5:7]) == (new.location.volume, new.location.path)
            return Added(Outcome.STORED if own else Outcome.EQUAL, row[0])
        return Added(Outcome.CONFLICT, reason=reason)

    def _replace(self, new: NewInstance, parents: Parents, key: int) -> Added:
        """Put the newer of two objects in the place of the other; of two at the same moment, that is the later one."""
        received, *place = self.session.row(_CURRENT + _LOCK[self.session.dialect.name], (key,)) or (None,)
        if received is None:
            return Added(Outcome.DIFFERENT, reason="instance is being removed")
        old = Location(*place)
        if new.received < received and not (self.comes_now and received - new.received > SKEW):
            return self._supersede(new, parents, key, received)
        version = self._keeps_versions(new, parents)
        bury_copies(self.session, [key])
        if version:
            versions.keep(self.session, key, new.received)
        elif old.volume != new.location.volume:
            lay_tombstones(self.session, [old])
        self.session.run(_REPLACE, [*self._values(new, parents), key])
        if self.extra:
            drop_extra(self.session, Level.IMAGE, [key])
            self._add_extra(new.header, parents, key)
        study = self.studies[parents.study]
        study.uid = parents.study_uid
        study.arrivals += not new.known
        study.size += new.location.size - old.size
        study.updated = new.received
        study.classes.add(new.header.sop_class_uid)
        for task in new.tasks:
            insert_task(self.session, task, new.received)
        return Added(Outcome.STORED, key, replaced=None if version else old)

    def _supersede(self, new: NewInstance, parents: Parents, key: int, received: float) -> Added:
        """It came before what is stored. What is only found is kept all the same: clocks are put back, and nobody
        knows any more which of the two was acknowledged last."""
        keep = self._keeps_versions(new, parents) or not self.comes_now
        if keep:
            versions.add(self.session, key, new, received)
        return Added(Outcome.STORED, key, replaced=None if keep else new.location)

    def _keeps_versions(self, new: NewInstance, parents: Parents) -> bool:
        """Whether the older of two objects stays beside the newer: by policy, or because its study is held."""
        if new.policy == "version":
            return True
        self._take_turns()  # a hold that is put on at this moment is seen, or comes after this
        return held.of_row(self.session, parents.study) > 0

    def _count(self) -> None:
        session = self.session
        for series in sorted(self.series):
            session.later(_COUNT_SERIES, (self.series[series], series))
        for key in sorted(self.studies):
            study = self.studies[key]
            row = session.row(
                _COUNT_STUDY, (study.instances, study.series, study.size, study.updated, study.arrivals, key)
            )
            if row:
                self._list(key, study, *row[:3])
                if study.arrivals and row[3] == study.arrivals:  # the first since it was ready, if it ever was
                    insert_task(session, watch_study(study.uid), study.updated)
        for patient in sorted(self.patients):
            session.later(_COUNT_PATIENT, (self.patients[patient], patient))

    def _list(self, key: int, study: _StudyGrowth, modalities: str, classes: str, date: str | None) -> None:
        """Modalities and SOP classes of a study, sorted; written only when one is new."""
        both = joined(modalities, study.modalities), joined(classes, study.classes)
        if both != (modalities, classes):
            self.session.later(_SET_LISTS, (*both, key))
        for modality in set(both[0].split("\\")) - set(modalities.split("\\")):
            self.session.later(_INSERT_MODALITY, (modality, date or "", key))


_ALL = (*_OWN, *_COLUMNS)


def _present(values: Sequence[object]) -> tuple[tuple[str, ...], list[object]]:
    """Columns and values of what is not NULL."""
    pairs = [pair for pair in zip(_ALL, values, strict=True) if pair[1] is not None]
    return tuple([name for name, _ in pairs]), [value for _, value in pairs]


def _is_same(new: NewInstance, sha256: bytes, received: bytes) -> bool:
    """Whether what comes is what came before, or what has been made of it since."""
    return new.sha256 == sha256 or (new.received_sha256 or new.sha256) == (received or sha256)


def joined(values: str, more: set[str]) -> str:
    """A multi-valued text with more values in it, sorted and without doubles."""
    known = set(values.split("\\"))
    return values if more <= known else "\\".join(sorted((known | more) - {""}))
