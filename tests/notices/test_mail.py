"""Notices by mail, handed to a real server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from archive.errors import NotDelivered
from archive.notices import mail
from tests.notices.certificates import client_context, server_context

WHEN = 1_800_000_000.0


class Takes:
    """Keeps what it takes; refuses addressees by name."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.tls: list[bool] = []
        self.answer = "250 taken"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if address.startswith("nobody"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        self.tls.append(session.ssl is not None)
        return self.answer

    def login(self, server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"right", handled=False)


class Server:
    """aiosmtpd on a free port."""

    def __init__(self, **options: Any) -> None:
        self.handler = Takes()
        self._controller = Controller(
            self.handler, hostname="127.0.0.1", port=0, ready_timeout=60, authenticator=self.handler.login, **options
        )

    def __enter__(self) -> Server:
        # The controller asks its own port whether it is ready, and so has to know it.
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._controller.port = free.getsockname()[1]
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    def said(self, **more: Any) -> mail.Server:
        return replace(mail.Server("127.0.0.1", self._controller.port, "archive@pacs.example", timeout=60.0), **more)


@pytest.fixture
def plain() -> Iterator[Server]:
    with Server() as server:
        yield server


def send(server: mail.Server, *to: str) -> str:
    made = mail.message(server, to, "[ARCHIVE] error: disk fehlt \u00e4", "Zeile \u00e4\n.\nend\n", id="1.2", when=WHEN)
    return mail.send(server, to, made)


def test_a_mail_arrives_as_it_was_written(plain: Server) -> None:
    said = send(plain.said(), "pacs@hospital.example", "it@hospital.example")
    assert "took it for 2 of 2" in said
    ((sender, to, content),) = plain.handler.mails
    found = message_from_bytes(content, policy=policy.default)
    assert (sender, to) == ("archive@pacs.example", ["pacs@hospital.example", "it@hospital.example"])
    assert found["Subject"] == "[ARCHIVE] error: disk fehlt \u00e4"
    assert found.get_content().replace("\r\n", "\n") == "Zeile \u00e4\n.\nend\n"
    assert found["Message-ID"] == "<1.2.archive@pacs.example>"
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["Date"].datetime.timestamp() == WHEN


def test_an_addressee_that_is_refused_keeps_it_from_no_other(plain: Server) -> None:
    said = send(plain.said(), "nobody@hospital.example", "it@hospital.example")
    assert "1 of 2; refused: nobody@hospital.example (550 no such user)" in said
    assert plain.handler.mails[0][1] == ["it@hospital.example"]


def test_a_mail_that_nobody_takes_was_not_sent(plain: Server) -> None:
    with pytest.raises(NotDelivered, match="550 no such user"):
        send(plain.said(), "nobody@hospital.example")
    plain.handler.answer = "452 no room"
    with pytest.raises(NotDelivered, match="452 no room"):
        send(plain.said(), "it@hospital.example")


def test_where_the_server_offers_starttls_it_is_used() -> None:
    with Server(tls_context=server_context()) as server:
        send(server.said(context=client_context()), "it@hospital.example")
        assert server.handler.tls == [True]


def test_starttls_that_is_demanded_and_not_offered_keeps_the_mail_back(plain: Server) -> None:
    with pytest.raises(NotDelivered, match="offers no STARTTLS"):
        send(plain.said(tls="starttls", context=client_context()), "it@hospital.example")


def test_a_certificate_of_somebody_else_keeps_the_mail_back() -> None:
    import ssl

    with Server(tls_context=server_context()) as server, pytest.raises(NotDelivered, match="verify failed"):
        send(server.said(context=ssl.create_default_context()), "it@hospital.example")


def test_a_password_goes_over_tls_only(plain: Server) -> None:
    with pytest.raises(NotDelivered, match="offers no STARTTLS"):
        send(plain.said(user="archive", password="right"), "it@hospital.example")
    assert plain.handler.logins == []
    with Server(tls_context=server_context()) as server:
        said = server.said(user="archive", password="right", context=client_context())
        send(said, "it@hospital.example")
        assert server.handler.logins == [(b"archive", b"right")]
        with pytest.raises(NotDelivered, match="535"):
            send(replace(said, password="wrong"), "it@hospital.example")


def test_a_password_goes_without_tls_where_that_is_said() -> None:
    with Server(auth_require_tls=False) as server:
        send(server.said(tls="off", user="archive", password="right"), "it@hospital.example")
        assert server.handler.logins == [(b"archive", b"right")]


def test_a_server_that_is_not_there_or_says_nothing_is_named() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        server = mail.Server("127.0.0.1", port, "archive@pacs.example", timeout=1.0)
        with pytest.raises(NotDelivered, match=f"127.0.0.1:{port}: Connection refused"):
            send(server, "it@hospital.example")
        silent.listen(1)
        with pytest.raises(NotDelivered, match="did not answer in time"):
            send(server, "it@hospital.example")
