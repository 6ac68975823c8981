"""One index, whatever its database: the functions of this package behind one object.

Rules that hold here: an Index is shared by all threads of a process; connections belong to it and not to threads;
everything it returns is a plain value.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from archive.dicom.expression import Expression, parse_expression
from archive.dicom.extra import NO_EXTRA, ExtraKeys
from archive.dicom.header import Header
from archive.dicom.query import Query
from archive.errors import ConfigurationError
from archive.index import (
    belonging,
    callers,
    extra_fill,
    meta,
    outward,
    quarantine,
    removal,
    search,
    studies,
    tasks,
    versions,
)
from archive.index.copies import Copies
from archive.index.corrections import CorrectionJournal
from archive.index.database import PATIENCE, Database, Rows
from archive.index.deletion import DeletionRows
from archive.index.instances import Instances
from archive.index.matches import Matches
from archive.index.migrations import migrate
from archive.index.orders import Orders
from archive.index.performed import PerformedSteps
from archive.index.postgresql import PostgresqlDatabase
from archive.index.queue import Queue, Which
from archive.index.sqlite import SqliteDatabase
from archive.index.upkeep import Upkeep
from archive.index.values import (
    Added,
    CallerSeen,
    Location,
    NewInstance,
    NewTask,
    Quarantined,
    Removed,
    State,
    Statistics,
    StoredInstance,
    StudySummary,
    Task,
)
from archive.index.versions import Version
from archive.index.wakes import Wakes

Visible = Expression | str | None


def open_index(url: str, *, statement_timeout: float = PATIENCE, extra: ExtraKeys = NO_EXTRA) -> Index:
    """The index at ``sqlite:///path`` or ``postgresql://…``, made and migrated as needed.

    ``extra`` are the attributes that the site indexes beyond the table.
    Raises ConfigurationError for what cannot be used, IndexUnavailable for a server that does not answer.
    """
    index = Index(open_database(url, statement_timeout=statement_timeout), extra)
    try:
        migrate(index.database)
        if meta.get(index.database, meta.UNFINISHED_COPY) is not None:
            raise ConfigurationError("index.url: a copy into this index was broken off; run `archive index copy` again")
    except BaseException:
        index.close()
        raise
    return index


def open_database(url: str, *, statement_timeout: float = PATIENCE) -> Database:
    """The database of a URL, as it is."""
    parts = urlsplit(url)
    if parts.scheme in ("postgresql", "postgres"):
        return PostgresqlDatabase(url, statement_timeout=statement_timeout)
    if parts.scheme != "sqlite" or parts.netloc or len(parts.path) < 2:
        raise ConfigurationError(f"index.url: {parts.scheme}: use sqlite:///path or postgresql://user@host/database")
    path = Path(unquote(url.removeprefix("sqlite:///")))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return SqliteDatabase(path, statement_timeout=statement_timeout)
    except OSError as error:
        raise ConfigurationError(f"index.url: {path}: {error.strerror}") from error


def _expression(visible: Visible) -> Expression | None:
    return parse_expression(visible) if isinstance(visible, str) else visible


class Index:
    """Patients, studies, series and instances, and what has to be done about them."""

    def __init__(self, database: Database, extra: ExtraKeys = NO_EXTRA) -> None:
        self.database = database
        self.extra = extra
        self.matches = Matches(database)
        self.orders = Orders(database)
        self.performed = PerformedSteps(database)
        self._instances = Instances(database, extra.rows)
        self.queue = Queue(database)

    # -- receiving ------------------------------------------------------------------------------

    def add(
        self,
        batch: Sequence[NewInstance],
        *,
        journal: tuple[int, int] | None = None,
        durable: bool = True,
        check_names: bool = False,
    ) -> list[Added]:
        """Add a batch in one transaction, marked by ``journal`` = (slot, sequence): what became of each, in order.

        When it returns, the transaction is on stable storage; with ``durable`` off only ``sync`` promises that.
        ``check_names`` refuses an object whose patient has another name under the same ID. Raises IndexUnavailable.
        """
        return self._instances.add(batch, journal, durable, check_names)

    def applied(self, slot: int) -> int:
        """The highest journal sequence that was committed for a slot, 0 for none."""
        return self._instances.applied(slot)

    def sync(self) -> None:
        """When it returns, every earlier commit is on stable storage."""
        self.database.sync()

    @property
    def log_full(self) -> threading.Event:
        """Set when `trim_log` should run, in a thread of its own; without that, transactions do it by and by."""
        return self.database.log_full

    def trim_log(self) -> None:
        """Do what would hold up a transaction some time, beside those that go on."""
        self.database.trim_log()

    def known(self, sop_instance_uid: str) -> StoredInstance | None:
        """The stored instance of a UID."""
        return self._instances.known(sop_instance_uid)

    @property
    def upkeep(self) -> Upkeep:
        """What compression and repair ask for."""
        return Upkeep(self.database)

    @property
    def copies(self) -> Copies:
        """Second files of instances, on other volumes."""
        return Copies(self.database)

    @property
    def corrections(self) -> CorrectionJournal:
        """Operations that correct what was received."""
        return CorrectionJournal(self.database, self._instances.forget)

    @property
    def deletion(self) -> DeletionRows:
        """Rows that go for good, and the files that follow them."""
        return DeletionRows(self.database, self._instances.forget)

    def laid_over(self, instance: int) -> dict[str, str | None] | None:
        """What an instance says on its way out that its file does not, by keyword; None takes an attribute away.

        None for an instance that is not there any more.
        """
        return outward.laid_over(self.database, instance)

    def remove(self, ids: Collection[int]) -> Removed:
        """Delete instances, and what is left empty above them; the files are the caller's to delete, afterwards."""
        try:
            return removal.remove(self.database, ids)
        finally:
            self._instances.forget()

    # -- searching ------------------------------------------------------------------------------

    def find(self, query: Query, *, limit: int | None = None, visible: Visible = None) -> Rows:
        """Values in the order of ``query.returns``, streamed; closing the iterator frees what it holds.

        ``visible`` is what the asker may see: nothing else is matched, returned or counted.
        """
        return search.find(self.database, query, limit=limit, visible=_expression(visible))

    def instances(self, query: Query, *, visible: Visible = None) -> Generator[StoredInstance, None, None]:
        """The instances below everything that matches, streamed."""
        return search.instances(self.database, query, visible=_expression(visible))

    def count(self, query: Query, *, visible: Visible = None) -> int:
        """How many ``instances`` would give."""
        return search.count(self.database, query, visible=_expression(visible))

    def is_empty(self) -> bool:
        """Whether nothing is stored; costs the same however much is."""
        return self.database.read(lambda session: session.row("SELECT 1 FROM instance LIMIT 1")) is None

    def statistics(self) -> Statistics:
        return studies.statistics(self.database)

    def studies(
        self, *, limit: int = 100, before: int | None = None, state: str = "", uid: str = ""
    ) -> list[StudySummary]:
        """The studies that came last, newest first; the next page is ``before`` the last ``id`` of this one."""
        return studies.latest(self.database, limit=limit, before=before, state=state, uid=uid)

    # -- callers that were refused --------------------------------------------------------------

    def note_caller(self, aet: str, address: str, called: str, reason: str, when: float, times: int = 1) -> None:
        """A caller was refused, so many times since it was noted last."""
        callers.note(self.database, aet, address, called, reason, when, times)

    def callers(self) -> list[CallerSeen]:
        """Callers that were refused, the last one first."""
        return callers.seen(self.database)

    def forget_caller(self, aet: str, address: str | None = None) -> int:
        """Forget a caller, at one address or all; return how many entries that were."""
        return callers.forget(self.database, aet, address)

    # -- quarantine -----------------------------------------------------------------------------

    def quarantine(self, new: NewInstance, path: str, reason: str) -> int:
        """Note an object that was refused and whose bytes were put aside; return the entry's id."""
        return quarantine.put(self.database, new, path, reason)

    def quarantined(self, *, limit: int = 1000, after: int = 0, study_uid: str = "") -> list[Quarantined]:
        """Entries in the order they came, a page at a time; of one study if it is named."""
        return quarantine.entries(self.database, limit=limit, after=after, study_uid=study_uid)

    def quarantined_instances(self, sop_instance_uid: str, digest: bytes = b"") -> list[Quarantined]:
        """The entries of one SOP Instance UID."""
        return quarantine.of(self.database, sop_instance_uid, digest)

    def count_quarantined(self, source: str = "") -> int:
        """How many objects are in quarantine, of all or of one sender."""
        return quarantine.count(self.database, source)

    def quarantine_key(self, path: str) -> int:
        """The id of the entry of a file, 0 for none."""
        return quarantine.key(self.database, path)

    def quarantine_entry(self, key: int) -> Quarantined | None:
        return quarantine.entry(self.database, key)

    def release_quarantined(self, key: int) -> bool:
        """Forget an entry: the object was stored or deleted. False when somebody else already did."""
        return quarantine.remove(self.database, key)

    # -- a site's own attributes ----------------------------------------------------------------

    def settle_extra(self, now: float) -> bool:
        """Note which attributes are configured; when they changed, a task is added to fill and drop. True if so."""
        return extra_fill.settle(self.database, self.extra, now)

    def extra_progress(self) -> extra_fill.Filling:
        """What is still to be filled in from files, and dropped."""
        return extra_fill.read(self.database)

    def unfilled(self, limit: int) -> list[extra_fill.Unfilled]:
        """The next instances whose files are to be read for attributes that were configured later."""
        return extra_fill.unfilled(self.database, self.extra, limit)

    def fill_extra(self, page: Sequence[extra_fill.Unfilled], values: Mapping[int, Mapping[int, str]]) -> None:
        """Add what the files of a page said, by instance id, and go on behind it."""
        extra_fill.fill(self.database, self.extra, page, values)

    def drop_extra(self, limit: int) -> bool:
        """Forget values of attributes that are configured no more, so many at a time; False when none is left."""
        return extra_fill.drop_some(self.database, limit)

    def end_extra(self) -> None:
        """All files were read."""
        extra_fill.end(self.database)

    # -- versions, and where things belong ------------------------------------------------------

    def versions(self, sop_instance_uid: str) -> list[Version]:
        """The earlier versions of an instance, the oldest first."""
        return versions.of(self.database, sop_instance_uid)

    def superseded_before(self, when: float, *, limit: int = 1000, after: int = 0) -> list[Version]:
        """Versions that were superseded before a moment, a page at a time."""
        return versions.superseded_before(self.database, when, limit=limit, after=after)

    def forget_versions(self, ids: Sequence[int]) -> list[Location]:
        """Delete earlier versions; the files are the caller's to delete, afterwards."""
        return versions.forget(self.database, ids)

    def belonging(self, header: Header) -> dict[str, str]:
        """Identifying values by keyword of the rows above the lowest one that an object names and the index has."""
        return belonging.belonging(self.database, header)

    def patient(self, patient_id: str, issuer: str) -> dict[str, str]:
        """Identifying values of a patient by keyword; nothing when there is none."""
        return belonging.patient(self.database, patient_id, issuer)

    # -- tasks ----------------------------------------------------------------------------------

    def add_tasks(self, new: Sequence[NewTask], now: float) -> list[int]:
        """Add tasks that no arrival causes; return their ids."""
        return tasks.add(self.database, new, now)

    def lease(
        self, kind: str, owner: str, now: float, *, seconds: float, limit: int = 1, lane: str | None = None,
        durable: bool = True,
    ) -> list[Task]:  # fmt: skip
        """Take tasks that are due, or whose lease has run out, for some seconds; nobody else gets them meanwhile.

        Of a lane those of higher priority come first. A lease that is not ``durable`` may be forgotten by a power cut.
        """
        return tasks.lease(
            self.database, kind, owner, now, seconds=seconds, limit=limit, lane=lane, durable=durable
        )

    def heartbeat(self, ids: Collection[int], owner: str, now: float, *, seconds: float) -> list[int]:
        """Extend leases; return those that are still the owner's."""
        return tasks.heartbeat(self.database, ids, owner, now, seconds=seconds)

    def finish(self, key: int, owner: str, now: float, *, reason: str = "", keep: bool = True) -> bool:
        """The task is done; False when the lease was lost. ``keep`` leaves it in the history."""
        return tasks.finish(self.database, key, owner, now, reason=reason, keep=keep)

    def retry(self, key: int, owner: str, due: float, reason: str) -> bool:
        """The task failed and is to be tried again at ``due``; False when the lease was lost."""
        return tasks.retry(self.database, key, owner, due, reason)

    def fail(self, key: int, owner: str, now: float, reason: str) -> bool:
        """The task failed for good; False when the lease was lost."""
        ended = tasks.fail(self.database, key, owner, now, reason)
        if ended and self.queue.failed is not None:
            for task in self.queue.select(Which(ids=(key,)), limit=1):
                self.queue.failed(task.kind, task.lane, reason, 1)
        return ended

    def requeue(self, ids: Collection[int], now: float) -> int:
        """Failed, finished or waiting tasks are due now, with all their attempts; return how many."""
        return tasks.requeue(self.database, ids, now)

    def delete_tasks(self, ids: Collection[int]) -> int:
        """Delete tasks that nobody works on; return how many."""
        return tasks.delete(self.database, ids)

    def tasks(
        self, *, kind: str | None = None, lane: str | None = None, state: State | None = None,
        limit: int = 1000, after: int = 0,
    ) -> list[Task]:  # fmt: skip
        """Tasks in the order in which they were added, a page at a time."""
        return tasks.entries(self.database, kind=kind, lane=lane, state=state, limit=limit, after=after)

    def task_counts(self) -> dict[tuple[str, str, State], int]:
        """How many tasks there are by kind, lane and state."""
        return tasks.counts(self.database)

    def lanes(self, kind: str, now: float) -> list[str]:
        """The lanes of a kind in which something is due."""
        return tasks.lanes(self.database, kind, now)

    def next_due(self, kind: str, *, lane: str | None = None) -> float | None:
        """When the next task of a kind can be leased."""
        return tasks.next_due(self.database, kind, lane)

    def purge_tasks(self, before: float) -> int:
        """Delete the history of what was finished before; return how many."""
        return tasks.purge(self.database, before)

    def listen(self) -> Wakes:
        """Hear of tasks that any process adds or makes due from now on; for one thread. Raises IndexUnavailable."""
        return self.database.listen()

    # -- values by name -------------------------------------------------------------------------

    def get(self, name: str) -> str | None:
        """A value that ``put`` keeps under a name."""
        return meta.get(self.database, name)

    def put(self, name: str, value: str) -> None:
        meta.put(self.database, name, value)

    # -- life -----------------------------------------------------------------------------------

    def read(self, work: Callable[[Any], Any]) -> Any:
        """For tests and tools: run ``work`` with a session that reads."""
        return self.database.read(work)

    def close(self) -> None:
        """Close all connections that are not in use."""
        self.database.close()
