"""What is allowed but looks like a mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Warned = Callable[..., list[str]]
MakePair = Callable[..., tuple[Path, Path]]

OPEN = "listeners: [{host: 0.0.0.0}]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "unknown_peers: {allow: [echo, store]}",
            "unknown_peers.allow: anybody who reaches the archive may store; [echo]",
        ),
        ("limits: {per_ip: 501}", "limits.per_ip = 501: 501 is more than max_associations (500)"),
        ("limits: {per_ae: 0, per_ip: 90, max_associations: 80}", "limits.per_ip = 90: 90 is more than"),
        (
            "peers: {CT1: {host: 10.0.0.1, allow: [commit]}}",
            "commit without a port: the archive cannot send it commitment reports",
        ),
        ("peers: {CT1: {host: 10.0.0.1, allow: [move]}}", "move without a port"),
        ("peers: {CT1: {host: 10.0.0.0/8, port: 104}}", "the archive does not know where to call it"),
        ("peers: {CT1: {host: 10.0.0.0/8}, ct1: {host: 10.0.0.1}}", "'ct1' differs from 'CT1' by case alone"),
        ("peers: {ARCHIVE: {host: 10.0.0.1}}", "'ARCHIVE' is the archive's own AE title"),
        ("peers: {CT1: {host: nowhere.example}}", "no address found for this name"),
        ("peers: {CT1: {host: localhost}}", "only this machine can be this peer"),
        ("peers: {CT1: {host: 10.0.0.1}, ANY: {host: 0.0.0.0/0}}", "whoever says ANY is this peer"),
        ("peers: {CT1: {host: 10.1.3.5/24}}", "10.1.3.0/24 for the network, 10.1.3.5 for the single address"),
        ("peers: {CT1: {host: 10.0.0.1, tls: on}}", "no listener speaks TLS, so this peer is never accepted"),
        ("peers: {CT1: {host: 10.0.0.1, certificate: ct1}}", "no listener asks for certificates"),
        ("storage: {path: /etc/archive/files}", "images would be kept in /etc/archive/files"),
    ],
)
def test_a_likely_mistake_is_named(warned: Warned, text: str, said: str) -> None:
    found = [warning for warning in warned(f"{OPEN}{text}\n") if "--insecure" not in warning]
    assert len(found) == 1, found
    assert said in found[0]
    assert found[0].startswith("2: ")


FETCHED = "peers: {{PACS: {{host: 10.0.0.1, port: 104{}}}}}\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (FETCHED.format("") + "sync: [{name: second, peer: PACS, direction: both}]", "sync second fetches from it"),
        (FETCHED.format("") + "prefetch: [{name: heads, from: [PACS]}]", "prefetch heads fetches from it"),
        (FETCHED.format(", fetch: {rate: 5MB}"), "it says how it is fetched from"),
    ],
)
def test_a_peer_that_is_fetched_from_must_be_allowed_to_store(warned: Warned, text: str, why: str) -> None:
    (said,) = warned(OPEN + text)
    assert f"peers.PACS.allow: no store, but {why}: what it sends by C-MOVE would be refused" in said
    for more in ("allow: [echo, store]", "fetch: {retrieve: get}"):
        right = text.replace(", fetch: {rate: 5MB}", "").replace("port: 104", f"port: 104, {more}")
        assert warned(OPEN + right) == []


def test_a_peer_that_is_only_sent_to_need_not_store(warned: Warned) -> None:
    assert warned(f"{OPEN}{FETCHED.format('')}sync: [{{name: second, peer: PACS}}]\n") == []


def test_peers_that_no_listener_serves_are_named(warned: Warned) -> None:
    assert "but CT1 calls from another" in warned("peers: {CT1: {host: 10.0.0.1}}\n")[0]
    assert warned("peers: {CT1: {host: 127.0.0.1}}\n") == []


def test_what_is_right_is_not_warned_about(warned: Warned) -> None:
    text = "peers: {CT1: {host: 10.0.0.1, port: 104, allow: [echo, store, move, commit]}}\n"
    assert warned(OPEN + text) == []


def test_a_password_in_an_open_file_is_named(warned: Warned, file: Path) -> None:
    text = "index: {url: 'postgresql://u:secret@h/d'}\n"
    file.touch()
    file.chmod(0o644)
    (said,) = warned(text)
    assert "chmod o-rwx" in said
    assert "secret" not in said
    assert warned("index: {url: 'postgresql://u:${PW}@h/d'}\n", PW="x") == []
    file.chmod(0o640)
    assert warned(text) == []


def test_a_certificate_that_expires_soon_is_named(warned: Warned, make_pair: MakePair) -> None:
    cert, key = make_pair("server", days=20)
    (said,) = warned(f"listeners: [{{tls: {{cert: {cert}, key: {key}, client_cert: ignore}}}}]\n")
    assert "listeners.0.tls.cert" in said
    assert "expires on " in said
