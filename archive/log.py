"""Logging: one line an event, with the association on every line, and nothing that can forge or leak.

Rules that hold here: control characters never reach the log raw, so no received text can start a line
of its own; a line is at most `LONGEST` characters; libraries below us log nothing that a peer sent.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings

LONGEST = 1000  # characters of message: enough for the longest honest line, a bound on a hostile one
FORMAT = "%(asctime)s %(levelname)-7s %(process)d [%(threadName)s] %(name)s: %(message)s"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN = re.compile(r"[ -~]*").fullmatch


def escape(text: str) -> str:
    """`text` with every control character as \\xNN, on one line."""
    if _PLAIN(text):
        return text
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class Formatter(logging.Formatter):
    """Escapes and bounds the message and the thread's name; a traceback keeps its own lines."""

    _second = (-1, "")  # the last second that was written, and how

    def format(self, record: logging.LogRecord) -> str:
        message, name = record.getMessage(), record.threadName or ""
        record.message = escape(message if len(message) <= LONGEST else message[:LONGEST] + "…")
        if len(record.message) > LONGEST + 1:
            record.message = record.message[:LONGEST] + "…"
        record.threadName = escape(name)[:80]
        try:
            if self.usesTime():
                record.asctime = self.formatTime(record, self.datefmt)
            line = self.formatMessage(record)
        finally:
            record.threadName = name  # other handlers see what it was
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        second = int(record.created)
        if datefmt or second != self._second[0]:
            text = super().formatTime(record, datefmt)
            if datefmt:
                return text
            self._second = second, text[:-3]  # everything but the milliseconds
        return f"{self._second[1]}{int(record.msecs):03d}"

    def formatException(self, ei: object) -> str:  # noqa: N802 - the name is logging's
        """The places, not the values: the text of an exception may quote what a peer sent."""
        text = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join("    " + escape(line)[:LONGEST] for line in text.split("\n"))


def configure(level: str = "info") -> None:
    """Send the archive's own log to standard error, where systemd and containers expect it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_level(level)
    # pydicom and pynetdicom quote values of data sets in their messages and warnings.
    for library in ("pydicom", "pynetdicom", "pylibjpeg"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")


def set_level(level: str) -> None:
    """How much the archive itself says."""
    logging.getLogger("archive").setLevel(level.upper())
