"""Notices wired: the process that tells people, and how it reaches each of them.

Rules that hold here: it opens neither index nor store, so that it is there when these are what has failed; without
``notify`` in the configuration there is no such process, and alarms go nowhere.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from archive.app.process import Reload, run_until_told
from archive.config import Config
from archive.config.notify import NotifyRule
from archive.errors import ConfigurationError
from archive.log import set_level
from archive.notices import command, hook, mail
from archive.services import wording
from archive.services.alarms import Line
from archive.services.notify import Notice, Rule
from archive.services.schedule import Schedule
from archive.storage.local import SENTINEL
from archive.workers.notify import Desk, Hearing, StateFile, Tell, Telling
from archive.workers.worker import Workers

FILE = "notices.json"  # beside the files of the store
PATIENCE = 3.0  # seconds at the end for all receivers together: what hangs is sent again after the restart


class Notifier:
    """The process; ``run`` returns after SIGTERM or SIGINT."""

    def __init__(self, config: Config, line: Line) -> None:
        self._line = line
        self._config = config
        self._build(config)

    def run(self, ready: Callable[[], None], again: Reload) -> int:
        self._workers.start()
        ready()
        run_until_told(self._reload, again)
        self._stop()
        return 0

    def _build(self, config: Config) -> None:
        told = [(rule, teller(config, rule)) for rule in config.notify]
        self._desk = Desk([_rule(rule) for rule in config.notify], state_file(config), time.time)
        carriers = [Telling(rule.name, self._desk, tell) for rule, tell in told]
        desk, line = self._desk, self._line
        self._workers = Workers(carriers, lambda: Hearing(line, desk))

    def _reload(self, config: Config) -> None:
        self._stop()
        self._config = config
        self._build(config)
        set_level(config.log.level)
        self._workers.start()

    def _stop(self) -> None:
        self._workers.stop(PATIENCE / max(1, len(self._config.notify)))
        self._desk.hear(self._line)
        self._desk.close()


def state_file(config: Config) -> StateFile:
    root = config.storage.path
    return StateFile(root / FILE, root / SENTINEL)


def _rule(rule: NotifyRule) -> Rule:
    return Rule(
        rule.name, frozenset(rule.on), rule.level, rule.limit.messages, rule.limit.seconds, rule.gather,
        Schedule(rule.window),
    )  # fmt: skip


def teller(config: Config, rule: NotifyRule) -> Tell:
    """How one receiver is told; certificates are read each time, so that trouble with them concerns nobody else."""
    archive, host, to = config.ae.title, socket.gethostname(), rule.to
    if to.mail:

        def by_mail(notice: Notice) -> str:
            server = _server(config, host)
            subject, text = wording.subject(notice, archive), wording.text(notice, archive, host)
            return mail.send(
                server, to.mail, mail.message(server, to.mail, subject, text, id=notice.id, when=notice.when)
            )

        return by_mail
    if to.http:

        def by_http(notice: Notice) -> str:
            trust = _trust(to.ca, f"notify {rule.name}")
            body = wording.plain(notice, archive, host)
            return hook.post(to.http, body, token=to.token or "", context=trust, timeout=to.timeout)

        return by_http

    def by_command(notice: Notice) -> str:
        plain = wording.plain(notice, archive, host)
        environment = {
            "ARCHIVE_NOTICE_SUBJECT": plain["subject"], "ARCHIVE_NOTICE_LEVEL": notice.level,
            "ARCHIVE_NOTICE_EVENTS": str(notice.events), "ARCHIVE_NOTICE_RULE": rule.name,
            "ARCHIVE_NOTICE_TEST": "1" if notice.test else "0",
        }  # fmt: skip
        body = json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        return command.run(to.command, body, environment, timeout=to.timeout, clock=time.monotonic)

    return by_command


def _server(config: Config, host: str) -> mail.Server:
    section = config.smtp
    sender = section.from_ or f"archive@{host if '.' in host else f'{host}.localdomain'}"
    trust = None if section.tls == "off" else _trust(section.ca, "smtp")
    return mail.Server(
        section.host, section.port, sender, section.tls, trust, section.user or "", section.password or "",
        section.timeout,
    )  # fmt: skip


def _trust(ca: Path | None, about: str) -> ssl.SSLContext:
    try:
        if ca is not None and ca.is_dir():
            return ssl.create_default_context(capath=str(ca))
        return ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{about}: ca {ca} cannot be read: {error.strerror or error}") from error


def test(config: Config, rule: NotifyRule, when: float) -> str:
    """Send a test to one receiver; what it said. Raises ArchiveError."""
    notice = Notice(f"test.{int(when * 1000)}", rule.name, when, [], test=True)
    return teller(config, rule)(notice)
