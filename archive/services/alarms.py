"""What goes wrong, said once and from anywhere: an Alarm, and the line on which processes say it.

Rules that hold here: to raise an alarm costs microseconds, never blocks and never fails, also when index and disks are
what has failed; an alarm names AE titles, destinations and reasons, never a patient; what begins and ends is one key,
so that its end can be told; alarms that find no room on the line wait in memory as counts.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from archive import log as logs

log = logging.getLogger(__name__)

STORE, ROUTE, DISK, INDEX, DAMAGE = "store", "route", "disk", "index", "damage"
HL7, COMMITMENT, CERTIFICATE, PROCESS, TASK = "hl7", "commitment", "certificate", "process", "task"
EVENTS = (STORE, ROUTE, DISK, INDEX, DAMAGE, HL7, COMMITMENT, CERTIFICATE, PROCESS, TASK)
WARNING, ERROR = "warning", "error"
HAPPENED, BEGINS, OVER = "happened", "begins", "over"

LONGEST_WORDS = 250  # characters of each text, of up to four bytes: three fit into what a pipe takes whole (PIPE_BUF)
ROOM = 1 << 20  # bytes on the line that nobody has read; the most an unprivileged process may ask for
MOST_HELD = 200  # different alarms that wait in memory


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing that went wrong, or ``count`` equal ones.

    ``about`` is whom or what it concerns: a destination, a caller, a volume. What goes on until it is OVER is told by
    its beginning and its end; these have the same ``on`` and ``about``. ``noun`` is counted: image, study.
    """

    on: str
    about: str
    text: str
    why: str = ""
    noun: str = ""
    level: str = ERROR
    state: str = HAPPENED
    count: int = 1


_PLAIN = re.compile(r"[ -~]*").fullmatch

Raise = Callable[[Alarm], None]


def nobody(alarm: Alarm) -> None:
    """Where nobody wants to hear of it."""


class Line:
    """A pipe from all processes of the archive to the one that tells people; made before they are forked.

    Whoever dies takes nothing along but what it has not written yet; what was written waits for the next reader.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _enlarge(self._writer)
        self._held: dict[Alarm, int] = {}
        self._left = 0
        self._lock = threading.Lock()
        self._rest = b""
        self.wanted = True  # nobody reads it where nobody is to be told

    def raise_alarm(self, alarm: Alarm) -> None:
        """Say it, now or with the next one."""
        if not self.wanted:
            return
        alarm = _bounded(alarm)
        with self._lock:
            if not self._held and self._write(alarm):
                return
            key = replace(alarm, count=1)
            if key in self._held or len(self._held) < MOST_HELD:
                self._held[key] = self._held.get(key, 0) + alarm.count
            self._flush()

    def _flush(self) -> None:
        for alarm, count in list(self._held.items()):
            if not self._write(replace(alarm, count=count)):
                return
            del self._held[alarm]

    def _write(self, alarm: Alarm) -> bool:
        try:
            plain = {name: getattr(alarm, name) for name in Alarm.__slots__}
            os.write(self._writer, json.dumps(plain, ensure_ascii=False).encode(errors="replace") + b"\n")
        except BlockingIOError:
            return False
        except OSError as error:  # nobody can be told; the log has it all the same
            log.debug("alarm not told: %s", error.strerror)
        return True

    # -- for the one that reads -----------------------------------------------------------------

    def fileno(self) -> int:
        return self._reader

    def take(self) -> list[Alarm]:
        """What was said since the last call, never blocking."""
        found: list[Alarm] = []
        while True:
            try:
                piece = os.read(self._reader, 1 << 16)
            except BlockingIOError:
                return found
            *lines, self._rest = (self._rest + piece).split(b"\n")
            found += [alarm for line in lines if (alarm := _read(line)) is not None]

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


def _enlarge(descriptor: int) -> None:
    import fcntl

    try:
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, ROOM)
    except OSError as error:  # the user has too many pipes: the usual 64 kB are some hundred alarms
        log.debug("pipe of alarms stays small: %s", error.strerror)


def _bounded(alarm: Alarm) -> Alarm:
    """Texts on one line, as long as fits beside each other."""
    words = alarm.about + alarm.text + alarm.why
    if len(words) <= LONGEST_WORDS and _PLAIN(words):
        return alarm
    about, text, why = (logs.escape(words)[:LONGEST_WORDS] for words in (alarm.about, alarm.text, alarm.why))
    return replace(alarm, about=about, text=text, why=why)


def _read(line: bytes) -> Alarm | None:
    """An alarm; None for half a line of a reader that was killed."""
    try:
        return from_plain(json.loads(line))
    except (ValueError, TypeError, KeyError):
        return None


def from_plain(plain: dict[str, Any]) -> Alarm:
    """What ``asdict`` gave."""
    alarm = Alarm(**plain)
    if alarm.on not in EVENTS or not isinstance(alarm.count, int):
        raise ValueError("no alarm")
    return alarm
