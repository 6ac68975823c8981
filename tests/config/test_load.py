"""Options: their defaults, what they are converted to, and what is said about those that do not fit."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from archive.config import Complaints, Config, Peer, Timeouts, find_file, load
from archive.config.words import VERBS

Configured = Callable[..., Config]
Complained = Callable[..., list[str]]


def test_without_a_file_this_machine_alone_is_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(None)
    assert [(listener.host, listener.port, listener.tls) for listener in config.listeners] == [
        ("127.0.0.1", 11112, None)
    ]
    assert (
        set(config.unknown_peers.allowed("127.0.0.1"))
        == set(config.unknown_peers.allowed("::ffff:127.0.0.1"))
        == set(VERBS)
    )
    assert config.unknown_peers.allowed("10.0.0.1") == ("echo",)
    assert config.storage.path == tmp_path / "var/files"
    assert config.index.url == f"sqlite:///{tmp_path}/var/index.db"
    assert config.warnings == ()


def test_values_are_converted(configured: Configured, file: Path) -> None:
    config = configured("""
        ae: {title: "  ROENTGEN ", aliases: ROENTGEN_T}
        processes: 3
        limits: {max_instance_size: 2GB, per_ip: 0}
        timeouts: {idle: 10m}
        storage: {path: ../var/files, journal: off, lenient_uids: yes}
        index: {url: "postgres://u:p@h/d"}
    """)
    assert (config.ae.titles, config.processes) == (("ROENTGEN", "ROENTGEN_T"), 3)
    assert (config.limits.max_instance_size, config.limits.per_ip, config.timeouts.idle) == (2**31, 0, 600.0)
    assert (config.storage.path, config.storage.journal) == (file.parent.parent / "var/files", 0)
    assert (config.storage.lenient_uids, config.index.url) == (True, "postgresql://u:p@h/d")


def test_a_peer_takes_what_it_leaves_out_from_the_sections(configured: Configured) -> None:
    peer = configured("""
        ae: {title: MAIN}
        limits: {max_pdu: 65536}
        query: {max_results: 500}
        timeouts: {idle: 10s, send: 20s}
        peers: {CT1: {host: 10.0.0.1, timeouts: {send: 30s}}, CT2: {host: 10.0.0.2, max_pdu: 0, local_aet: CALLER}}
    """).peers["CT1"]
    assert (peer.local_aet, peer.max_pdu, peer.max_results, peer.default_charset) == ("MAIN", 65536, 500, "")
    assert (peer.timeouts.idle, peer.timeouts.send, peer.allow) == (10.0, 30.0, ("echo",))


def test_a_peers_zero_is_its_own(configured: Configured) -> None:
    peer = configured("limits: {max_pdu: 65536}\npeers: {CT2: {host: 10.0.0.2, max_pdu: 0}}\n").peers["CT2"]
    assert peer.max_pdu == 0


def test_a_peer_made_without_a_file_has_usable_values() -> None:
    peer = Peer(aet="CT1", host=("10.0.0.1",))
    assert (peer.timeouts, peer.local_aet, peer.max_pdu, peer.tls) == (Timeouts(), "ARCHIVE", 0, None)


def test_a_peer_is_found_by_title_and_alias(configured: Configured) -> None:
    config = configured("peers: {scanner: {aet: CT1, aliases: [CT1_OLD], host: 10.0.0.1}}\n")
    assert config.peers["CT1"] is config.peer("CT1") is config.peer("CT1_OLD")
    assert (config.peer("scanner"), config.peers["CT1"].name) == (None, "scanner")


def test_a_host_is_addresses_networks_and_names(configured: Configured) -> None:
    peer = configured("peers: {CT1: {host: [10.1.3.0/24, ct1.example, '::ffff:10.9.9.9']}}\n").peers["CT1"]
    assert peer.address == "ct1.example"
    for address in ("10.1.3.7", "10.1.2.30", "fd00::30", "::ffff:10.1.3.7", "10.9.9.9", "fd00::30%eth0"):
        assert peer.calls_from(address), address
    for address in ("10.1.4.1", "::1", "::ffff:10.1.4.1"):
        assert not peer.calls_from(address), address
    assert ipaddress.ip_network("10.9.9.9/32") in peer.networks


def test_transfer_syntaxes_are_uids_or_keywords(configured: Configured) -> None:
    syntaxes = "[JPEGLosslessSV1, explicitvrlittleendian, 1.2.3.4]"
    peer = configured(f"peers: {{CT1: {{host: 10.0.0.1, accept_syntaxes: {syntaxes}}}}}\n").peers["CT1"]
    assert peer.accept_syntaxes == ("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.1", "1.2.3.4")


def test_a_fingerprint_is_normalised(configured: Configured) -> None:
    written = ":".join(["AB"] * 32)
    peer = configured(f"peers: {{CT1: {{host: 10.0.0.1, certificate: 'SHA256:{written}'}}}}\n").peers["CT1"]
    assert peer.certificate == "sha256:" + "ab" * 32
    assert peer.tls_required


def test_a_configuration_cannot_be_changed(configured: Configured) -> None:
    with pytest.raises(FrozenInstanceError):
        configured("").ae.title = "OTHER"  # type: ignore[misc]


@pytest.mark.parametrize("text", ["web:\ncoerce: []\nstorage: {compress: []}\n", "web: ~\n"])
def test_what_is_not_available_may_be_empty(configured: Configured, text: str) -> None:
    assert configured(text).web is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("aet: {}", "1: aet: unknown option"),
        ("ae: {tittle: X}", "1: ae.tittle = X: unknown option; did you mean title?"),
        ("limits: {per-ip: 3}", "limits.per-ip = 3: unknown option; did you mean per_ip?"),
        ("ae: ARCHIVE", "ae = ARCHIVE: not a mapping"),
        ("ae: {title: ABCDEFGHIJKLMNOPQ}", "an AE title of 17 characters; at most 16 characters"),
        ("ae: {title: 'A\\B'}", "an AE title with a backslash"),
        ('ae: {title: "A\\nB"}', "a control character"),
        ("ae: {title: MÜLLER}", "a letter beyond ASCII"),
        ("ae: {title: ' '}", "an empty AE title"),
        ("ae: {title: {a: b}}", "ae.title: a mapping, not a single value"),
        ("ae: {title: [a]}", "ae.title: a list, not a single value"),
        ("ae: {aliases: [A, A]}", "ae.aliases.1 = A: given twice in the list"),
        ("listeners: []", "listeners: an empty list; a list of at least 1"),
        ("listeners: [{port: 65536}]", "listeners.0.port = 65536: out of range; a number from 0 to 65535"),
        ("listeners: [{port: http}]", "listeners.0.port = http: not a whole number"),
        ("listeners: [{host: 10.0.0.0/8}]", "a network, not an address"),
        ("listeners: [{host: 10.0.0.300}]", "listeners.0.host = 10.0.0.300: not an address"),
        ("listeners: [{tls: on}]", "not enough to listen with TLS"),
        ("listeners: [{tls: {cert: a}}]", "listeners.0.tls: key is missing; add key: a path"),
        ("peers: {CT1: {host: 10.0.0.1, tls: {profile: ssl3}}}", "profile = ssl3: not a known word; bcp195 or legacy"),
        ("processes: 0", "processes = 0: out of range; auto (one per core) or a number from 1 to 256"),
        ("limits: {max_pdu: 100}", "0 (no limit) or a number from 4096"),
        ("limits: {max_instance_size: 1KB}", "too small; a size of at least 1MB"),
        ("timeouts: {idle: 0}", "timeouts.idle = 0: out of range; a time from 0.1s to 1d"),
        ("timeouts: {idle: 5:00}", "not a duration"),
        ("unknown_peers: {allow: [ehco]}", "unknown_peers.allow.0 = ehco: not a known word; one of echo, store"),
        ("peers: [CT1]", "peers: not a mapping"),
        ("peers: {CT1: 10.0.0.1}", "peers.CT1 = 10.0.0.1: not a mapping"),
        ("peers: {CT1: }", "peers.CT1: host is missing; add host"),
        ("peers: {CT1: {host: []}}", "peers.CT1.host: an empty list"),
        ("peers: {CT1: {host: 0.0.0.0}}", "the address of nobody; 0.0.0.0/0 would do for anybody"),
        ("peers: {CT1: {host: 10.0.0.300}}", "not an address; an address, a network such as 10.1.3.0/24 or a DNS name"),
        ("peers: {CT1: {host: 10.0.0.1, port: 0}}", "peers.CT1.port = 0: out of range"),
        ("peers: {CT1: {host: 10.0.0.1, quirks: [no_asnyc]}}", "quirks.0 = no_asnyc: not a known word"),
        ("peers: {CT1: {host: 10.0.0.1, tls: maybe}}", "neither on nor off"),
        ("peers: {CT1: {host: 10.0.0.1, certificate: 'sha256:abc'}}", "not a fingerprint of 64 hexadecimal digits"),
        ("peers: {CT1: {host: 10.0.0.1, accept_syntaxes: [JPEG]}}", "not a transfer syntax"),
        (
            "peers: {CT1: {host: 10.0.0.1, accept_syntaxes: fastest}}",
            "not a known word; first-proposed or prefer-lossless",
        ),
        ("peers: {CT1: {host: 10.0.0.1, default_charset: latin1}}", "'latin1' is not a defined term"),
        ("peers: {CT1: {host: 10.0.0.1, timeouts: {idel: 3s}}}", "unknown option; did you mean idle?"),
        ("peers: {CT1: {host: 10.0.0.1, relational: perhaps}}", "neither on nor off"),
        ("peers: {CT1: {host: 10.0.0.1, visible_if: 'Modality !'}}", "peers.CT1.visible_if = Modality !: column "),
        (
            "storage: {on_duplicate: overwrite}",
            "storage.on_duplicate = overwrite: not a known word; one of keep, replace, same_source, version would do",
        ),
        ("storage: {on_conflict: ignore}", "one of quarantine, reject, accept would do"),
        ("storage: {path: ''}", "an empty path"),
        ("storage: {journal: 5}", "off or a size of at least 1MB"),
        ("storage: {compress: [{to: j2k}]}", "jpeg-2000-lossless or rle would do"),
        ("storage: {compress: [{to: htj2k-lossless}]}", "HTJ2K is decoded but not encoded here"),
        ("storage: {compress: [{to: jpeg-baseline}]}", "nothing is compressed with loss"),
        ("storage: {compress: [{to: rle, match: Modalit = 'CT'}]}", "storage.compress.0.match"),
        ("scrub: {every: 5m}", "off, or a time from 1h to 3650d would do"),
        ("scrub: {window: at night}", "always, or a span of the day"),
        ("routes: [{to: A}]", "1: routes.0: name is missing; add name"),
        ("hl7: on", "{port: 2575} would do"),
        ("hl7: {port: 2575, allow: [ris]}", "an address or a network such as 10.1.3.0/24 would do"),
        ("hl7: {mapping: {PatientNam: PID-5}}", "no attribute of the worklist"),
        ("hl7: {mapping: {PatientName: PID}}", "PID-3.1, ZDS-1(2).4 or XCN:OBR-16 would do"),
        ("index: {url: var/index.db}", "not the address of a database"),
        ("index: {url: 'sqlite:///'}", "not the address of a database"),
        ("log: {level: loud}", "one of debug, info, warning, error would do"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would_do(complaints: Complained, text: str, said: str) -> None:
    found = complaints(f"{text}\n")
    assert len(found) == 1, found
    assert said in found[0]
    assert found[0].startswith("1: ")


def test_all_complaints_come_at_once_in_the_order_of_the_file(complaints: Complained) -> None:
    found = complaints(
        "ae:\n  title: ABCDEFGHIJKLMNOPQ\nlog:\n  level: loud\nlimits:\n  per_ip: x\n", "query.max_results=x"
    )
    assert [complaint.partition(": ")[0] for complaint in found[:3]] == ["2", "4", "6"]
    assert found[3].startswith("--set: query.max_results")


def test_a_complaint_has_one_line_each_in_its_text(file: Path) -> None:
    file.write_text("ae: {title: ABCDEFGHIJKLMNOPQ}\nlog: {level: loud}\n")
    with pytest.raises(Complaints) as caught:
        load(file)
    assert [line.startswith(f"{file}:{number}: ") for number, line in enumerate(str(caught.value).split("\n"), 1)] == [
        True
    ] * 2


def test_the_file_is_found_in_the_documented_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("archive.config.files.PLACES", (Path("config/archive.yaml"), tmp_path / "etc.yaml"))
    assert find_file(None, {}) is None
    (tmp_path / "etc.yaml").touch()
    assert find_file(None, {}) == tmp_path / "etc.yaml"
    (tmp_path / "config").mkdir()
    (tmp_path / "config/archive.yaml").touch()
    assert find_file(None, {}) == Path("config/archive.yaml")
    assert find_file(None, {"ARCHIVE_CONFIG": "other.yaml"}) == Path("other.yaml")
    assert find_file("mine.yaml", {"ARCHIVE_CONFIG": "other.yaml"}) == Path("mine.yaml")


def test_five_hundred_peers_are_all_read(configured: Configured) -> None:
    lines = [
        f"  CT{n}: {{host: 10.1.{n // 250}.{n % 250}, port: 104, allow: [echo, store], quirks: [no_async]}}"
        for n in range(500)
    ]
    config = configured("peers:\n" + "\n".join(lines))
    assert len(config.peers) == 500
    assert config.peers["CT499"].calls_from("10.1.1.249")
