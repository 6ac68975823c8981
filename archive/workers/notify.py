"""The desk at which alarms become notices, and those who carry them out.

Rules that hold here: each receiver has a thread of its own, so that a mail server that is dead or a hook that hangs
keeps nobody waiting but itself; what was heard is in a file before long, so that a restart loses nothing that was
gathered; a file that cannot be written, as when the disk is what has failed, is no reason to be silent.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from archive.errors import ArchiveError
from archive.services.alarms import Line
from archive.services.notify import Mailbox, Notice, Rule

log = logging.getLogger(__name__)

KIND = "alarm"  # what these workers are woken by
SAVE_EVERY = 1.0  # seconds between two writes while alarms come in numbers

Tell = Callable[[Notice], str]
"""Sends a notice to its receiver and says what that said; raises ArchiveError."""


class StateFile:
    """What is gathered, over a restart; ``guard`` is a file without which the disk is not the one that was meant."""

    def __init__(self, path: Path, guard: Path) -> None:
        self._path, self._guard = path, guard
        self._failing = False

    def load(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("notices before the restart are lost: %s: %s", self._path, error)
            return {}

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace it; a failure is logged once."""
        new = self._path.with_suffix(".new")
        try:
            if not self._guard.exists():
                raise FileNotFoundError(2, f"{self._guard.name} is gone")
            new.write_text(json.dumps(state), encoding="utf-8")
            os.replace(new, self._path)
        except OSError as error:
            if not self._failing:
                log.warning("notices are kept in memory only: %s: %s", self._path, error.strerror)
            self._failing = True
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            return
        self._failing = False


class Desk:
    """The mailboxes of all receivers; thread-safe."""

    def __init__(self, rules: Sequence[Rule], file: StateFile, clock: Callable[[], float]) -> None:
        self._file, self._clock = file, clock
        self._lock = threading.Lock()
        states = file.load()
        self._boxes = {rule.name: _mailbox(rule, states.get(rule.name)) for rule in rules}
        self._saved = 0.0
        self._closed = False

    def hear(self, line: Line) -> None:
        """Sort what was said on the line."""
        with self._lock:
            now = self._clock()
            alarms = line.take()
            for alarm in alarms:
                for box in self._boxes.values():
                    box.take(alarm, now)
            if alarms and not 0 <= now - self._saved < SAVE_EVERY:
                self._save(now)

    def due(self, name: str) -> tuple[Notice | None, float | None]:
        """What is to be sent now, and else the seconds until something is."""
        with self._lock:
            now = self._clock()
            notice = self._boxes[name].due(now)
            self._save(now)
            return notice, None if notice else self._boxes[name].wait(now)

    def settle(self, name: str, failure: str = "") -> None:
        with self._lock:
            now = self._clock()
            self._boxes[name].settle(now, failure)
            self._save(now)

    def _save(self, now: float) -> None:
        if self._closed:  # by now another desk has the file
            return
        self._saved = now
        self._file.save({name: box.plain() for name, box in self._boxes.items()})

    def close(self) -> None:
        """Keep everything; a receiver that still hangs changes nothing any more."""
        with self._lock:
            self._save(self._clock())
            self._closed = True


def _mailbox(rule: Rule, state: Any) -> Mailbox:
    try:
        return Mailbox(rule, state)
    except (TypeError, ValueError, KeyError, AttributeError):
        log.warning("notices to %s before the restart are lost: their file has another form", rule.name)
        return Mailbox(rule)


class Hearing:
    """The line as what Workers listen to."""

    def __init__(self, line: Line, desk: Desk) -> None:
        self._line, self._desk = line, desk

    def fileno(self) -> int:
        return self._line.fileno()

    def take(self) -> set[str]:
        self._desk.hear(self._line)
        return {KIND}

    def close(self) -> None:
        """The line lives as long as the daemon."""


class Telling:
    """One receiver."""

    kinds = frozenset({KIND})

    def __init__(self, rule: str, desk: Desk, tell: Tell) -> None:
        self.name = f"notify {rule}"
        self._rule, self._desk, self._tell = rule, desk, tell

    def step(self) -> float | None:
        notice, wait = self._desk.due(self._rule)
        if notice is None:
            return wait
        try:
            self._tell(notice)
        except ArchiveError as error:
            self._desk.settle(self._rule, str(error))
        except Exception as error:  # no notice may be tried for ever
            log.exception("notice %s failed by a fault of the archive", notice.id)
            self._desk.settle(self._rule, type(error).__name__)
        else:
            self._desk.settle(self._rule)
        return 0.0

    def close(self) -> None:
        """What was not sent is in the file."""
