"""Checks what peers asked to be committed, and brings them the reports.

Rules that hold here: a request is checked and its report delivered by two tasks in the lane of the peer; a peer that
cannot be called costs one try for all that waits for it; a report that failed is tried again by the schedule, and
stays in the queue as failed after its last try; what the peer answers is believed only when it is success.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from archive.dicom.references import Outcome
from archive.errors import ArchiveError, OutOfResources, Unreachable
from archive.index import Index, Task
from archive.index.commitment_tasks import CHECK, NOT_REACHED, REPORT
from archive.index.commitments import Transaction
from archive.services.commitment import Commitment
from archive.workers.lanes import LaneWorker
from archive.workers.worker import Worker

log = logging.getLogger(__name__)

BATCH = 20  # reports of one association
CHECKED_AT_ONCE = 2  # peers whose instances are read at the same time: the disk has other things to do
FORGETTING = 3600.0  # seconds between two looks for what can be forgotten
PAUSE = 30.0  # seconds until instances are looked for again on a disk that was not there

Reports = Sequence[tuple[Transaction, Outcome]]
Deliver = Callable[[str, Reports], Iterator[ArchiveError | None]]
"""Reports to a peer, in order: None or what went wrong with each. Raises Unreachable when the peer is."""


class Checking:
    """The job that checks."""

    def __init__(self, commitment: Commitment, index: Index, clock: Callable[[], float]) -> None:
        self._commitment = commitment
        self._index = index
        self._clock = clock

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        for task in tasks:
            transaction = self._commitment.transactions.get(int(task.payload["commitment"]))
            if transaction is None:
                self._index.finish(task.id, owner, self._clock(), keep=False)
                continue
            try:
                self._commitment.check(transaction, task.id, owner, lambda: None)
            except OutOfResources as error:
                log.warning("commitment %s of %s waits: %s", transaction.transaction, lane, error)
                self._index.retry(task.id, owner, self._clock() + PAUSE, str(error))


class Reporting:
    """The job that delivers."""

    def __init__(
        self,
        commitment: Commitment,
        index: Index,
        deliver: Deliver,
        *,
        pauses: Sequence[float],
        clock: Callable[[], float],
    ) -> None:
        self._commitment = commitment
        self._index = index
        self._deliver = deliver
        self._pauses = pauses
        self._clock = clock

    def __call__(self, lane: str, tasks: Sequence[Task], owner: str) -> None:
        transactions = self._commitment.transactions
        wanted: list[tuple[Task, Transaction]] = []
        for task in tasks:
            transaction = transactions.get(int(task.payload["commitment"]))
            if transaction is None:
                self._index.finish(task.id, owner, self._clock(), keep=False)
            else:
                wanted.append((task, transaction))
        if wanted:
            self._report(lane, wanted, owner)

    def _report(self, lane: str, wanted: Sequence[tuple[Task, Transaction]], owner: str) -> None:
        reports = [(transaction, self._commitment.outcome(transaction)) for _, transaction in wanted]
        left = list(wanted)
        try:
            for error in self._deliver(lane, reports):
                task, transaction = left.pop(0)
                self._settle(task, transaction, owner, error)
        except Unreachable as error:
            self._not_reached(lane, left, owner, error)
        except ArchiveError as error:
            for task, transaction in left:
                self._settle(task, transaction, owner, error)

    def _settle(self, task: Task, transaction: Transaction, owner: str, error: ArchiveError | None) -> None:
        transactions, now = self._commitment.transactions, self._clock()
        if error is None:
            transactions.reported(transaction.id, task.id, owner, now)
            log.info("commitment %s is reported to %s", transaction.transaction, transaction.peer)
            return
        due = self._next(task) if error.temporary else None
        log.warning(
            "commitment %s is not reported to %s: %s%s",
            transaction.transaction, transaction.peer, error, "" if due else "; given up",
        )  # fmt: skip
        if due is None:
            transactions.give_up(transaction.id, task.id, owner, now, error.reason)
            if self._index.queue.failed is not None:
                self._index.queue.failed(REPORT, transaction.peer, str(error), 1)
        else:
            transactions.put_off(transaction.id, task.id, owner, due, error.reason)

    def _not_reached(
        self, lane: str, left: Sequence[tuple[Task, Transaction]], owner: str, error: ArchiveError
    ) -> None:
        """The peer is not there: one try for all that is due for it."""
        first = None
        for task, transaction in left:
            self._settle(task, transaction, owner, Unreachable(NOT_REACHED, str(error)))
            first = first or self._next(task)
        if first is not None:
            reason = str(Unreachable(NOT_REACHED, str(error)))
            self._commitment.transactions.put_off_others(lane, self._clock(), first, reason)

    def _next(self, task: Task) -> float | None:
        """When the next try is due; None after the last one."""
        tried = max(1, task.attempts)
        return self._clock() + self._pauses[tried - 1] if tried <= len(self._pauses) else None


class Forgetting:
    """A worker: transactions that ended long ago are not remembered."""

    name = "commit-history"
    kinds: frozenset[str] = frozenset()

    def __init__(self, commitment: Commitment, retain: float, clock: Callable[[], float]) -> None:
        self._transactions = commitment.transactions
        self._retain = retain
        self._clock = clock

    def step(self) -> float | None:
        """A piece at a time, so that others get their turn."""
        return 0.0 if self._transactions.purge(self._clock() - self._retain) else FORGETTING

    def close(self) -> None:
        """Nothing is kept."""


def workers(
    commitment: Commitment,
    index: Index,
    deliver: Deliver,
    *,
    pauses: Sequence[float],
    retain: float,
    clock: Callable[[], float],
) -> list[Worker]:
    """The workers of storage commitment."""
    checking = Checking(commitment, index, clock)
    reporting = Reporting(commitment, index, deliver, pauses=pauses, clock=clock)
    return [
        LaneWorker("commit-checks", CHECK, index, checking, clock=clock, at_once=CHECKED_AT_ONCE),
        LaneWorker("commit-reports", REPORT, index, reporting, clock=clock, batch=BATCH),
        Forgetting(commitment, retain, clock),
    ]
