"""The check that index and files agree, both ways, and the repair of what does not.

Rules that hold here: everything is looked at again before it is said, because objects arrive, are compressed and
removed meanwhile; what is damaged is marked at once, so that nobody is sent it; memory does not grow with the
archive; only `repair` moves files or changes numbers, and it throws nothing away that is not stored elsewhere whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from archive.errors import Damaged, Missing, WrongContent, WrongSize
from archive.index import Index, StoredInstance
from archive.index.counters import Miscount, recount, wrong_patients, wrong_studies
from archive.services import placing
from archive.services.integrity import Digesting, Integrity, Pace, aside, at_once
from archive.services.strays import Stray, Strays, walk
from archive.storage import spool
from archive.storage.local import Volume

PAGE = 500
POSITION = "fsck.position"  # under which the index keeps how far a check that re-reads everything has come


class Kind(Enum):
    """What can be wrong."""

    MISSING = "row without file"
    SIZE = "wrong size"
    CONTENT = "wrong content"
    DAMAGED = "damaged"  # cannot be read, or was found so before
    STRAY = "file without row"
    LEFTOVER = "leftover of a dead process"
    COUNTERS = "wrong counters"
    QUARANTINE = "quarantine"
    VOLUME = "volume"  # one that is not there: nothing is said of what is on it
    COPY = "damaged copy"  # on another volume, while the file itself is right


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; ``done`` is what repaired it, nothing if it is still wrong."""

    kind: Kind
    path: str
    uid: str
    detail: str
    done: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be checked, and done: ``repair`` is adopt, aside or nothing."""

    digest: bool = False
    study_uid: str = ""
    repair: str = ""
    resume: bool = False


Progress = Callable[[int, int], None]  # instances and bytes since the last call


class Fsck:
    """One run over all volumes that are there."""

    def __init__(
        self,
        index: Index,
        volumes: Mapping[str, Volume],
        integrity: Integrity,
        strays: Sequence[Strays],
        choice: Choice,
        *,
        progress: Progress = lambda count, size: None,
        pace: Pace = at_once,
    ) -> None:
        """``strays`` are those of each volume that is there, of the one that takes what arrives first."""
        self._index = index
        self._volumes = volumes
        self._volume = volumes[placing.MAIN]
        self._lost = {name for name, volume in volumes.items() if not volume.is_there()}
        self._integrity = integrity
        self._strays = strays
        self._choice = choice
        self._progress = progress
        self._pace = pace

    def run(self) -> Iterator[Problem]:
        """What is wrong, as it is found; repaired ones say how."""
        yield from self._not_there()
        damaged = yield from self._held_back(self._instances())
        if not self._choice.study_uid:
            yield from self._versions()
            yield from self._copies()
            yield from self._find_strays()
        yield from self._rescued(damaged)
        if not self._choice.study_uid:
            yield from self._leftovers()
            yield from self._quarantine()
        yield from self._counters()

    def _not_there(self) -> Iterator[Problem]:
        for name in sorted(self._lost):
            detail = f"volume {name} is not there, what is on it was not looked at"
            yield Problem(Kind.VOLUME, str(self._volumes[name].root), "", detail)

    def _held_back(self, found: Iterator[Problem]) -> Generator[Problem, None, list[Problem]]:
        """Say damage at once, unless it may be repaired by what is found later."""
        kept: list[Problem] = []
        for problem in found:
            if self._choice.repair == "adopt":
                kept.append(problem)
            else:
                yield problem
        return kept

    # -- rows whose files are not right ----------------------------------------------------------

    def _instances(self) -> Iterator[Problem]:
        whole = self._choice.digest and not self._choice.study_uid
        after = int(self._index.get(POSITION) or 0) if whole and self._choice.resume else 0
        while page := self._index.upkeep.page(after, PAGE, self._choice.study_uid):
            for instance in page:
                yield from self._instance(instance)
            after = page[-1].id
            if whole:
                self._index.put(POSITION, str(after))
        if whole:
            self._index.put(POSITION, "0")

    def _instance(self, instance: StoredInstance) -> Iterator[Problem]:
        if instance.location.volume in self._lost:
            return
        try:
            if self._choice.digest:
                self._integrity.verify(instance, self._pace)
            else:
                self._integrity.look(instance)
        except Damaged as error:
            if self._index.known(instance.sop_instance_uid) is not None:  # else it was removed meanwhile
                yield Problem(_kind(error), instance.location.path, instance.sop_instance_uid, str(error))
        self._progress(1, instance.location.size)

    def _rescued(self, damaged: list[Problem]) -> Iterator[Problem]:
        """Damage, mended where the bytes were found elsewhere."""
        if not damaged:
            return
        # What repair has done before may have mended some.
        paths = [problem.path for problem in damaged if problem.kind is not Kind.MISSING]
        mended = {uid: path for strays in self._strays for uid, path in strays.rescue(paths)}
        for problem in damaged:
            known = self._index.known(problem.uid)
            if problem.uid in mended:
                yield replace(problem, done=f"its bytes were found in {mended[problem.uid]}")
            elif known is None or not known.damage:
                yield replace(problem, done="a whole copy took its place")
            else:
                yield problem

    def _versions(self) -> Iterator[Problem]:
        """Earlier versions of instances."""
        after = 0
        while page := self._index.upkeep.versions(after, PAGE):
            for version in page:
                volume = self._volumes.get(version.location.volume)
                if volume is None or volume.name in self._lost:
                    continue
                try:
                    with Digesting(volume, version.location) as reading:
                        if self._choice.digest:
                            reading.read_all(self._pace)
                            reading.require(version.sha256)
                except Damaged as error:
                    if self._index.upkeep.refers(version.location.volume, version.location.path):
                        yield Problem(_kind(error), version.location.path, version.sop_instance_uid, str(error))
            after = page[-1].id

    def _copies(self) -> Iterator[Problem]:
        """Second files of instances."""
        after = 0
        while page := self._index.copies.page(after, PAGE):
            for pair in page:
                if pair.copy.volume in self._lost:
                    continue
                try:
                    self._integrity.look_at_copy(pair, self._pace if self._choice.digest else None)
                except Damaged as error:
                    done = "copied again" if self._choice.repair and self._integrity.renew_copy(pair) else ""
                    yield Problem(Kind.COPY, pair.copy.path, pair.instance.sop_instance_uid, str(error), done)
            after = page[-1].instance.id

    # -- files without rows ---------------------------------------------------------------------

    def _find_strays(self) -> Iterator[Problem]:
        noted = placing.noted(self._volumes)
        for strays in self._strays:
            for stray in strays.find():
                uid = stray.content.sop_instance_uid if stray.content else ""
                if (strays.volume.name, stray.path) in noted:
                    yield Problem(Kind.LEFTOVER, stray.path, uid, "noted by a dead process, settled at the next start")
                else:
                    yield Problem(Kind.STRAY, stray.path, uid, stray.words, self._settle(strays, stray))

    def _settle(self, strays: Strays, stray: Stray) -> str:
        if self._choice.repair == "adopt":
            return strays.adopt(stray)
        return strays.put_aside(stray) if self._choice.repair else ""

    def _leftovers(self) -> Iterator[Problem]:
        folder = self._volume.root / "spool"
        found = spool.leftovers(folder)
        for path in found:
            done = "removed" if self._choice.repair else ""
            yield Problem(Kind.LEFTOVER, self._relative(path), "", "never acknowledged", done)
        if found and self._choice.repair:
            spool.sweep(folder, lambda each: placing.settle(each, self._volumes, self._index))

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self._volume.root)

    def _quarantine(self) -> Iterator[Problem]:
        """Entries and files of the quarantine, both ways."""
        files = set(walk(self._volume, "quarantine"))
        after, listed = 0, set()
        while page := self._index.quarantined(limit=PAGE, after=after):
            for entry in page:
                listed.add(entry.path)
                if entry.path not in files and not self._is_there(entry.id, entry.path):
                    yield self._lost_entry(entry.id, entry.path, entry.new.header.sop_instance_uid)
            after = page[-1].id
        for path in sorted(files - listed):
            if self._strays[0].is_old(path) and not self._index.upkeep.quarantines(path):
                done = f"moved to {aside(self._volume, path)}" if self._choice.repair else ""
                yield Problem(Kind.QUARANTINE, path, "", "a file that the quarantine does not list", done)

    def _is_there(self, key: int, path: str) -> bool:
        """Whether an entry is right after all, or gone."""
        return (self._volume.root / path).exists() or self._index.quarantine_entry(key) is None

    def _lost_entry(self, key: int, path: str, uid: str) -> Problem:
        done = "entry removed" if self._choice.repair and self._index.release_quarantined(key) else ""
        return Problem(Kind.QUARANTINE, path, uid, f"the file of entry {key} is missing", done)

    # -- numbers --------------------------------------------------------------------------------

    def _counters(self) -> Iterator[Problem]:
        for wrong in self._miscounts():
            if self._choice.repair:
                recount(self._index.database, wrong)
            detail = ", ".join(wrong.what) if wrong.study_uid else f"{', '.join(wrong.what)} of patient {wrong.id}"
            yield Problem(
                Kind.COUNTERS, "", wrong.study_uid, detail, "counted again" if self._choice.repair else ""
            )

    def _miscounts(self) -> Iterator[Miscount]:
        after: int | None = 0
        while after is not None:
            found, after = wrong_studies(self._index.database, after, self._choice.study_uid)
            yield from found
        after = None if self._choice.study_uid else 0
        while after is not None:
            found, after = wrong_patients(self._index.database, after)
            yield from found


def _kind(error: Damaged) -> Kind:
    kinds = {Missing: Kind.MISSING, WrongSize: Kind.SIZE, WrongContent: Kind.CONTENT}
    return kinds.get(type(error), Kind.DAMAGED)
