"""The life of studies: in which state each is, since when and why.

Rules that hold here: a state changes only from what it was seen to be, so that of several who change it at once one
does; what changed, why, and the tasks that it causes are one transaction; history is kept by UID and outlives rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archive.dicom.attributes import Level
from archive.index.columns import stored
from archive.index.database import Database, Session
from archive.index.outbox import WATCH, insert_task
from archive.index.values import NewTask

_PLAIN = {level: [each for each in stored(level) if each.vr != "SQ"] for level in (Level.PATIENT, Level.STUDY)}
_FACTS = (
    f"SELECT {', '.join(f'p.{each.column}' for each in _PLAIN[Level.PATIENT])},"
    f" {', '.join(f's.{each.column}' for each in _PLAIN[Level.STUDY])}, s.modalities_in_study, s.sop_classes_in_study"
    " FROM study s JOIN patient p ON p.id = s.patient WHERE s.id = ?"
)
_KEYWORDS = [each.keyword for level in _PLAIN for each in _PLAIN[level]]
_SOURCES = "SELECT DISTINCT i.source FROM series e JOIN instance i ON i.series = e.id WHERE e.study = ? ORDER BY 1"
_LIFE = "id, study_instance_uid, state, arrivals, number_of_instances, updated, closed"
_SETTLE = "UPDATE study SET state = ?, arrivals = 0 WHERE id = ? AND state = ? AND arrivals = ?"
_TURN = "UPDATE study SET state = ? WHERE id = ? AND state = ?"
_TO_HISTORY = (
    "INSERT INTO study_history (study_instance_uid, state, since, cause, instances) VALUES (?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of a study when its state is decided on."""

    id: int
    uid: str
    state: str  # empty: nobody has looked yet
    arrivals: int  # instances that came since it was ready
    instances: int
    updated: float
    closed: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a study's history."""

    state: str
    since: float
    cause: str
    instances: int


class StudyStates:
    """States of the studies of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def life(self, uid: str) -> Life | None:
        row = self._database.read(
            lambda session: session.row(f"SELECT {_LIFE} FROM study WHERE study_instance_uid = ?", (uid,))
        )
        return Life(*row) if row else None

    def facts(self, life: Life) -> dict[str, str]:
        """What rules can ask of a study, by keyword; several values are joined by backslash."""

        def work(session: Session) -> tuple[tuple[str | None, ...] | None, list[str]]:
            sources = [str(row[0]) for row in session.rows(_SOURCES, (life.id,))]
            return session.row(_FACTS, (life.id,)), sources

        row, sources = self._database.read(work)
        if row is None:
            return {}
        *values, modalities, classes = (value or "" for value in row)
        found = dict(zip(_KEYWORDS, values, strict=True))
        lists = {"ModalitiesInStudy": modalities, "Modality": modalities, "SOPClassesInStudy": classes}
        return found | lists | {"CallingAETitle": "\\".join(sources), "StudyInstanceUID": life.uid}

    def change(
        self, seen: Life, state: str, now: float, cause: str, tasks: Sequence[NewTask] = (), *, settled: bool = True
    ) -> bool:
        """From what was seen to another state; False when it has become something else meanwhile.

        ``settled``: what came so far belongs to it, the next arrival is a new beginning.
        """

        def work(session: Session) -> bool:
            if settled:
                changed = session.run(_SETTLE, (state, seen.id, seen.state, seen.arrivals))
            else:
                changed = session.run(_TURN, (state, seen.id, seen.state))
            if not changed:
                return False
            session.run(_TO_HISTORY, (seen.uid, state, now, cause[:200], seen.instances))
            for task in tasks:
                insert_task(session, task, now)
            return True

        return self._database.transact(work)

    def history(self, uid: str) -> list[Change]:
        """Every change of a study, the first one first."""
        sql = "SELECT state, since, cause, instances FROM study_history WHERE study_instance_uid = ? ORDER BY id"
        return [Change(*row) for row in self._database.read(lambda session: session.rows(sql, (uid,)))]

    def close(self, uids: Sequence[str], now: float, delay: float) -> None:
        """An association that stored to these studies was released: look at them after a delay."""

        def work(session: Session) -> None:
            among = session.dialect.among.format(column="study_instance_uid")
            rows = session.rows(
                f"SELECT id, study_instance_uid FROM study WHERE {among} AND arrivals > 0 ORDER BY id",
                (session.dialect.listed(list(uids)),),
            )
            for key, uid in rows:
                session.run("UPDATE study SET closed = ? WHERE id = ?", (now, key))
                task = NewTask(WATCH, {"study": uid, "once": True}, now + delay, lane=uid, study_uid=uid)
                insert_task(session, task, now)

        self._database.transact(work)
