"""S01, S02, S05, S10: an open door, old ciphers, the wrong protocol at the right port, and borrowed names."""

from __future__ import annotations

import contextlib
import ssl
import warnings
from pathlib import Path

import pytest
import yaml

from tests.faults import raw
from tests.faults.daemon import SLACK, Daemon, free_port
from tests.faults.forks import ForkServer
from tests.faults.raw import ONLY_ECHO, Connection, Request

OLD = {
    "TLS 1.0": lambda: context(ssl.TLSVersion.TLSv1),
    "TLS 1.1": lambda: context(ssl.TLSVersion.TLSv1_1),
    "no encryption": lambda: context(ssl.TLSVersion.TLSv1_2, "eNULL"),
    "nobody's certificate": lambda: context(ssl.TLSVersion.TLSv1_2, "aNULL"),
    "CBC with SHA-1": lambda: context(ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:AES128-SHA"),
}


def context(version: ssl.TLSVersion, ciphers: str = "ALL") -> ssl.SSLContext:
    """A client that speaks this version alone, and verifies nothing: whoever is refused is refused by the archive."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        made.maximum_version = version
        made.minimum_version = version
    made.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    return made


def test_s01_nobody_listens_to_the_world_without_peers_or_tls(tmp_path: Path, forks: ForkServer) -> None:
    settings = {
        "listeners": [{"host": "0.0.0.0", "port": free_port()}],
        "storage": {"path": "files"}, "index": {"url": "sqlite:///index.db"},
    }  # fmt: skip
    (tmp_path / "archive.yaml").write_text(yaml.safe_dump(settings))
    log = tmp_path / "log"
    ended = forks.start(["serve", "--config", str(tmp_path / "archive.yaml")], folder=tmp_path, log=log)
    assert ended.wait(120) != 0
    assert "--insecure" in log.read_text()
    assert not (tmp_path / "files").exists()


@pytest.mark.parametrize("what", OLD)
def test_s02_what_is_too_old_fails_in_the_handshake(archive: Daemon, what: str) -> None:
    old = OLD[what]()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Connection(archive.tls_port, tls=old)
    with raw.association(archive.tls_port, Request(contexts=ONLY_ECHO), tls=context(ssl.TLSVersion.TLSv1_3)) as good:
        assert good.echo() == 0


def test_s05_the_wrong_protocol_is_closed_and_hinders_nobody(archive: Daemon) -> None:
    with Connection(archive.tls_port) as plain:
        plain.send(Request(contexts=ONLY_ECHO).pdu())
        assert plain.is_closed(SLACK)
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        Connection(archive.port, tls=context(ssl.TLSVersion.TLSv1_3), patience=SLACK).close()
        raise AssertionError("a plain port speaks TLS")
    assert archive.answers()
    with raw.association(archive.tls_port, Request(contexts=ONLY_ECHO), tls=context(ssl.TLSVersion.TLSv1_3)) as good:
        assert good.echo() == 0


def test_s10_a_known_name_from_elsewhere_is_refused(archive: Daemon) -> None:
    for calling, source, allowed in (("ELSEWHERE", "127.0.0.1", False), ("ELSEWHERE", "127.0.0.99", True)):
        with Connection(archive.port, source=source) as caller:
            answer = caller.request(Request(calling=calling))
            assert answer is not None
            assert (answer.kind == raw.AC) is allowed, calling
