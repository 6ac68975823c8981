"""One study of two archives: equal, changing or different, and the tasks that mend it.

Rules that hold here: series and images are asked for only where numbers differ, or the plan wants it; what is under way
in either direction is never called different; what the peer does not list is said, and nothing is done about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from archive.dicom.rule import Facts, holds
from archive.errors import Refused
from archive.index import Index, NewTask
from archive.index.sync import Difference, OurImage, OurStudy, SyncRows
from archive.services.comparing import (
    COUNTS,
    Known,
    Plan,
    TheirStudy,
    Verdict,
    difference,
    is_close_enough,
    judge,
    looks_equal,
    patients,
)
from archive.services.fetching import FETCH, FROM, fetch
from archive.services.inquiry import MOST_IMAGES, Questions, Terms
from archive.services.routing import DELIVER, VERIFY, delivery, facts_of, keywords

LONGEST = 500  # series that a task of fetching names; more means the whole study


@dataclass(slots=True)
class Gathered:
    """What some studies have come to."""

    counts: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    agreed: dict[str, tuple[float, int]] = field(default_factory=dict)
    tasks: list[NewTask] = field(default_factory=list)


class Mending:
    """Of some studies that are looked at together, once."""

    def __init__(self, index: Index, terms: Terms, questions: Questions, plan: Plan, moment: float) -> None:
        """``moment`` is when the peer was asked for these studies, or before."""
        self._index = index
        self._rows = SyncRows(index.database)
        self._terms = terms
        self._questions = questions
        self._plan = plan
        self._moment = moment
        self._gathered = Gathered()

    def look(self, uids: Sequence[str], ours: Mapping[str, OurStudy], theirs: Mapping[str, TheirStudy]) -> Gathered:
        """What these studies come to, of which either side has some."""
        busy = self._busy(uids, ours, theirs)
        for uid in uids:
            self._study(ours.get(uid), theirs.get(uid), uid in busy)
        return self._gathered

    def _busy(
        self, uids: Collection[str], ours: Mapping[str, OurStudy], theirs: Mapping[str, TheirStudy]
    ) -> set[str]:
        """Which studies that are not known to be equal have something under way."""
        sure = {
            uid for uid in ours.keys() & theirs.keys()
            if looks_equal(ours[uid], theirs[uid]) and is_close_enough(self._plan, ours[uid])
        }  # fmt: skip
        doubtful = [uid for uid in uids if uid not in sure]
        if not doubtful:
            return set()
        lanes = (self._terms.peer, FROM + self._terms.peer)
        busy = self._rows.busy((DELIVER, VERIFY, FETCH), lanes, doubtful)
        return busy | {uid for uid in doubtful if uid in ours and ours[uid].arrivals}

    def _study(self, ours: OurStudy | None, theirs: TheirStudy | None, busy: bool) -> None:
        """One study: equal, changing, or different."""
        mine = self._ours(ours)
        if not mine.counts and (theirs is None or not holds(self._terms.rule, self._facts(theirs))):
            return
        self._gathered.counts["compared"] += 1
        words = patients(ours, theirs) if ours and theirs else ""
        same = mine.whole and ours is not None and theirs is not None and looks_equal(ours, theirs)
        close = same and ours is not None and is_close_enough(self._plan, ours)
        if close and not words:
            self._gathered.counts["equal"] += 1
        elif busy:
            self._add(difference(ours, theirs, Verdict(), None, words="is changing here", waiting=True))
        elif words and "ID" in words:
            self._gathered.counts["patients"] += 1
            self._add(difference(ours, theirs, Verdict(), None, words=words))
        else:
            self._images(ours, theirs, mine, words, close)

    def _ours(self, ours: OurStudy | None) -> _Ours:
        """What of a study of ours takes part."""
        if ours is None:
            return _Ours(None, False, True)
        if self._terms.rule is None:
            return _Ours(None, True, True)
        kept, left = set(), 0
        rows = self._index.queue.described(keywords(self._terms.rule), study_uid=ours.uid)
        for each in rows:
            if holds(self._terms.rule, facts_of(each)):
                kept.add(each.instance.sop_instance_uid)
            else:
                left += 1
        return _Ours(frozenset(kept), bool(kept), not left)

    def _facts(self, theirs: TheirStudy, modality: str | None = None) -> Facts:
        """What rules can ask of a study, or of a series, of the peer."""
        values = {**theirs.values, "Modality": theirs.values.get("ModalitiesInStudy", "")}
        if modality is not None:
            values["Modality"] = modality
        return lambda keyword: values.get(keyword, "")

    def _equal(self, ours: OurStudy | None, theirs: TheirStudy | None, whole: bool) -> None:
        """Images were compared, and none is missing."""
        self._gathered.counts["equal"] += 1
        if ours is None or theirs is None or not whole:
            return
        if not looks_equal(ours, theirs):
            self._gathered.counts["miscounted"] += 1
        known = ours.agreed_instances == ours.instances and (ours.agreed or 0.0) > ours.updated
        if self._plan.compare != COUNTS and not known:
            self._gathered.agreed[ours.uid] = (self._moment, ours.instances)

    # -- images ---------------------------------------------------------------------------------

    def _images(
        self, ours: OurStudy | None, theirs: TheirStudy | None, mine: _Ours, words: str, close: bool
    ) -> None:
        """Compare the images of one study."""
        here = [image for image in (self._rows.images(ours.uid) if ours else ()) if mine.has(image)]
        there: dict[str, str] = {}
        if theirs is not None and not close:
            try:
                there = self._there(theirs, here)
            except Refused as error:
                said = f"the peer does not list series and images: {error.reason}"
                self._add(difference(ours, theirs, Verdict(), None, words=said))
                return
        elif theirs is not None:
            there = {image.uid: image.series_uid for image in here}
        known = self._known(ours, theirs, here, there)
        uid = ours.uid if ours else theirs.uid if theirs else ""
        verdict = judge(self._plan, self._terms.titles, uid, ours, here, there, known)
        if not verdict.words and not words:
            self._equal(ours, theirs, mine.whole)
            return
        if words:
            self._gathered.counts["patients"] += 1
        self._add(difference(ours, theirs, verdict, len(there), words=words))
        if not self._plan.dry:
            self._gathered.tasks += self._tasks(ours, theirs, verdict)

    def _there(self, theirs: TheirStudy, here: Sequence[OurImage]) -> dict[str, str]:
        """The peer's images of a study with their series; if counts are enough a series of as many as ours is equal."""
        mine: dict[str, list[str]] = {}
        for image in here:
            mine.setdefault(image.series_uid, []).append(image.uid)
        listed = self._questions.series(theirs.uid)
        if not listed and theirs.instances:
            raise Refused("it lists no series")
        wanted = {
            uid: number for uid, (modality, number) in listed.items()
            if holds(self._terms.rule, self._facts(theirs, modality)) or uid in mine
        }  # fmt: skip
        all_alike = {uid: len(uids) for uid, uids in mine.items()} == wanted
        found: dict[str, str] = {}
        for series, number in wanted.items():
            uids: Iterable[str] = mine.get(series, ())
            if self._plan.compare != COUNTS or all_alike or number is None or number != len(mine.get(series, ())):
                uids = self._questions.images(theirs.uid, series)
                if number and not uids:
                    raise Refused("it lists no images")
            found |= dict.fromkeys(uids, series)
            if len(found) > MOST_IMAGES:
                raise Refused("it lists more images than a study has")
        return found

    def _known(
        self, ours: OurStudy | None, theirs: TheirStudy | None, here: Sequence[OurImage], there: Mapping[str, str]
    ) -> Known:
        """What the index knows of images that only one side has."""
        mine = {image.uid for image in here}
        only_there, found = {uid for uid in there if uid not in mine}, Known()
        if only_there and theirs is not None:
            above = {theirs.uid, *(there[uid] for uid in only_there)}
            found = Known(
                self._rows.deleted(above | only_there), self._rows.quarantined(only_there),
                self._rows.elsewhere(only_there),
            )  # fmt: skip
        if ours is not None and mine - there.keys():
            found = replace(found, fates=self._rows.fates((DELIVER, VERIFY), self._terms.peer, ours.uid))
        return found

    def _tasks(self, ours: OurStudy | None, theirs: TheirStudy | None, verdict: Verdict) -> Iterator[NewTask]:
        terms = self._terms
        for image in verdict.push if ours else ():
            yield delivery(
                image.uid, ours.uid if ours else "", terms.peer, image.received, route=terms.route,
                priority=terms.priority,
            )  # fmt: skip
        if verdict.pull and theirs is not None:
            series = sorted(verdict.pull) if len(verdict.pull) <= LONGEST else ()
            yield fetch(terms.peer, theirs.uid, series=series, why=terms.route)

    def _add(self, found: Difference) -> None:
        self._gathered.differences.append(found)
        kind = "waiting" if found.waiting else "remaining" if found.remaining else "mending"
        self._gathered.counts[kind] += 1
        for name, number in (("push", found.push), ("pull", found.pull), ("left", found.remaining)):
            self._gathered.counts[name] += number


@dataclass(frozen=True, slots=True)
class _Ours:
    """Which images of a study take part: ``kept``, None = all; ``whole`` when that is all there are."""

    kept: frozenset[str] | None
    counts: bool
    whole: bool

    def has(self, image: OurImage) -> bool:
        return self.kept is None or image.uid in self.kept
