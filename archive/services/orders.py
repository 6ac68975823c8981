"""Orders: what messages and imported worklists ask for, made durable with what it causes.

Rules that hold here: a message and its effect are one transaction; the same message again has no second effect; an
event tells the rest of the archive of each order that was saved, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from archive.index import Index, NewTask
from archive.index.ordervalues import Applied, NewMessage, OrderChange, PatientChange
from archive.services.causes import MESSAGE, ORDER, Causes, Event


class Orders:
    """Takes orders into one index; thread-safe."""

    def __init__(self, index: Index, causes: Causes | None = None) -> None:
        self._index = index
        self._causes = causes or Causes()

    def take(
        self,
        message: NewMessage,
        orders: Sequence[OrderChange] = (),
        patients: Sequence[PatientChange] = (),
        tasks: Sequence[NewTask] = (),
    ) -> Applied:
        """Carry a message out; durable when it returns. Raises IndexUnavailable."""
        told = Event(MESSAGE, _facts({}), message.received, details={"kind": message.kind, "content": message.content})
        caused = [*self._causes.tasks(told)]
        saved, now = [change for change in orders if change.saves], message.received
        caused += [task for change in saved for task in self._caused(change, now, message=True)]
        return self._index.orders.apply(message, orders, patients, [*tasks, *caused])

    def refuse(self, message: NewMessage) -> None:
        """Keep a message that was not carried out. Raises IndexUnavailable."""
        self._index.orders.keep(message)

    def save(self, change: OrderChange, now: float) -> None:
        """An order that came by no message."""
        self._index.orders.save(change, now, self._caused(change, now))

    def _caused(self, change: OrderChange, when: float, *, message: bool = False) -> Sequence[Any]:
        if not self._causes.has(ORDER):
            return ()
        values = {**change.defaults, **change.attributes}
        for step in change.steps:
            values |= {**step.defaults, **step.attributes}
        # An order that is there keeps the Study Instance UID it has: it is found again by its numbers as well.
        details = {"keys": asdict(change.keys), "message": message}
        uid = _text(values, "StudyInstanceUID")
        return self._causes.tasks(Event(ORDER, _facts(values), when, study_uid=uid, details=details))


def _facts(values: Mapping[str, Any]) -> Any:
    return lambda keyword: _text(values, keyword)


def _text(values: Mapping[str, Any], keyword: str) -> str:
    value = values.get(keyword)
    return value if isinstance(value, str) else ""
