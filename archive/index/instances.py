"""Adding instances: batch after batch, each in one transaction, with what this process remembers.

Rules that hold here: what is remembered only saves looking: rows that are gone since, or were corrected, are noticed by
the database, and the batch is done anew; nothing of a transaction that failed is remembered.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from archive.dicom.attributes import Attribute
from archive.index import late
from archive.index.batch import Batch
from archive.index.database import Database, Session
from archive.index.parents import Parents
from archive.index.stored import STORED_COLUMNS, stored_instance
from archive.index.values import Added, NewInstance, StoredInstance

ATTEMPTS = 4  # of a batch whose rows are taken away by deletions and corrections at the same moment
REMEMBERED = 20_000  # series of which the rows above are remembered, about 30 MB

_KNOWN = (
    f"SELECT {STORED_COLUMNS} FROM instance i JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study"
    " WHERE i.sop_instance_uid = ?"
)


class Instances:
    """Adds to one database; remembers what it saw, per process."""

    def __init__(self, database: Database, extra: Sequence[Attribute] = ()) -> None:
        self._database = database
        self._extra = extra
        self._remembered: dict[str, Parents] = {}
        self._mutex = threading.Lock()

    def add(
        self,
        batch: Sequence[NewInstance],
        journal: tuple[int, int] | None,
        durable: bool,
        check_names: bool,
    ) -> list[Added]:
        """What became of each, in order; raises IndexUnavailable when nothing was added."""

        def work(session: Session) -> tuple[list[Added], dict[str, Parents]]:
            adding = Batch(session, remembered, check_names, self._extra, takes_turns, comes_now=journal is not None)
            return adding.run(batch, journal), adding.learned

        remembered, takes_turns, faults = self._remembered, False, 0
        while True:
            try:
                added, learned = self._database.transact(work, durable=durable, repeatable=True)
            except late.MustTakeTurns:
                takes_turns = True
            except self._constraints():
                # What was remembered, or just read, is no longer there: ask the database itself.
                remembered, faults = {}, faults + 1
                self.forget()
                if faults == ATTEMPTS:
                    raise
            else:
                self._learn(learned)
                return added

    def _constraints(self) -> tuple[type[Exception], ...]:
        return self._database.dialect.constraint_errors

    def _learn(self, learned: dict[str, Parents]) -> None:
        if not learned:
            return
        with self._mutex:
            if len(self._remembered) + len(learned) > REMEMBERED:
                self._remembered = {}
            self._remembered |= learned

    def forget(self) -> None:
        """Remember nothing: rows may have gone."""
        with self._mutex:
            self._remembered = {}

    def known(self, sop_instance_uid: str) -> StoredInstance | None:
        row = self._database.read(lambda session: session.row(_KNOWN, (sop_instance_uid,)))
        return stored_instance(row) if row else None

    def applied(self, slot: int) -> int:
        row = self._database.read(lambda session: session.row("SELECT sequence FROM journal WHERE slot = ?", (slot,)))
        return int(row[0]) if row else 0
