"""Alarms as messages: gathered, bounded, told once, kept over a restart.

Rules that hold here: no clock, no network, no threads; what is equal is one line with a number; between the first
alarm and its message lies what ``gather`` says, and beyond ``limit`` messages wait and become one; what goes on is told
when it begins, again when an hour later it still goes on, and when it is over; a message that cannot be sent is tried
for a day, and meanwhile everything else gathers behind it, in bounded room.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from archive.services.alarms import BEGINS, ERROR, HAPPENED, OVER, Alarm, from_plain
from archive.services.schedule import Schedule, pause

log = logging.getLogger(__name__)

MOST_LINES = 50  # of one message: a person reads no more; the rest is a number
MOST_REASONS = 5  # of one line
REMIND = 3600.0  # seconds after which what still goes on is told again
DELAYS = (60.0, 120.0, 240.0, 480.0, 900.0, *[1800.0] * 46)  # between tries of one message: about a day


@dataclass(frozen=True, slots=True)
class Rule:
    """What one receiver wants to hear of, and how often."""

    name: str
    on: frozenset[str] = frozenset()
    level: str = "warning"
    count: int = 10
    seconds: float = 3600.0
    gather: float = 60.0
    schedule: Schedule = field(default_factory=Schedule)

    def wants(self, alarm: Alarm) -> bool:
        return (not self.on or alarm.on in self.on) and (self.level != ERROR or alarm.level == ERROR)


@dataclass(slots=True)
class Entry:
    """One line: equal alarms, how many, and why as far as that differs."""

    alarm: Alarm
    first: float
    last: float
    count: int = 0
    whys: dict[str, int] = field(default_factory=dict)
    ended: float = 0.0

    def add(self, alarm: Alarm, now: float) -> None:
        self.count += alarm.count
        self.last, self.ended = now, 0.0
        if alarm.why and (alarm.why in self.whys or len(self.whys) < MOST_REASONS):
            self.whys[alarm.why] = self.whys.get(alarm.why, 0) + alarm.count


@dataclass(slots=True)
class Notice:
    """One message; ``merged`` is how many the limit made one of, ``left_out`` how many alarms found no line."""

    id: str
    rule: str
    when: float
    entries: list[Entry]
    merged: int = 0
    left_out: int = 0
    test: bool = False

    @property
    def level(self) -> str:
        return ERROR if any(entry.alarm.level == ERROR for entry in self.entries) else "warning"

    @property
    def events(self) -> int:
        return sum(entry.count for entry in self.entries) + self.left_out


class Mailbox:
    """What one receiver will be told; belongs to whoever holds the lock around it."""

    def __init__(self, rule: Rule, state: Mapping[str, Any] | None = None) -> None:
        """``state`` is what ``plain`` gave before a restart."""
        self.rule = rule
        state = state or {}
        self._pending = {_key(entry.alarm): entry for entry in map(_entry, state.get("pending", ()))}
        self._told: dict[str, float] = dict(state.get("told", {}))  # what goes on, and when that was said
        self._sent: list[float] = list(state.get("sent", ()))
        self._since = float(state.get("since", 0.0))  # when this gathering began
        self._counted = self._since  # when the last message began that the limit made part of this one
        self._merged, self._left_out = int(state.get("merged", 0)), int(state.get("left_out", 0))
        self._number = int(state.get("number", 0))
        self._outgoing = _notice(state["outgoing"]) if state.get("outgoing") else None
        self._tries, self._retry_at = int(state.get("tries", 0)), float(state.get("retry_at", 0.0))

    def plain(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "pending": [asdict(entry) for entry in self._pending.values()], "told": self._told, "sent": self._sent,
            "since": self._since, "merged": self._merged, "left_out": self._left_out, "number": self._number,
            "outgoing": asdict(self._outgoing) if self._outgoing else None, "tries": self._tries,
            "retry_at": self._retry_at,
        }  # fmt: skip

    # -- in -------------------------------------------------------------------------------------

    def take(self, alarm: Alarm, now: float) -> None:
        if not self.rule.wants(alarm):
            return
        key = _key(alarm)
        if alarm.state == OVER:
            self._end(alarm, key, now)
        elif alarm.state == BEGINS and self._goes_on(key, now):
            return
        else:
            self._add(alarm, key, now)

    def _goes_on(self, key: str, now: float) -> bool:
        """Whether it has been told, a short while ago; an end that was not told yet was none."""
        if self._pending.pop(f"{key}/{OVER}", None) is not None:
            self._told[key] = now
        return 0 <= now - self._told.get(key, -REMIND) < REMIND

    def _end(self, alarm: Alarm, key: str, now: float) -> None:
        begun = self._pending.get(key)
        if begun is not None and begun.alarm.state == BEGINS:
            begun.ended = now
        elif self._told.pop(key, None) is not None:
            self._add(alarm, f"{key}/{OVER}", now)

    def _add(self, alarm: Alarm, key: str, now: float) -> None:
        self._gather(now)
        if key not in self._pending and len(self._pending) >= MOST_LINES:
            self._left_out += alarm.count
            return
        self._pending.setdefault(key, Entry(alarm, now, now)).add(alarm, now)

    def _gather(self, now: float) -> None:
        """The first alarm says when the message goes; after that it waits for the limit, and others join it."""
        if not self._pending:
            self._since = self._counted = now
        elif now >= self._counted + self.rule.gather and self._limit_ends(now) > now:
            self._merged += 1
            self._counted = now

    # -- out ------------------------------------------------------------------------------------

    def wait(self, now: float) -> float | None:
        """Seconds until there is something to send; None when there is nothing."""
        if self._outgoing is not None:
            return max(0.0, self._retry_at - now)
        if not self._pending:
            return None
        closes = self._since + self.rule.gather if self._since <= now else now  # a clock that was set back
        at = max(now, closes, self._limit_ends(now))
        opens = self.rule.schedule.opens(at)
        return max(0.0, (opens or at) - now)

    def _limit_ends(self, now: float) -> float:
        self._sent = [when for when in self._sent if now - self.rule.seconds < when <= now]
        return self._sent[-self.rule.count] + self.rule.seconds if len(self._sent) >= self.rule.count else now

    def due(self, now: float) -> Notice | None:
        """The message to be sent now; ``settle`` says what became of it."""
        if self.wait(now) != 0.0:
            return None
        if self._outgoing is None:
            self._outgoing = self._compose(now)
        return self._outgoing

    def _compose(self, now: float) -> Notice:
        for key, entry in self._pending.items():
            if entry.alarm.state == BEGINS and not entry.ended:
                self._told[key] = now
        self._number += 1
        entries = list(self._pending.values())
        notice = Notice(
            f"{int(now)}.{self._number}", self.rule.name, now, entries, self._merged, self._left_out
        )
        self._pending, self._merged, self._left_out = {}, 0, 0
        self._sent.append(now)
        self._tries, self._retry_at = 0, now
        return notice

    def settle(self, now: float, failure: str = "") -> None:
        """The message was sent, or it was not and why; then it is tried again, and given up after a day."""
        notice, self._tries = self._outgoing, self._tries + 1
        wait = pause(DELAYS, self._tries) if failure else None
        if notice is None:
            return
        if wait is None:
            self._outgoing = None
        if failure and wait is None:
            log.error("notice %s to %s given up, %d events: %s", notice.id, notice.rule, notice.events, failure)
        elif failure:
            self._retry_at = now + (wait or 0.0)
            log.warning("notice %s to %s not sent, next try in %.0f s: %s", notice.id, notice.rule, wait, failure)
        else:
            log.info("notice %s to %s sent, %d events", notice.id, notice.rule, notice.events)


def _key(alarm: Alarm) -> str:
    """What is one line, and for what goes on, what is one state of affairs."""
    key = f"{alarm.on}/{alarm.about}"
    return key if alarm.state != HAPPENED else f"{key}/{alarm.text}"


def _entry(plain: Mapping[str, Any]) -> Entry:
    return Entry(**{**plain, "alarm": from_plain(plain["alarm"])})


def _notice(plain: Mapping[str, Any]) -> Notice:
    return Notice(**{**plain, "entries": [_entry(each) for each in plain["entries"]]})
