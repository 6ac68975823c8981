"""The outbox as a queue with lanes: many tasks settled at once, lanes that are held up, and lists for people.

Rules that hold here: what becomes of many tasks is one transaction; only the owner of a lease settles it; a change
that could touch any number of rows is made in bounded pieces; a walk over lanes costs as much as there are lanes,
not as there are tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from archive.index.database import Database, Row, Session
from archive.index.described import Described, described
from archive.index.outbox import insert_task
from archive.index.stored import STORED_COLUMNS, stored_instance
from archive.index.tasks import NAMES, PRIORITIES, REASON_LENGTH, task_of
from archive.index.values import NewTask, State, StoredInstance, Task

PIECE = 500  # rows of one transaction that a person or a clock causes: arrivals wait for milliseconds


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a leased task: DONE, FAILED, or WAITING until ``due``; ``counted`` off takes its try back.

    With ``kind`` it goes on as a task of another kind, with all its tries; with ``payload`` (JSON) with that one.
    """

    id: int
    state: State
    reason: str = ""
    due: float = 0.0
    counted: bool = True
    kind: str = ""
    payload: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    """What holds up a lane: ``paused`` since a person stopped it, ``down_until`` its destination is tried again."""

    name: str
    paused: float | None = None
    paused_why: str = ""
    down_since: float | None = None
    down_until: float | None = None
    down_tries: int = 0
    down_why: str = ""


@dataclass(frozen=True, slots=True)
class Which:
    """Which tasks are meant; what is left out means any. ``since`` and ``until`` are when they were added."""

    kinds: tuple[str, ...] = ()
    lane: str | None = None
    states: tuple[State, ...] = ()
    study_uid: str | None = None
    reason: str | None = None
    since: float | None = None
    until: float | None = None
    ids: tuple[int, ...] = ()

    def where(self, session: Session) -> tuple[str, list[Any]]:
        listed, among = session.dialect.listed, session.dialect.among
        parts: list[tuple[str, Any]] = []
        for column, values in (("kind", self.kinds), ("state", [s.value for s in self.states]), ("id", self.ids)):
            if values:
                parts.append((among.format(column=column), listed(list(values))))
        for test, value in (
            ("lane = ?", self.lane), ("study_uid = ?", self.study_uid), ("created >= ?", self.since),
            ("created < ?", self.until), ("LOWER(reason) LIKE ?", self.reason and f"%{self.reason.lower()}%"),
        ):  # fmt: skip
            if value is not None:
                parts.append((test, value))
        if self.since is not None and self._ended:  # by its index: they ended after they were added
            parts.append(("finished >= ?", self.since))
        tests = ["id > ?", *(test for test, _ in parts), *self._narrow()]
        return " AND ".join(tests), [value for _, value in parts]

    @property
    def _ended(self) -> bool:
        return bool(self.states) and set(self.states) <= {State.DONE, State.FAILED}

    def _narrow(self) -> Iterator[str]:
        """Keep out of the history, which may be a thousand times what is open, where only that is meant."""
        if self.ids or self.study_uid or not self.states or State.DONE in self.states:
            return
        parts = ["SELECT id FROM task WHERE state = 'failed'"] if State.FAILED in self.states else []
        if set(self.states) & {State.WAITING, State.LEASED}:
            parts.append("SELECT id FROM task WHERE ready IS NOT NULL")
        yield f"id IN ({' UNION ALL '.join(parts)})"


_HEADS = f"""
WITH RECURSIVE walk(lane) AS (
  SELECT MIN(lane) FROM task WHERE kind = ? AND ready IS NOT NULL
  UNION ALL
  SELECT (SELECT MIN(lane) FROM task WHERE kind = ? AND ready IS NOT NULL AND lane > walk.lane)
  FROM walk WHERE walk.lane IS NOT NULL
)
SELECT lane, {", ".join(
    "(SELECT MIN(ready) FROM task WHERE kind = ? AND lane = walk.lane AND ready IS NOT NULL"
    f" AND priority = {priority})" for priority in PRIORITIES
)} FROM walk WHERE lane IS NOT NULL
"""
_SET = (
    "UPDATE task SET lease_until = NULL, {changes} WHERE {ids} AND owner = ? AND state = 'leased'"
    " RETURNING id, kind, lane"
)
_CHANGES = {
    State.DONE: "state = 'done', ready = NULL, finished = ?, reason = ?",
    State.FAILED: "state = 'failed', ready = NULL, finished = ?, reason = ?",
    State.WAITING: "state = 'waiting', owner = '', ready = ?, due = ?, reason = ?",
}
_RELEASE = "UPDATE task SET state = 'waiting', owner = '', lease_until = NULL, ready = due, attempts = attempts - 1"
_LANE = "name, paused, paused_why, down_since, down_until, down_tries, down_why"
_UPSERT = (
    f"INSERT INTO lane ({_LANE}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _LANE.split(", ")[1:])
)
_STORED = (
    f"SELECT i.received, {STORED_COLUMNS} FROM instance i JOIN series e ON e.id = i.series"
    " JOIN study s ON s.id = e.study WHERE {uids}"
)


Failed = Callable[[str, str, str, int], None]
"""Told kind, lane, reason and number."""


class Queue:
    """The tasks of one database in lanes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.failed: Failed | None = None  # told of tasks that failed for good, after the commit

    # -- for workers ----------------------------------------------------------------------------

    def heads(self, kind: str) -> dict[str, float]:
        """Lane -> when its next task can be leased, of all lanes with tasks that wait or are leased."""
        keys = (kind,) * (2 + len(PRIORITIES))
        rows = self._database.read(lambda session: session.rows(_HEADS, keys))
        return {lane: min(ready for ready in readies if ready is not None) for lane, *readies in rows if any(readies)}

    def settle(self, owner: str, now: float, outcomes: Sequence[Settled], *, add: Sequence[NewTask] = ()) -> set[int]:
        """Write what became of leased tasks, and add others with them; the ids that were still the owner's.

        The commit may be lost in a power cut, and then the tasks are leased still.
        """
        groups: dict[Settled, list[int]] = {}
        for each in outcomes:
            groups.setdefault(replace(each, id=0, reason=each.reason[:REASON_LENGTH]), []).append(each.id)

        def work(session: Session) -> list[tuple[Settled, Row]]:
            found = [(to, row) for to, ids in groups.items() for row in _settle(session, owner, now, to, ids)]
            for task in add:
                insert_task(session, task, now)
            return found

        settled = self._database.transact(work, durable=False)
        if self.failed is not None:
            for (to, kind, lane), number in Counter((to, *row[1:]) for to, row in settled).items():
                if to.state is State.FAILED:
                    self.failed(kind, lane, to.reason, number)
        return {int(row[0]) for _, row in settled}

    def rewrite(self, owner: str, key: int, payload: str) -> None:
        """Another payload (JSON) for a task that its owner works on."""
        sql = "UPDATE task SET payload = ? WHERE id = ? AND owner = ? AND state = 'leased'"
        self._database.transact(lambda session: session.run(sql, (payload, key, owner)), durable=False)

    def release(self, owner: str, ids: Collection[int] | None = None) -> int:
        """Give leases back as if they had never been; without ``ids`` all of an owner."""
        if ids is not None and not ids:
            return 0

        def work(session: Session) -> int:
            if ids is None:
                return session.run(f"{_RELEASE} WHERE state = 'leased' AND ready IS NOT NULL AND owner = ?", (owner,))
            among = session.dialect.among.format(column="id")
            keys = session.dialect.listed(sorted(ids))
            return session.run(f"{_RELEASE} WHERE {among} AND state = 'leased' AND owner = ?", (keys, owner))

        return self._database.transact(work, durable=False)

    def owners(self, kind: str) -> list[str]:
        """Who holds leases of a kind."""
        sql = "SELECT DISTINCT owner FROM task WHERE kind = ? AND ready IS NOT NULL AND state = 'leased'"
        return [str(row[0]) for row in self._database.read(lambda session: session.rows(sql, (kind,)))]

    def stored(self, uids: Collection[str]) -> dict[str, tuple[StoredInstance, float]]:
        """The instances of these SOP Instance UIDs that are stored, and when they came."""

        def work(session: Session) -> dict[str, tuple[StoredInstance, float]]:
            among = session.dialect.among.format(column="i.sop_instance_uid")
            rows = session.rows(_STORED.format(uids=among), (session.dialect.listed(list(uids)),))
            return {row[3]: (stored_instance(row[1:]), row[0]) for row in rows}

        return self._database.read(work) if uids else {}

    def described(self, keywords: Collection[str], **which: Any) -> Iterator[Described]:
        """Stored instances with these attributes: of a study, of a series, by UIDs, or all that came since."""
        return described(self._database, keywords, **which)

    def of_study(self, kind: str, study_uid: str) -> Iterator[Task]:
        """All tasks of a kind about a study, history included."""
        sql = f"SELECT {NAMES} FROM task WHERE study_uid = ? AND study_uid <> '' AND kind = ?"
        return map(task_of, self._database.stream(sql, (study_uid, kind)))

    def expire(self, kind: str, lane: str, before: float, now: float, reason: str) -> int:
        """Some tasks of a lane that wait since ``before`` fail; return how many, 0 when none is left.

        Those count as well whose lease has run out: nobody knows any more of the one who held it.
        """
        sql = (
            "UPDATE task SET state = 'failed', ready = NULL, lease_until = NULL, finished = ?, reason = ?"
            " WHERE id IN (SELECT id FROM task WHERE kind = ? AND lane = ? AND due <= ? AND ready IS NOT NULL"
            " AND (state = 'waiting' OR ready <= ?) LIMIT ?)"
        )
        values = (now, reason[:REASON_LENGTH], kind, lane, before, now, PIECE)
        number = self._database.transact(lambda session: session.run(sql, values), durable=False)
        if number and self.failed is not None:
            self.failed(kind, lane, reason, number)
        return number

    def recall(self, kind: str, now: float, reason: str) -> int:
        """Some tasks that were put off for ``reason`` (how it begins) are due now; how many, 0 when none is left."""
        sql = (
            "UPDATE task SET ready = ?, due = ?, reason = '' WHERE id IN (SELECT id FROM task WHERE kind = ?"
            " AND ready > ? AND state = 'waiting' AND reason LIKE ? LIMIT ?)"
        )
        values = (now, now, kind, now, f"{reason}%", PIECE)
        return self._database.transact(lambda session: session.run(sql, values), durable=False)

    # -- lanes that are held up -----------------------------------------------------------------

    def lanes(self) -> dict[str, Lane]:
        """The lanes that were ever held up."""
        rows = self._database.read(lambda session: session.rows(f"SELECT {_LANE} FROM lane ORDER BY name"))
        return {row[0]: Lane(*row) for row in rows}

    def lane(self, name: str) -> Lane:
        row = self._database.read(lambda session: session.row(f"SELECT {_LANE} FROM lane WHERE name = ?", (name,)))
        return Lane(*row) if row else Lane(name)

    def hold(self, name: str, kinds: Collection[str] = (), **changes: Any) -> Lane:
        """Change what holds up a lane, and wake the workers of these kinds."""

        def work(session: Session) -> Lane:
            row = session.row(f"SELECT {_LANE} FROM lane WHERE name = ?", (name,))
            old = Lane(*row) if row else Lane(name)
            new = Lane(**({each.name: getattr(old, each.name) for each in fields(Lane)} | changes))
            session.run(_UPSERT, tuple(getattr(new, each.name) for each in fields(Lane)))
            for kind in kinds:
                session.wake(kind)
            return new

        return self._database.transact(work)

    # -- for people -----------------------------------------------------------------------------

    def select(self, which: Which, *, limit: int, after: int = 0) -> list[Task]:
        """Tasks in the order in which they were added, a page at a time."""

        def work(session: Session) -> list[Task]:
            where, values = which.where(session)
            rows = session.rows(f"SELECT {NAMES} FROM task WHERE {where} ORDER BY id LIMIT ?", (after, *values, limit))
            return [task_of(row) for row in rows]

        return self._database.read(work)

    def latest(self, which: Which, *, limit: int) -> list[Task]:
        """The tasks that were added last, in the order in which they were added."""

        def work(session: Session) -> list[Task]:
            where, values = which.where(session)
            sql = f"SELECT {NAMES} FROM task WHERE {where} ORDER BY id DESC LIMIT ?"
            return [task_of(row) for row in reversed(session.rows(sql, (0, *values, limit)))]

        return self._database.read(work)

    def count(self, which: Which) -> dict[State, int]:
        """How many tasks there are by state."""

        def work(session: Session) -> dict[State, int]:
            where, values = which.where(session)
            rows = session.rows(f"SELECT state, COUNT(*) FROM task WHERE {where} GROUP BY state", (0, *values))
            return {State(state): int(number) for state, number in rows}

        return self._database.read(work)

    def open(self, kinds: Sequence[str]) -> dict[tuple[str, State], int]:
        """How many tasks wait, are leased or have failed, by lane."""

        def work(session: Session) -> dict[tuple[str, State], int]:
            among, listed = session.dialect.among.format(column="kind"), session.dialect.listed(list(kinds))
            sql = (
                f"SELECT lane, state, COUNT(*) FROM task WHERE {among} AND ready IS NOT NULL GROUP BY lane, state"
                f" UNION ALL SELECT lane, state, COUNT(*) FROM task WHERE {among} AND state = 'failed'"
                " GROUP BY lane, state"
            )
            return {(lane, State(state)): int(n) for lane, state, n in session.rows(sql, (listed, listed))}

        return self._database.read(work)

    def again(self, which: Which, now: float, *, instead: tuple[str, str] = ("", "")) -> int:
        """Tasks that failed, were done or wait are due now with all their tries; return how many.

        ``instead``: those of the first kind begin as the second.
        """
        changes = (
            "state = 'waiting', ready = ?, due = ?, attempts = 0, owner = '', finished = NULL, reason = '',"
            " kind = CASE WHEN kind = ? THEN ? ELSE kind END"
        )
        return self._in_pieces(which, f"UPDATE task SET {changes}", (now, now, *instead), wake=True)

    def cancel(self, which: Which, now: float, reason: str) -> int:
        """Tasks that wait fail with a reason; return how many."""
        changes = "UPDATE task SET state = 'failed', ready = NULL, finished = ?, reason = ?"
        return self._in_pieces(which, changes, (now, reason), states=(State.WAITING,))

    def purge(self, which: Which, *, finished: float | None = None) -> int:
        """Delete failed and done tasks, those that ended before ``finished`` if that is given; return how many."""
        more = ("finished < ?", finished) if finished is not None else None
        return self._in_pieces(which, "DELETE FROM task", (), states=(State.FAILED, State.DONE), more=more)

    def prune(self, before: float) -> int:
        """Delete history that ended before, a piece of it; return how many, 0 when none is left."""
        sql = "DELETE FROM task WHERE id IN (SELECT id FROM task WHERE finished < ? LIMIT ?)"
        return self._database.transact(lambda session: session.run(sql, (before, PIECE)), durable=False)

    def _in_pieces(
        self,
        which: Which,
        change: str,
        values: Sequence[Any],
        *,
        states: tuple[State, ...] = (),
        more: tuple[str, Any] | None = None,
        wake: bool = False,
    ) -> int:
        """Change what is meant and nobody works on, piece by piece in the order of ids."""
        after, changed = 0, 0
        while True:
            piece = self._database.transact(_Piece(which, change, values, states, more, wake, after))
            if not piece:
                return changed
            after, changed = max(piece), changed + len(piece)


@dataclass(frozen=True, slots=True)
class _Piece:
    """One transaction of a change to many tasks; gives the ids it changed."""

    which: Which
    change: str
    values: Sequence[Any]
    states: tuple[State, ...]
    more: tuple[str, Any] | None
    wake: bool
    after: int

    def __call__(self, session: Session) -> list[int]:
        where, values = self.which.where(session)
        if self.more:
            where, values = f"{where} AND {self.more[0]}", [*values, self.more[1]]
        if self.states:
            where += f" AND state IN ({', '.join(repr(state.value) for state in self.states)})"
        # Nobody else may have leased one of them meanwhile: the state is asked again in the outer statement.
        free = "state <> 'leased'"
        sql = (
            f"{self.change} WHERE id IN (SELECT id FROM task WHERE {where} AND {free} ORDER BY id LIMIT {PIECE})"
            f" AND {free} RETURNING id, kind"
        )
        rows = session.rows(sql, (*self.values, self.after, *values))
        for kind in {str(row[1]) for row in rows} if self.wake else ():
            session.wake(kind)
        return [int(row[0]) for row in rows]


def _settle(session: Session, owner: str, now: float, to: Settled, ids: Sequence[int]) -> list[Row]:
    """Tasks with one outcome: id, kind and lane of each."""
    changes = _CHANGES[to.state] + ("" if to.counted else ", attempts = attempts - 1")
    values: list[Any] = [to.due, to.due, to.reason] if to.state is State.WAITING else [now, to.reason]
    if to.kind:
        changes += ", kind = ?, attempts = 0"
        values.append(to.kind)
        session.wake(to.kind)
    if to.payload:
        changes += ", payload = ?"
        values.append(to.payload)
    sql = _SET.format(changes=changes, ids=session.dialect.among.format(column="id"))
    return session.rows(sql, (*values, session.dialect.listed(list(ids)), owner))

