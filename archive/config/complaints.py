"""What is said about a configuration: complaints refuse it, warnings only speak.

Rules that hold here: each is one line that names file, line, key, value and what would do; a value is shown as
it is written (``${NAME}`` stays ``${NAME}``), and a password in a URL is never shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from archive.errors import ConfigurationError

SHOWN = 100  # characters of a value; enough to find it in the file

_PASSWORD = re.compile(r"(://[^/\s:@]*:)\S*(?=@)|((?<![a-z])password=)[^&\s]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Where:
    """A file and a line counted from 1; line 0 means the file, or what is not a file, as a whole."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Complaint:
    """One finding; a warning has the same shape."""

    where: Where
    key: str
    value: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        setting = " = ".join(filter(None, (self.key, self.value)))
        return ": ".join(filter(None, (str(self.where), setting, f"{self.problem}; {self.remedy}")))


class Complaints(ConfigurationError):
    """Everything that is wrong with a configuration, one line each."""

    def __init__(self, complaints: Sequence[Complaint]) -> None:
        super().__init__("the configuration cannot be used", "\n".join(map(str, complaints)))
        self.complaints = tuple(complaints)

    def __str__(self) -> str:
        return "\n".join(map(str, self.complaints))


def redacted(text: str) -> str:
    """The text without the passwords of the URLs in it."""
    return _PASSWORD.sub(lambda match: f"{match[1] or match[2]}***", text)


def shown(text: str) -> str:
    """A value fit for one line of a log."""
    text = redacted(text)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
