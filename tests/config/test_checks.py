"""Options that contradict each other, the files of TLS, and ports that are taken."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.config import Complaints, Config, load, ports_in_use

Configured = Callable[..., Config]
Complained = Callable[..., list[str]]
MakePair = Callable[..., tuple[Path, Path]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "peers:\n  A: {aet: CT1, host: 10.0.0.1}\n  CT1: {host: 10.0.0.2}",
            "3: peers.CT1.aet: 'CT1' is an AE title of A already",
        ),
        (
            "peers:\n  A: {host: 10.0.0.1}\n  B: {host: 10.0.0.2, aliases: [A]}",
            "peers.B.aliases.0 = A: 'A' is an AE title of A",
        ),
        ("peers: {A: {host: 10.0.0.1, aliases: [A]}}", "peers.A.aliases.0 = A: 'A' is an AE title of A already"),
        ("peers:\n  A: {host: 10.0.0.1}\n  'A ': {host: 10.0.0.2}", "'A' is an AE title of A already"),
        ("ae: {title: A, aliases: [A]}", "ae.aliases: 'A' is ae.title already"),
        ("listeners: [{port: 1}, {port: 1}]", "listeners.1.port = 1: 127.0.0.1:1 is listened on already"),
        ("listeners: [{port: 1}, {port: 1, host: 0.0.0.0}]", "127.0.0.1:1 is listened on already"),
        ("listeners: [{port: 1, host: '::'}, {port: 1, host: 10.0.0.1}]", ":::1 is listened on already"),
        ("limits: {max_associations: 10, reserved_for_peers: 10}", "10 of 10 leave none for others; a number below"),
        (
            "peers: {A: {host: 10.0.0.1, quirks: no_async, async_window: 8}}",
            "async_window = 8: contradicts the quirk no_async",
        ),
    ],
)
def test_a_contradiction_is_named(complaints: Complained, text: str, said: str) -> None:
    found = complaints(f"{text}\n")
    assert len(found) == 1, found
    assert said in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "listeners: [{port: 0}, {port: 0}]",
        "listeners: [{port: 1, host: 127.0.0.1}, {port: 1, host: 127.0.0.2}]",
        "listeners: [{port: 1, host: 0.0.0.0}, {port: 1, host: '::1'}]",
        "peers: {A: {host: 10.0.0.1, quirks: no_async}}",
        "limits: {max_associations: 0}",
    ],
)
def test_what_only_looks_like_a_contradiction_is_accepted(configured: Configured, text: str) -> None:
    assert configured(f"{text}\n")


def test_an_open_door_is_refused_unless_insecure(complaints: Complained, configured: Configured) -> None:
    text = "listeners: [{port: 1}, {port: 2, host: 0.0.0.0}]\n"
    (said,) = complaints(text, insecure=False)
    assert said.startswith("1: listeners.1.host = 0.0.0.0: reachable from other machines with neither peers nor TLS; ")
    assert [warning.key for warning in configured(text).warnings] == ["listeners.1.host"]


def test_an_open_door_cannot_be_set_without_a_file() -> None:
    with pytest.raises(Complaints, match="--insecure"):
        load(None, overrides=["listeners.0.host=0.0.0.0"])


def test_peers_or_tls_close_the_door(configured: Configured, make_pair: MakePair) -> None:
    cert, key = make_pair("server")
    tls = f"tls: {{cert: {cert}, key: {key}, client_cert: ignore}}"
    assert configured(f"listeners: [{{host: 0.0.0.0, {tls}}}]\n", insecure=False)
    assert configured("listeners: [{host: 0.0.0.0}]\npeers: {CT1: {host: 10.0.0.1}}\n", insecure=False)
    assert configured("listeners: [{host: 127.0.0.1}, {host: '::1'}, {host: localhost, port: 3}]\n", insecure=False)


def listener(cert: Path, key: Path, more: str = "client_cert: ignore", port: int = 2762) -> str:
    return f"listeners:\n  - port: {port}\n    tls: {{cert: {cert}, key: {key}, {more}}}\n"


def test_a_good_pair_is_accepted_by_its_relative_path(configured: Configured, make_pair: MakePair) -> None:
    cert, _ = make_pair("server")
    tls = configured(listener(Path("server.pem"), Path("server.key"), "ca: server.pem")).listeners[0].tls
    assert tls
    assert (tls.cert, tls.ca, tls.profile, tls.client_cert) == (cert, cert, "bcp195", "require")


def test_a_bad_pair_is_named(complaints: Complained, make_pair: MakePair, tmp_path: Path) -> None:
    cert, key = make_pair("server")
    other, _ = make_pair("other")
    old = make_pair("old", days=-1)
    early = make_pair("early", days=30, starts=5)
    public = make_pair("public", mode=0o644)
    junk = tmp_path / "junk"
    junk.write_text("junk")
    cases = [
        ((other, key), f"3: listeners.0.tls.key = {key}: does not belong to {other}"),
        (old, "expired on "),
        (early, "not valid before "),
        (public, f"the private key is open to every user of this machine; chmod o-rwx {public[1]}"),
        ((cert, tmp_path / "none"), "cannot be read: No such file"),
        ((tmp_path / "none", key), "cannot be read: No such file"),
        ((cert, junk), "holds no PEM private key"),
        ((junk, key), "holds no PEM certificate"),
    ]
    for pair, said in cases:
        found = complaints(listener(*pair))
        assert len(found) == 1, found
        assert said in found[0]


def test_an_authority_is_needed_and_read(
    complaints: Complained, configured: Configured, make_pair: MakePair, tmp_path: Path
) -> None:
    cert, key = make_pair("server")
    (found,) = complaints(listener(cert, key, "client_cert: require"))
    assert "client_cert: require without ca" in found
    (found,) = complaints(listener(cert, key, "client_cert: request"))
    assert "add ca, or write client_cert: ignore" in found
    folder = tmp_path / "ca.d"
    folder.mkdir()
    (found,) = complaints(listener(cert, key, f"ca: {folder}"))
    assert "tls.ca" in found
    (folder / "one.pem").write_bytes(cert.read_bytes())
    assert configured(listener(cert, key, f"ca: {folder}"))


def test_the_legacy_profile_has_a_port_and_an_rsa_key_of_its_own(
    complaints: Complained, configured: Configured, make_pair: MakePair
) -> None:
    cert, key = make_pair("server")
    legacy = "client_cert: ignore, profile: legacy_aes128_cbc"
    (found,) = complaints(listener(cert, key, legacy))
    assert "no RSA key" in found
    cert, key = make_pair("rsa", use_rsa=True)
    assert configured(listener(cert, key, legacy)).listeners[0].tls.profile == "legacy-aes128-cbc"  # type: ignore[union-attr]
    second = f"  - {{host: 127.0.0.2, port: 2762, tls: {{cert: {cert}, key: {key}, client_cert: ignore}}}}\n"
    (found,) = complaints(listener(cert, key, legacy) + second)
    assert "give legacy-aes128-cbc a port of its own" in found


def test_a_peer_speaks_tls_as_the_first_tls_listener_does(
    configured: Configured, complaints: Complained, make_pair: MakePair
) -> None:
    cert, key = make_pair("server")
    peers = "peers:\n  A: {host: 10.0.0.1, tls: on}\n  B: {host: 10.0.0.2, tls: {incoming: optional, ca: server.pem}}\n"
    config = configured(listener(cert, key, f"ca: {cert}") + peers)
    tls = config.peers["A"].tls
    assert tls
    assert (tls.cert, tls.key, tls.ca) == (cert, key, cert)
    assert (config.peers["A"].tls_required, config.peers["B"].tls_required) == (True, False)
    (found,) = complaints(f"peers: {{A: {{host: 10.0.0.1, tls: {{cert: {cert}}}}}}}\n")
    assert "cert and key belong together" in found


def test_a_port_in_use_is_named_with_its_line(configured: Configured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = configured(f"listeners:\n  - {{port: 0}}\n  - {{port: {port}}}\n  - {{host: 192.0.2.1, port: 0}}\n")
        found = ports_in_use(config)
    assert [(complaint.where.line, complaint.key) for complaint in found] == [
        (3, "listeners.1.port"),
        (4, "listeners.2.port"),
    ]
    assert f"127.0.0.1:{port}: in use by another program" in str(found[0])
    assert "no address of this machine" in str(found[1])
