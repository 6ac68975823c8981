"""Jobs: a peer is asked for studies, question by question, and what is missing of each goes into the queue.

Rules that hold here: one question or one look at what came is a step, written down before the next; little is in the
queue at a time, so that a job can be held up and others have their turn; a peer that does not answer is asked again and
again, with pauses, until it does or a person gives up; an answer that was not asked for is not taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Protocol

from archive.dicom.attributes import Level
from archive.errors import ArchiveError, Refused
from archive.index import Index, NewTask, Settled, State, Task
from archive.index.jobs import WAITS, Jobs, name_of
from archive.index.jobvalues import RUNNING, TODO, Found, Job
from archive.services.comparing import TheirStudy
from archive.services.fetching import fetch
from archive.services.joborder import Order, sieve
from archive.services.schedule import Schedule, chance, pause
from archive.services.slices import (
    DATE,
    PATIENT_ID,
    Slice,
    has,
    ignores_patients,
    pieces,
    plain,
    seems_cut,
    slice_of,
    split,
)

log = logging.getLogger(__name__)

AHEAD = 32  # studies of a job that are to do or in the queue, before more are asked for
AT_MOST = 300.0  # seconds without a look at what came, if nobody says that anything did
GATHER = 0.5  # seconds in which several ends of fetches are one look
LATER = (30.0, 60.0, 120.0, 240.0, 480.0, 600.0)  # pauses while a peer does not answer
IN_VAIN = 60  # questions one after the other that were too large and brought nothing: parts of parts are smaller
IMPORT, MIGRATE = "import", "migrate"
PRIORITIES = {IMPORT: 0, MIGRATE: -1}


@dataclass(frozen=True, slots=True)
class Answers:
    """What a peer answers to one question; ``cut``: it has more."""

    studies: Sequence[TheirStudy]
    cut: bool = False


class Catalogue(Protocol):
    """A peer that can be asked for studies; raises ArchiveError."""

    limit: int

    def studies(self, keys: Mapping[str, str]) -> Answers: ...

    def series(
        self, study_uids: Sequence[str], keys: Mapping[str, str]
    ) -> Iterator[tuple[str, Mapping[str, Mapping[str, str]]]]:
        """Study -> the series that it lists for these keys, and its values of them."""
        ...


class Carrying:
    """The job of a LaneWorker that carries jobs on; a lane is a peer."""

    def __init__(
        self, index: Index, catalogue: Callable[[str], Catalogue], clock: Callable[[], float]
    ) -> None:
        self._index = index
        self._jobs = Jobs(index.database)
        self._catalogue = catalogue
        self._clock = clock
        self._failures: dict[int, int] = {}
        self._in_vain: dict[int, int] = {}

    def __call__(self, peer: str, tasks: Sequence[Task], owner: str) -> None:
        for task in tasks:
            self._carry(task, owner)

    def hear(self, task: int) -> None:
        """A fetch has ended."""
        self._jobs.hear(task, self._clock(), GATHER)

    def _carry(self, task: Task, owner: str) -> None:
        job, now = self._job(task, owner), self._clock()
        if job is None:
            return
        try:
            due, reason = self._step(job, now)
            self._failures.pop(job.id, None)
        except ArchiveError as error:
            tries = self._failures[job.id] = self._failures.get(job.id, 0) + 1
            wait = pause(LATER, min(tries, len(LATER)), chance()) or LATER[-1]
            due, reason = self._clock() + wait, error.reason
            log.warning("%s %d: %s; next try in %.0f s", job.kind, job.id, error, wait)
            self._jobs.say(job.id, reason)
        if due is None:
            self._in_vain.pop(job.id, None)
            self._index.finish(task.id, owner, self._clock(), keep=False)
            log.info("%s %d has ended", job.kind, job.id)
            return
        self._index.queue.settle(owner, self._clock(), [Settled(task.id, State.WAITING, reason, due, counted=False)])
        if reason == WAITS:
            self._jobs.look_again(job.id, task.id, self._clock())

    def _job(self, task: Task, owner: str) -> Job | None:
        """The job that this task carries on; None when there is nothing to carry on any more."""
        key = int(task.payload["job"])
        while True:
            job = self._jobs.get(key)
            if job is not None and (job.state, job.task) == (RUNNING, task.id):
                return job
            if self._jobs.leave(key, task.id, owner):
                return None

    # -- one step -------------------------------------------------------------------------------

    def _step(self, job: Job, now: float) -> tuple[float | None, str]:
        """Look what came, feed the queue, ask the next question; when to go on and why then, None at the end."""
        order = Order(**job.options)
        self._jobs.studies.settle(job.id, now)
        opens = Schedule(order.window).opens(now)
        if opens is not None:
            words = f"window closed until {datetime.fromtimestamp(opens):%Y-%m-%d %H:%M}"
            self._jobs.say(job.id, words)
            return opens, words
        self._feed(job, order, now)
        open_now = sum(self._jobs.studies.open(job.id).values())
        if job.plan and open_now < AHEAD:
            self._ask(job, order)
            return self._clock(), ""
        if job.plan or open_now:
            return now + AT_MOST, WAITS
        return (None, "") if self._jobs.end(job.id, now) else (self._clock(), "")

    def _feed(self, job: Job, order: Order, now: float) -> None:
        counts = self._jobs.studies.open(job.id)
        todo = counts.get(TODO, 0)
        room = AHEAD - (sum(counts.values()) - todo)
        if not todo or room <= 0:
            return
        pace = 60.0 / order.per_minute if order.per_minute else 0.0
        begin = max(now, job.slot)

        def task(study_uid: str, series: tuple[str, ...], number: int) -> NewTask:
            return fetch(
                job.peer, study_uid, series=series, priority=PRIORITIES[job.kind], due=begin + number * pace,
                why=name_of(job.kind, job.id), window=order.window,
            )  # fmt: skip

        self._jobs.studies.feed(job.id, room, begin + min(room, todo) * pace, task, now)

    # -- one question ---------------------------------------------------------------------------

    def _ask(self, job: Job, order: Order) -> None:
        """The last question of the plan, or the first piece of it."""
        *rest, last = (slice_of(each) for each in job.plan)
        *later, asked = pieces(last, oldest_first=order.oldest_first)
        catalogue = self._catalogue(job.peer)
        answers = catalogue.studies({**order.keys, **asked.keys()})
        fitting, notes = self._fitting(order, asked, answers.studies)
        more: list[Slice] = []
        self._count(job, in_vain=answers.cut and not answers.studies)
        if answers.cut or seems_cut(asked, len(answers.studies)):
            if len(fitting) < len(answers.studies) and not asked.undated:
                notes.append(f"{asked.words()}: the peer answers with others, some may not have been listed")
            else:
                values = [study.values for study in answers.studies]
                more, note = split(
                    asked, values, oldest_first=order.oldest_first, by_patient=PATIENT_ID not in order.keys,
                    dated_only=order.dated_only,
                )  # fmt: skip
                notes += [note] if note else []
                later = [] if last.letters and ignores_patients(asked, values) else later
        found = self._compared(order, catalogue, fitting, notes)
        self._jobs.studies.answered(job, found, plain([*rest, *later, *more]), notes, self._clock())

    def _count(self, job: Job, *, in_vain: bool) -> None:
        """A peer that has too many answers to whatever it is asked would be asked in parts without end."""
        self._in_vain[job.id] = self._in_vain.get(job.id, 0) + 1 if in_vain else 0
        if self._in_vain[job.id] > IN_VAIN:
            raise Refused("peer has too many answers to whatever it is asked")

    def _fitting(
        self, order: Order, asked: Slice, studies: Sequence[TheirStudy]
    ) -> tuple[list[TheirStudy], list[str]]:
        """Only what was asked for: a peer may ignore a key."""
        can_be = sieve(order.keys, Level.STUDY)
        fitting = [study for study in studies if has(asked, study.values.get(DATE, "")) and can_be(study.values)]
        strange = len(fitting) < len(studies)
        return fitting, [f"{asked.words()}: the peer lists studies that were not asked for"] if strange else []

    def _compared(
        self, order: Order, catalogue: Catalogue, studies: Sequence[TheirStudy], notes: list[str]
    ) -> list[Found]:
        """What is wanted of each study; with counts that are equal nothing is."""
        wanted = self._series(order, catalogue, studies, notes) if order.series_keys else {}
        if order.series_keys:
            studies = [study for study in studies if wanted.get(study.uid)]
        by_counts = order.compare == "counts" and not order.series_keys
        here = self._jobs.studies.sizes([study.uid for study in studies]) if by_counts else {}
        return [
            Found(
                study.uid, len(wanted[study.uid]) if wanted else study.series or 0,
                0 if wanted else study.instances or 0, tuple(wanted.get(study.uid, ())),
                bool(study.instances) and here.get(study.uid) == (study.series, study.instances),
            )
            for study in studies
        ]  # fmt: skip

    def _series(
        self, order: Order, catalogue: Catalogue, studies: Sequence[TheirStudy], notes: list[str]
    ) -> dict[str, list[str]]:
        """Study -> its series that were asked for."""
        can_be, found, listed = sieve(order.series_keys, Level.SERIES), dict[str, list[str]](), 0
        for uid, series in catalogue.series([study.uid for study in studies], order.series_keys):
            found[uid] = [each for each, values in series.items() if can_be(values)]
            listed += len(series)
        if sum(map(len, found.values())) < listed:
            notes.append("the peer lists series that were not asked for")
        return found


def balance(jobs: Jobs, job: Job, *, failures: int = 1000) -> dict[str, Any]:
    """How far a job is, in numbers that add up: listed = here + fetched + failed + cancelled + open."""
    totals = jobs.studies.totals(job.id)
    states, counts = totals.studies, totals.counts
    names = ("here", "fetched", "failed", "cancelled")
    studies = {"listed": sum(states.values()), **{name: states.get(name, 0) for name in names}}
    studies["open"] = studies["listed"] - sum(studies[name] for name in names)

    def part(total: str, before: str) -> dict[str, int]:
        known = {name: counts[f"{before}{name}"] for name in ("here", "fetched", "failed")}
        return {"listed": counts[total], **known, "open": counts[total] - sum(known.values())}

    failed = list(islice(jobs.studies.page(job.id, states=["failed"], limit=failures), failures))
    return {
        "id": job.id, "kind": job.kind, "peer": job.peer, "state": job.state, "why": job.reason,
        "created": job.created, "finished": job.finished, "options": dict(job.options),
        "studies": studies, "series": part("series", "series_"), "instances": part("instances", ""),
        "to_ask": len(job.plan), "notes": list(job.notes),
        "failures": [
            {"study": each.study_uid, "reason": each.reason, "instances": each.counts["instances"],
             "failed": each.counts["failed"]}
            for each in failed
        ],
    }  # fmt: skip
