"""The sections ``notify`` and ``smtp``: who is told when something goes wrong, and how.

Rules that hold here: as in sections.py; a receiver is told by mail, by a command or over HTTP, by exactly one of them;
passwords and tokens are not shown.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from .complaints import Complaint
from .document import Node
from .kinds import ListOf, Reading, Scalar, Unfit, text_of
from .pacing import WINDOW, Hours
from .rules import NAME, own_names
from .schema import Section, option
from .values import LISTENING_HOST, PATH, PORT, duration, one_of

if TYPE_CHECKING:
    from .sections import Config

EVENTS = {
    "store": "objects were refused",
    "route": "images could not be sent for good, or a destination is not reached",
    "disk": "no space, a failing disk, or a volume that is not mounted",
    "index": "the database does not answer",
    "damage": "stored files are damaged or missing",
    "hl7": "messages could not be passed on",
    "commitment": "storage commitment could not be answered, or something else that peers are told of",
    "certificate": "a certificate has expired, or will soon",
    "process": "a process of the archive ended by itself",
    "task": "other work in the background has failed for good",
}
LEVELS = {
    "warning": "everything",
    "error": "only where something was lost or refused, or will be",
}
SMTP_TLS = {
    "auto": "STARTTLS where the server offers it; a password is never sent without",
    "starttls": "STARTTLS, or no mail",
    "tls": "TLS from the first byte, usually on port 465",
    "off": "never",
}
PERIODS = {"m": 60.0, "h": 3600.0, "d": 86400.0}

_LIMIT = re.compile(r"(\d{1,5})\s*/\s*([mhd])", re.ASCII)
_MAIL = re.compile(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+", re.ASCII)  # what a server can be told; it knows who is there


class Limit(NamedTuple):
    """So many messages in so many seconds."""

    messages: int
    seconds: float


def _limit(text: str) -> Limit:
    match = _LIMIT.fullmatch(text.strip().lower())
    if not match or not int(match[1]):
        raise Unfit("not a number of messages such as 10/h")
    return Limit(int(match[1]), PERIODS[match[2]])


def _show_limit(limit: Limit) -> str:
    return f"{limit.messages}/{next(unit for unit, seconds in PERIODS.items() if seconds == limit.seconds)}"


def _mail(text: str) -> str:
    if not _MAIL.fullmatch(text.strip()):
        raise Unfit("not a mail address")
    return text.strip()


def _url(text: str) -> str:
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable() or " " in text.strip():
        raise Unfit("not a URL")
    return text.strip()


def _secret(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise Unfit("a letter beyond ASCII, or a control character")
    return text


class Argv:
    """A command and its arguments, which may repeat; a single text is split as a shell would, without being one."""

    expects = "a list such as [/usr/local/bin/alarm, --archive]"

    def read(self, node: Node, reading: Reading) -> tuple[str, ...]:
        if isinstance(node.content, list):
            found = tuple(text_of(entry) for entry in node.content)
        else:
            found = tuple(shlex.split(text_of(node)))
        if not found or not found[0]:
            raise Unfit("no command")
        return found

    def show(self, value: Any) -> object:
        return list(value)


MAIL = Scalar("a mail address such as pacs@hospital.example", _mail)
URL = Scalar("a URL such as https://chat.example/hook", _url)
SECRET = Scalar("a text, best as ${NAME}", _secret, lambda value: "***" if value else "")
SERVER = Scalar("an address or a DNS name", LISTENING_HOST.convert)
LIMIT = Scalar("a number of messages such as 10/h, 1/m or 50/d", _limit, _show_limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyTo:
    mail: tuple[str, ...] = option(ListOf(MAIL), [], "mail addresses; section smtp says how")
    command: tuple[str, ...] = option(
        Argv(), None, "a command with its arguments, run without a shell; the message is its standard input", unset=()
    )
    http: str = option(URL, None, "a URL to which the message is POSTed as JSON", unset="")
    token: str = option(SECRET, None, "sent to http as 'Authorization: Bearer'", unset="")
    ca: Path | None = option(PATH, None, "who signs the certificate of http; else the system's")
    timeout: float = option(duration(1, 600), "30s", "a command or server that takes longer has failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyRule:
    name: str = option(NAME, None, "what logs and 'archive notify test' call it", required=True)
    on: tuple[str, ...] = option(ListOf(one_of(EVENTS)), [], "about what; empty is everything")
    level: str = option(one_of(LEVELS), "warning", "how serious it must be")
    to: NotifyTo = option(Section(NotifyTo), None, "who is told: {mail: …}, {command: …} or {http: …}", required=True)
    limit: Limit = option(LIMIT, "10/h", "most messages; what comes in the meantime is told with the next one")
    gather: float = option(duration(0, 3600), "60s", "what happens in so long after a first event is one message")
    window: tuple[Hours, ...] = option(ListOf(WINDOW), [], "when messages are sent (local time); empty is always")


@dataclass(frozen=True, slots=True, kw_only=True)
class Smtp:
    host: str = option(SERVER, "127.0.0.1", "the mail server")
    port: int = option(PORT, "25", "its port: 25, 587 with STARTTLS, 465 with TLS")
    tls: str = option(one_of(SMTP_TLS), "auto", "whether the connection is encrypted")
    ca: Path | None = option(PATH, None, "who signs the server's certificate; else the system's")
    user: str = option(SECRET, None, "the user, where the server asks for one", unset="")
    password: str = option(SECRET, None, "its password", unset="")
    from_: str = option(MAIL, None, "the sender's address; archive@ this machine's name if left out", unset="")
    timeout: float = option(duration(1, 600), "30s", "for each answer of the server")


def notices(config: Config, reading: Reading) -> Iterator[Complaint]:
    """Each rule has a name of its own and one way to tell; credentials belong together."""
    yield from own_names(reading, "notify", config.notify)
    for position, rule in enumerate(config.notify):
        key = f"notify.{position}"
        ways = [way for way in ("mail", "command", "http") if getattr(rule.to, way)]
        if len(ways) != 1:
            problem = f"{' and '.join(ways)} at a time" if ways else "nobody is told"
            yield reading.about(f"{key}.to", problem, "one of mail, command and http would do")
        elif rule.to.token and ways != ["http"]:
            yield reading.about(f"{key}.to.token", "a token without http", "leave it out")
    if bool(config.smtp.user) != bool(config.smtp.password):
        yield reading.about("smtp.user", "user and password belong together", "give both or neither")
