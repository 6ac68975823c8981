"""What a reload can change, and what is shown of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from archive.config import Config, display, load, needs_restart

Configured = Callable[..., Config]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", []),
        (
            "ae: {title: OTHER}\npeers: {CT1: {host: 10.0.0.1}}\nlimits: {per_ae: 3}\ntimeouts: {idle: 3s}\n",
            [],
        ),
        ("unknown_peers: {allow: [store]}\nstorage: {reserve: 2GB, on_conflict: reject}\n", []),
        ("listeners: [{port: 1}]\n", ["listeners"]),
        ("listeners: [{}, {port: 1}]\n", ["listeners"]),
        ("listeners: [{host: 0.0.0.0}]\n", ["listeners"]),
        (
            "processes: 200\nstorage: {path: elsewhere, journal: off}\n",
            ["processes", "storage.path", "storage.journal"],
        ),
        ("index: {url: 'sqlite:///other.db', statement_timeout: 9s}\n", ["index.url", "index.statement_timeout"]),
    ],
)
def test_a_reload_names_what_needs_a_restart(configured: Configured, text: str, keys: list[str]) -> None:
    assert needs_restart(configured(""), configured(text)) == keys


def test_certificates_can_change_but_not_whether_a_port_speaks_tls(
    configured: Configured, make_pair: Callable[..., tuple[Path, Path]]
) -> None:
    def with_tls(name: str) -> Config:
        cert, key = make_pair(name)
        return configured(f"listeners: [{{tls: {{cert: {cert}, key: {key}, client_cert: ignore}}}}]\n")

    assert needs_restart(with_tls("one"), with_tls("two")) == []
    assert needs_restart(configured("listeners: [{}]\n"), with_tls("one")) == ["listeners"]


FULL = """
ae: {title: MAIN, aliases: [OTHER]}
listeners: [{host: 0.0.0.0, port: 104}, {port: 2762, tls: {cert: server.pem, key: server.key, ca: server.pem}}]
processes: 2
limits: {max_instance_size: 1000001KB, per_ip: 0, max_pdu: 16384}
timeouts: {idle: 1h30m, acse: 300ms}
unknown_peers: {allow: []}
peers:
  NO: {host: [10.0.0.0/8, ct1.example], visible_if: "Modality = 'CT'", quirks: no_async, timeouts: {idle: 2s}}
  scanner: {aet: CT2, aliases: [CT3], host: 10.0.0.1, tls: on, certificate: ct2, accept_syntaxes: [JPEGLosslessSV1]}
  CT4: {host: '::1', tls: {incoming: optional}, default_charset: ISO_IR 100, relational: on, max_results: 7}
storage: {journal: off, lenient_uids: on}
"""


def test_what_is_shown_loads_to_the_same(configured: Configured, make_pair: Callable[..., tuple[Path, Path]]) -> None:
    make_pair("server")
    config = configured(FULL)
    shown = configured(display(config))
    assert shown == config
    assert [peer.networks for peer in shown.peers.values()] == [peer.networks for peer in config.peers.values()]


def test_passwords_are_not_shown(configured: Configured) -> None:
    shown = display(configured("index: {url: 'postgresql://archive:hun@ter2@host/db?sslmode=require'}\n"))
    assert "postgresql://archive:***@host/db?sslmode=require" in shown
    assert "hun" not in shown


def test_what_is_built_in_can_be_shown() -> None:
    assert "host: 127.0.0.1" in display(load(None))
