"""A notice by mail (RFC 5321, 5322).

Rules that hold here: every answer of the server has its deadline; a password is never sent without TLS unless the
configuration says so; what some addressees' servers refuse is said, and is no failure as long as one was taken.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage

from archive.errors import NotDelivered


@dataclass(frozen=True, slots=True)
class Server:
    """The mail server; ``tls`` is auto, starttls, tls or off."""

    host: str
    port: int
    sender: str
    tls: str = "auto"
    context: ssl.SSLContext | None = None
    user: str = ""
    password: str = ""
    timeout: float = 30.0


def message(server: Server, to: Sequence[str], subject: str, text: str, *, id: str, when: float) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"] = server.sender, ", ".join(to)
    made["Subject"] = subject
    made["Date"] = datetime.fromtimestamp(when).astimezone()
    made["Message-ID"] = f"<{id}.archive@{server.sender.partition('@')[2]}>"  # the same when it is sent again
    made["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic answers
    made.set_content(text)
    return made


def send(server: Server, to: Sequence[str], mail: EmailMessage) -> str:
    """Hand a mail to the server; what it said, in words. Raises NotDelivered."""
    try:
        with _connected(server) as smtp:
            _secure(server, smtp)
            if server.user:
                smtp.login(server.user, server.password)
            refused = smtp.send_message(mail, server.sender, list(to))
    except smtplib.SMTPRecipientsRefused as error:
        raise NotDelivered("mail server took no addressee", _refusals(error.recipients)) from error
    except smtplib.SMTPResponseException as error:
        raise NotDelivered("mail server refused", f"{error.smtp_code} {_text(error.smtp_error)}") from error
    except (OSError, smtplib.SMTPException) as error:
        raise NotDelivered(f"mail server {server.host}:{server.port}"[:64], _words(error)) from error
    taken = f"{server.host}:{server.port} took it for {len(to) - len(refused)} of {len(to)}"
    return f"{taken}; refused: {_refusals(refused)}" if refused else taken


def _connected(server: Server) -> smtplib.SMTP:
    if server.tls == "tls":
        return smtplib.SMTP_SSL(server.host, server.port, timeout=server.timeout, context=server.context)
    return smtplib.SMTP(server.host, server.port, timeout=server.timeout)


def _secure(server: Server, smtp: smtplib.SMTP) -> None:
    if server.tls in ("tls", "off"):
        return
    smtp.ehlo_or_helo_if_needed()
    if smtp.has_extn("starttls"):
        smtp.starttls(context=server.context)
        smtp.ehlo()
    elif server.tls == "starttls" or server.user:
        raise NotDelivered("mail server offers no STARTTLS", "smtp.tls: off would send without")


def _refusals(refused: dict[str, tuple[int, bytes]]) -> str:
    return ", ".join(f"{address} ({code} {_text(said)})" for address, (code, said) in refused.items())


def _text(said: bytes | str) -> str:
    return (said.decode("utf-8", "replace") if isinstance(said, bytes) else said)[:200]


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError) or "timed out" in str(error):  # smtplib hides the one behind the other
        return "did not answer in time"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
