"""Looks for priors when their time has come, and puts what is missing into the queue of what is fetched.

Rules that hold here: an order or study has one task of a rule, whatever number of triggers there were; a task that is
too early is put off to its time; a source that fails is asked again later, and others' priors do not wait for it; what
is found is put into queues before the task ends, and doing so again changes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from archive.dicom.attributes import Level
from archive.errors import ArchiveError, IndexUnavailable, NotPossible, Unreachable
from archive.index import Index, NewTask, Settled, State, Task
from archive.services.fetching import fetch
from archive.services.prefetch import PREFETCH, Rule, Subject, Subjects, timing, until
from archive.services.priors import HERE, Ask, Found, Judged, Priors
from archive.services.samepatient import Answer
from archive.services.schedule import chance, pause
from archive.workers.handing import hand_on, later

log = logging.getLogger(__name__)

PAUSES = (30.0, 60.0, 120.0, 300.0, 600.0)  # seconds until a source that failed is asked again; then the last
OWN_TROUBLE = 30.0  # seconds until a try after the archive's own


class Seeking:
    """The job: the lane is a rule."""

    def __init__(
        self,
        index: Index,
        rules: Sequence[Rule],
        priors: Callable[[], Priors],
        clock: Callable[[], float],
        *,
        recall: Callable[[str], Sequence[NewTask]] = lambda study_uid: (),
    ) -> None:
        """``priors`` remember answers for one batch; ``recall`` are the tasks that bring a study to the cache."""
        self._index = index
        self._subjects = Subjects(index)
        self._rules = {rule.lane: rule for rule in rules}
        self._priors = priors
        self._clock = clock
        self._recall = recall

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        rule, priors = self._rules.get(lane), self._priors()
        seen: set[tuple[bool, str]] = set()
        for task in tasks:
            if rule is None:
                self._index.fail(task.id, owner, self._clock(), "the rule has gone from the configuration")
                continue
            try:
                self._one(rule, task, owner, priors, seen)
            except IndexUnavailable:
                raise
            except Exception as error:
                log.exception("prefetch by rule %s for study %s failed", rule.name, task.study_uid)
                self._index.retry(task.id, owner, self._clock() + OWN_TROUBLE, f"internal error: {error}")

    def _one(self, rule: Rule, task: Task, owner: str, priors: Priors, seen: set[tuple[bool, str]]) -> None:
        subject, now = self._subjects.of(task.payload), self._clock()
        if subject is None or (_is_study(task), subject.study_uid) in seen:
            self._index.finish(task.id, owner, now, keep=False)
            return
        seen.add((_is_study(task), subject.study_uid))
        if self._join(rule, task, subject):
            subject = self._subjects.of(task.payload) or subject
        when = timing(rule, subject, now, since=task.created)
        if when.never:
            self._index.finish(task.id, owner, now, reason=when.never, keep=when.tells)
        elif when.due > now:
            waits = Settled(task.id, State.WAITING, when.waits, when.due, counted=False)
            self._index.queue.settle(owner, now, [waits])
        else:
            self._look(rule, subject, task, owner, priors)

    def _join(self, rule: Rule, task: Task, subject: Subject) -> bool:
        """Do this task for all triggers for the same that wait; True when what they told is to be read again."""
        others = [
            each.id
            for uid in dict.fromkeys((task.study_uid, subject.study_uid))
            for each in self._index.queue.of_study(PREFETCH, uid)
            if each.lane == rule.lane and each.state is State.WAITING and _is_study(each) == _is_study(task)
        ]
        return bool(others and self._index.delete_tasks(others))

    # -- looking ----------------------------------------------------------------------------------

    def _look(self, rule: Rule, subject: Subject, task: Task, owner: str, priors: Priors) -> None:
        now = self._clock()
        try:
            found = priors.look(subject.patient, subject.coming, rule.wish, rule.sources, subject.day(now))
        except NotPossible as error:
            self._index.fail(task.id, owner, now, str(error))
            return
        said = self._take(rule, found)
        log.info("prefetch by rule %s for study %s: %s", rule.name, subject.study_uid, said)
        if not found.failed:
            self._index.finish(task.id, owner, self._clock(), reason=said)
            return
        reason = "; ".join([*(f"{source or 'own index'}: {words}" for source, words in found.failed.items()), said])
        again = self._clock() + (pause(PAUSES, min(task.attempts, len(PAUSES)), chance()) or PAUSES[-1])
        if again < until(rule, subject, task.created):
            self._index.retry(task.id, owner, again, reason)
        else:
            self._index.fail(task.id, owner, self._clock(), reason)

    def _take(self, rule: Rule, found: Found) -> str:
        """Put what is wanted into the queues; what was done, in words."""
        now, why = self._clock(), f"prefetch {rule.name}"
        tasks: list[NewTask] = []
        fetched = here = 0
        for each in found.judged:
            if not each.is_wanted:
                continue
            uid = each.candidate.examination.study_uid
            if not is_fetched(rule, each):
                here += 1
                tasks += self._recall(uid)
                hand_on(self._index, uid, rule.to, why, rule.priority, now)
                continue
            fetched += 1
            tasks.append(fetch(each.candidate.source, uid, priority=rule.priority, why=why))
            tasks += [later(uid, rule.to, why, rule.priority, rule.lane, now)] if rule.to else []
        if tasks:
            self._index.add_tasks(tasks, now)
        left = len(found.judged) - fetched - here
        return f"{fetched} priors are fetched, {here} are here, {left} others not wanted"


def _is_study(task: Task) -> bool:
    """A study that has come needs its priors now, also while its order waits."""
    return "study" in task.payload


def is_fetched(rule: Rule, judged: Judged) -> bool:
    """Whether a prior that is wanted is asked for at its source."""
    if judged.candidate.source == HERE:
        return False
    return not (rule.skip_if_present and judged.is_whole)


class Cautious:
    """Asks sources, but not again at once what has just failed: many tasks may want the same dead peer."""

    def __init__(self, ask: Ask, clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._mutex = threading.Lock()
        self._down: dict[str, tuple[float, int, str]] = {}  # until when, how many times in a row, why

    def __call__(self, source: str, level: Level, keys: Mapping[str, Any]) -> Generator[Answer, None, None]:
        with self._mutex:
            when, times, words = self._down.get(source, (0.0, 0, ""))
        if self._clock() < when:
            raise Unreachable("not asked again yet", words)
        try:
            yield from self._ask(source, level, keys)
        except ArchiveError as error:
            wait = pause(PAUSES, min(times + 1, len(PAUSES))) or PAUSES[-1]
            with self._mutex:
                # By half, so that who waits for the whole pause is not turned away.
                self._down[source] = (self._clock() + wait / 2, times + 1, error.reason)
            raise
        with self._mutex:
            self._down.pop(source, None)
