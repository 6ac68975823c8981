"""A notice in words: the subject, the text and the JSON that receivers get.

Rules that hold here: what is counted is counted in words (``17 images failed for WS_RAD``); reasons are those of the
log; local time, with its zone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from archive.services.alarms import BEGINS, OVER
from archive.services.notify import Entry, Notice

LONGEST_SUBJECT = 150  # characters; clients cut it sooner
PLURALS = {"study": "studies"}


def line(entry: Entry) -> str:
    """``17 images failed for WS_RAD: A700 (out of resources) (15), no answer (2)``"""
    alarm, count = entry.alarm, entry.count
    if alarm.noun:
        noun = alarm.noun if count == 1 else PLURALS.get(alarm.noun, f"{alarm.noun}s")
        said = f"{count} {noun} {alarm.text}"
    else:
        said = alarm.text if count == 1 or alarm.state != "happened" else f"{alarm.text} ({count} times)"
    whys = list(entry.whys.items())
    if len(whys) == 1:
        return f"{said}: {whys[0][0]}"
    return f"{said}: {', '.join(f'{why} ({number})' for why, number in whys)}" if whys else said


def subject(notice: Notice, archive: str) -> str:
    if notice.test:
        return f"[{archive}] test of the notification {notice.rule}"
    word = "over" if all(entry.alarm.state == OVER for entry in notice.entries) else notice.level
    more = len(notice.entries) - 1
    said = line(notice.entries[0]) if notice.entries else f"{notice.left_out} events"
    if len(said) > LONGEST_SUBJECT:
        said = said[: LONGEST_SUBJECT - 1] + "…"
    return f"[{archive}] {word}: {said}" + (f" (and {more} more)" if more > 0 else "")


def text(notice: Notice, archive: str, host: str) -> str:
    """For people: a paragraph for each line."""
    if notice.test:
        body = [f"This is a test: who reads it will be told when something goes wrong ({notice.rule})."]
    else:
        body = [f"{_state(entry)}{line(entry)}\n    {_span(entry)}" for entry in notice.entries]
    if notice.left_out:
        body.append(f"and {notice.left_out} events of other kinds; the log has them.")
    if notice.merged:
        body.append(f"The limit of this notification held back {notice.merged} messages; this one tells of all.")
    return "\n\n".join([*body, f"-- \n{archive} on {host}"]) + "\n"


def _state(entry: Entry) -> str:
    return {BEGINS: "over by now: " if entry.ended else "begins: ", OVER: "over: "}.get(entry.alarm.state, "")


def _span(entry: Entry) -> str:
    first, last = _time(entry.first), _time(entry.ended or entry.last)
    return first if first == last else f"{first} to {last}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def plain(notice: Notice, archive: str, host: str) -> dict[str, Any]:
    """For programs; docs/notifications.md says what each member is."""
    return {
        "archive": archive, "host": host, "rule": notice.rule, "id": notice.id, "time": _time(notice.when),
        "test": notice.test, "level": notice.level, "subject": subject(notice, archive), "merged": notice.merged,
        "left_out": notice.left_out, "message": text(notice, archive, host),
        "events": [_event(entry) for entry in notice.entries],
    }  # fmt: skip


def _event(entry: Entry) -> dict[str, Any]:
    alarm = entry.alarm
    return {
        "on": alarm.on, "about": alarm.about, "level": alarm.level, "state": alarm.state, "count": entry.count,
        "text": line(entry), "reasons": entry.whys, "first": _time(entry.first), "last": _time(entry.last),
        "ended": _time(entry.ended) if entry.ended else None,
    }  # fmt: skip
