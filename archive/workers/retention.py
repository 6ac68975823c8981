"""The worker that carries retention out: in its hours, a span or a study a step.

Rules that hold here: nobody waits for a moment that is known; what was leased when the process died is taken up by
the next one; when the clock cannot be believed nothing is deleted, and the log says so once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from archive.errors import IndexUnavailable
from archive.index import Index, Task
from archive.index.retention import RETIRE, ROOM
from archive.services.alarms import BEGINS, OVER, TASK, Alarm, Raise, nobody
from archive.services.disposal import Disposal
from archive.services.retention import DAY
from archive.services.rounds import OldVersions, Rounds
from archive.services.schedule import Schedule
from archive.services.steadyclock import SteadyClock
from archive.services.watermarks import Watermarks
from archive.workers.leases import owner_name, take_back

log = logging.getLogger(__name__)

LEASE = 3600.0  # seconds: the largest studies, and a peer that takes its time to promise
ABOUT = "retention"  # of alarms
REST = 0.05  # seconds between two looks, for those who read and write meanwhile
AGAIN = 600.0  # seconds until what failed is tried again
DOUBTING = 3600.0  # seconds between two looks at a clock that is not believed
LONGEST_PAUSE = 60.0  # seconds; whoever asks for more has done what is due


class Retire:
    """Deletes what rules let go."""

    name = "retention"
    kinds = frozenset({RETIRE, ROOM})

    def __init__(
        self, index: Index, rounds: Rounds, disposal: Disposal, versions: OldVersions, steady: SteadyClock, *,
        hours: Schedule, clock: Callable[[], float], raise_alarm: Raise = nobody,
    ) -> None:  # fmt: skip
        self._index = index
        self._rounds = rounds
        self._disposal = disposal
        self._versions = versions
        self._steady = steady
        self._hours = hours
        self._clock = clock
        self._raise = raise_alarm
        self._owner = owner_name()
        self._first = True
        self._doubted = ""
        self._versions_at = 0.0
        self.deleted = 0  # studies

    def begin(self) -> None:
        """All is looked at anew."""
        self._rounds.begin()

    def step(self) -> float | None:
        """One span or one study."""
        if self._first:
            take_back(self._index, self.kinds, self._clock())
            self._first = False
        if self._doubts():
            return DOUBTING
        now = self._clock()
        later = self._hours.opens(now) or self._disposal.wait_until()  # when rules go on; space does not wait for them
        for kind in (ROOM, RETIRE) if later is None else (ROOM,):
            for task in self._index.lease(kind, self._owner, now, seconds=LEASE):
                return self._carry_out(task)
        return self._look(now, later)

    def _doubts(self) -> bool:
        why = self._steady.doubt()
        if why and why != self._doubted:
            log.error("retention: nothing is deleted: %s; archive retention clock --right, if it is right now", why)
            self._raise(Alarm(TASK, ABOUT, "nothing is deleted by rules", why, state=BEGINS))
        if self._doubted and not why:
            self._raise(Alarm(TASK, ABOUT, "rules delete again", state=OVER))
        self._doubted = why
        return bool(why)

    def _carry_out(self, task: Task) -> float:
        """One study."""
        try:
            outcome = self._disposal.carry_out(task)
        except IndexUnavailable:
            raise
        except Exception as error:  # one study must not hold up the others
            log.exception("retention: study %s cannot be deleted", task.lane)
            self._index.retry(task.id, self._owner, self._clock() + AGAIN, str(error))
            return REST
        self._index.finish(task.id, self._owner, self._clock(), reason=outcome.reason)
        self.deleted += outcome.instances > 0
        return max(REST, self._disposal.pause(outcome.instances))

    def _look(self, now: float, later: float | None) -> float | None:
        """Find what is due; the seconds until there is more to do."""
        waits = [self._index.next_due(ROOM), later or self._index.next_due(RETIRE)]
        if self._hours.opens(now) is None:
            waits += self._search(now)
        found = [each for each in waits if each is not None]
        return max(REST, min(found) - now) if found else None

    def _search(self, now: float) -> list[float | None]:
        """A page of earlier versions, or a span of studies; when there is more to look at."""
        if now >= self._versions_at or now < self._versions_at - DAY:
            if self._versions.step():
                return [now]
            self._versions_at = now + DAY
        due = self._rounds.due(now)
        if due is not None and due <= now:
            self._rounds.step()
            due = now
        return [due, self._versions_at]

    def close(self) -> None:
        """It keeps nothing."""


class WatchSpace:
    """Looks how full the file system is, when a mark could have been crossed."""

    name = "watermarks"
    kinds: frozenset[str] = frozenset()

    def __init__(self, watermarks: Watermarks) -> None:
        self._watermarks = watermarks

    def step(self) -> float | None:
        return self._watermarks.look()

    def close(self) -> None:
        """It keeps nothing."""
