"""Proving: a destination that has answered success is asked whether it has the image, before that is called sent.

Rules that hold here: a destination that cannot be asked costs an image no try; one that does not have it does, and in
the end the image has failed; nothing is sent again without a person; of what was de-identified no destination is ever
asked under the UIDs that it has here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from archive.errors import ArchiveError
from archive.index import Index, Settled, State, StoredInstance, Task
from archive.services.destination import Conditions, Reach, again
from archive.services.hooks import as_sent, is_owed
from archive.services.routing import VERIFY

BATCH = 512  # images asked for together
LEASE = 600.0  # seconds: as long as a destination may take to answer for all of them
UNPROVEN = "0000 (success), but its route does not de-identify any more: nobody can ask for it"


class Proof:
    """One destination's images that it has answered success for, and that it has to find when asked."""

    def __init__(
        self, name: str, index: Index, reach: Reach, conditions: Conditions, *, owner: str, clock: Callable[[], float]
    ) -> None:
        self.name = name
        self._index, self._queue = index, index.queue
        self._reach = reach
        self._conditions = conditions
        self._owner = owner
        self._clock = clock

    def step(self) -> float | None:
        """Ask for what is due; seconds until more will be, None when only a wake brings more."""
        now = self._clock()
        due = self._index.next_due(VERIFY, lane=self.name)
        if due is None or self._queue.lane(self.name).paused is not None:
            return None
        if due > now:
            return due - now
        tasks = self._index.lease(VERIFY, self._owner, now, seconds=LEASE, limit=BATCH, lane=self.name)
        stored = self._queue.stored([task.payload["sop"] for task in tasks])
        sent = {task.id: found for task in tasks if (found := self._sent(task, stored)) is not None}
        asked = {each.sop_instance_uid: each for each in sent.values()}
        missing, trouble = set(asked), ""
        try:
            missing = self._reach.missing(list(asked.values()))
        except ArchiveError as error:
            trouble = f"cannot be asked whether it has the image: {error.reason}"
        now = self._clock()
        self._queue.settle(self._owner, now, [self._judge(task, sent, missing, trouble, now) for task in tasks])
        return 0.0

    def _sent(self, task: Task, stored: Mapping[str, tuple[StoredInstance, float]]) -> StoredInstance | None:
        """The image under the UIDs with which its route has sent it, None when it is gone or nobody knows them."""
        found, hooks = stored.get(task.payload["sop"]), self._conditions.of(task).hooks
        return None if found is None or is_owed(task, hooks) else as_sent(found[0], hooks)

    def _judge(
        self, task: Task, sent: Mapping[int, StoredInstance], missing: set[str], trouble: str, now: float
    ) -> Settled:
        terms = self._conditions.of(task)
        if task.id not in sent and is_owed(task, terms.hooks):
            return Settled(task.id, State.FAILED, UNPROVEN)
        if task.id not in sent:
            return Settled(task.id, State.DONE, "0000 (success), deleted here before it was looked for there")
        if sent[task.id].sop_instance_uid not in missing:
            return Settled(task.id, State.DONE, f"0000 (success), {self._reach.proof}")
        if trouble and now - task.created < terms.give_up:
            wait = self._conditions.delays[min(task.attempts, len(self._conditions.delays)) - 1]
            return Settled(task.id, State.WAITING, trouble, now + wait, counted=False)
        reason = trouble or f"answered with success, but not {self._reach.proof}"
        return again(task, terms, reason, now)

    def look(self) -> None:
        """Every step looks."""

    def close(self, grace: float) -> None:
        """Give back what an interrupted step has leased."""
        self._queue.release(self._owner)
