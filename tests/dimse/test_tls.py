"""TLS: who gets through the handshake, what is known of them, and certificates that change."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from archive.dimse.association import Association
from archive.dimse.requestor import connect
from archive.dimse.tls import ClientTLS, ServerTLS, fingerprint
from archive.errors import ConfigurationError, Unreachable

from .raw import CT, EXPLICIT, IMPLICIT, PATIENT, QUICK, VERIFICATION, Everyone, Kept, echo, serving, store

Signer = tuple[x509.Name, rsa.RSAPrivateKey]


@dataclass
class Papers:
    """A certificate, its key, and the authority that signed it."""

    cert: Path
    key: Path
    ca: Path

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.cert.read_text())


def issue(folder: Path, name: str, signer: Signer | None, days: int = 30) -> Signer:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signing = signer or (subject, key)
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.DNSName(name.lower()), x509.IPAddress(ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60)).not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )  # fmt: skip
    cert = builder.sign(signing, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    private = folder / f"{name}.key"
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return subject, key


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Papers]:
    folder = tmp_path_factory.mktemp("papers")
    ca, stranger = issue(folder, "CA", None), issue(folder, "STRANGER", None)
    for name, signer, days in (("server", ca, 30), ("CT1", ca, 30), ("old", ca, -1), ("self", stranger, 30)):
        issue(folder, name, signer, days)
    issue(folder, "server2", ca)
    return {
        path.stem: Papers(path, path.with_suffix(".key"), folder / "CA.pem") for path in sorted(folder.glob("*.pem"))
    }


def server(papers: dict[str, Papers], **options: Any) -> ServerTLS:
    mine = papers["server"]
    return ServerTLS(**({"cert": mine.cert, "key": mine.key, "ca": mine.ca} | options))


def client(papers: dict[str, Papers], name: str | None = "CT1", **options: Any) -> ClientTLS:
    values: dict[str, Any] = {"ca": papers["CA"].cert}
    if name is not None:
        values |= {"cert": papers[name].cert, "key": papers[name].key}
    return ClientTLS(**(values | options))


def call(port: int, tls: ClientTLS | None, host: str = "127.0.0.1") -> Association:
    wanted = [(VERIFICATION, (IMPLICIT,)), (CT, (EXPLICIT,))]
    return connect(host, port, calling="CT1", called="A", contexts=wanted, timeouts=PATIENT, tls=tls)


def status(association: Association) -> int:
    answer = association.read_message()
    assert answer is not None
    return answer.command.status


def names(association: Association) -> tuple[str, ...]:
    assert association.tls_names is not None
    return association.tls_names


def test_both_sides_know_each_other_by_certificate(papers: dict[str, Papers]) -> None:
    policy = Everyone()
    with serving(tls=server(papers), policy=policy) as served:
        with call(served.port, client(papers)) as found:
            found.send_message(found.contexts[1], echo())
            assert status(found) == 0
            assert names(found)[-1] == fingerprint(papers["server"].der)
        assert policy.names == ("CT1", "localhost", "ct1", "127.0.0.1", fingerprint(papers["CT1"].der))
        assert served.associations[0].tls_name == "CT1"


def test_large_objects_pass_through_tls_both_ways(papers: dict[str, Papers], tmp_path: Path) -> None:
    pixels = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(pixels)
    with serving(tls=server(papers)) as served, (tmp_path / "file").open("rb") as file:
        with call(served.port, client(papers)) as found:
            found.send_file(found.contexts[3], store(), file.fileno(), 0, len(pixels))
            assert status(found) == 0
            found.send_message(found.contexts[3], store(2), pixels)
            assert status(found) == 0
            assert not found.cancelled(1)
    assert [sink.data == pixels for sink in served.sinks] == [True, True]


@pytest.mark.parametrize("name", [None, "old", "self"])
def test_callers_without_a_valid_certificate_are_refused(papers: dict[str, Papers], name: str | None) -> None:
    with serving(tls=server(papers)) as served, pytest.raises(Unreachable):
        call(served.port, client(papers, name))


@pytest.mark.parametrize("mode", ["request", "ignore"])
def test_a_certificate_can_be_left_to_the_caller(papers: dict[str, Papers], mode: str) -> None:
    policy = Everyone()
    with serving(tls=server(papers, client_cert=mode), policy=policy) as served:
        with call(served.port, client(papers, None)):
            assert policy.names == ()


def test_a_server_we_cannot_verify_is_not_called(papers: dict[str, Papers]) -> None:
    with serving(tls=server(papers, cert=papers["self"].cert, key=papers["self"].key)) as served:
        with pytest.raises(Unreachable, match="certificate is not accepted"):
            call(served.port, client(papers))


def test_the_name_in_the_servers_certificate_must_be_the_one_called(papers: dict[str, Papers]) -> None:
    with serving(tls=server(papers)) as served:
        with pytest.raises(Unreachable, match="certificate is not accepted"):
            call(served.port, client(papers, server_name="other.example"))
        with call(served.port, client(papers, server_name="server")):
            pass


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_fail_in_the_handshake(papers: dict[str, Papers], version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=papers["CA"].cert)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with serving(tls=server(papers, client_cert="ignore")) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as sock, pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(sock, server_hostname="localhost")


@pytest.mark.parametrize("ciphers", ["AES128-SHA", "ECDHE-RSA-AES128-SHA", "AES128-GCM-SHA256", "NULL", "aNULL"])
def test_ciphers_without_forward_secrecy_or_aead_fail(papers: dict[str, Papers], ciphers: str) -> None:
    assert not handshake(papers, "bcp195", ciphers)


def test_the_legacy_profile_speaks_the_old_cipher_and_the_usual_one_does_not(papers: dict[str, Papers]) -> None:
    assert handshake(papers, "legacy-aes128-cbc", "AES128-SHA")
    assert not handshake(papers, "bcp195", "AES128-SHA")


def handshake(papers: dict[str, Papers], profile: str, ciphers: str) -> bool:
    context = ssl.create_default_context(cafile=papers["CA"].cert)
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(tls=server(papers, profile=profile, client_cert="ignore")) as served:
        try:
            with socket.create_connection(("127.0.0.1", served.port)) as sock:
                return bool(context.wrap_socket(sock, server_hostname="localhost").cipher())
        except OSError:
            return False


def test_tls13_is_preferred(papers: dict[str, Papers]) -> None:
    context = ssl.create_default_context(cafile=papers["CA"].cert)
    with serving(tls=server(papers, client_cert="ignore")) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as sock:
            assert context.wrap_socket(sock, server_hostname="localhost").version() == "TLSv1.3"


def test_dcmtk_verifies_over_tls(papers: dict[str, Papers]) -> None:
    with serving(tls=server(papers)) as served:
        mine = papers["CT1"]
        command = ["echoscu", "+tls", str(mine.key), str(mine.cert), "+cf", str(mine.ca), "localhost", str(served.port)]
        subprocess.run(command, check=True, timeout=300)


# -- hostile handshakes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", bytes.fromhex("1603010200010001fc0303"), b"GET / HTTP/1.1\r\n\r\n"])
def test_a_handshake_that_does_not_come_about_ends_and_hinders_nobody(papers: dict[str, Papers], sent: bytes) -> None:
    with serving(tls=server(papers), timeouts=QUICK) as served:
        with socket.create_connection(("127.0.0.1", served.port), 10) as silent:
            silent.sendall(sent)
            with call(served.port, client(papers)) as found:
                found.send_message(found.contexts[1], echo())
                assert status(found) == 0
            with contextlib.suppress(ConnectionResetError):
                while silent.recv(100):
                    pass
        assert served.listener.wait_until_empty(time.monotonic() + 5)


def test_a_handshake_that_drips_falls_at_its_deadline(papers: dict[str, Papers]) -> None:
    with serving(tls=server(papers), timeouts=QUICK) as served:
        with socket.create_connection(("127.0.0.1", served.port), 10) as sock, pytest.raises(OSError):
            for byte in bytes.fromhex("1603010200010001fc0303") + bytes(200):
                sock.send(bytes((byte,)))
                time.sleep(0.01)
        assert served.listener.wait_until_empty(time.monotonic() + 5)


def test_stopping_does_not_wait_for_handshakes_or_idle_associations(papers: dict[str, Papers]) -> None:
    with serving(tls=server(papers)) as served:
        silent = socket.create_connection(("127.0.0.1", served.port), 10)
        found = call(served.port, client(papers))
        started = time.monotonic()
        served.listener.stop(20)
        assert time.monotonic() - started < 19
        silent.close()
        found.abort()


# -- files -------------------------------------------------------------------------------------------------------


def test_certificates_are_replaced_under_running_associations(papers: dict[str, Papers], tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    key.touch(mode=0o600)

    def put(name: str) -> None:
        cert.write_bytes(papers[name].cert.read_bytes())
        key.write_bytes(papers[name].key.read_bytes())

    put("server")
    tls = server(papers, cert=cert, key=key)
    with serving(tls=tls) as served:
        with call(served.port, client(papers)) as before:
            put("server2")
            tls.reload()
            with call(served.port, client(papers)) as after:
                assert names(before)[0] == "server" and names(after)[0] == "server2"
            cert.write_text("nonsense")
            with pytest.raises(ConfigurationError):
                tls.reload()
            before.send_message(before.contexts[1], echo())
            assert status(before) == 0
        with call(served.port, client(papers)) as still:
            assert names(still)[0] == "server2"


def test_what_cannot_be_used_is_named(papers: dict[str, Papers], tmp_path: Path) -> None:
    open_key = tmp_path / "open.key"
    open_key.write_bytes(papers["server"].key.read_bytes())
    open_key.chmod(0o644)
    for words, options in (
        ("can be read by others", {"key": open_key}),
        ("cannot be used", {"cert": tmp_path / "none"}),
        ("cannot be used", {"key": papers["CT1"].key}),
        ("cannot be used", {"ca": tmp_path / "none"}),
        ("holds no certificate", {"ca": tmp_path}),
        ("needs a ca", {"ca": None}),
        ("profile 'ssl3' is not known", {"profile": "ssl3"}),
        ("client_cert 'maybe' is not known", {"client_cert": "maybe"}),
    ):
        with pytest.raises(ConfigurationError, match=words):
            server(papers, **options)


def test_authorities_can_be_a_folder(papers: dict[str, Papers], tmp_path: Path) -> None:
    (tmp_path / "one.pem").write_bytes(papers["CA"].cert.read_bytes())
    with serving(tls=server(papers, ca=tmp_path)) as served, call(served.port, client(papers)):
        pass


def test_a_client_always_verifies() -> None:
    for profile in ("bcp195", "legacy-aes128-cbc"):
        context = ClientTLS(profile).context
        assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname


def test_a_sink_keeps_what_it_gets() -> None:
    kept = Kept()
    kept.write(memoryview(b"ab"))
    assert kept.data == b"ab"
