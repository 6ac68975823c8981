"""TLS profiles for listeners and for calling out (PS3.15 annex B), and the names in a peer's certificate.

Rules that hold here: a server is always verified when we call (never CERT_NONE there); a key that others
can read is refused; a context is replaced as a whole, so that reloading certificates leaves running
associations alone.
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from archive.errors import ConfigurationError

# PS3.15 B.12, "BCP 195 TLS Secure Transport Connection Profile": TLS 1.2 with forward secrecy and AEAD, or 1.3.
_BCP195_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!eNULL"
# PS3.15 B.3, the retired "AES TLS Secure Transport Connection Profile" and what else its time spoke.
_LEGACY_CIPHERS = "AES128-SHA:AES128-SHA256:ECDHE-RSA-AES128-SHA:DHE-RSA-AES128-SHA:@SECLEVEL=0"


def _bcp195(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_BCP195_CIPHERS)


def _legacy(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_LEGACY_CIPHERS)


PROFILES: Mapping[str, Callable[[ssl.SSLContext], None]] = {"bcp195": _bcp195, "legacy-aes128-cbc": _legacy}
CLIENT_CERTIFICATES = {"require": ssl.CERT_REQUIRED, "request": ssl.CERT_OPTIONAL, "ignore": ssl.CERT_NONE}


class ServerTLS:
    """What a TLS listener shows and asks for; `context` is for the next handshake."""

    def __init__(
        self,
        profile: str = "bcp195",
        *,
        cert: Path | str,
        key: Path | str | None = None,
        ca: Path | str | None = None,
        client_cert: str = "require",
    ) -> None:
        self._profile = profile
        self._cert, self._key, self._ca = cert, key or cert, ca
        self._client_cert = client_cert
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again. When they are bad the old context stays, and ConfigurationError says why."""
        self.context = self._load()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _apply(context, self._profile)
        _load_chain(context, self._cert, self._key)
        if self._ca is not None and self._client_cert != "ignore":
            _load_authorities(context, self._ca)
        elif self._client_cert == "require":
            raise ConfigurationError("client_cert: require needs a ca", "name the file of those who sign certificates")
        if self._ca is not None:
            context.verify_mode = _wanted(self._client_cert)
        return context


class ClientTLS:
    """What we show and believe when we call a peer over TLS."""

    def __init__(
        self,
        profile: str = "bcp195",
        *,
        ca: Path | str | None = None,
        cert: Path | str | None = None,
        key: Path | str | None = None,
        server_name: str | None = None,
    ) -> None:
        self._profile = profile
        self._ca, self._cert, self._key = ca, cert, key or cert
        self.server_name = server_name  # the name its certificate must bear; else the host that was called
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again; as ServerTLS.reload."""
        self.context = self._load()

    def wrap(self, sock: socket.socket, host: str) -> ssl.SSLSocket:
        return self.context.wrap_socket(
            sock, server_hostname=self.server_name or host, do_handshake_on_connect=False
        )

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
        _apply(context, self._profile)
        if self._ca is None:
            context.load_default_certs()
        else:
            _load_authorities(context, self._ca)
        if self._cert is not None and self._key is not None:
            _load_chain(context, self._cert, self._key)
        return context


def peer_names(sock: ssl.SSLSocket) -> tuple[str, ...]:
    """The names in the peer's certificate, common name first, and its fingerprint; empty without one."""
    encoded = sock.getpeercert(binary_form=True)
    if not encoded:
        return ()
    return (*_names(sock.getpeercert() or {}), fingerprint(encoded))


def fingerprint(encoded: bytes) -> str:
    """How a certificate is pinned: the SHA-256 of its DER form."""
    return "sha256:" + hashlib.sha256(encoded).hexdigest()


def _names(certificate: Mapping[str, object]) -> list[str]:
    subject = certificate.get("subject", ())
    alternatives = certificate.get("subjectAltName", ())
    common = [value for part in subject for name, value in part if name == "commonName"]  # type: ignore[attr-defined]
    others = [value for kind, value in alternatives if kind in ("DNS", "IP Address", "URI")]  # type: ignore[attr-defined]
    return list(dict.fromkeys([*common, *others]))


def _apply(context: ssl.SSLContext, profile: str) -> None:
    if profile not in PROFILES:
        raise ConfigurationError(f"TLS profile {profile!r} is not known", f"one of {', '.join(PROFILES)} would do")
    PROFILES[profile](context)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION


def _wanted(client_cert: str) -> ssl.VerifyMode:
    if client_cert not in CLIENT_CERTIFICATES:
        raise ConfigurationError(f"client_cert {client_cert!r} is not known", "require, request or ignore would do")
    return CLIENT_CERTIFICATES[client_cert]


def _load_chain(context: ssl.SSLContext, cert: Path | str, key: Path | str) -> None:
    try:
        mode = os.stat(key).st_mode
        if mode & (stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH):
            raise ConfigurationError(f"TLS key {key} can be read by others", f"chmod 600 {key} would do")
        # A passphrase could only be asked for on a terminal: a daemon has none.
        context.load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigurationError(f"TLS certificate {cert} or key {key} cannot be used", str(error)) from error


def _load_authorities(context: ssl.SSLContext, ca: Path | str) -> None:
    try:
        if Path(ca).is_dir():
            for file in sorted(Path(ca).iterdir()):
                if file.suffix in (".pem", ".crt", ".cer"):
                    context.load_verify_locations(cafile=file)
        else:
            context.load_verify_locations(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"TLS authority {ca} cannot be used", str(error)) from error
    if not context.cert_store_stats()["x509"]:
        raise ConfigurationError(f"TLS authority {ca} holds no certificate", "PEM files are read")
