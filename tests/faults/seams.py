"""Protections that a daemon can be started without, so that a check can be shown to fail.

Rules that hold here: a seam takes away exactly one protection, by its name; it replaces a function inside a
process that was started for a test and is no option of the product; each raises when what it replaces is
not there any more, so that a seam never does nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

Seam = Callable[[], None]
SEAMS: dict[str, Seam] = {}


def seam(name: str) -> Callable[[Seam], Seam]:
    def keep(take_away: Seam) -> Seam:
        SEAMS[name] = take_away
        return take_away

    return keep


def switch_off(names: Sequence[str]) -> None:
    for name in names:
        SEAMS[name]()


def replace(owner: Any, name: str, new: Any) -> Any:
    """What was there before."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    return old


def nothing(*_: object, **__: object) -> None:
    return None


# -- helpers that are no protections -----------------------------------------------------------------------


@seam("quick restart")
def _quick_restart() -> None:
    """A process that is killed comes back at once, so that it can be killed again."""
    from archive import supervisor

    replace(supervisor, "PAUSE", 0.0)


@seam("clock from file")
def _clock_from_file() -> None:
    """The wall clock is off by as many seconds as the file `clock` beside the configuration says."""
    real = time.time

    def moved() -> float:
        try:
            with open("clock") as file:
                return real() + float(file.read() or 0)
        except OSError:
            return real()

    replace(time, "time", moved)


@seam("files before index")
def _files_before_index() -> None:
    """The order of a backup turned round: nothing of the archive itself changes."""


# -- durability ---------------------------------------------------------------------------------------------


@seam("answer before commit")
def _answer_before_commit() -> None:
    """The peer is told before anything is durable."""
    from archive.index import Added, Outcome
    from archive.services.commit import Committer

    commit = Committer.commit

    def later(self: Any, arrival: Any) -> Any:
        threading.Timer(0.05, commit, (self, arrival)).start()
        return Added(Outcome.STORED)

    replace(Committer, "commit", later)


@seam("row before file")
def _row_before_file() -> None:
    """Neither journal nor file when the row is committed."""
    from archive.services.commit import Committer

    def commit(self: Any, group: Any) -> None:
        self._add(group, 0)
        time.sleep(0.005)
        for arrival in group:
            self._place(arrival)

    replace(Committer, "_commit", commit)
    _small_objects_are_files()


def _small_objects_are_files() -> None:
    """No object lives in the journal."""
    from archive.services.commit import Committer

    replace(Committer, "largest_in_journal", property(lambda self: 0))


@seam("no recovery")
def _no_recovery() -> None:
    """A journal that a crash left is not looked at."""
    from archive.services.commit import Committer

    def forget(self: Any) -> int:
        self._journal.start(self._index.applied(self._journal.slot))
        return 0

    replace(Committer, "recover", forget)


@seam("no sync")
def _no_sync() -> None:
    """Nothing that Python writes is made durable; SQLite still syncs its own."""
    from archive.storage import file_systems

    replace(os, "fsync", nothing)
    replace(os, "fdatasync", nothing)
    replace(file_systems, "sync", nothing)


@seam("no sync of folders")
def _no_sync_of_folders() -> None:
    from archive.storage import local

    replace(local, "sync_folder", nothing)


@seam("commit not synced")
def _commit_not_synced() -> None:
    """What `synchronous=NORMAL` without a journal is: files are durable, rows are not."""
    from archive.index.sqlite import SqliteDatabase
    from archive.services.commit import Committer

    writing = SqliteDatabase._writing
    replace(SqliteDatabase, "_writing", lambda self, durable: writing(self, False))
    replace(Committer, "recover", lambda self: self._journal.start(self._index.applied(self._journal.slot)))
    _small_objects_are_files()


@seam("asynchronous commit")
def _asynchronous_commit() -> None:
    """PostgreSQL answers before its log is durable, and what the journal knows is forgotten."""
    from archive.index.postgresql import PostgresqlDatabase
    from archive.services.commit import Committer

    opened = PostgresqlDatabase._open

    def careless(self: Any) -> Any:
        session = opened(self)
        session.connection.execute("SET synchronous_commit = off")
        return session

    replace(PostgresqlDatabase, "_open", careless)
    replace(Committer, "recover", lambda self: self._journal.start(self._index.applied(self._journal.slot)))


@seam("errors of sync ignored")
def _errors_of_sync_ignored() -> None:
    """fsync is tried and its answer thrown away."""

    def careless(sync: Callable[[int], None]) -> Callable[[int], None]:
        def attempt(fd: int) -> None:
            try:
                sync(fd)
            except OSError:
                pass

        return attempt

    replace(os, "fsync", careless(os.fsync))
    replace(os, "fdatasync", careless(os.fdatasync))


@seam("errors of write ignored")
def _errors_of_write_ignored() -> None:
    """What cannot be written is taken for written."""
    from archive.storage import journal, local

    write_all = local.write_all

    def careless(fd: int, pieces: Any) -> None:
        try:
            write_all(fd, pieces)
        except OSError:
            pass

    replace(local, "write_all", careless)
    replace(journal, "write_all", careless)


@seam("no cleaning up")
def _no_cleaning_up() -> None:
    """What failed stays where it is."""
    from archive.storage.local import Part, Volume

    replace(Volume, "remove", nothing)
    replace(Part, "discard", nothing)


@seam("no sweep")
def _no_sweep() -> None:
    """What a killed process left in the spool stays."""
    from archive.storage import spool

    replace(spool, "_abandoned", lambda folder: False)


@seam("unknown outcome is success")
def _unknown_outcome_is_success() -> None:
    """The peer is told 0000 although nobody knows what became of the row."""
    from archive.errors import IndexUnavailable
    from archive.index import Added, Outcome
    from archive.services.commit import Committer

    commit = Committer.commit

    def hopeful(self: Any, arrival: Any) -> Any:
        try:
            return commit(self, arrival)
        except IndexUnavailable:
            return Added(Outcome.STORED)

    replace(Committer, "commit", hopeful)


@seam("no patience with the index")
def _no_patience_with_the_index() -> None:
    """Whoever waits for a database that has stopped waits for ever."""
    from archive.index import postgresql

    replace(postgresql, "_limited", lambda gen, patience: gen)


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


@seam("length not compared")
def _length_not_compared() -> None:
    """A stored file is sent whatever became of it."""
    from archive.storage.local import Volume

    def trusting(self: Any, path: str, expected_size: int) -> int:
        return os.open(self.root / path, os.O_RDONLY | os.O_CLOEXEC | os.O_CREAT)

    replace(Volume, "open_file", trusting)


@seam("no sentinel")
def _no_sentinel() -> None:
    """An empty folder is as good as the volume."""
    from archive.storage import local

    replace(local, "SENTINEL", ".")


@seam("schema in pieces")
def _schema_in_pieces() -> None:
    """Each statement of a migration is committed by itself."""
    from archive.index import migrations

    step = migrations._step

    class Hasty:
        def __init__(self, session: Any) -> None:
            self._session, self.dialect, self.row = session, session.dialect, session.row

        def run(self, sql: str, parameters: Any = ()) -> int:
            changed: int = self._session.run(sql, parameters)
            self._session.run("COMMIT")
            self._session.run("BEGIN")
            return changed

    replace(migrations, "_step", lambda session, steps: step(Hasty(session), steps))


# -- what is received ---------------------------------------------------------------------------------------


@seam("no limits of the header")
def _no_limits_of_the_header() -> None:
    import sys

    from archive.dicom import limits

    for field in limits.Limits.__dataclass_fields__:
        object.__setattr__(limits.LIMITS, field, 1 << 60)
    sys.setrecursionlimit(100_000)


@seam("held in memory")
def _held_in_memory() -> None:
    """An object is written to disk when all of it is there."""
    from archive.services.store import Reception

    write, finish = Reception.write, Reception.finish

    def hold(self: Any, fragment: Any) -> None:
        self._buffer += fragment

    def let_go(self: Any) -> Any:
        held, self._buffer = bytes(self._buffer), bytearray()
        write(self, held)
        return finish(self)

    replace(Reception, "write", hold)
    replace(Reception, "finish", let_go)


@seam("any size")
def _any_size() -> None:
    from archive.services.store import Rules

    replace(Rules, "__init__", _careless_init(Rules))


def _careless_init(rules: Any) -> Any:
    init = rules.__init__

    def without_limit(self: Any, *others: Any, **named: Any) -> None:
        named.pop("max_instance_size", None)
        init(self, *others, max_instance_size=1 << 60, **named)

    return without_limit


@seam("anything is understood")
def _anything_is_understood() -> None:
    """The header gate lets broken data sets pass with the UIDs of their command."""
    from archive.dicom.header import Header
    from archive.errors import ArchiveError
    from archive.services.store import Reception

    gate = Reception._gate

    def lenient(self: Any, data: Any) -> Any:
        try:
            return gate(self, data)
        except ArchiveError:
            uid = self._sop_instance
            return Header(self._sop_class, uid, f"{uid}.1", f"{uid}.2", {}, ())

    replace(Reception, "_gate", lenient)
    replace(Reception, "_check", nothing)


@seam("a fault in the gate")
def _a_fault_in_the_gate() -> None:
    """Some broken data sets hit a mistake: not one of the archive's own errors."""
    from archive.services.store import Reception

    gate = Reception._gate

    def mistaken(self: Any, data: Any) -> Any:
        if len(data) % 7 == 3 and len(data) < 1500:
            raise ValueError("a mistake")
        return gate(self, data)

    replace(Reception, "_gate", mistaken)


@seam("command not compared")
def _command_not_compared() -> None:
    """Command and data set may name different objects, and the context any class."""
    from archive.dimse import store
    from archive.services.store import Reception

    replace(Reception, "_check", nothing)
    replace(store, "check", nothing)


@seam("no contradictions")
def _no_contradictions() -> None:
    """A study may belong to two patients."""
    from archive.index.parents import Parents

    replace(Parents, "contradiction", lambda self, header, check_names: "")


@seam("names from the wire")
def _names_from_the_wire() -> None:
    """The file is called what the sender says."""
    from archive.services.store import Reception

    commit = Reception._commit

    def named(self: Any, header: Any) -> Any:
        volume = self._store.volume
        new_path = volume.new_path
        volume.new_path = lambda: new_path().replace(".dcm", f"-{header.sop_instance_uid}")
        try:
            return commit(self, header)
        finally:
            del volume.new_path

    replace(Reception, "_commit", named)


# -- the network ----------------------------------------------------------------------------------------------


@seam("no deadlines")
def _no_deadlines() -> None:
    """A peer may take as long as it likes."""
    from archive.dimse.connection import Connection

    expect = Connection.expect
    replace(Connection, "expect", lambda self, seconds: expect(self, 3600.0))


@seam("no share of what has not said who it is")
def _no_pending_share() -> None:
    from archive.dimse import limits

    replace(limits.Limits, "admit", lambda self, address: True)
    replace(limits.Limits, "leave", nothing)


@seam("one after the other")
def _one_after_the_other() -> None:
    """Whoever connects is served in the accept loop, handshake and all."""
    from archive.dimse import listener

    class Inline:
        def __init__(self, target: Callable[[], None], name: str = "", daemon: bool = True) -> None:
            self._target, self._name, self._daemon = target, name, daemon

        def start(self) -> None:
            if self._name.startswith("accept:"):
                threading.Thread(target=self._target, name=self._name, daemon=True).start()
            else:
                self._target()

        def join(self, timeout: float = 0) -> None:
            return None

    class Threads:
        Thread = Inline
        Lock, Condition = threading.Lock, threading.Condition

    replace(listener, "threading", Threads)


@seam("a fault in the wire")
def _a_fault_in_the_wire() -> None:
    """Some PDUs hit a mistake: not one of the protocol's own errors."""
    from archive.dimse import association, incoming, wire

    def mistaken(old: Callable[..., Any]) -> Callable[..., Any]:
        def call(data: Any, *others: Any) -> Any:
            if len(data) % 11 == 5:
                raise IndexError("a mistake")
            return old(data, *others)

        return call

    replace(wire, "decode_command", mistaken(wire.decode_command))
    replace(incoming, "read_request", mistaken(incoming.read_request))
    if hasattr(association, "decode_command"):
        replace(association, "decode_command", wire.decode_command)


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


@seam("descriptors leak")
def _descriptors_leak() -> None:
    """Every connection leaves one behind."""
    from archive.dimse.incoming import Incoming

    forget = Incoming.forget

    def leave_one(self: Any) -> None:
        os.dup(2)
        forget(self)

    replace(Incoming, "forget", leave_one)


@seam("memory leaks")
def _memory_leaks() -> None:
    """Every connection leaves ten kilobytes behind."""
    from archive.dimse.incoming import Incoming

    kept: list[bytes] = []
    forget = Incoming.forget

    def leave_some(self: Any) -> None:
        kept.append(os.urandom(10_000))
        forget(self)

    replace(Incoming, "forget", leave_some)


@seam("no end of patience at the end")
def _no_end_of_patience() -> None:
    """SIGTERM waits for everybody."""
    from archive import supervisor
    from archive.dimse.listener import Listener

    replace(Listener, "_cut", nothing)
    replace(Listener, "stop", lambda self, seconds=0.0: time.sleep(60))
    replace(supervisor, "DRAIN", 600.0)
    replace(supervisor.Supervisor.__init__, "__defaults__", (600.0,))


# -- the log ----------------------------------------------------------------------------------------------------


@seam("raw log")
def _raw_log() -> None:
    """What peers sent is logged as it came."""
    from archive import log

    replace(log, "escape", lambda text: text)


@seam("talkative")
def _talkative() -> None:
    """Every object is logged with its patient."""
    import logging

    from archive.services.store import Reception

    check = Reception._check

    def say(self: Any, header: Any) -> None:
        logging.getLogger("archive.store").info("received %s", dict(header.values))
        check(self, header)

    replace(Reception, "_check", say)
