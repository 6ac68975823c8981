"""A certificate authority of the test's own."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


class Authority:
    """Signs certificates for this machine into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority")
        self.certificate = folder / "authority.pem"
        self.certificate.write_bytes(self._signed("authority", self._key.public_key(), ca=True).public_bytes(PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key files of ``name``, valid for 127.0.0.1 too."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert, private = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert.write_bytes(self._signed(name, key.public_key(), ca=False).public_bytes(PEM))
        private.touch(mode=0o600)
        private.write_bytes(key.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
        return cert, private

    def _signed(self, name: str, key: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = x509.CertificateBuilder(self._name, _name(name), key, x509.random_serial_number())
        made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if not ca:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return made.sign(self._key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
