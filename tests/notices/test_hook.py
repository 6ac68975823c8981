"""Notices over HTTP, to a real server."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from archive.errors import NotDelivered
from archive.notices import hook
from tests.notices.certificates import client_context, server_context


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:  # noqa: N802
        server: Any = self.server
        server.posts.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(server.status)
        if server.status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(server.said)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Nothing on the test's output."""


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.posts, made.status, made.said = [], 204, b""
    if request.param == "https":
        made.socket = server_context().wrap_socket(made.socket, server_side=True)
    made.url = f"{request.param}://127.0.0.1:{made.server_address[1]}/hook?a=1"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def post(url: str, **more: Any) -> str:
    said = {"token": "", "context": client_context(), "timeout": 60.0, **more}
    return hook.post(url, {"subject": "disk \u00e4", "events": []}, **said)


def test_a_hook_gets_the_message_as_json(server: Any) -> None:
    assert post(server.url, token="secret") == "answered 204"
    ((path, headers, body),) = server.posts
    assert path == "/hook?a=1"
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert headers["Authorization"] == "Bearer secret"
    assert json.loads(body) == {"subject": "disk \u00e4", "events": []}


def test_what_is_not_taken_was_not_sent_and_the_answer_is_told(server: Any) -> None:
    server.status, server.said = 503, b"try later" + b"x" * 100_000
    with pytest.raises(NotDelivered, match="hook answered 503: try later") as error:
        post(server.url)
    assert len(str(error.value)) < 300


def test_a_redirection_is_not_followed(server: Any) -> None:
    server.status = 302
    with pytest.raises(NotDelivered, match="hook answered 302"):
        post(server.url)
    assert len(server.posts) == 1


def test_a_certificate_of_somebody_else_keeps_it_back(server: Any) -> None:
    if server.url.startswith("https"):
        with pytest.raises(NotDelivered, match="verify failed|VERIFY_FAILED"):
            post(server.url, context=ssl.create_default_context())
        assert server.posts == []
    else:
        assert post(server.url, context=ssl.create_default_context()) == "answered 204"


def test_a_hook_that_is_not_there_or_hangs_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(NotDelivered, match="cannot be reached: Connection refused"):
            post(url)
        silent.listen(1)
        with pytest.raises(NotDelivered, match="did not answer in time"):
            post(url, timeout=1.0)
