"""Reconciliation: the index and a peer are compared study by study, and what differs is put into queues.

Rules that hold here: studies are asked for by spans of dates, the latest first, so that neither side is ever held
whole; series and images are asked for only where numbers differ, or the plan wants it; before a study is called missing
the peer is asked for it by name, and the index too, whatever its date; each piece is written with its tasks and with
where to go on, so that a comparison that is killed goes on and does nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import date

from archive.dicom.rule import Facts, holds
from archive.errors import Refused
from archive.index import Index, NewTask
from archive.index.sync import Difference, OurImage, OurStudy, Run, Step, SyncRows
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
from archive.services.dates import OLDEST, day_after, is_date, read_date, within, write_date
from archive.services.fetching import FETCH, FROM, fetch
from archive.services.inquiry import Inquiry, Questions, Terms
from archive.services.routing import DELIVER, VERIFY, delivery, facts_of, keywords

SLICE = 1000  # studies of ours that are compared with one question
MOST = 5000  # studies of the peer in one answer; more are asked for again in smaller spans
CHUNK = 100  # studies looked at between two transactions: what a kill makes us look at again
PIECE = 1000  # tasks of one transaction, so that arrivals wait for hundredths of a second
LIST = 50  # UIDs in one question: some 3 kB, which old peers still read
DOUBTED = 10  # studies asked for one by one before a peer that found none of a list is believed
LONGEST = 500  # series that a task of fetching names; more means the whole study

DATES, CHANGED, UNDATED = "dates", "changed", "undated"  # parts of a comparison, in this order

Write = Callable[[Step], bool]  # False: somebody else does this now


@dataclass(slots=True)
class _Gathered:
    """What some studies have come to."""

    counts: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    agreed: dict[str, tuple[float, int]] = field(default_factory=dict)
    tasks: list[NewTask] = field(default_factory=list)


class Reconciliation:
    """Comparing with one peer; used by one thread."""

    def __init__(
        self, index: Index, inquiry: Inquiry, terms: Terms, *, clock: Callable[[], float],
        today: Callable[[float], date] = date.fromtimestamp,
    ) -> None:  # fmt: skip
        self._index = index
        self._rows = SyncRows(index.database)
        self._inquiry = inquiry
        self._terms = terms
        self._clock = clock
        self._today = today
        self._lists = 0  # studies that were asked for alone and not found either; negative: lists are not understood
        self._moment = 0.0

    def work(self, run: Run, write: Write, *, enough: Callable[[], bool]) -> bool:
        """Go on with a comparison until its end, or until it was ``enough``; whether it is at its end.

        Raises ArchiveError when the peer cannot be asked; what was written so far holds.
        """
        plan = Plan.of(run.plan)
        position = dict(run.position) or {"part": DATES, "until": plan.until}
        with self._inquiry.open() as questions:
            for step in self._steps(questions, plan, position):
                if not write(step):
                    return False
                if step.finished:
                    return True
                if enough():
                    return False
        return False

    def _steps(self, questions: Questions, plan: Plan, position: Mapping[str, str]) -> Iterator[Step]:
        """All that is left, a step at a time."""
        part = position["part"]
        if part == DATES:
            yield from self._by_dates(questions, plan, position)
            part, position = CHANGED, {"part": CHANGED}
        if part == CHANGED:
            if plan.recent:
                yield from self._by_change(questions, plan, position)
            position = {"part": UNDATED}
        if plan.undated:
            yield from self._undated(questions, plan, position)
        yield Step({"part": "end"}, {}, finished=True)

    # -- spans of dates -------------------------------------------------------------------------

    def _by_dates(self, questions: Questions, plan: Plan, position: Mapping[str, str]) -> Iterator[Step]:
        until, after = position["until"], position.get("after", "")
        low = position.get("since")
        while True:
            self._moment = self._clock()
            since, theirs = self._theirs(questions, self._low(plan, until) if low is None else low, until)
            ours = self._rows.between(self._terms.peer, since, until)
            here = {"part": DATES, "until": until, "since": since}
            yield from self._compare(questions, plan, ours, theirs, after, here)
            if since == plan.since:
                return
            until, after, low = day_after(since, -1), "", None
            if plan.since and until < plan.since:
                return
            yield Step({"part": DATES, "until": until}, {})

    def _low(self, plan: Plan, until: str) -> str:
        """Where a span that ends here begins, so that it has not too many of our studies."""
        total, low = 0, ""
        with closing(self._rows.dates(plan.since, until)) as dates:
            for day, number in dates:
                if total and total + number > SLICE and is_date(low):
                    return low
                total, low = total + number, day
        return plan.since

    def _theirs(self, questions: Questions, since: str, until: str) -> tuple[str, dict[str, TheirStudy]]:
        """The peer's studies of a span, or of the later part of it if they are too many, and where that begins."""
        while True:
            later = self._later(since, until)
            found: dict[str, TheirStudy] = {}
            number = 0
            for each in questions.between(since, until, MOST if later else 0):
                number += 1
                if within(each.date, since, until):
                    found[each.uid] = each
            if not later or number < MOST:
                return since, found
            since = later

    def _later(self, since: str, until: str) -> str:
        """Where the later half of a span begins; empty for one that is not divided: a day, and what is to come."""
        first, last = read_date(since) or OLDEST, read_date(until) or self._today(self._clock())
        return write_date(last - (last - first) // 2) if first < last else ""

    # -- what dates do not find -----------------------------------------------------------------

    def _by_change(self, questions: Questions, plan: Plan, position: Mapping[str, str]) -> Iterator[Step]:
        """Studies of other dates, or of none, that something came for lately."""
        after, dates = position.get("after", ""), (plan.since, plan.until)
        while True:
            self._moment = self._clock()
            ours = self._rows.changed(self._terms.peer, plan.recent, dates, after, CHUNK)
            if not ours:
                return
            yield from self._compare(questions, plan, ours, {}, after, {"part": CHANGED})
            after = max(ours)

    def _undated(self, questions: Questions, plan: Plan, position: Mapping[str, str]) -> Iterator[Step]:
        """Studies of the peer that have no date, which nobody can ask for: all are gone through."""
        after, found = position.get("after", ""), {}
        self._moment = self._clock()
        for each in questions.between("", ""):
            if not each.date:
                found[each.uid] = each
        yield from self._compare(questions, plan, {}, found, after, {"part": UNDATED})

    # -- studies --------------------------------------------------------------------------------

    def _compare(
        self, questions: Questions, plan: Plan, ours: Mapping[str, OurStudy], theirs: Mapping[str, TheirStudy],
        after: str, position: Mapping[str, str],
    ) -> Iterator[Step]:  # fmt: skip
        uids = sorted(uid for uid in {*ours, *theirs} if uid > after)
        for start in range(0, len(uids), CHUNK):
            chunk = uids[start : start + CHUNK]
            mine = {uid: ours[uid] for uid in chunk if uid in ours}
            mine |= self._rows.named(self._terms.peer, [uid for uid in chunk if uid not in ours])
            other = {uid: theirs[uid] for uid in chunk if uid in theirs}
            other |= self._named(questions, [uid for uid in chunk if uid not in theirs])
            gathered = _Gathered()
            busy = self._busy(plan, chunk, mine, other)
            for uid in chunk:
                self._study(questions, plan, mine.get(uid), other.get(uid), uid in busy, gathered)
            yield from self._written(gathered, {**position, "after": after}, {**position, "after": chunk[-1]})
            after = chunk[-1]

    def _written(self, found: _Gathered, at: Mapping[str, str], to: Mapping[str, str]) -> Iterator[Step]:
        """Many tasks are written ahead of the rest: a kill in between leaves studies that have tasks, and wait."""
        tasks = found.tasks
        while len(tasks) > PIECE:
            yield Step(at, {}, tasks=tasks[:PIECE])
            tasks = tasks[PIECE:]
        yield Step(to, found.counts, found.differences, found.agreed, tasks)

    def _busy(
        self, plan: Plan, uids: Collection[str], ours: Mapping[str, OurStudy], theirs: Mapping[str, TheirStudy]
    ) -> set[str]:
        """Which studies that are not known to be equal have something under way."""
        sure = {
            uid for uid in ours.keys() & theirs.keys()
            if looks_equal(ours[uid], theirs[uid]) and is_close_enough(plan, ours[uid])
        }  # fmt: skip
        doubtful = [uid for uid in uids if uid not in sure]
        if not doubtful:
            return set()
        lanes = (self._terms.peer, FROM + self._terms.peer)
        busy = self._rows.busy((DELIVER, VERIFY, FETCH), lanes, doubtful)
        return busy | {uid for uid in doubtful if uid in ours and ours[uid].arrivals}

    def _named(self, questions: Questions, uids: Sequence[str]) -> dict[str, TheirStudy]:
        """Studies that the peer has under these UIDs, whatever it says of their dates."""
        found: dict[str, TheirStudy] = {}
        for start in range(0, len(uids), LIST) if self._lists >= 0 else ():
            found |= {each.uid: each for each in questions.named(uids[start : start + LIST]) if each.uid in uids}
        for uid in uids:
            if uid not in found and self._lists < DOUBTED:
                alone = [each for each in questions.named([uid]) if each.uid == uid]
                found |= {each.uid: each for each in alone}
                self._lists = -1 if alone or self._lists < 0 else self._lists + 1
        return found

    def _study(
        self, questions: Questions, plan: Plan, ours: OurStudy | None, theirs: TheirStudy | None, busy: bool,
        gathered: _Gathered,
    ) -> None:  # fmt: skip
        """One study: equal, changing, or different."""
        mine = self._ours(ours)
        if not mine.counts and (theirs is None or not holds(self._terms.rule, self._facts(theirs))):
            return
        gathered.counts["compared"] += 1
        words = patients(ours, theirs) if ours and theirs else ""
        same = mine.whole and ours is not None and theirs is not None and looks_equal(ours, theirs)
        close = same and ours is not None and is_close_enough(plan, ours)
        if close and not words:
            gathered.counts["equal"] += 1
        elif busy:
            self._add(gathered, difference(ours, theirs, Verdict(), None, words="is changing here", waiting=True))
        elif words and "ID" in words:
            gathered.counts["patients"] += 1
            self._add(gathered, difference(ours, theirs, Verdict(), None, words=words))
        else:
            self._look(questions, plan, ours, theirs, mine, words, close, gathered)

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

    def _equal(
        self, plan: Plan, ours: OurStudy | None, theirs: TheirStudy | None, whole: bool, gathered: _Gathered
    ) -> None:
        """Images were compared, and none is missing."""
        gathered.counts["equal"] += 1
        if ours is None or theirs is None or not whole:
            return
        if not looks_equal(ours, theirs):
            gathered.counts["miscounted"] += 1
        if plan.compare != COUNTS and (ours.agreed_instances != ours.instances or (ours.agreed or 0.0) <= ours.updated):
            gathered.agreed[ours.uid] = (self._moment, ours.instances)

    # -- images ---------------------------------------------------------------------------------

    def _look(
        self, questions: Questions, plan: Plan, ours: OurStudy | None, theirs: TheirStudy | None, mine: _Ours,
        words: str, close: bool, gathered: _Gathered,
    ) -> None:  # fmt: skip
        """Compare the images of one study."""
        here = [image for image in (self._rows.images(ours.uid) if ours else ()) if mine.has(image)]
        there: dict[str, str] = {}
        if theirs is not None and not close:
            try:
                there = self._there(questions, plan, theirs, here)
            except Refused as error:
                said = f"the peer does not list series and images: {error.comment}"
                self._add(gathered, difference(ours, theirs, Verdict(), None, words=said))
                return
        elif theirs is not None:
            there = {image.uid: image.series_uid for image in here}
        known = self._known(plan, ours, theirs, here, there)
        uid = ours.uid if ours else theirs.uid if theirs else ""
        verdict = judge(plan, self._terms.titles, uid, ours, here, there, known)
        if not verdict.words and not words:
            self._equal(plan, ours, theirs, mine.whole, gathered)
            return
        if words:
            gathered.counts["patients"] += 1
        self._add(gathered, difference(ours, theirs, verdict, len(there), words=words))
        if not plan.dry:
            gathered.tasks += self._tasks(ours, theirs, verdict)

    def _there(
        self, questions: Questions, plan: Plan, theirs: TheirStudy, here: Sequence[OurImage]
    ) -> dict[str, str]:
        """The peer's images of a study with their series; if counts are enough a series of as many as ours is equal."""
        mine: dict[str, list[str]] = {}
        for image in here:
            mine.setdefault(image.series_uid, []).append(image.uid)
        listed = questions.series(theirs.uid)
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
            if plan.compare != COUNTS or all_alike or number is None or number != len(mine.get(series, ())):
                uids = questions.images(theirs.uid, series)
                if number and not uids:
                    raise Refused("it lists no images")
            found |= dict.fromkeys(uids, series)
        return found

    def _known(
        self, plan: Plan, ours: OurStudy | None, theirs: TheirStudy | None, here: Sequence[OurImage],
        there: Mapping[str, str],
    ) -> Known:  # fmt: skip
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

    def _add(self, gathered: _Gathered, found: Difference) -> None:
        gathered.differences.append(found)
        kind = "waiting" if found.waiting else "remaining" if found.remaining else "mending"
        gathered.counts[kind] += 1
        for name, number in (("push", found.push), ("pull", found.pull), ("left", found.remaining)):
            gathered.counts[name] += number


@dataclass(frozen=True, slots=True)
class _Ours:
    """Which images of a study take part: ``kept``, None = all; ``whole`` when that is all there are."""

    kept: frozenset[str] | None
    counts: bool
    whole: bool

    def has(self, image: OurImage) -> bool:
        return self.kept is None or image.uid in self.kept
