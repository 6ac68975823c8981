"""The verbs over TLS: who is let in by its certificate, and sub-operations that are encrypted too."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archive.config import Peer, PeerTLS
from archive.dicom.attributes import Level
from archive.dicom.matching import Root
from archive.dimse import scu
from archive.dimse.destinations import Destination
from archive.dimse.tls import ClientTLS, ServerTLS
from archive.errors import Unreachable

from .archives import QUICK, ROOT, Archive, fill, instance, peer, serving, write
from .authority import Authority

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextmanager
def secure(folder: Path, authority: Authority, *peers: Peer, title: str = "ARCHIVE") -> Iterator[Archive]:
    cert, key = authority.issue("archive")
    folder.mkdir(exist_ok=True)
    tls = ServerTLS(cert=cert, key=key, ca=authority.certificate)
    with serving(folder, list(peers), tls=tls, title=title) as archive:
        yield archive


def caller(archive: Archive, authority: Authority, name: str) -> Destination:
    cert, key = authority.issue(name)
    tls = ClientTLS(ca=authority.certificate, cert=cert, key=key)
    return Destination("ARCHIVE", "127.0.0.1", archive.port, "TEST", QUICK, tls=tls)


def test_the_pinned_certificate_comes_in_and_another_does_not(tmp_path: Path, authority: Authority) -> None:
    with secure(tmp_path, authority, peer("TEST", tls=PeerTLS(), certificate="ct1")) as archive:
        with caller(archive, authority, "ct1").connect([(CT, ("1.2.840.10008.1.2",))]) as association:
            assert association.contexts
        with pytest.raises(Unreachable):
            caller(archive, authority, "ct2").connect([(CT, ("1.2.840.10008.1.2",))])
        assert "certificate is not the one pinned" in archive.noted[0][3]


def test_a_peer_that_must_use_tls_is_refused_on_a_plain_port(tmp_path: Path) -> None:
    with serving(tmp_path, [peer("TEST", tls=PeerTLS())]) as archive:
        with pytest.raises(Unreachable):
            archive.destination().connect([(CT, ("1.2.840.10008.1.2",))])
        assert "must call over TLS" in archive.noted[0][3]


def test_sub_operations_to_a_tls_peer_are_encrypted(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.issue("source")
    with secure(tmp_path / "to", authority, peer("ARCHIVE", certificate="source"), title="TARGET") as target:
        tls = PeerTLS(cert=cert, key=key, ca=authority.certificate)
        (tmp_path / "from").mkdir()
        with serving(tmp_path / "from", [peer("TEST"), peer("TARGET", target.port, tls=tls)]) as source:
            fill(source, instance(1), instance(2, size=700))
            keys = {"StudyInstanceUID": f"{ROOT}.1"}
            done = scu.move(source.destination(), "TARGET", Root.STUDY, Level.STUDY, keys)
        assert done.complete, done.words
        assert target.index.statistics().instances == 2


def test_dcmtk_stores_over_tls(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.issue("dcmtk")
    with secure(tmp_path / "to", authority, peer("TEST", certificate="dcmtk")) as archive:
        paths = write(tmp_path / "in", *(instance(number) for number in range(1, 4)))
        command = ["storescu", "+tls", str(key), str(cert), "+cf", str(authority.certificate)]
        command += ["-aet", "TEST", "-aec", "ARCHIVE", "127.0.0.1", str(archive.port), *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert archive.index.statistics().instances == 3
