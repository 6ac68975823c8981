"""Reconciliation: the index and a peer are gone through side by side, and what differs is put into queues.

Rules that hold here: studies are asked for by spans of dates, the latest first, so that neither side is ever held
whole; before a study is called missing the peer is asked for it by name, and the index too, whatever its date; each
piece is written with its tasks and with where to go on, so that a comparison that is killed goes on and does nothing
twice; what a peer lists is bounded before it fills our memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date
from functools import partial

from archive.errors import Refused
from archive.index import Index
from archive.index.sync import OurStudy, Run, Step, SyncRows
from archive.services.comparing import Plan, TheirStudy
from archive.services.dates import OLDEST, day_after, is_date, read_date, within, write_date
from archive.services.inquiry import Inquiry, Questions, Terms
from archive.services.mending import Gathered, Mending

SLICE = 1000  # studies of ours that are compared with one question
MOST = 5000  # studies of the peer in one answer; more are asked for again in smaller spans
MOST_HELD = 200_000  # of one date, or of none, which cannot be asked for in parts: some 200 MB
CHUNK = 100  # studies looked at between two transactions: what a kill makes us look at again
PIECE = 1000  # tasks of one transaction, so that arrivals wait for hundredths of a second
LIST = 50  # UIDs in one question: some 3 kB, which old peers still read
DOUBTED = 10  # studies asked for one by one before a peer that found none of a list is believed

DATES, CHANGED, UNDATED = "dates", "changed", "undated"  # parts of a comparison, in this order

Write = Callable[[Step], bool]  # False: somebody else does this now


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
            studies = questions.between(since, until, MOST if later else 0)
            found, number = _held(studies, partial(_is_between, since, until))
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
        after = position.get("after", "")
        self._moment = self._clock()
        found, _ = _held(questions.between("", ""), lambda study: not study.date)
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
            gathered = Mending(self._index, self._terms, questions, plan, self._moment).look(chunk, mine, other)
            yield from self._written(gathered, {**position, "after": after}, {**position, "after": chunk[-1]})
            after = chunk[-1]

    def _written(self, found: Gathered, at: Mapping[str, str], to: Mapping[str, str]) -> Iterator[Step]:
        """Many tasks are written ahead of the rest: a kill in between leaves studies that have tasks, and wait."""
        tasks = found.tasks
        while len(tasks) > PIECE:
            yield Step(at, {}, tasks=tasks[:PIECE])
            tasks = tasks[PIECE:]
        yield Step(to, found.counts, found.differences, found.agreed, tasks)

    def _named(self, questions: Questions, uids: Sequence[str]) -> dict[str, TheirStudy]:
        """Studies that the peer has under these UIDs, whatever it says of their dates."""
        found: dict[str, TheirStudy] = {}
        for start in range(0, len(uids), LIST) if self._lists >= 0 else ():
            found |= {each.uid: each for each in questions.named(uids[start : start + LIST]) if each.uid in uids}
        for uid in uids:
            if uid not in found and self._lists < DOUBTED:
                alone = {each.uid: each for each in questions.named([uid]) if each.uid == uid}
                found |= alone
                self._lists = -1 if alone or self._lists < 0 else self._lists + 1
        return found


def _is_between(since: str, until: str, study: TheirStudy) -> bool:
    """Of dates; some peers answer with others too."""
    return within(study.date, since, until)


def _held(studies: Iterable[TheirStudy], takes_part: Callable[[TheirStudy], bool]) -> tuple[dict[str, TheirStudy], int]:
    """Those that take part by UID, as far as there is room for them, and how many were listed."""
    found: dict[str, TheirStudy] = {}
    number = 0
    for each in studies:
        number += 1
        if takes_part(each):
            found[each.uid] = each
        if len(found) > MOST_HELD:
            raise Refused("peer lists too many studies of one date, or of none", f"more than {MOST_HELD}")
    return found, number
