"""Jobs: a peer is asked for studies, question by question, and what is missing of each goes into the queue.

Rules that hold here: one question or one look at what came is a step, written down before the next; little is in the
queue at a time, so that a job can be held up and others have their turn; a peer that does not answer is asked again and
again, with pauses, until it does or a person gives up; an answer that was not asked for is not taken.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import islice
from typing import Any, Protocol

from archive.dicom.attributes import BY_KEYWORD, Level
from archive.errors import ArchiveError, InvalidQuery
from archive.index import Index, NewTask, Settled, State, Task
from archive.index.jobs import RUNNING, TODO, WAITS, Found, Job, Jobs, name_of
from archive.services.fetching import fetch
from archive.services.schedule import Schedule, chance, pause
from archive.services.slices import DATE, PATIENT_ID, Slice, has, pieces, plain, seems_cut, slice_of, split

log = logging.getLogger(__name__)

AHEAD = 32  # studies of a job that are to do or in the queue, before more are asked for
AT_MOST = 300.0  # seconds without a look at what came, if nobody says that anything did
GATHER = 0.5  # seconds in which several ends of fetches are one look
LATER = (30.0, 60.0, 120.0, 240.0, 480.0, 600.0)  # pauses while a peer does not answer
IMPORT, MIGRATE = "import", "migrate"
PRIORITIES = {IMPORT: 0, MIGRATE: -1}
COMPARISONS = {
    "uids": "every instance of every study that the peer lists is looked for here",
    "counts": "a study with as many series and instances here as there is taken to be the same",
}
_DATES = re.compile(r"(\d{8})?(-)?(\d{8})?", re.ASCII)
_EXACT = re.compile(r"[^*?\\]+")  # a value that has to come back


@dataclass(frozen=True, slots=True)
class StudyAnswer:
    """A study as the peer lists it: what it says of its size, and the values of what was asked by."""

    study_uid: str
    series: int | None = None
    instances: int | None = None
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a peer answers to one question; ``cut``: it has more."""

    studies: Sequence[StudyAnswer]
    cut: bool = False


class Catalogue(Protocol):
    """A peer that can be asked for studies; raises ArchiveError."""

    limit: int

    def studies(self, keys: Mapping[str, str]) -> Answers: ...

    def series(self, study_uids: Sequence[str], keys: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
        """Study -> its series that fit."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What a person wants: which studies, which of their series, and how."""

    keys: Mapping[str, str] = field(default_factory=dict)
    series_keys: Mapping[str, str] = field(default_factory=dict)
    since: str = ""
    until: str = ""
    days: int = 0
    oldest_first: bool = False
    dated_only: bool = False
    compare: str = "uids"
    per_minute: int = 0
    window: Sequence[Any] = ()


def read_keys(keys: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], str, str]:
    """Keys of studies, keys of series, and the span of dates among them; raises InvalidQuery."""
    above: dict[str, str] = {}
    below: dict[str, str] = {}
    since = until = ""
    for keyword, value in keys.items():
        levels = [row.level for row in BY_KEYWORD.get(keyword, ())]
        if not levels or min(levels) is Level.IMAGE:
            raise InvalidQuery("studies and series cannot be asked for by this", keyword)
        if keyword == DATE and value:
            since, until = read_dates(value)
        else:
            (below if Level.SERIES in levels else above)[keyword] = value
    return above, below, since, until


def read_dates(text: str) -> tuple[str, str]:
    """A date or a range as DICOM writes it, as ISO dates; raises InvalidQuery."""
    match = _DATES.fullmatch(text.replace(" ", ""))
    if not match or not (match[1] or match[3]):
        raise InvalidQuery("a study date is 20200131 or 20200101-20201231", text)
    try:
        first, last = (date.fromisoformat(part).isoformat() if part else "" for part in (match[1], match[3]))
    except ValueError:
        raise InvalidQuery("no such date", text) from None
    return (first, last) if match[2] else (first, first)


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

    def __call__(self, peer: str, tasks: Sequence[Task], owner: str) -> None:
        for task in tasks:
            self._carry(task, owner)

    def hear(self, task: int) -> None:
        """A fetch has ended."""
        self._jobs.hear(task, self._clock(), GATHER)

    def _carry(self, task: Task, owner: str) -> None:
        job, now = self._jobs.get(int(task.payload["job"])), self._clock()
        if job is None or job.state != RUNNING or job.task != task.id:
            self._index.finish(task.id, owner, now, keep=False)
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
            self._index.finish(task.id, owner, self._clock(), keep=False)
            log.info("%s %d has ended", job.kind, job.id)
            return
        self._index.queue.settle(owner, self._clock(), [Settled(task.id, State.WAITING, reason, due, counted=False)])
        if reason == WAITS:
            self._jobs.look_again(job.id, task.id, self._clock())

    # -- one step -------------------------------------------------------------------------------

    def _step(self, job: Job, now: float) -> tuple[float | None, str]:
        """Look what came, feed the queue, ask the next question; when to go on and why then, None at the end."""
        order = Order(**job.options)
        self._jobs.settle(job.id, now)
        opens = Schedule(order.window).opens(now)
        if opens is not None:
            words = f"window closed until {datetime.fromtimestamp(opens):%Y-%m-%d %H:%M}"
            self._jobs.say(job.id, words)
            return opens, words
        self._feed(job, order, now)
        open_now = sum(self._jobs.open(job.id).values())
        if job.plan and open_now < AHEAD:
            self._ask(job, order)
            return self._clock(), ""
        if job.plan or open_now:
            return now + AT_MOST, WAITS
        self._jobs.end(job.id, now)
        return None, ""

    def _feed(self, job: Job, order: Order, now: float) -> None:
        counts = self._jobs.open(job.id)
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

        self._jobs.feed(job.id, room, begin + min(room, todo) * pace, task, now)

    # -- one question ---------------------------------------------------------------------------

    def _ask(self, job: Job, order: Order) -> None:
        """The last question of the plan, or the first piece of it."""
        *rest, last = (slice_of(each) for each in job.plan)
        *later, asked = pieces(last, oldest_first=order.oldest_first)
        catalogue = self._catalogue(job.peer)
        answers = catalogue.studies({**order.keys, **asked.keys()})
        fitting, notes = self._fitting(order, asked, answers.studies)
        more: list[Slice] = []
        if answers.cut or seems_cut(asked, len(answers.studies)):
            if len(fitting) < len(answers.studies) and not asked.undated:
                notes.append(f"{asked.words()}: the peer answers with others, some may not have been listed")
            else:
                more, note = split(
                    asked, oldest_first=order.oldest_first, by_patient=PATIENT_ID not in order.keys,
                    dated_only=order.dated_only,
                )  # fmt: skip
                notes += [note] if note else []
        found = self._compared(order, catalogue, fitting)
        self._jobs.answered(job, found, plain([*rest, *later, *more]), notes, self._clock())

    def _fitting(
        self, order: Order, asked: Slice, studies: Sequence[StudyAnswer]
    ) -> tuple[list[StudyAnswer], list[str]]:
        """Only what was asked for: a peer may ignore a key."""
        exact = {keyword: value for keyword, value in order.keys.items() if _EXACT.fullmatch(value)}
        fitting = [
            study
            for study in studies
            if (asked.undated or has(asked, study.values.get(DATE, "")))
            and all(_same(study.values.get(keyword, ""), value) for keyword, value in exact.items())
        ]
        strange = len(fitting) < len(studies)
        return fitting, [f"{asked.words()}: the peer lists studies that were not asked for"] if strange else []

    def _compared(self, order: Order, catalogue: Catalogue, studies: Sequence[StudyAnswer]) -> list[Found]:
        """What is wanted of each study; with counts that are equal nothing is."""
        wanted: dict[str, list[str]] = {}
        if order.series_keys:
            wanted = dict(catalogue.series([study.study_uid for study in studies], order.series_keys))
            studies = [study for study in studies if wanted.get(study.study_uid)]
        by_counts = order.compare == "counts" and not order.series_keys
        here = self._jobs.sizes([study.study_uid for study in studies]) if by_counts else {}
        return [
            Found(
                study.study_uid, len(wanted[study.study_uid]) if wanted else study.series or 0,
                0 if wanted else study.instances or 0, tuple(wanted.get(study.study_uid, ())),
                bool(study.instances) and here.get(study.study_uid) == (study.series, study.instances),
            )
            for study in studies
        ]  # fmt: skip


def _same(answer: str, asked: str) -> bool:
    """A value that a peer leaves out says nothing; letter cases are its own business."""
    found = answer.strip().lower()
    return not found or asked.strip().lower() in (found, *found.split("\\"))


def balance(jobs: Jobs, job: Job, *, failures: int = 1000) -> dict[str, Any]:
    """How far a job is, in numbers that add up: listed = here + fetched + failed + cancelled + open."""
    totals = jobs.totals(job.id)
    states, counts = totals.studies, totals.counts
    names = ("here", "fetched", "failed", "cancelled")
    studies = {"listed": sum(states.values()), **{name: states.get(name, 0) for name in names}}
    studies["open"] = studies["listed"] - sum(studies[name] for name in names)

    def part(total: str, before: str) -> dict[str, int]:
        known = {name: counts[f"{before}{name}"] for name in ("here", "fetched", "failed")}
        return {"listed": counts[total], **known, "open": counts[total] - sum(known.values())}

    failed = list(islice(jobs.studies(job.id, states=["failed"], limit=failures), failures))
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
