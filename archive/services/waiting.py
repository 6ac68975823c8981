"""Why something waits: what stands between a task of the queue and its destination, in words.

Rules that hold here: every task that is not at its end has a reason, and a person can act on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from archive.index import Lane, State, Task

NAMES = {State.WAITING: "waiting", State.LEASED: "sending", State.FAILED: "failed", State.DONE: "sent"}
STATES = {name: state for state, name in NAMES.items()}


def why(task: Task, lanes: Mapping[str, Lane], now: float) -> str:
    """What a task waits for, or how it ended."""
    if task.state in (State.DONE, State.FAILED):
        return task.reason
    if task.state is State.LEASED:
        late = task.lease_until is not None and task.lease_until < now
        return "its worker has gone, somebody else takes it over" if late else "under way"
    held = held_up(lanes.get(task.lane), now)
    if held:
        return held
    if task.due > now:
        return f"{task.reason}, next try at {clock(task.due, now)}" if _is_retry(task) else task.reason or (
            f"due at {clock(task.due, now)}"
        )
    return "waiting for its turn"


def _is_retry(task: Task) -> bool:
    return bool(task.attempts and task.reason)


def held_up(lane: Lane | None, now: float) -> str:
    """What holds up a whole lane; empty when nothing does."""
    if lane is None:
        return ""
    if lane.paused is not None:
        return f"paused since {clock(lane.paused, now)}" + (f": {lane.paused_why}" if lane.paused_why else "")
    if lane.down_until is None:
        return ""
    when = f"asked again at {clock(lane.down_until, now)}" if lane.down_until > now else "asked again now"
    return f"destination is down since {clock(lane.down_since or now, now)}, {when}: {lane.down_why}"


def clock(moment: float, now: float) -> str:
    """Local time to the second, with the date when that is not today's."""
    found, today = datetime.fromtimestamp(moment), datetime.fromtimestamp(now)
    return f"{found:%H:%M:%S}" if found.date() == today.date() else f"{found:%Y-%m-%d %H:%M:%S}"
