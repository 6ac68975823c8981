"""The life of a study: received, ready, unmatched, read, reported, complete; late images make it updated.

Rules that hold here: nobody waits for an image to come or not to come: one persisted task follows a study, and looks at
it when it could be ready; every change is an event with the study's attributes, in the transaction of the change; a
late image opens a study again, whatever it was, and is told as *updated*, never as a second *received*.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archive.errors import Conflict, InvalidQuery
from archive.index import Index, NewTask
from archive.index.states import Change, Life, StudyStates
from archive.services.causes import STUDY, Causes, Event

log = logging.getLogger(__name__)

RECEIVED, UPDATED = "received", "updated"
READY, UNMATCHED, READ, REPORTED, COMPLETE = "ready", "unmatched", "read", "reported", "complete"

# State -> its meaning.
STATES = {
    RECEIVED: "images are coming",
    UPDATED: "images are coming for a study that was ready before",
    READY: "nothing more is expected",
    UNMATCHED: "ready, and no order fits",
    READ: "looked at by a reader",
    REPORTED: "a report is there",
    COMPLETE: "nothing more is to be done",
}
CAME = {RECEIVED: "images came", UPDATED: "late images came"}
OPEN = frozenset(CAME)

# From which state a study may be put into which; late images make any of them UPDATED.
FOLLOWS: dict[str, frozenset[str]] = {
    RECEIVED: frozenset({READY}),
    UPDATED: frozenset({READY}),
    READY: frozenset({UNMATCHED, READ, REPORTED, COMPLETE}),
    UNMATCHED: frozenset({READY, READ, REPORTED, COMPLETE}),
    READ: frozenset({READY, REPORTED, COMPLETE}),
    REPORTED: frozenset({READ, COMPLETE}),  # read again: a report was taken back
    COMPLETE: frozenset({REPORTED}),
}

ATTEMPTS = 20  # to change what others change at the same time; each failure means that one of them got through


@dataclass(frozen=True, slots=True)
class Patience:
    """How long nothing may come for a study until it is ready: since its last image, and since the association that
    brought it was released (None: that means nothing)."""

    quiet: float
    after_close: float | None = None


class Lifecycle:
    """Decides on the states of studies; thread-safe, in any process."""

    def __init__(self, index: Index, *, patience: Patience, clock: Callable[[], float], causes: Causes) -> None:
        self._states = StudyStates(index.database)
        self._patience = patience
        self._clock = clock
        self._causes = causes

    # -- by themselves --------------------------------------------------------------------------

    def look(self, uid: str) -> float | None:
        """Do what is due about a study something came for; return when to look again, None = when something comes."""
        for _ in range(ATTEMPTS):
            life = self._states.life(uid)
            if life is None or not life.arrivals:
                return None
            if life.state not in OPEN:
                self._change(life, _opened(life), CAME[_opened(life)], settled=False)
                continue
            due, cause = self._due(life)
            now = self._clock()
            if now < due:
                return min(due, now + self._patience.quiet)  # whatever the clock of the node says that stored it
            if self._change(life, READY, cause):
                return None
        return self._clock() + 1.0

    def _due(self, life: Life) -> tuple[float, str]:
        patience = self._patience
        quiet = life.updated + patience.quiet
        if patience.after_close is not None and life.closed is not None and life.closed >= life.updated:
            closed = life.closed + patience.after_close
            if closed < quiet:
                return closed, "association released"
        return quiet, f"nothing came for {patience.quiet:g} s"

    def closed(self, uids: Sequence[str]) -> None:
        """An association that stored to these studies was released in good order."""
        if uids and self._patience.after_close is not None:
            self._states.close(uids, self._clock(), self._patience.after_close)

    # -- by somebody ----------------------------------------------------------------------------

    def set_state(self, uid: str, state: str, cause: str) -> bool:
        """Put a study into a state; False when it is in it. ``cause`` says who or what, for the history.

        Raises InvalidQuery for a study that is not here, Conflict when this state cannot follow the present one.
        """
        for _ in range(ATTEMPTS):
            life = self._states.life(uid)
            if life is None:
                raise InvalidQuery("no such study", uid)
            present = state_of(life)
            if present == state:
                return False
            if state not in FOLLOWS[present]:
                raise Conflict(f"study is {present} and cannot be {state}", uid)
            if self._change(life, state, cause):
                return True
        raise Conflict("study keeps changing", uid)

    def state(self, uid: str) -> str:
        """The state of a study, empty for one that is not here."""
        life = self._states.life(uid)
        return state_of(life) if life else ""

    def history(self, uid: str) -> list[Change]:
        return self._states.history(uid)

    # -- both -----------------------------------------------------------------------------------

    def _change(self, life: Life, state: str, cause: str, *, settled: bool = True) -> bool:
        now = self._clock()
        changed = self._states.change(life, state, now, cause, self._tasks(life, state, now, cause), settled=settled)
        if changed:
            log.info("study %s is %s: %s", life.uid, state, cause)
        return changed

    def _tasks(self, life: Life, state: str, now: float, cause: str) -> tuple[NewTask, ...]:
        """What the change causes, as rows of its transaction."""
        if not self._causes.has(STUDY):
            return ()
        facts = self._states.facts(life) | {"StudyState": state}
        details = {"previous": state_of(life), "cause": cause}
        return self._causes.tasks(
            Event(STUDY, lambda keyword: facts.get(keyword, ""), now, study_uid=life.uid, details=details)
        )


def state_of(life: Life) -> str:
    """What a study is, also when nobody has looked yet."""
    if life.arrivals and life.state not in OPEN:
        return _opened(life)
    return life.state or READY


def _opened(life: Life) -> str:
    """What arrivals make of a study: one that was here before is updated, known to the history or not."""
    return UPDATED if life.state or life.instances > life.arrivals else RECEIVED
