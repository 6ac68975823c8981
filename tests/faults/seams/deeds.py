"""What keeps deletions, promises, routes and queries honest.

Rules that hold here: those of the package.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from tests.faults.seams.registry import nothing, replace, seam


@seam("files unlinked before rows")
def _files_unlinked_before_rows() -> None:
    """What is deleted loses its files first."""
    from archive.index import deletion

    bury = deletion.bury

    def hasty(database: Any, ledger: Any, level: Any, uid: str, entry: Any) -> Any:
        sql = "SELECT i.path FROM instance i JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study"
        where = f"{sql} WHERE s.study_instance_uid = ?"
        for (path,) in database.read(lambda session: session.rows(where, (uid,))):
            (ledger.folder.parent / path).unlink(missing_ok=True)
        time.sleep(0.02)
        return bury(database, ledger, level, uid, entry)

    replace(deletion, "bury", hasty)


@seam("no tombstones")
def _no_tombstones() -> None:
    """Nobody remembers which files of what was deleted are to be unlinked."""
    from archive.index import deletion

    replace(deletion, "_tombstones", nothing)


@seam("request answered before it is kept")
def _request_answered_before_it_is_kept() -> None:
    """Who asks for storage commitment is told yes before anything is durable."""
    from archive.index.commitments import CHECKING, Transaction
    from archive.services.commitment import Commitment

    take = Commitment.take

    def later(self: Any, new: Any, lease: Any = None) -> Any:
        threading.Timer(0.05, take, (self, new)).start()
        names = (new.direction, new.peer, new.transaction, new.calling, new.called, new.study_uid)
        return Transaction(0, *names, CHECKING, len(new.items), 0, "", 0.0, None), 0

    replace(Commitment, "take", later)


@seam("promised without reading")
def _promised_without_reading() -> None:
    """What has a row is promised, whatever became of its file."""
    from archive.errors import Damaged, Missing
    from archive.services.commitment import Commitment

    fault = Commitment._fault

    def trusting(self: Any, reference: Any, instance: Any) -> int:
        try:
            verify, self._verify = self._verify, nothing
            found: int = fault(self, reference, instance)
        except (Damaged, Missing):
            return 0
        finally:
            self._verify = verify
        return found

    replace(Commitment, "_fault", trusting)


@seam("sent before it is answered")
def _sent_before_it_is_answered() -> None:
    """What is about to be handed over to a destination counts as sent."""
    from archive.index import Settled, State
    from archive.services.delivery import Delivery

    admit = Delivery._admit

    def hopeful(self: Any, task: Any, found: Any, now: float) -> None:
        admit(self, task, found, now)
        self._note(Settled(task.id, State.DONE, "sent"), now)
        self._write_all(now)

    replace(Delivery, "_admit", hopeful)


@seam("sent twice")
def _sent_twice() -> None:
    """Everything is handed over twice."""
    from archive.dimse.delivery import PeerChannel

    put = PeerChannel.put

    def twice(self: Any, items: Any) -> None:
        put(self, items)
        put(self, items)

    replace(PeerChannel, "put", twice)


@seam("newest first")
def _newest_first() -> None:
    """What is sent together goes in the order that is not that of arrival."""
    from archive.dimse.delivery import PeerChannel

    put = PeerChannel.put
    replace(PeerChannel, "put", lambda self, items: put(self, items[::-1]))


@seam("no pause before a destination is asked again")
def _no_pause() -> None:
    from archive.services import delivery

    replace(delivery, "pause", lambda delays, tries, factor=1.0: 0.001)


@seam("queries take turns")
def _queries_take_turns() -> None:
    """One query at a time, and none is quick."""
    from archive.services.find import Find

    search, turn = Find.search, threading.Lock()

    def one_by_one(self: Any, query: Any, caller: Any) -> Any:
        with turn:
            time.sleep(0.3)
        return search(self, query, caller)

    replace(Find, "search", one_by_one)
