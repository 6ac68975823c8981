"""Storage commitment: a promise, instance by instance, that the archive has it and that its bytes are those that came.

Rules that hold here: a request is durable before it is answered; what is promised was re-read and re-hashed from the
disk, never only looked up; what was found is written down before it is told, and repeated as it was; a disk or an index
that is not there now is no answer, it is tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from archive.dicom.references import Failure, Outcome, Reference
from archive.errors import Conflict, Damaged, InvalidQuery, Missing, OutOfResources
from archive.index import Index, StoredInstance
from archive.index.commitment_tasks import Lease
from archive.index.commitments import (
    ASKED,
    ASKING,
    CHECKING,
    Commitments,
    Contents,
    NewTransaction,
    Taken,
    Transaction,
)
from archive.index.queue import Queue

log = logging.getLogger(__name__)

# PS3.3 C.14.1.1, failure reasons.
PROCESSING_FAILURE, NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0110, 0x0112, 0x0119
NOT_MENTIONED = 0  # of no table: the peer's report did not speak of it

CHUNK = 500  # instances looked up by one statement: below what any database takes as parameters

Verify = Callable[[StoredInstance], None]


class Commitment:
    """Answers requests of peers; thread-safe, in any process."""

    def __init__(self, index: Index, verify: Verify, *, clock: Callable[[], float], max_pending: int) -> None:
        """`verify` re-reads and re-hashes one instance; it raises Missing or Damaged."""
        self.transactions = Commitments(index.database)
        self._queue = Queue(index.database)
        self._verify = verify
        self._clock = clock
        self._max_pending = max_pending

    def take(self, new: NewTransaction, lease: Lease | None = None) -> tuple[Transaction, int]:
        """Keep a request durably: its transaction, and its task if the caller gave a lease and got it (else 0).

        Raises Conflict when the Transaction UID belongs to other instances, OutOfResources when too many requests
        of this peer are pending.
        """
        taken, key, task = self.transactions.take(new, self._clock(), most=self._max_pending, lease=lease)
        if taken is Taken.OTHER:
            raise Conflict("Transaction UID is in use for other instances", new.transaction)
        if taken is Taken.FULL:
            raise OutOfResources("too many commitment requests are pending", f"{self._max_pending} of {new.peer}")
        found = self.transactions.get(key) if key else self.transactions.known(ASKED, new.peer, new.transaction)
        assert found is not None
        return found, task if lease else 0

    def examine(self, references: Sequence[Reference], alive: Callable[[], object] = lambda: None) -> list[Failure]:
        """Those that cannot be promised, and why; `alive` is called before each instance is read.

        Raises OutOfResources while disk or index are not there.
        """
        failures: list[Failure] = []
        rest = iter(references)
        while chunk := list(islice(rest, CHUNK)):
            failures += self._failures(chunk, alive)
        return failures

    def _failures(self, chunk: Sequence[Reference], alive: Callable[[], object]) -> Iterator[Failure]:
        stored = self._queue.stored([each.sop_instance for each in chunk])
        for reference in chunk:
            alive()
            found = stored.get(reference.sop_instance)
            reason = self._fault(reference, found[0]) if found else NO_SUCH_INSTANCE
            if reason:
                yield Failure(*reference, reason)

    def _fault(self, reference: Reference, instance: StoredInstance) -> int:
        """Why it cannot be promised, 0 when it can."""
        if instance.sop_class_uid != reference.sop_class:
            return CLASS_CONFLICT
        try:
            self._verify(instance)
        except Missing:
            return NO_SUCH_INSTANCE
        except Damaged:
            return PROCESSING_FAILURE
        return 0

    def check(self, transaction: Transaction, task: int, owner: str, alive: Callable[[], object],
              lease: Lease | None = None) -> int:  # fmt: skip
        """Find out what can be promised, and keep it: the id of the task to report it, 0 when the lease was lost."""
        if transaction.state != CHECKING:
            return task
        contents = self.transactions.contents(transaction.id)
        failures = self.examine(contents.items, alive)
        log.info(
            "commitment %s of %s: %d instances are whole, %d are not",
            transaction.transaction, transaction.peer, len(contents.items) - len(failures), len(failures),
        )  # fmt: skip
        return self.transactions.checked(transaction.id, failures, task, owner, self._clock(), lease)

    def outcome(self, transaction: Transaction) -> Outcome:
        """What is reported of a transaction that was checked."""
        return outcome_of(transaction.transaction, self.transactions.contents(transaction.id))


class Asking:
    """What we ask of peers, and what they report; thread-safe, in any process."""

    def __init__(self, index: Index, *, clock: Callable[[], float]) -> None:
        self.transactions = Commitments(index.database)
        self._clock = clock

    def begin(self, peer: str, transaction: str, items: Sequence[Reference], study_uid: str = "") -> int:
        """Remember what is about to be asked, so that a report finds it however soon it comes."""
        return self.transactions.ask(
            NewTransaction(ASKING, peer, transaction, tuple(items), study_uid=study_uid), self._clock()
        )

    def refused(self, key: int, reason: str) -> None:
        self.transactions.refused(key, self._clock(), reason)

    def answered(self, peer: str, outcome: Outcome) -> Transaction:
        """Keep a report; raises InvalidQuery when this peer was not asked that. What it does not mention has failed."""
        asked = self.transactions.known(ASKING, peer, outcome.transaction)
        if asked is None:
            raise InvalidQuery("Transaction UID is unknown", outcome.transaction)
        failures = shortcomings(self.transactions.contents(asked.id).items, outcome)
        self.transactions.answered(peer, outcome.transaction, failures, self._clock())
        level = logging.WARNING if failures else logging.INFO
        log.log(
            level, "commitment %s at %s: %d instances committed, %d not",
            outcome.transaction, peer, asked.items - len(failures), len(failures),
        )  # fmt: skip
        found = self.transactions.get(asked.id)
        assert found is not None
        return found


def outcome_of(transaction: str, contents: Contents) -> Outcome:
    failed = {each[:2] for each in contents.failures}
    return Outcome(transaction, tuple(each for each in contents.items if each not in failed), contents.failures)


def shortcomings(asked: Sequence[Reference], outcome: Outcome) -> list[Failure]:
    """Of what was asked, all that a report does not promise."""
    committed = {each.sop_instance for each in outcome.committed}
    reasons = {each.sop_instance: each.reason for each in outcome.failed}
    return [
        Failure(*each, reasons.get(each.sop_instance, NOT_MENTIONED))
        for each in asked
        if each.sop_instance in reasons or each.sop_instance not in committed
    ]
